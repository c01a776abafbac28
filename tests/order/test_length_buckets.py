from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import RecipeError, UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed, write_feed
from penstock.order.length_buckets import Bucketed, dealt
from penstock.order.order import Order
from penstock.order.samplers import Drawn, Once, Subset
from penstock.recipe.schema import load_recipe
from tests.data.fakes import FakeDataset, recipe
from tests.loader.flat import open_loader

LENGTHS = np.random.default_rng(0).integers(0, 50, 5_000)


def of(drawn: Drawn) -> np.ndarray:
    return LENGTHS[drawn.slots]


@settings(deadline=None)
@given(
    rows=st.integers(0, 300),
    batch=st.integers(1, 40),
    key=st.integers(0, 2**64 - 1),
    sort=st.integers(1, 50),
)
def test_a_span_is_dealt_whole_and_by_length(
    rows: int, batch: int, key: int, sort: int
) -> None:
    lengths = LENGTHS[:rows] % sort
    found = dealt(lengths, batch, key)
    assert sorted(found.tolist()) == list(range(rows))
    full = rows // batch
    runs = sorted(
        (
            lengths[found[i * batch : (i + 1) * batch]].min(),
            lengths[found[i * batch : (i + 1) * batch]].max(),
        )
        for i in range(full)
    )
    assert all(high <= low for (_, high), (low, _) in pairwise(runs)), (
        "no batch reaches into another's lengths"
    )


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 2_000),
    batch=st.integers(1, 50),
    span=st.integers(2, 12),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
    world=st.integers(1, 7),
    data=st.data(),
)
def test_each_row_once_within_its_span_and_the_same_for_any_question(
    rows: int,
    batch: int,
    span: int,
    seed: int,
    epoch: int,
    world: int,
    data: st.DataObject,
) -> None:
    beneath = Once(Subset(rows, rows), Order(rows, seed))

    def made() -> Bucketed:
        return Bucketed(beneath, batch_size=batch, span=span, seed=seed, lengths=of)

    whole = made().draw(epoch, np.arange(rows)).slots
    plain = beneath.draw(epoch, np.arange(rows)).slots
    for start in range(0, rows, span * batch):
        assert sorted(whole[start : start + span * batch]) == sorted(
            plain[start : start + span * batch]
        )
    some = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=20)), np.int64)
    assert made().draw(epoch, some).slots.tolist() == whole[some].tolist()
    shares = [
        made().draw(epoch, np.arange(rows)[rank::world]).slots for rank in range(world)
    ]
    assert all(
        np.array_equal(share, whole[rank::world]) for rank, share in enumerate(shares)
    )
    again = made().draw(epoch, np.arange(rows, 2 * rows))
    assert again.slots.tolist() == whole.tolist() and np.all(
        np.asarray(again.occurrence) == 1
    ), "round the epoch it begins again"


def test_epochs_come_otherwise_and_less_is_padded() -> None:
    rows, batch = 5_000, 50
    draws = Bucketed(
        Once(Subset(rows, rows), Order(rows, 1)),
        batch_size=batch,
        span=32,
        seed=1,
        lengths=of,
    )
    first, second = (draws.draw(epoch, np.arange(rows)).slots for epoch in (0, 1))
    assert first.tolist() != second.tolist()

    def padded(slots: np.ndarray) -> int:
        return int(
            sum(
                LENGTHS[slots[i : i + batch]].max() * batch for i in range(0, rows, batch)
            )
        )

    used, plain = int(LENGTHS.sum()), padded(Order(rows, 1).slots(np.arange(rows)))
    assert padded(first) - used < 0.1 * (plain - used)
    heads = LENGTHS[first].reshape(-1, batch).mean(1)
    assert abs(np.corrcoef(heads[:-1], heads[1:])[0, 1]) < 0.4, (
        "batches of one length do not follow one another"
    )


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    texts = [
        " ".join("w" * (1 + j % 3) for j in range(length))
        for length in LENGTHS[:500].tolist()
    ]
    dataset: Any = FakeDataset(
        {"train": pa.table({"t": texts, "x": np.arange(500.0), "y": ["a", "b"] * 250})}
    )
    return write_feed(
        recipe(inputs={"t": "text", "x": "number"}, targets={"y": "binary"}),
        dataset,
        Store(tmp_path_factory.mktemp("store")),
        Events(),
    )


def numbers(feed: Feed, batch: dict[str, Any]) -> list[int]:
    fitted = feed.encoding.fitted["x"]
    return [
        int(v)
        for v in np.round(
            batch["x.value"].astype(np.float64) * fitted["std"] + fitted["mean"]
        )
    ]


def test_the_loader_deals_rows_and_goes_on_anywhere_in_any_world(feed: Feed) -> None:
    words: dict[str, Any] = {"batch_size": 20, "seed": 2, "numpy": True, "bucket": 6}
    whole = [batch for _, batch in open_loader(feed, **words).batches(1)]
    assert sorted(n for batch in whole for n in numbers(feed, batch)) == list(range(500))
    plain = [
        batch for _, batch in open_loader(feed, **{**words, "bucket": False}).batches(1)
    ]
    assert sum(batch["t.mask"].size for batch in whole) < 0.75 * sum(
        batch["t.mask"].size for batch in plain
    )
    assert [
        numbers(feed, batch)
        for _, batch in open_loader(feed, **words).batches(1, start=9)
    ] == [numbers(feed, batch) for batch in whole[9:]]
    shares = [
        [
            numbers(feed, batch)
            for _, batch in open_loader(feed, **words, rank=rank, world=3).batches(1)
        ]
        for rank in range(3)
    ]
    assert [
        [n for part in parts for n in part] for parts in zip(*shares, strict=True)
    ] == [numbers(feed, batch) for batch in whole]
    state = open_loader(feed, **words).state_dict()
    assert state["bucket"] == 6
    with pytest.raises(UserError, match="bucket was 6 and is None"):
        open_loader(feed, **{**words, "bucket": False}).load_state_dict(state)


def test_what_has_no_length_and_what_is_contradictory_is_refused(tmp_path: Any) -> None:
    dataset: Any = FakeDataset(
        {"train": pa.table({"x": np.arange(50.0), "y": ["a", "b"] * 25})}
    )
    plain = write_feed(
        recipe(inputs={"x": "number"}, targets={"y": "binary"}),
        dataset,
        Store(tmp_path),
        Events(),
    )
    with pytest.raises(UserError, match="no feature has a length of its own"):
        open_loader(plain, batch_size=5, bucket=True)
    for order, why in (
        ({"bucket": True, "shuffle": "stored"}, "which `shuffle: stored` keeps"),
        ({"bucket": -3}, "bucket"),
    ):
        with pytest.raises(RecipeError, match=why):
            load_recipe(
                {
                    "source": {"type": "files", "path": "x"},
                    "inputs": {"t": "text"},
                    "targets": {"y": "category"},
                    "train": {"order": order},
                }
            )
