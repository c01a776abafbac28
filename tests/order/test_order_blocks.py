"""Orders by blocks, backwards, in worlds of any size: each slot once, at any position of a billion, without a
list.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.order.blocks import Blocks
from penstock.order.order import Batches, Order, augmentation_keys, share
from penstock.order.permutation import many, permute, permute_each, unpermute
from penstock.order.quality import quality

MODES = ("full", "blocks", "stored")


def orders(draw: st.DrawFn, rows: int) -> Order:
    return Order(
        rows,
        draw(st.integers(0, 2**40)),
        draw(st.integers(0, 9)),
        draw(st.sampled_from(MODES)),
        draw(st.integers(1, 300)),
        draw(st.integers(1, 40)),
    )


@st.composite
def small(draw: st.DrawFn) -> Order:
    return orders(draw, draw(st.integers(0, 3000)))


@st.composite
def large(draw: st.DrawFn) -> Order:
    found = orders(
        draw,
        draw(
            st.one_of(
                st.integers(1, 10**9),
                st.integers(10**9 - 5, 10**9),
                st.integers(10**11, 10**12),
            )
        ),
    )
    return Order(
        found.rows,
        found.seed,
        found.epoch,
        found.shuffle,
        draw(st.sampled_from([1, 7, 1000, 8192, 400_000])),
        draw(st.integers(1, 1000)),
    )


@settings(deadline=None, max_examples=150)
@given(small())
def test_an_epoch_has_every_slot_once_and_backwards_leads_back(order: Order) -> None:
    positions = np.arange(order.rows)
    slots = order.slots(positions)
    assert np.array_equal(np.sort(slots), positions)
    assert np.array_equal(order.positions(slots), positions)


@settings(deadline=None, max_examples=150)
@given(large(), st.data())
def test_any_position_of_a_billion_leads_to_a_slot_and_back(
    order: Order, data: st.DataObject
) -> None:
    ends = np.unique(
        np.clip(
            np.concatenate([np.arange(50), np.arange(order.rows - 50, order.rows)]),
            0,
            order.rows - 1,
        )
    )
    drawn = np.array(
        data.draw(st.lists(st.integers(0, order.rows - 1), min_size=1, max_size=30))
    )
    for positions in (ends, drawn):
        slots = order.slots(positions)
        assert slots.min() >= 0 and slots.max() < order.rows
        assert np.array_equal(order.positions(slots), positions), (
            "what leads back where it came from never meets another"
        )
        alone = np.array(
            [
                int(order.slots(positions[i : i + 1])[0])
                for i in range(0, len(positions), 7)
            ]
        )
        assert np.array_equal(alone, slots[::7]), (
            "asked alone, in a run or in any order, a position has the same slot"
        )


@settings(deadline=None, max_examples=80)
@given(small(), st.data())
def test_the_blocks_of_a_range_are_those_that_its_rows_lie_in(
    order: Order, data: st.DataObject
) -> None:
    if not order.rows:
        return
    start = data.draw(st.integers(0, order.rows - 1))
    stop = data.draw(st.integers(start + 1, order.rows))
    read = order.slots(np.arange(start, stop)) // order.block
    exact = order.blocks(start, stop, order.block)
    assert len(set(exact.tolist())) == len(exact) and set(read.tolist()) <= set(
        exact.tolist()
    )
    if order.shuffle != "blocks":
        assert exact.tolist() == list(dict.fromkeys(read.tolist())), (
            "in the order of first need"
        )


def test_an_epoch_begins_with_one_block_and_windows_grow() -> None:
    order = Order(100_000, 3, 0, "blocks", 1000, 16)
    touched = [
        len(order.blocks(0, rows))
        for rows in (1, 1000, 1001, 3000, 3001, 7001, 15_000, 15_001, 31_000, 31_001)
    ]
    assert touched == [1, 1, 3, 3, 7, 15, 15, 31, 31, 47]
    assert len(set((order.slots(np.arange(1000)) // 1000).tolist())) == 1
    for epoch in range(20):  # wherever the short block falls
        short = Order(9_001, 3, epoch, "blocks", 1000, 4)
        assert np.array_equal(np.sort(short.slots(np.arange(9001))), np.arange(9001))
        assert len(short.blocks(0, 1)) == 1


def test_order_by_blocks_is_pinned() -> None:
    """A changed order would break the resuming of every run in progress: it needs a new format, not an
    edit.
    """
    assert Order(10, 7, 0, "blocks", 3, 2).slots(np.arange(10)).tolist() == PINNED
    assert (
        Order(10**9, 7, 2, "blocks", 400_000, 16)
        .slots(np.array([0, 1, 999_999_999]))
        .tolist()
        == PINNED_LARGE
    )


PINNED = [9, 0, 2, 4, 3, 1, 5, 7, 8, 6]
PINNED_LARGE = [290638798, 290780191, 266409664]


@pytest.mark.parametrize("rows", [10**6, 10**9])
def test_seeking_works_out_as_little_anywhere(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[int] = []
    monkeypatch.setattr(
        "penstock.order.blocks.permute",
        lambda values, n, seed: (worked.append(len(values)), permute(values, n, seed))[1],
    )
    for position in (0, rows // 2, rows - 64):
        worked.clear()
        Order(rows, 1, 0, "blocks", 5000, 16).slots(np.arange(position, position + 64))
        assert sum(worked) <= 64 + 2 * 16, (
            "the positions asked for, and the blocks of their windows"
        )


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(st.integers(0, 300), st.integers(10**9 - 100, 10**9)),
    st.integers(1, 64),
    st.integers(1, 1000),
    st.sampled_from(["keep", "drop", "wrap"]),
    st.data(),
)
def test_uneven_ends_give_every_rank_as_many_batches(
    rows: int, world: int, batch_size: int, last: str, data: st.DataObject
) -> None:
    batches = Batches(rows, batch_size, last)  # type: ignore[arg-type]
    whole, rest = divmod(rows, batch_size)
    assert len(batches) == whole + (rest > 0 and last != "drop")
    if not len(batches):
        return
    at = data.draw(st.sampled_from([0, len(batches) - 1, len(batches) // 2]))
    start, stop = batches.bounds(at)
    assert start == at * batch_size
    assert stop - start == (rest if at == whole and last == "keep" else batch_size)
    shares = [share(start, stop, rank, world) for rank in range(world)]
    assert (
        shares[0][0] == start
        and shares[-1][1] == stop
        and all(a[1] == b[0] for a, b in pairwise(shares))
    )


@settings(deadline=None, max_examples=30)
@given(
    small(),
    st.integers(20, 400),
    st.lists(st.integers(1, 64), min_size=1, max_size=4),
    st.sampled_from(["keep", "drop", "wrap"]),
)
def test_worlds_that_change_within_an_epoch_read_the_same_batches(
    order: Order, batch_size: int, worlds: list[int], last: str
) -> None:
    batches = Batches(order.rows, batch_size, last)  # type: ignore[arg-type]
    read = []
    for at in range(len(batches)):
        world = worlds[at * len(worlds) // len(batches)]
        for rank in range(world):
            read += order.slots(
                np.arange(*share(*batches.bounds(at), rank, world)) % max(order.rows, 1)
            ).tolist()
    alone = (
        order.slots(np.arange(batches.bounds(len(batches) - 1)[1]) % order.rows).tolist()
        if len(batches)
        else []
    )
    assert read == alone


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 2**45), st.integers(0, 2**62), st.data())
def test_a_seed_for_each_value_is_that_seed(
    n: int, seed: int, data: st.DataObject
) -> None:
    values = np.array(
        data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)), np.uint64
    )
    seeds = many(seed, np.arange(len(values)) % 3)
    together = permute(values, n, seeds)
    assert together.tolist() == [
        int(permute(values[i : i + 1], n, int(seeds[i]))[0]) for i in range(len(values))
    ]
    assert np.array_equal(unpermute(together, n, seeds), values)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 2**45),
    st.integers(0, 2**62),
    st.integers(1, 5),
    st.integers(1, 20_000),
    st.data(),
)
def test_rows_of_values_by_a_seed_each_are_those_permutations(
    n: int, seed: int, count: int, width: int, data: st.DataObject
) -> None:
    seeds = many(seed, np.arange(count))
    values = (
        np.random.default_rng(data.draw(st.integers(0, 9)))
        .integers(0, n, (count, min(width, n)))
        .astype(np.uint64)
    )
    assert np.array_equal(
        permute_each(values, n, seeds),
        np.stack(
            [permute(row, n, int(each)) for row, each in zip(values, seeds, strict=True)]
        ),
    )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 200_000),
    st.integers(1, 6_000),
    st.integers(1, 5),
    st.integers(0, 9),
    st.data(),
)
def test_a_long_run_of_positions_has_the_slots_that_each_has_alone(
    rows: int, block: int, window: int, seed: int, data: st.DataObject
) -> None:
    order = Order(rows, seed, 0, "blocks", block, window)
    start = data.draw(st.integers(0, rows - 1))
    run = np.arange(start, min(start + 70_000, rows))
    how = data.draw(st.sampled_from(["whole", "gaps", "twice"]))
    if how == "gaps":
        run = run[run % 7 != 3]  # a rank's, or with rows taken out
    elif how == "twice":
        # as many as there are rows, and yet not each
        run = np.sort(np.where(run % 2, run, np.minimum(run + 1, rows - 1)))
    backwards = order.slots(run[::-1])  # not by windows
    assert np.array_equal(order.slots(run), backwards[::-1])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(IndexError, match="from 0 to 4"):
        Order(5, shuffle="blocks", block=2).slots(np.array([5]))
    with pytest.raises(IndexError, match="slots must be"):
        Order(5).positions(np.array([-1]))
    with pytest.raises(ValueError, match="at least 1 row"):
        Order(5, shuffle="blocks").slots(np.array([1]))
    with pytest.raises(ValueError, match="Give the rows of a block"):
        Order(5).blocks(0, 2)
    assert Blocks(0, 5, 2).blocks(0, 0).tolist() == []


def test_a_row_drawn_again_is_augmented_otherwise() -> None:
    rows = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (6, 2))
    occurrence = np.array([0, 1, 0, 2, 1, 7])
    keys = augmentation_keys(1, 2, rows, occurrence)
    assert keys.tolist() == [
        int(augmentation_keys(1, 2, rows[i : i + 1], int(o))[0])
        for i, o in enumerate(occurrence)
    ]


def test_a_window_of_blocks_is_near_a_shuffle_on_data_sorted_by_label() -> None:
    n = 200_000
    full, stored = quality(Order(n, 1)), quality(Order(n, 1, shuffle="stored"))
    assert (
        abs(full.moved - 1 / 3) < 0.01
        and abs(full.neighbours) < 0.01
        and abs(full.run - full.true_run) < 0.01
        and abs(full.batch - 1) < 0.1
    )
    assert (
        stored.moved == 0
        and stored.neighbours > 0.999
        and stored.run == 20_000
        and stored.batch > 15
    )
    by_window = [
        quality(Order(n, 1, 0, "blocks", n // 1000, window)) for window in (1, 4, 16, 64)
    ]
    runs, batches = [q.run for q in by_window], [q.batch for q in by_window]
    assert runs == sorted(runs, reverse=True) and batches == sorted(batches, reverse=True)
    usual = by_window[2]
    assert (
        usual.run < 1.1 * full.run
        and abs(usual.neighbours) < 0.1
        and abs(usual.moved - 1 / 3) < 0.03
    )
    labels = np.arange(n) % 7
    assert abs(quality(Order(n, 1, 0, "blocks", 200, 16), labels).batch - 1) < 0.15, (
        "where blocks are mixed already, batches are as good as any"
    )
    with pytest.raises(ValueError, match="two batches"):
        quality(Order(100))
    with pytest.raises(ValueError, match="200000 rows; found 3 labels"):
        quality(Order(n), np.zeros(3, np.int64))
