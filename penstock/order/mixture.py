"""Mixtures: groups of rows drawn by weights, exactly. Position in, (group, place in the group) out.

Weights become whole numbers that sum to a period; in every period each group comes exactly so often, in an
order permuted anew. The d-th draw of a group of n rows is the place `d mod n` of the group's own epoch `d div
n`, under an order of its own: each of its rows comes once before any comes twice, however the epochs of the
mixture fall. Draws are counted through all epochs.

A group is a feed, or those rows of a feed that share a class or a value (`members`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from penstock.core.errors import UserError
from penstock.core.identity import derive_seed
from penstock.order.order import Order
from penstock.order.permutation import many, permute
from penstock.order.samplers import Drawn, Subset, around, room_for

LONGEST_PERIOD = 10_000
"""Weights are kept exactly if a period up to this holds them, and otherwise to within one part of it."""
_WHOLE = 4_096
"""A group of fewer rows than this is shuffled whole, where larger ones are by blocks: it is less than a
block.
"""


def apportion(weights: Sequence[float]) -> list[int]:
    """Turn weights into counts: how often each group comes in a period, at least 1 for a weight
    above 0.

    Raises:
        UserError: a weight is negative or not a number, none is above 0, or one is too small beside the
            others.
    """
    if any(not math.isfinite(weight) or weight < 0 for weight in weights) or not any(
        weights
    ):
        raise UserError(
            "the weights of a mixture must be numbers from 0, and one above 0; found"
            f" {', '.join(f'{w:g}' for w in weights)}"
        )
    # Exact, of the number as it is written: 0.1 is a tenth, not its nearest double.
    exactly = [Fraction(repr(float(weight))) for weight in weights]
    shares = [weight / sum(exactly) for weight in exactly]
    # Less than half a draw in the longest period would be none.
    if any(0 < share * LONGEST_PERIOD < Fraction(1, 2) for share in shares):
        raise UserError(
            f"the weights of a mixture differ by more than a period of {LONGEST_PERIOD:,} draws holds; found"
            f" {', '.join(f'{w:g}' for w in weights)}"
        )
    # a third, though 0.3333333333333333 was written
    simple = [share.limit_denominator(LONGEST_PERIOD) for share in shares]
    # As simple fractions the weights may fit a shorter period, in which they are exact.
    if sum(simple) == 1 and all(
        abs(near - share) < 1e-12 for near, share in zip(simple, shares, strict=True)
    ):
        period = math.lcm(*(share.denominator for share in simple))
        if period <= LONGEST_PERIOD:
            return [int(share * period) for share in simple]
    exact = [share * LONGEST_PERIOD for share in shares]
    # Rounded down, but never to nothing for a group with a weight.
    counts = [max(int(count), 1) if count else 0 for count in exact]
    # those furthest below what is due come first
    by_rest = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in range(LONGEST_PERIOD - sum(counts)):
        counts[by_rest[i % len(counts)]] += 1
    # What groups raised to 1 have too much is taken from the largest.
    while sum(counts) > LONGEST_PERIOD:
        counts[counts.index(max(counts))] -= 1
    return counts


@dataclass(frozen=True)
class Group:
    """Rows that are drawn together."""

    name: str
    rows: int
    order: Order
    """Over its rows; its epoch is set by drawing."""
    slots: Callable[[np.ndarray], np.ndarray]
    """The slot of each of its rows."""

    def at(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slot of each draw (counted from 0), and how often its row was drawn before: int64
        `[k]` both.
        """
        epochs, places = np.divmod(draws, self.rows)
        order = self.order
        # Which of the group's own epochs: mostly one or two, but many for a small
        # group.
        distinct, at = np.unique(epochs, return_inverse=True)
        if len(distinct) == 1:
            slots = replace(order, epoch=int(distinct[0])).slots(places)
        # a small group has many epochs in a batch: one call for all
        elif order.shuffle in (True, "full") and order.rows > 1:
            seeds = np.array(
                [derive_seed(order.seed, "order", epoch) for epoch in distinct.tolist()],
                np.uint64,
            )[at]
            slots = permute(places.astype(np.uint64), order.rows, seeds).astype(np.int64)
        else:
            slots = np.empty(len(draws), np.int64)
            # By blocks or as stored, epoch by epoch: one draw of a batch meets few.
            for number, epoch in enumerate(distinct.tolist()):
                slots[at == number] = replace(order, epoch=epoch).slots(
                    places[at == number]
                )
        return self.slots(slots), epochs


@dataclass(frozen=True)
class Mixture:
    """Groups drawn by weights."""

    groups: tuple[Group, ...]
    counts: tuple[int, ...]
    """How often each comes in a period."""
    rows: int
    """Positions of an epoch."""
    seed: int = 0
    of_feeds: bool = False
    """A group is a feed of its own; otherwise all are of one."""

    @classmethod
    def of(
        cls,
        groups: Sequence[Group],
        weights: Sequence[float],
        *,
        rows: int | None = None,
        seed: int = 0,
        of_feeds: bool = False,
    ) -> Mixture:
        """Make a mixture; an epoch is as long as all groups with a weight together, unless `rows`
        is given.

        Raises:
            UserError: a group with a weight has no rows; or see `apportion`.
        """
        counts = apportion(weights)
        # A group without weight may be empty: nobody draws it.
        if bare := [
            group.name
            for group, count in zip(groups, counts, strict=True)
            if count and not group.rows
        ]:
            raise UserError(
                f"{', '.join(bare)} of the mixture {'has' if len(bare) == 1 else 'have'} no rows to draw;"
                " give it the weight 0, or leave it out"
            )
        length = sum(
            group.rows for group, count in zip(groups, counts, strict=True) if count
        )
        return cls(
            tuple(groups), tuple(counts), length if rows is None else rows, seed, of_feeds
        )

    @property
    def period(self) -> int:
        """The number of draws after which each group has come as often as its count says."""
        return sum(self.counts)

    def draw(self, epoch: int, positions: np.ndarray) -> Drawn:
        """As `Draws.draw`; `source` says the group where groups are feeds."""
        turn, positions = around(positions, self.rows)
        # Times are counted through all epochs, so an epoch goes on where the last one
        # ended.
        group, draws = self.turns(epoch * self.rows + positions)
        slots, occurrence = (
            np.empty(len(positions), np.int64),
            np.empty(len(positions), np.int64),
        )
        for number in np.unique(group).tolist():
            mine = np.flatnonzero(group == number)
            # Each group has its own count of draws, and with it its own epochs.
            slots[mine], occurrence[mine] = self.groups[number].at(draws[mine])
        # A repeat by `wrap` is another occurrence; 2^40 is beyond any number of epochs.
        return Drawn(slots, occurrence + turn * 2**40, group if self.of_feeds else None)

    def turns(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For draws counted through all epochs: the group of each, and the number of the draw
        within that group; int64 `[k]` both.
        """
        period, place = np.divmod(times, self.period)
        # A period of one draw has nothing to permute.
        if self.period > 1:
            place = permute(
                place.astype(np.uint64),
                self.period,
                many(derive_seed(self.seed, "mixture"), period),
            ).astype(np.int64)
        # Places of a period belong to the groups by runs of their counts.
        ends = np.cumsum(self.counts)
        group = np.searchsorted(ends, place, side="right")
        counts = np.array(self.counts, np.int64)
        # Draws of the group in all periods before, and its place among its own in this
        # one.
        return group, period * counts[group] + place - (ends - counts)[group]

    def empty(self, epoch: int) -> np.ndarray | None:
        """None: holes are known only by drawing."""
        return None


def order_within(order: Order, rows: int, of: int) -> Order:
    """The order of a group of `rows` out of `of`: with blocks that hold the same share of it, or
    shuffled whole if it is small.
    """
    if order.shuffle != "blocks":
        # Without blocks, only the number of rows differs.
        return replace(order, rows=rows)
    if rows < _WHOLE:
        return replace(order, rows=rows, shuffle="full")
    # As many blocks as the whole has, so a window holds the same share.
    return replace(order, rows=rows, block=max(order.block * rows // max(of, 1), 1))


def members(
    codes: Callable[[], Iterable[np.ndarray]], groups: int, subset: Subset
) -> list[np.ndarray]:
    """The slots of each group, sorted: int64 arrays that lie in one list of all (in a file, if it is large).

    Args:
        codes: opens the group of each slot, in pieces; a code outside [0, groups) is of none.
    """

    def pieces() -> Iterable[tuple[int, np.ndarray]]:
        slot = 0
        for piece in codes():
            code = np.asarray(piece, np.int64)
            if not subset.is_all:
                # A row outside the subset is of no group.
                code = np.where(
                    subset.numbers(np.arange(slot, slot + len(code)))[1], code, -1
                )
            # All rows of no group have one code past the others.
            yield slot, np.where((code >= 0) & (code < groups), code, groups)
            slot += len(code)

    # Two passes over the codes: one counts, one fills, and no group's list has to grow.
    counts = np.zeros(groups + 1, np.int64)
    for _, code in pieces():
        counts += np.bincount(code, minlength=groups + 1)
    ends = np.cumsum(counts[:groups])
    slots = room_for(int(ends[-1]) if groups else 0, np.dtype(np.int64))
    filled = ends - counts[:groups]
    for slot, code in pieces():
        # Stable, so that slots of a group stay in their order.
        by_group = np.argsort(code, kind="stable")
        edges = np.searchsorted(code[by_group], np.arange(groups + 1))
        for group in np.flatnonzero(np.diff(edges)).tolist():
            mine = by_group[edges[group] : edges[group + 1]] + slot
            slots[filled[group] : filled[group] + len(mine)] = mine
            filled[group] += len(mine)
    return [
        slots[end - count : end]
        for end, count in zip(ends.tolist(), counts.tolist(), strict=False)
    ]
