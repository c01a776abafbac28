"""A loader under every order: exact in any world, gone on with anywhere, with rows taken out, of one feed or
of several.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import ContractError, RecipeError, UserError
from penstock.core.events import Event, Events
from penstock.core.store import Store
from penstock.encode.feed import Feed, write_feed
from penstock.loader import resolve_order as draws_module
from tests.data.fakes import FakeDataset, recipe
from tests.loader.flat import open_loader

torch.set_num_threads(1)
ROWS = 601
LANGUAGES = np.array(["en", "de", "en", "fr", "en"])[np.arange(ROWS) % 5]
WORDS: dict[str, Any] = {
    "inputs": {"x": "number", "c": "category"},
    "targets": {"y": "binary"},
}


def table(rows: int = ROWS, shift: int = 0) -> pa.Table:
    numbers = np.arange(rows)
    return pa.table(
        {
            "x": numbers.astype(float) + shift,
            "y": np.where(numbers % 10, "no", "yes"),
            "c": np.array(["a", "b", "b", "d"])[numbers % 4],
            "lang": LANGUAGES[:rows],
            "odds": (numbers % 3).astype(float),
        }
    )


def made(folder: Path, order: dict[str, Any] | None = None, **splits: pa.Table) -> Feed:
    dataset: Any = FakeDataset({"train": table(), **splits})
    return write_feed(
        recipe(**WORDS, train={"order": order or {}}), dataset, Store(folder), Events()
    )


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    order = {"mix": {"by": "lang", "weights": {"en": 1, "de": 1, "fr": 1}}}
    return made(tmp_path_factory.mktemp("store"), order)


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    return made(tmp_path_factory.mktemp("store"), {"weights": "odds"})


def numbers(feed: Feed, batch: dict[str, Any]) -> list[int]:
    fitted = feed.encoding.fitted["x"]
    return [
        int(v)
        for v in np.round(
            np.asarray(batch["x.value"], np.float64) * fitted["std"] + fitted["mean"]
        )
    ]


def epoch(feed: Any, number: int = 0, start: int = 0, **words: Any) -> list[list[int]]:
    loader = open_loader(feed, **{"batch_size": 64, "seed": 3, "numpy": True, **words})
    return [
        numbers(loader.feed, batch) for _, batch in loader.batches(number, start=start)
    ]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


MIX = {"by": "lang", "weights": {"en": 0.5, "de": 0.25, "fr": 0.25}}
ORDERS: list[dict[str, Any]] = [
    {"shuffle": "blocks", "block": 20, "window": 4},
    {"shuffle": "stored"},
    {"last": "wrap"},
    {"last": "drop"},
    {"fraction": 0.3},
    {"replacement": True, "epoch_rows": 900},
    {"balance": "y"},
    {"balance": "c", "shuffle": "blocks", "block": 50},
    {"mix": MIX, "epoch_rows": 333},
    {"fraction": 0.5, "balance": "y", "last": "wrap"},
]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@settings(
    deadline=None,
    max_examples=5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_the_global_sequence_is_the_same_for_any_world_and_from_any_batch(
    feed: Feed, order: dict[str, Any], data: st.DataObject
) -> None:
    world, accumulate = data.draw(st.integers(1, 64)), data.draw(st.integers(1, 3))
    words = {
        "order": order,
        "batch_size": data.draw(st.integers(1, 300)) if world < 8 else 64,
    }
    whole = epoch(feed, 1, **words)
    ranks = [
        epoch(
            feed,
            1,
            world=world,
            rank=rank,
            accumulate=accumulate,
            threads=rank % 4,
            **words,
        )
        for rank in range(world)
    ]
    assert all(len(rank) == len(whole) * accumulate for rank in ranks)
    assert [
        [
            row
            for piece in range(accumulate)
            for rank in ranks
            for row in rank[b * accumulate + piece]
        ]
        for b in range(len(whole))
    ] == whole
    at = data.draw(st.integers(0, len(whole)))
    assert epoch(feed, 1, at, **words) == whole[at:]
    loader = open_loader(feed, seed=3, **words)
    assert [loader.rows_at(1, position=b) for b in range(len(loader))] == [
        len(batch) for batch in whole
    ]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_it_goes_on_where_another_was(feed: Feed, order: dict[str, Any]) -> None:
    loader = open_loader(feed, batch_size=64, seed=3, numpy=True, order=order)
    seen = []
    for batch in loader:
        seen.append(numbers(feed, batch))
        if len(seen) == 2:
            break
    others = [
        open_loader(
            feed, batch_size=64, seed=3, numpy=True, order=order, world=3, rank=rank
        )
        for rank in range(3)
    ]
    for other in others:
        other.load_state_dict(loader.state_dict())
    rest = [
        [row for part in parts for row in numbers(feed, part)]
        for parts in zip(*others, strict=True)
    ]
    assert seen + rest == epoch(feed, order=order)
    with pytest.raises(UserError, match="another order of rows"):
        open_loader(feed, batch_size=64, seed=3, order={"fraction": 0.9}).load_state_dict(
            loader.state_dict()
        )


def test_what_an_epoch_has(feed: Feed) -> None:
    assert sorted(flat(epoch(feed, shuffle="blocks", block=20, window=4))) == list(
        range(ROWS)
    )
    assert (
        len(flat(epoch(feed, last="drop"))) == ROWS // 64 * 64
        and flat(epoch(feed, last="wrap"))[ROWS:] == flat(epoch(feed))[: -ROWS % 64]
    )
    part = [sorted(flat(epoch(feed, number, fraction=0.3))) for number in (0, 1)]
    assert (
        part[0] == part[1]
        and len(set(part[0])) == 180
        and flat(epoch(feed, fraction=0.3, shuffle=False)) == part[0]
    )
    assert Counter(n % 10 == 0 for n in flat(epoch(feed, balance="y"))) == {
        True: 301,
        False: 300,
    } or Counter(n % 10 == 0 for n in flat(epoch(feed, balance="y"))) == {
        True: 300,
        False: 301,
    }
    classes = Counter(n % 4 for n in flat(epoch(feed, balance="c", epoch_rows=300)))
    assert classes[0] == 100 and classes[3] == 100 and classes[1] + classes[2] == 100
    languages = Counter(LANGUAGES[flat(epoch(feed, mix=MIX, epoch_rows=400))].tolist())
    assert languages == {"en": 200, "de": 100, "fr": 100}
    assert set(
        LANGUAGES[
            flat(epoch(feed, mix={"by": "lang", "weights": {"en": 0, "de": 1, "fr": 0}}))
        ].tolist()
    ) == {"de"}
    often = Counter(flat(epoch(feed, replacement=True, epoch_rows=6010)))
    assert 500 < len(often) <= ROWS and max(often.values()) > 12


def test_rows_are_drawn_by_the_weights_of_a_column(weighed: Feed) -> None:
    drawn = flat(epoch(weighed, weights="odds", epoch_rows=9000))
    by = Counter(n % 3 for n in drawn)
    assert by[0] == 0 and abs(by[2] - 2 * by[1]) < 500
    batch = next(iter(open_loader(weighed, batch_size=4, weights="odds", numpy=True)))
    assert sorted(batch) == [
        "c.index",
        "row_id",
        "weight",
        "x.missing",
        "x.value",
        "y.label",
    ], "what rows are drawn by is in no batch"


def test_the_columns_of_an_order_are_stored_only_if_declared(
    tmp_path: Path, feed: Feed
) -> None:
    plain = made(tmp_path)
    assert (
        "order" not in plain.manifest
        and feed.manifest["order"] == {"mix": "lang"}
        and plain.id != feed.id
    )
    assert epoch(plain) == epoch(feed), "and change nothing else"
    other = made(tmp_path, {"mix": {"by": "lang", "weights": {"en": 5}}})
    assert other.id == feed.id, "the weights are the training's, not the feed's"
    for words, text in (
        ({"mix": MIX}, "does not hold the column 'lang'"),
        ({"weights": "odds"}, r"penstock\.encode\(…, weights=…\)"),
    ):
        with pytest.raises(UserError, match=text):
            open_loader(plain, batch_size=9, **words)  # type: ignore[arg-type]
    with pytest.raises(
        UserError,
        match="names the values en, de of 'lang', but 120 of 601 rows have another or none",
    ):
        open_loader(feed, batch_size=9, mix={"by": "lang", "weights": {"en": 1, "de": 1}})


def test_a_column_that_cannot_be_drawn_by_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"train\.order\.mix\.by: is the column 'langg', which the data lacks\. Did you mean 'lang'",
    ):
        made(tmp_path, {"mix": {"by": "langg", "weights": {"en": 1}}})
    bad = table().set_column(4, "odds", pa.array([None, -1.0, *[1.0] * (ROWS - 2)]))
    dataset: Any = FakeDataset({"train": bad})
    with pytest.raises(
        ContractError,
        match="have no number from 0 in the column 'odds'; the first is None",
    ):
        write_feed(
            recipe(**WORDS, train={"order": {"weights": "odds"}}),
            dataset,
            Store(tmp_path),
            Events(),
        )


def without(feed: Feed, *holes: int) -> Feed:
    return Feed(feed.path, {**feed.manifest, "holes": {"train": list(holes)}})


@pytest.mark.parametrize(
    "order", [o for o in ORDERS if not o.get("replacement")], ids=str
)
def test_rows_that_were_taken_out_leave_the_others_where_they_are(
    feed: Feed, order: dict[str, Any]
) -> None:
    gone = set(range(100, 200))
    whole, less = epoch(feed, 2, order=order), epoch(without(feed, *gone), 2, order=order)
    assert less == [[row for row in batch if row not in gone] for batch in whole], (
        "slots are the numbers here: rows are stored as they came"
    )
    loader = open_loader(without(feed, *gone), batch_size=64, seed=3, order=order)
    assert [loader.rows_at(2, position=b) for b in range(len(loader))] == [
        len(batch) for batch in less
    ]
    loader.set_epoch(2)
    assert loader.global_rows(0) == len(less[0])
    loader.load_state_dict(
        open_loader(feed, batch_size=64, seed=3, order=order).state_dict()
    )


def test_auto_is_full_for_data_that_is_small_and_blocks_beyond(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = open_loader(feed, batch_size=64, seed=3)
    assert small.shuffle == "full"
    monkeypatch.setattr(draws_module, "FULL_BYTES", 1000)
    said: list[Event] = []
    large = open_loader(feed, batch_size=64, seed=3, events=Events(said.append))
    assert (
        large.shuffle == "blocks"
        and "shuffled in blocks of 601 rows, 16 blocks at a time"
        in said[0].fields["text"]
    )
    large.load_state_dict({**small.state_dict(), "position": 3})
    assert large.shuffle == "full" and large.position == 3, (
        "`auto` goes on as what it was"
    )
    large.load_state_dict(
        {k: v for k, v in small.state_dict().items() if k != "shuffle"}
        | {"shuffle": True}
    )
    with pytest.raises(UserError, match="shuffle was 'full' and is 'blocks'"):
        open_loader(feed, batch_size=64, seed=3, shuffle="blocks").load_state_dict(
            small.state_dict()
        )


# -- several feeds -------------------------------------------------------------------------------------------


def test_feeds_are_mixed_by_weights(tmp_path: Path, feed: Feed) -> None:
    dataset: Any = FakeDataset({"train": table(100, shift=ROWS)}, id="fedcba9876543210")
    words = recipe(**WORDS)
    first = made(tmp_path)
    second = write_feed(words, dataset, Store(tmp_path), Events(), like=first)
    loader = open_loader({first: 0.75, second: 0.25}, batch_size=64, seed=3, numpy=True)
    assert loader.rows == 701 and len(loader) == 11
    drawn = flat(epoch({first: 0.75, second: 0.25}, epoch_rows=800))
    assert Counter(n >= ROWS for n in drawn) == {False: 600, True: 200}
    assert (
        Counter(Counter(n for n in drawn if n >= ROWS).values()) == {2: 100}
        and max(Counter(n for n in drawn if n < ROWS).values()) == 1
    )
    pairs = [(first, 0.75), (second, 0.25)]
    ranks = [epoch(pairs, epoch_rows=800, world=3, rank=rank) for rank in range(3)]
    assert [
        row for parts in zip(*ranks, strict=True) for part in parts for row in part
    ] == drawn
    assert flat(
        epoch({without(first, *range(300)): 0.75, second: 0.25}, epoch_rows=800)
    ) == [n for n in drawn if n >= 300]
    state = loader.state_dict()
    assert state["feed"] == {first.id: 0.75, second.id: 0.25}
    with pytest.raises(UserError, match="another order"):
        open_loader({first: 0.5, second: 0.5}, batch_size=64, seed=3).load_state_dict(
            state
        )
    with pytest.raises(UserError, match="cannot go with a mixture of feeds"):
        open_loader(pairs, batch_size=64, balance="y")
    alone = write_feed(words, dataset, Store(tmp_path), Events())
    with pytest.raises(
        UserError,
        match=r"cannot be mixed: inputs\.x was fitted with a different .* Encode one like the other",
    ):
        open_loader({first: 1, alone: 1}, batch_size=64)
    narrow = write_feed(
        recipe(inputs={"x": "number"}, targets={"y": "binary"}),
        dataset,
        Store(tmp_path),
        Events(),
    )
    with pytest.raises(UserError, match="the inputs of one are x, c, of the other x"):
        open_loader({first: 1, narrow: 1}, batch_size=64)
    with pytest.raises(UserError, match="at least one feed"):
        open_loader({}, batch_size=64)


def test_contradictions_are_refused(feed: Feed) -> None:
    for words, text in (
        ({"balance": "y", "mix": MIX}, "both say how often"),
        ({"replacement": True, "shuffle": "blocks"}, "draws rows at random"),
        ({"epoch_rows": 5}, "is for rows that are drawn"),
        ({"window": 3, "shuffle": "full"}, "window: is for `shuffle: blocks`"),
        ({"balance": "x"}, "no category or binary feature.* Those are: c, y"),
        ({"last": "drop", "batch_size": 1000}, "leaves no batch"),
        ({"batch_size": None}, "Give `batch_size`"),
        ({"shuffle": "ful"}, "expected one of auto, full, blocks, stored"),
        ({"fraction": 1.5}, "fraction"),
    ):
        with pytest.raises(UserError, match=text):
            open_loader(feed, **{"batch_size": 9, **words})
