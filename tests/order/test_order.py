from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.order.order import Batches, Order, augmentation_keys, permute, share


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 5000), st.integers(0, 2**40), st.integers(0, 50))
def test_an_epoch_has_every_slot_once(rows: int, seed: int, epoch: int) -> None:
    slots = Order(rows, seed, epoch).slots(np.arange(rows))
    assert np.array_equal(np.sort(slots), np.arange(rows))


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 10**9), st.integers(0, 2**40), st.data())
def test_any_position_of_a_billion_can_be_asked_alone(
    rows: int, seed: int, data: st.DataObject
) -> None:
    order = Order(rows, seed, 3)
    positions = np.array(
        data.draw(
            st.lists(st.integers(0, rows - 1), min_size=1, max_size=50, unique=True)
        )
    )
    slots = order.slots(positions)
    assert (
        len(set(slots.tolist())) == len(positions)
        and slots.min() >= 0
        and slots.max() < rows
    )
    assert [int(order.slots(np.array([p]))[0]) for p in positions] == slots.tolist()


def test_a_billion_rows_in_order_of_position_do_not_collide() -> None:
    for rows in (10**9, 2**30, 2**30 + 1, 2**29 - 1):
        ends = np.concatenate([np.arange(200_000), np.arange(rows - 200_000, rows)])
        assert len(np.unique(Order(rows, 1).slots(ends))) == 400_000


def test_order_is_pinned() -> None:
    """A changed order would break the resuming of every run in progress: it needs a new format, not an
    edit.
    """
    assert Order(10, seed=7, epoch=0).slots(np.arange(10)).tolist() == [
        4,
        2,
        0,
        8,
        3,
        9,
        7,
        5,
        1,
        6,
    ]
    assert Order(10**9, seed=7, epoch=2).slots(
        np.array([0, 1, 999_999_999])
    ).tolist() == [
        544180483,
        73008562,
        826388003,
    ]


def test_the_shuffle_is_a_shuffle() -> None:
    n = 100_000
    first, second = (Order(n, 5, epoch).slots(np.arange(n)) for epoch in (0, 1))
    assert abs(np.corrcoef(first, np.arange(n))[0, 1]) < 0.02
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert (first == second).sum() < 12, "about one slot in n keeps its place"
    in_first_batch = np.bincount(first[:10_000] // 1_000, minlength=100)
    assert ((in_first_batch - 100) ** 2 / 100).sum() < 150, (
        "a tenth of the positions has about a tenth of each region (chi² of 99)"
    )


@pytest.mark.parametrize("n", [4, 10, 16, 50])
def test_every_slot_is_equally_likely_at_every_position(n: int) -> None:
    times = 2_000
    seen = np.zeros((n, n))
    for seed in range(times):
        seen[
            np.arange(n), permute(np.arange(n, dtype=np.uint64), n, seed * 7919 + 1)
        ] += 1
    assert ((seen - times / n) ** 2 / (times / n)).sum() < 2 * (n - 1) ** 2 + 30


def test_unshuffled_is_stored_order_and_outside_is_refused() -> None:
    assert Order(5, shuffle=False).slots(np.array([3, 1])).tolist() == [3, 1]
    with pytest.raises(IndexError, match="from 0 to 4"):
        Order(5).slots(np.array([5]))


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(st.integers(0, 300), st.integers(10**9 - 100, 10**9)),
    st.integers(1, 64),
    st.integers(1, 1000),
    st.integers(1, 5),
    st.data(),
)
def test_the_shares_of_any_world_are_the_batch(
    rows: int, world: int, batch_size: int, pieces: int, data: st.DataObject
) -> None:
    batches = Batches(rows, batch_size)
    assert len(batches) == -(-rows // batch_size)
    if not len(batches):
        return
    at = data.draw(st.sampled_from([0, len(batches) - 1, len(batches) // 2]))
    start, stop = batches.bounds(at)
    assert 0 < stop - start <= batch_size and (
        stop - start == batch_size or at == len(batches) - 1
    )
    found = [
        i
        for piece in range(pieces)
        for rank in range(world)
        for i in range(*share(*share(start, stop, piece, pieces), rank, world))
    ]
    assert found == list(range(start, stop))
    sizes = [b - a for a, b in (share(start, stop, rank, world) for rank in range(world))]
    assert max(sizes) - min(sizes) <= 1
    with pytest.raises(IndexError):
        batches.bounds(len(batches))


def test_augmentation_follows_the_row_wherever_it_is() -> None:
    rows = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (1000, 2))
    keys = augmentation_keys(1, 2, rows)
    assert keys.dtype == np.uint64 and len(np.unique(keys)) == 1000
    turned = np.arange(999, -1, -1)
    assert np.array_equal(augmentation_keys(1, 2, rows[turned]), keys[turned])
    for other in (
        augmentation_keys(2, 2, rows),
        augmentation_keys(1, 3, rows),
        augmentation_keys(1, 2, rows, occurrence=1),
    ):
        assert not (other == keys).any()
    bits = np.unpackbits(keys.view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.01
