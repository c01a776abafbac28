"""The loader's threads, blocks and device: whatever they are, the batches are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from penstock.core import threads as threads_file
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed, write_feed
from penstock.loader import batch_reader, epoch_plan, options
from penstock.loader import loader as loaders
from penstock.loader.staging import Staging
from tests.data.fakes import FakeDataset, recipe
from tests.loader.flat import open_loader
from tests.loader.test_staging import Slow
from tests.parts.pictures_made import album

ROWS = 203


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    pictures, labels = album(ROWS)
    words = [" ".join(f"w{j % 7}" for j in range(i % 13)) for i in range(ROWS)]
    dataset: Any = FakeDataset(
        {
            "train": pa.table(
                {
                    "p": pa.array(pictures, pa.binary()),
                    "t": words,
                    "x": np.arange(ROWS, dtype=float),
                    "y": labels,
                }
            )
        }
    )
    declared = {
        "p": {
            "type": "image",
            "size": 12,
            "cut_from": 16,
            "stored": "jpeg",
            "augment": ["flip"],
        },
        "t": "text",
        "x": "number",
    }
    return write_feed(
        recipe(inputs=declared, targets={"y": "category"}),
        dataset,
        Store(tmp_path_factory.mktemp("store")),
        Events(),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    dataset: Any = FakeDataset(
        {
            "train": pa.table(
                {
                    "x": np.arange(ROWS, dtype=float),
                    "y": np.where(np.arange(ROWS) % 3, "no", "yes"),
                }
            )
        }
    )
    return write_feed(
        recipe(inputs={"x": "number"}, targets={"y": "binary"}),
        dataset,
        Store(tmp_path_factory.mktemp("store")),
        Events(),
    )


def batches(feed: Feed, start: int = 0, **words: Any) -> list[tuple[int, dict[str, Any]]]:
    return list(
        open_loader(feed, **{"batch_size": 10, "seed": 3, **words}).batches(
            1, start=start
        )
    )


def same(
    found: list[tuple[int, dict[str, Any]]], wanted: list[tuple[int, dict[str, Any]]]
) -> None:
    assert [position for position, _ in found] == [position for position, _ in wanted]
    for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
        assert set(ours) == set(theirs)
        for name, values in theirs.items():
            assert ours[name].dtype == values.dtype and np.array_equal(
                np.asarray(ours[name]), np.asarray(values)
            ), name


@pytest.mark.parametrize(
    "words",
    [
        {"threads": 1},
        {"threads": 5},
        {"memory_bytes": 1},
        {"threads": 3, "memory_bytes": 20_000},
        {"device": "cpu"},
    ],
)
def test_the_same_batches_with_any_threads_and_memory(
    feed: Feed, plain: Feed, words: dict[str, Any]
) -> None:
    for one in (feed, plain):
        same(batches(one, **words), batches(one))
        same(batches(one, start=7, **words), batches(one)[7:])


@pytest.mark.parametrize("together", [1, 25, 10_000])
def test_the_same_batches_however_many_are_gathered_together(
    feed: Feed, plain: Feed, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [batches(one, world=3, rank=1, accumulate=2) for one in (feed, plain)]
    monkeypatch.setattr(epoch_plan, "TOGETHER_ROWS", together)
    for one, before in zip((feed, plain), wanted, strict=True):
        same(batches(one, world=3, rank=1, accumulate=2), before)
        same(
            batches(one, world=3, rank=1, accumulate=2, numpy=True),
            [
                (i, {name: values.numpy() for name, values in b.items()})
                for i, b in before
            ],
        )


def test_threads_are_what_is_worth_its_price(
    feed: Feed, plain: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads(of: Feed, cores: int, here: str = "", **words: Any) -> int:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
        monkeypatch.setattr(threads_file, "thread_budget", lambda: cores)
        return open_loader(of, batch_size=10, **words).threads

    assert [threads(feed, cores) for cores in (1, 2, 8)] == [1, 2, 8]
    assert [threads(feed, 8, world=world, rank=0) for world in (2, 3, 10_000)] == [
        4,
        2,
        1,
    ]
    assert (
        threads(feed, 8, here="2", world=40, rank=39) == 4
    )  # of forty processes two are on this machine
    assert [threads(plain, cores) for cores in (1, 2, 8)] == [0, 1, 1]
    assert (
        threads(plain, 2, world=2, rank=0) == 0
        and threads(plain, 2, here="1", world=2, rank=0) == 1
    )
    with monkeypatch.context() as patch:
        patch.setattr(loaders, "FULL_BYTES", 0)
        assert threads(plain, 1) == 1  # the disk may be waited for
    assert threads(plain, 1, threads=3) == 3 and threads(plain, 8, threads=0) == 0
    assert (
        feed.encoding.decodes
        and not plain.encoding.decodes
        and plain.encoding.plain
        and not feed.encoding.plain
    )


def test_batches_reach_a_device_by_the_ring(
    feed: Feed, plain: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = []

    def staging(device: Any, *, slots: int) -> Staging:
        links.append((device, slots, Slow()))
        return Staging("cpu", slots=slots, link=links[-1][2])

    monkeypatch.setattr(batch_reader, "Staging", staging)
    monkeypatch.setattr(options, "available_device", torch.device)
    for one in (feed, plain):
        loader = open_loader(
            one, batch_size=10, seed=3, threads=2, device=torch.device("cuda", 0)
        )
        same(list(loader.batches(1)), batches(one))
        same(list(loader.batches(1)), batches(one))
        assert loader.timings.seconds()["copy"] > 0
    assert [(str(device), slots) for device, slots, _ in links] == [("cuda:0", 3)] * 2
    assert len(links[0][2].rooms) <= 3 and set(links[0][2].users) == {"MainThread"}


def test_numpy_arrays_have_no_device(plain: Feed) -> None:
    with pytest.raises(ValueError, match="numpy arrays have no device"):
        open_loader(plain, batch_size=10, numpy=True, device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device(feed: Feed, plain: Feed) -> None:
    for one in (feed, plain):
        found = [
            (i, {name: values.cpu() for name, values in b.items()})
            for i, b in batches(one, device="cuda", threads=2)
        ]
        same(found, batches(one))


def test_timings_tell_reading_from_decoding(feed: Feed, tmp_path: Path) -> None:
    loader = open_loader(feed, batch_size=10)
    list(loader)
    seconds = loader.timings.seconds()
    assert seconds["decode"] > seconds["read"] > 0 and seconds["copy"] == 0
