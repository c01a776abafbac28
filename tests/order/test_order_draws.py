"""Who is drawn: parts of the rows, with replacement, by weights, by groups.

Exact, and the same from any position on.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import UserError
from penstock.order import samplers
from penstock.order.mixture import Group, Mixture, apportion, members, order_within
from penstock.order.order import Order
from penstock.order.samplers import (
    Drawn,
    Once,
    Replaced,
    Subset,
    _chosen,
    is_in,
    room_for,
    running_sums,
)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2000), st.floats(0.001, 1), st.integers(0, 99))
def test_a_fraction_is_so_many_rows_spread_evenly(
    of: int, share: float, seed: int
) -> None:
    subset = Subset.fraction(of, share, seed)
    assert subset.rows == min(of, max(round(of * share), 1))
    slots = subset.slots(np.arange(subset.rows))
    assert (np.diff(slots) > 0).all() and (
        not of or (slots[0] >= 0 and slots[-1] < of)
    ), "in stored order, each once"
    assert (np.diff(slots) <= 2 * -(-of // max(subset.rows, 1))).all()
    numbers, chosen = subset.numbers(np.arange(of))
    assert np.array_equal(np.flatnonzero(chosen), slots) and np.array_equal(
        numbers[chosen], np.arange(subset.rows)
    )


def test_a_fraction_of_a_billion_is_asked_without_a_list() -> None:
    subset = Subset.fraction(10**9 + 7, 0.1, 3)
    numbers = np.array([0, 1, 12345, subset.rows - 1])
    slots = subset.slots(numbers)
    assert (
        slots[-1] < 10**9 + 7
        and np.array_equal(subset.numbers(slots)[0], numbers)
        and subset.numbers(slots)[1].all()
    )
    assert Subset.fraction(10, None, 0).is_all and not np.array_equal(
        Subset.fraction(10**6, 0.1, 4).slots(np.arange(99)),
        Subset.fraction(10**6, 0.1, 5).slots(np.arange(99)),
    )
    bits = Subset.fraction(100_000, 0.25, 1).slots(np.arange(25_000)) % 4
    assert (np.abs(np.bincount(bits) - 6250) < 400).all(), (
        "any place of a run is as likely"
    )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 500),
    st.sampled_from(["full", "blocks", "stored"]),
    st.lists(st.integers(0, 499), max_size=20),
    st.one_of(st.none(), st.floats(0.1, 1)),
    st.integers(0, 5),
)
def test_rows_taken_out_leave_their_places_empty(
    rows: int, shuffle: str, gone: list[int], share: float | None, epoch: int
) -> None:
    holes = np.unique(np.array([g for g in gone if g < rows], np.int64))
    subset = Subset.fraction(rows, share, 1)
    draws = Once(subset, Order(subset.rows, 1, 0, shuffle, 7, 3), holes)  # type: ignore[arg-type]
    whole = Once(subset, Order(subset.rows, 1, 0, shuffle, 7, 3))  # type: ignore[arg-type]
    positions = np.arange(subset.rows)
    slots = draws.draw(epoch, positions).slots
    assert np.array_equal(slots, whole.draw(epoch, positions).slots)
    assert np.array_equal(draws.empty(epoch), np.flatnonzero(np.isin(slots, holes)))


def test_round_the_end_rows_come_again_under_another_occurrence() -> None:
    draws = Once(Subset(10, 10), Order(10, 1))
    drawn = draws.draw(0, np.arange(8, 14))
    assert drawn.slots[2:].tolist() == draws.draw(
        0, np.arange(4)
    ).slots.tolist() and isinstance(drawn.occurrence, np.ndarray)
    assert (
        drawn.occurrence.tolist() == [0, 0, 1, 1, 1, 1]
        and draws.draw(0, np.arange(3)).occurrence == 0
    )


def test_uniform_draws_are_uniform_and_need_no_list() -> None:
    n, k = 100, 200_000
    draws = Replaced(Subset(n, n), k, seed=1)
    counts = np.bincount(draws.draw(0, np.arange(k)).slots, minlength=n)
    assert ((counts - k / n) ** 2 / (k / n)).sum() < 150
    assert not np.array_equal(
        draws.draw(0, np.arange(99)).slots, draws.draw(1, np.arange(99)).slots
    )
    huge = Replaced(Subset(2**40, 2**40), 2**40, seed=1)
    some = huge.draw(0, np.array([0, 1, 2**39, 2**40 - 1]))
    assert (
        some.slots.max() < 2**40
        and some.slots.min() >= 0
        and np.array_equal(some.slots[2:3], huge.draw(0, np.array([2**39])).slots)
    )
    assert np.array_equal(some.occurrence, [0, 1, 2**39, 2**40 - 1])
    for below in (1, 2, 3, 2**33 + 1, 2**40, 2**63):
        values = np.arange(2000, dtype=np.uint64)
        exact = [int(h) * below >> 64 for h in samplers._hash(values, 5).tolist()]
        assert _chosen(values, 5, below).tolist() == exact


def test_a_row_taken_out_is_drawn_anew_and_nobody_else_moves() -> None:
    whole, less = (
        Replaced(Subset(50, 50), 5000, 1, np.array(holes, np.int64))
        for holes in ([], [3, 4, 20])
    )
    before, after = (draws.draw(2, np.arange(5000)).slots for draws in (whole, less))
    moved = before != after
    assert (
        set(before[moved].tolist()) == {3, 4, 20}
        and not set(after.tolist()) & {3, 4, 20}
        and np.array_equal(moved, np.isin(before, [3, 4, 20]))
    )
    with pytest.raises(UserError, match="no row can be drawn"):
        Replaced(Subset(3, 3), 3, 1, np.arange(3))
    with pytest.raises(UserError, match="every row that has a weight was taken out"):
        Replaced(
            Subset(3, 3),
            3,
            1,
            np.array([1]),
            running_sums(lambda: [np.array([0.0, 2, 0])], Subset(3, 3)),
        )


def test_weighted_draws_follow_the_weights_and_never_draw_nothing() -> None:
    weights = np.array([0, 1, 0, 2, 5, 0, 0, 2, 0], float)
    sums = running_sums(lambda: [weights[:4], weights[4:5], weights[5:]], Subset(9, 9))
    assert sums.tolist() == np.cumsum(weights).tolist()
    k = 100_000
    counts = np.bincount(
        Replaced(Subset(9, 9), k, 3, sums=sums).draw(0, np.arange(k)).slots, minlength=9
    )
    assert (counts[weights == 0] == 0).all() and (
        np.abs(counts - k * weights / 10) < 800
    ).all()
    with pytest.raises(UserError, match="all weights are 0"):
        Replaced(Subset(2, 2), 2, 3, sums=np.zeros(2))
    subset = Subset.fraction(9, 0.4, 1)
    partly = (
        Replaced(subset, k, 3, sums=running_sums(lambda: [weights + 1], subset))
        .draw(0, np.arange(k))
        .slots
    )
    assert set(partly.tolist()) == set(subset.slots(np.arange(subset.rows)).tolist())


def test_what_is_large_lies_in_a_file_without_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(samplers, "HELD_BYTES", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    small, large = room_for(100, np.dtype("int64")), room_for(1000, np.dtype("int64"))
    assert type(small) is np.ndarray and isinstance(large, np.memmap)
    large[:] = np.arange(1000)
    assert large.sum() == 499_500 and not list(tmp_path.iterdir())


# -- mixtures ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(0, 1000), min_size=1, max_size=20).filter(
        lambda w: max(w) > 0 and min([x for x in w if x]) > max(w) / 1000
    )
)
def test_weights_become_whole_numbers(weights: list[float]) -> None:
    counts = apportion(weights)
    period, total = sum(counts), sum(weights)
    assert 1 <= period <= 10_000 and [c > 0 for c in counts] == [w > 0 for w in weights]
    assert all(
        abs(c / period - w / total) <= 1.01 / 10_000 * len(weights)
        for c, w in zip(counts, weights, strict=True)
    )


def test_simple_weights_are_exact_and_impossible_ones_refused() -> None:
    assert (
        apportion([0.7, 0.3]) == [7, 3]
        and apportion([1, 1, 1]) == [1, 1, 1]
        and apportion([2, 0, 6]) == [1, 0, 3]
        and apportion([5]) == [1]
    )
    assert sum(apportion([np.pi, np.e, 1])) == 10_000
    for wrong in ([0, 0], [-1, 2], [float("nan")], [1e9, 1e-9]):
        with pytest.raises(UserError, match="the weights of a mixture"):
            apportion(wrong)


def mixture(
    sizes: list[int],
    weights: list[float],
    seed: int = 1,
    rows: int | None = None,
    shuffle: str = "full",
) -> Mixture:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    groups = [
        Group(
            f"g{i}",
            n,
            Order(n, seed, 0, shuffle, 5, 2),
            lambda places, start=starts[i]: places + start,
        )
        for i, n in enumerate(sizes)
    ]  # type: ignore[arg-type, misc]
    return Mixture.of(groups, weights, rows=rows, seed=seed)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.data(),
    st.sampled_from(["full", "blocks", "stored"]),
)
def test_in_each_period_each_group_comes_exactly_so_often(
    sizes: list[int], data: st.DataObject, shuffle: str
) -> None:
    weights = [data.draw(st.sampled_from([1.0, 2.0, 3.0, 7.0])) for _ in sizes]
    mixed = mixture(sizes, weights, shuffle=shuffle)
    epochs = 4
    assert mixed.rows == sum(sizes)
    drawn = [mixed.draw(epoch, np.arange(mixed.rows)) for epoch in range(epochs)]
    slots = np.concatenate([d.slots for d in drawn])
    group = np.searchsorted(np.cumsum(sizes), slots, side="right")
    whole = len(slots) // mixed.period * mixed.period
    for of in group[:whole].reshape(-1, mixed.period):
        assert np.bincount(of, minlength=len(sizes)).tolist() == list(mixed.counts)
    for number, size in enumerate(
        sizes
    ):  # each of its rows once before any comes twice, through all epochs
        occurrence = np.concatenate([np.asarray(d.occurrence) for d in drawn])[
            group == number
        ]
        rows = slots[group == number]
        for time in range(int(occurrence.max(initial=-1))):
            assert sorted(rows[occurrence == time].tolist()) == sorted(
                set(rows[occurrence == time].tolist())
            )
            if time < len(rows) // size - mixed.period:
                assert len(rows[occurrence == time]) == size
    at = data.draw(st.integers(0, mixed.rows - 1))
    assert np.array_equal(
        mixed.draw(2, np.arange(at, mixed.rows)).slots, drawn[2].slots[at:]
    ), "from any position on, as if it had run there"


def test_a_mixture_of_billions_is_asked_anywhere() -> None:
    mixed = mixture([10**9, 3, 10**8], [0.5, 0.25, 0.25], rows=10**9)
    drawn = mixed.draw(7, np.arange(5 * 10**8, 5 * 10**8 + 4096))
    groups = Counter(
        np.searchsorted([10**9, 10**9 + 3], drawn.slots, side="right").tolist()
    )
    assert groups == {0: 2048, 1: 1024, 2: 1024} and np.array_equal(
        mixed.draw(7, np.array([5 * 10**8 + 9])).slots, drawn.slots[9:10]
    )
    assert np.asarray(drawn.occurrence)[drawn.slots // 10**9 == 1].max() > 10**8, (
        "three rows have come round so often by then"
    )


def test_a_group_without_rows_needs_the_weight_zero() -> None:
    with pytest.raises(UserError, match="g1 of the mixture has no rows"):
        mixture([5, 0], [1, 1])
    assert mixture([5, 0], [1, 0]).rows == 5


def test_groups_are_found_in_pieces_and_small_ones_are_shuffled_whole() -> None:
    codes = np.array([1, 0, 2, 1, 5, 0, -1, 1])
    found = members(lambda: [codes[:3], codes[3:3], codes[3:]], 3, Subset(8, 8))
    assert [f.tolist() for f in found] == [[1, 5], [0, 3, 7], [2]]
    part = Subset.fraction(8, 0.5, 1)
    chosen = set(part.slots(np.arange(4)).tolist())
    assert [f.tolist() for f in members(lambda: [codes], 3, part)] == [
        [s for s in f.tolist() if s in chosen] for f in found
    ]
    assert members(list, 0, Subset(0, 0)) == []
    by_blocks = Order(10**6, 1, 0, "blocks", 10_000, 4)
    assert (
        order_within(by_blocks, 100, 10**6).shuffle == "full"
        and order_within(by_blocks, 500_000, 10**6).block == 5_000
        and order_within(Order(9), 3, 9).rows == 3
    )


def test_small_things() -> None:
    assert (
        is_in(np.array([1, 5, 9]), np.array([5, 7])).tolist() == [False, True, False]
        and not is_in(np.array([1]), np.empty(0, np.int64)).any()
    )
    one, two = Drawn(np.array([1, 2])), Drawn(np.array([3]), np.array([4]))
    joined = Drawn.joined([one, two])
    assert (
        joined.slots.tolist() == [1, 2, 3]
        and np.asarray(joined.occurrence).tolist() == [0, 0, 4]
        and Drawn.joined([one, one]).occurrence == 0
    )
