from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed, write_feed
from tests.data.fakes import FakeDataset, recipe
from tests.loader.flat import open_loader

torch.set_num_threads(1)
ROWS = 1_003


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    def table(rows: int) -> pa.Table:
        return pa.table(
            {
                "x": np.arange(rows, dtype=float),
                "y": np.where(np.arange(rows) % 3, "no", "yes"),
            }
        )

    dataset: Any = FakeDataset({"train": table(ROWS), "validation": table(100)})
    return write_feed(
        recipe(inputs={"x": "number"}, targets={"y": "binary"}),
        dataset,
        Store(tmp_path_factory.mktemp("store")),
        Events(),
    )


def numbers(feed: Feed, batch: dict[str, Any]) -> list[int]:
    """Which rows a batch has, by the number that each carries."""
    fitted = feed.encoding.fitted["x"]
    return [
        int(v)
        for v in np.round(
            np.asarray(batch["x.value"], np.float64) * fitted["std"] + fitted["mean"]
        )
    ]


def epoch(feed: Feed, number: int = 0, start: int = 0, **words: Any) -> list[list[int]]:
    return [
        numbers(feed, batch)
        for _, batch in open_loader(
            feed, **{"batch_size": 64, "seed": 3, "numpy": True, **words}
        ).batches(number, start=start)
    ]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_batches_are_tensors_or_arrays_by_name(feed: Feed) -> None:
    batch = next(iter(open_loader(feed, batch_size=10)))
    assert {name: (str(v.dtype), tuple(v.shape)) for name, v in batch.items()} == {
        "row_id": ("torch.int64", (10, 2)),
        "x.value": ("torch.float32", (10,)),
        "x.missing": ("torch.float32", (10,)),
        "y.label": ("torch.float32", (10,)),
        "weight": ("torch.float32", (10,)),
    }
    assert batch["weight"].tolist() == [1.0] * 10
    arrays = next(iter(open_loader(feed, batch_size=10, numpy=True)))
    assert all(
        isinstance(v, np.ndarray) and np.array_equal(v, batch[name].numpy())
        for name, v in arrays.items()
    )


def test_an_epoch_has_every_row_once_and_epochs_differ(feed: Feed) -> None:
    first, second = epoch(feed), epoch(feed, 1)
    assert (
        [len(b) for b in first]
        == [64] * 15 + [43]
        == [open_loader(feed, batch_size=64).global_rows(i) for i in range(16)]
    )
    for found in (first, second):
        assert sorted(flat(found)) == list(range(ROWS))
    assert first != second and first == epoch(feed) and first != epoch(feed, seed=4)
    assert flat(epoch(feed, shuffle=False)) == list(range(ROWS))
    assert (
        flat(epoch(feed, split="validation", shuffle=False)) == list(range(100))
        and epoch(feed, split="test") == []
    )


@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(1, 9), st.integers(1, 700), st.integers(1, 3), st.integers(0, 2))
def test_the_global_sequence_is_the_same_for_any_world(
    feed: Feed, world: int, batch_size: int, accumulate: int, number: int
) -> None:
    whole = epoch(feed, number, batch_size=batch_size)
    ranks = [
        epoch(
            feed,
            number,
            batch_size=batch_size,
            world=world,
            rank=rank,
            accumulate=accumulate,
        )
        for rank in range(world)
    ]
    assert all(len(rank) == len(whole) * accumulate for rank in ranks)
    together = [
        [
            row
            for piece in range(accumulate)
            for rank in ranks
            for row in rank[batch * accumulate + piece]
        ]
        for batch in range(len(whole))
    ]
    assert together == whole


def test_a_share_may_be_empty(feed: Feed) -> None:
    batches = list(
        open_loader(feed, batch_size=500, world=5, rank=0, numpy=True).batches(0)
    )
    assert [position for position, _ in batches] == [0, 1, 2] and [
        len(b["row_id"]) for _, b in batches
    ] == [
        100,
        100,
        0,
    ]
    empty = batches[-1][1]
    assert (
        empty["row_id"].shape == (0, 2)
        and empty["x.value"].shape == (0,)
        and empty["weight"].dtype == np.float32
    )


def test_its_whole_state_is_a_position(feed: Feed) -> None:
    loader = open_loader(feed, batch_size=64, seed=3, numpy=True)
    seen = []
    for batch in loader:
        seen.append(numbers(feed, batch))
        if len(seen) == 6:
            break
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (
        0,
        6,
    ), "a batch that was handed out is not handed out again"
    rest: list[list[int]] = []
    others = [
        open_loader(feed, batch_size=64, seed=3, numpy=True, world=3, rank=rank)
        for rank in range(3)
    ]
    for other in others:
        other.load_state_dict(state)
    for parts in zip(*others, strict=True):
        rest.append([row for part in parts for row in numbers(feed, part)])
    assert seen + rest == epoch(feed)
    assert others[0].state_dict() == {**state, "epoch": 1, "position": 0}
    assert [numbers(feed, b) for b in [next(iter(others[0]))]] == [
        epoch(feed, 1, world=3)[0]
    ]


def test_a_position_in_another_order_is_refused(feed: Feed) -> None:
    state = open_loader(feed, batch_size=64, seed=3).state_dict()
    with pytest.raises(
        UserError, match="batch_size was 64 and is 32; seed was 3 and is 0"
    ):
        open_loader(feed, batch_size=32).load_state_dict(state)


@pytest.mark.parametrize(
    "words",
    [
        {"batch_size": 0},
        {"batch_size": 1, "rank": 2, "world": 2},
        {"batch_size": 1, "accumulate": 0},
    ],
)
def test_nonsense_is_refused(feed: Feed, words: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        open_loader(feed, **words)


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "penstock-loader"]


def test_the_reading_thread_ends_with_its_iterator(feed: Feed) -> None:
    loader = open_loader(feed, batch_size=8, numpy=True)
    iterator = loader.batches(0)
    next(iterator)
    assert len(readers()) <= 1, "one, unless it has read all already"
    iterator.close()  # type: ignore[attr-defined]
    assert not readers()
    for _ in loader:
        break
    deadline = time.monotonic() + 5
    while readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not readers(), "let go of, it ends too"
    list(loader.batches(0))
    assert not readers()


def test_an_error_of_the_thread_is_raised_where_batches_are_asked_for(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = open_loader(feed, batch_size=8, numpy=True)

    def fail(slots: np.ndarray) -> dict[str, np.ndarray]:
        raise OSError("the disk went away")

    monkeypatch.setattr(loader._parts[0].shards, "gather", fail)
    with pytest.raises(OSError, match="the disk went away"):
        next(iter(loader))
    assert not readers()


def test_several_shards_give_the_same_batches_as_one(
    tmp_path: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.encode import local as feed_local
    from penstock.shards.writer import ShardWriter

    monkeypatch.setattr(
        feed_local,
        "ShardWriter",
        lambda folder, split: ShardWriter(folder, split, shard_bytes=5_000),
    )
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
    many = write_feed(
        recipe(inputs={"x": "number"}, targets={"y": "binary"}),
        dataset,
        Store(tmp_path),
        Events(),
    )
    assert len(many.manifest["shards"]["train"]) > 5
    assert epoch(many) == epoch(feed)
