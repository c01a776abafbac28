"""Feeds and datasets in a bucket are read where they lie: the same rows, batches and weights as from a disk,
whatever the line does.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.core.errors import StoreError
from penstock.core.events import Event, Events
from penstock.core.listeners import listening
from penstock.core.store import MANIFEST, Store
from penstock.encode import local
from penstock.encode.feed import Feed, write_feed
from penstock.loader.lookahead import shards_ahead
from penstock.pipeline.stages import Pipeline
from penstock.prepare import dataset as dataset_room
from penstock.prepare.dataset import Dataset
from penstock.recipe.schema import load_recipe
from penstock.shards.writer import ShardWriter
from tests.data.fakes import FakeDataset, recipe
from tests.faults import FAULTS, Line, faulty_s3
from tests.loader.flat import open_loader

ROWS = 3_000
FEATURES: dict[str, Any] = {
    "inputs": {"x": "number", "words": {"type": "text", "length": 8}},
    "targets": {"y": "binary"},
}


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Line]:
    with faulty_s3(monkeypatch, tmp_path) as line:
        monkeypatch.setattr(
            local, "ShardWriter", partial(ShardWriter, shard_bytes=12_000)
        )
        yield line


@pytest.fixture
def told() -> Iterator[list[str]]:
    said: list[str] = []

    def sink(event: Event) -> None:
        said.append(event.fields["text"])

    with listening(Events(sink)):
        yield said


def made(store: Store) -> Feed:
    chance = np.random.default_rng(0)

    def table(rows: int) -> pa.Table:
        words = [
            " ".join(chance.choice(["river", "pipe", "lake", "rain"], 5))
            for _ in range(rows)
        ]
        return pa.table(
            {
                "x": chance.normal(size=rows),
                "words": words,
                "y": np.where(np.arange(rows) % 3, "no", "yes"),
            }
        )

    dataset: Any = FakeDataset({"train": table(ROWS), "validation": table(200)})
    return write_feed(recipe(**FEATURES), dataset, store, Events())


def elsewhere(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **words: Any
) -> Store:
    """The same bucket, seen from a machine that has no copies."""
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / f"elsewhere-{len(line.asked)}"))
    return Store(line.store, **words)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def equal(a: np.ndarray, b: np.ndarray) -> bool:
        return a.dtype == b.dtype and (
            all(map(np.array_equal, a, b)) if a.dtype == object else np.array_equal(a, b)
        )

    return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)


def batches(feed: Feed, split: str = "train", **words: Any) -> list[dict[str, Any]]:
    window = {"window": 3} if words.get("shuffle") == "blocks" else {}
    return [
        batch
        for _, batch in open_loader(
            feed,
            split,
            **{"batch_size": 128, "seed": 3, "numpy": True, **window, **words},
        ).batches(0)
    ]


# -- feeds ---------------------------------------------------------------------------------------------------


def test_a_feed_opens_by_its_manifest_and_what_is_small(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = made(Store(line.store))
    assert len(here.manifest["shards"]["train"]) > 8
    line.asked.clear()
    feed = Feed.open(elsewhere(line, tmp_path, monkeypatch), id=here.id)
    loader = open_loader(
        feed, "train", batch_size=100, shuffle="blocks", window=3, numpy=True
    )
    assert (
        feed.rows == here.rows
        and feed.encoding == here.encoding
        and len(loader) == 30
        and line.count("GET", ".arrow") == 0
    )
    _, first = next(iter(loader.batches(0)))
    slots = [
        int(
            np.flatnonzero(
                (here.shards("train").gather(np.arange(ROWS))["row_id"] == row).all(1)
            )[0]
        )
        for row in first["row_id"]
    ]
    block = here.manifest["shard_rows"]["train"][0]
    needed = {slot // block for slot in slots}
    asked = [path for method, path in line.asked if method == "GET" and ".arrow" in path]
    assert len(needed) == 1 and asked[0].endswith(f"train-{needed.pop():05d}.arrow"), (
        "the first batch waits for one shard only, and has the line for itself"
    )
    assert feed.quarantine.is_file() and not (feed.path / MANIFEST).exists()


@pytest.mark.parametrize("shuffle", ["blocks", "full", "stored"])
def test_its_batches_are_those_of_a_disk(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle: str
) -> None:
    here = made(Store(line.store))
    feed = Feed.open(elsewhere(line, tmp_path, monkeypatch), id=here.id)
    assert all(
        same(a, b)
        for a, b in zip(
            batches(here, shuffle=shuffle), batches(feed, shuffle=shuffle), strict=True
        )
    )
    assert all(
        same(a, b)
        for a, b in zip(
            batches(here, "validation", shuffle="stored"),
            batches(feed, "validation", shuffle="stored"),
            strict=True,
        )
    )
    shards = here.manifest["shards"]["train"]
    assert [line.count("GET", f"/{name}") for name in shards] == [1] * len(shards), (
        "each shard comes once"
    )
    empty = feed.shards("train").gather(np.empty(0, np.int64))
    assert same(empty, here.shards("train").gather(np.empty(0, np.int64)))


@pytest.mark.parametrize("fault", [*FAULTS, "corrupt"])
def test_each_fault_once_and_the_batches_are_right(
    line: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    fault: str,
) -> None:
    here = made(Store(line.store))
    for match in ("train-00001.arrow", "train-00005.arrow", "train-00000.arrow"):
        line.fault(fault, match=match)
    feed = Feed.open(elsewhere(line, tmp_path, monkeypatch), id=here.id)
    assert all(
        same(a, b)
        for a, b in zip(
            batches(here, shuffle="blocks"), batches(feed, shuffle="blocks"), strict=True
        )
    )
    assert all(rule[3] == 0 for rule in line.rules)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("503", "train-00002.arrow .*given up after 4 attempts"),
        (
            "corrupt",
            r"train-00002.arrow is damaged: its SHA-256 is .*…, but its manifest says .*… .fetched twice",
        ),
        ("403", "train-00002.arrow .*may not do that"),
    ],
)
def test_for_ever_it_is_one_sentence(
    line: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    fault: str,
    sentence: str,
) -> None:
    here = made(Store(line.store))
    feed = Feed.open(elsewhere(line, tmp_path, monkeypatch), id=here.id)
    line.fault(fault, match="train-00002.arrow", times=float("inf"))
    with pytest.raises(StoreError, match=sentence):
        batches(feed, shuffle="blocks")
    line.mend()
    assert len(batches(feed, shuffle="blocks")) == len(batches(here, shuffle="blocks")), (
        "once it is mended, the same feed goes on"
    )


def test_a_feed_larger_than_the_cache_still_comes_and_says_what_would_be_better(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    here = made(Store(line.store))
    there = elsewhere(line, tmp_path, monkeypatch, cache_bytes=100_000)
    feed = Feed.open(there, id=here.id)
    assert all(
        same(a, b)
        for a, b in zip(
            batches(here, shuffle="full"), batches(feed, shuffle="full"), strict=True
        )
    )
    assert any(
        "shuffled one by one over shards in a bucket" in text
        and "train.order: blocks" in text
        for text in told
    )
    cache = Path(str(tmp_path)) / Path(there.folder).parent.parent / "shards"
    assert sum(p.stat().st_size for p in cache.iterdir()) <= 100_000
    before = line.count("GET", "/train-")
    shards: Any = feed.shards("train")
    loader = open_loader(
        feed, "train", batch_size=128, shuffle="blocks", window=2, numpy=True
    )
    for start in range(0, ROWS, 128):
        positions = np.arange(start, min(start + 128, ROWS))
        slots = loader._plan.draws.draw(0, positions).slots
        shards.want(
            shards_ahead(loader._plan.draws, shards, 0, start, start + 128, slots)
        )
        assert same(shards.gather(slots), here.shards("train").gather(slots))
    assert (
        line.count("GET", "/train-") - before <= len(here.manifest["shards"]["train"]) + 2
    ), "by blocks each shard comes about once"


def test_without_a_cache_shards_are_held_in_memory(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    here = made(Store(line.store))
    feed = Feed.open(
        elsewhere(line, tmp_path, monkeypatch, cache_bytes=0),
        id=here.id,
        memory_bytes=150_000,
    )
    assert all(
        same(a, b)
        for a, b in zip(
            batches(here, shuffle="blocks"), batches(feed, shuffle="blocks"), strict=True
        )
    )


_READER = """
import sys
from penstock.core.store import Store
from penstock.encode.feed import Feed
from tests.loader.flat import open_loader
feed = Feed.open(Store(sys.argv[1]), id=sys.argv[2])
loader = open_loader(feed, "train", batch_size=128, shuffle="blocks", window=3, numpy=True)
print(sum(len(batch["row_id"]) for _, batch in loader.batches(0)))
"""


def test_two_processes_fetch_each_shard_once(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = made(Store(line.store))
    elsewhere(line, tmp_path, monkeypatch)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", _READER, line.store, here.id],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [reader.communicate(timeout=120)[0] for reader in readers] == [f"{ROWS}\n"] * 2
    shards = here.manifest["shards"]["train"]
    assert [line.count("GET", f"/{name}") for name in shards] == [1] * len(shards)


def test_a_feed_of_an_earlier_penstock_is_copied_whole(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(line.store)
    here = made(store)
    manifest = {
        word: value for word, value in here.manifest.items() if word != "shard_rows"
    }
    store._bucket.write(f"feeds/{here.id}/{MANIFEST}", json.dumps(manifest).encode())  # type: ignore[union-attr]
    there = elsewhere(line, tmp_path, monkeypatch)
    feed = Feed.open(there, id=here.id)
    assert there.is_here(f"feeds/{here.id}") and not feed.shards("train").is_far  # type: ignore[union-attr]
    assert all(same(a, b) for a, b in zip(batches(here), batches(feed), strict=True))


# -- whole journeys ------------------------------------------------------------------------------------------


def weights(pipeline: Pipeline) -> str:
    run = pipeline.outcome.run
    assert run is not None
    return hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()


def test_training_from_a_bucket_under_faults_gives_the_weights_of_a_disk(
    people: Path, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "ShardWriter", partial(ShardWriter, shard_bytes=4_000))
    chosen = load_recipe(
        people / "recipe.yaml",
        ["train.epochs=2", "train.order={shuffle: blocks, window: 2}", "trackers=[]"],
    )
    at_home = Pipeline(chosen, Store(tmp_path / "store"), Events())
    at_home.until("train")
    Pipeline(chosen, Store(line.store), Events()).until("encode")
    for place, fault in enumerate([*FAULTS, "corrupt"]):
        line.fault(fault, match=f"train-{place // 3:05d}.arrow")
    line.fault("503", on="PUT", match="runs/")
    line.fault("SlowDown", on="HEAD", match=MANIFEST)
    line.asked.clear()
    texts: list[str] = []
    away = Pipeline(
        chosen,
        elsewhere(line, tmp_path, monkeypatch),
        Events(lambda event: texts.append(str(event.fields.get("text")))),
    )
    away.until("train")
    assert away.outcome.skipped["prepare"] and away.outcome.skipped["encode"]
    assert weights(away) == weights(at_home)
    assert line.count("GET", "/datasets/") == line.count(
        "GET", f"/datasets/people/{away.outcome.dataset.id}/{MANIFEST}"
    ), "the rows are not read to train"  # type: ignore[union-attr]
    assert line.count("GET", ".arrow") >= 10 and any(
        "trying again" in text for text in texts
    )
    assert not (away.store.folder / "feeds").exists()


def test_a_dataset_streams_from_where_it_lies(
    people: Path, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = load_recipe(people / "recipe.yaml")
    here = Pipeline(chosen, Store(line.store), Events()).until("prepare").dataset
    assert here is not None
    for whole_bytes in (2**28, 100):
        monkeypatch.setattr(dataset_room, "WHOLE_BYTES", whole_bytes)
        there = elsewhere(line, tmp_path, monkeypatch)
        line.asked.clear()
        dataset = Dataset.open(there, reference="people")
        assert (
            dataset.reference == here.reference
            and dataset.counts == here.counts
            and line.count("GET", ".parquet") == 0
        )
        assert dataset.table("validation", columns=["age", "city"]).equals(
            here.table("validation", columns=["age", "city"])
        )
        assert dataset.schema == here.schema
        assert line.count("GET", "split=test") == 0 and not there.is_here(
            f"datasets/people/{here.id}"
        )
        assert dataset.table("train").equals(here.table("train"))
        assert json.loads(dataset.file("profile.json").read_text()) == json.loads(
            (here.path / "profile.json").read_text()
        )
        with pytest.raises(Exception, match="There is no split 'tset'"):
            dataset.files("tset")
        assert [f.name for f in dataset.files("test")] == [
            f.name for f in here.files("test")
        ] and there.is_here(f"datasets/people/{here.id}")
        assert dataset.table("train").equals(here.table("train"))
