"""Who is drawn: each row once, a fixed part of the rows, or rows by chance with replacement.

Position in, slot out.

`Subset` (`fraction`) is the same rows in every epoch: the slots are cut into as many runs as rows are wanted,
and a seeded choice takes one from each. So it needs no list, keeps the stored order (a block stays a block),
and is spread evenly.

With replacement, a row is a keyed hash of the position: scaled to the number of rows (uniform), or looked up
in the running sums of the weights. A row that was taken out is drawn again for that position alone, so that
all other positions keep theirs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from penstock.contracts.chance import mix
from penstock.core.errors import UserError
from penstock.core.identity import derive_seed
from penstock.order.order import Order

HELD_BYTES = 64 * 2**20
"""A list of rows larger than this lies in a file without a name, mapped to memory, and not in memory
itself.
"""
NO_HOLES = np.empty(0, np.int64)


@dataclass(frozen=True)
class Drawn:
    """The rows that positions draw."""

    slots: np.ndarray
    """int64 `[k]`."""
    occurrence: int | np.ndarray = 0
    """Which time a row is drawn, so that it is augmented otherwise each time: one for all, or int64 `[k]`."""
    source: np.ndarray | None = None
    """Which of several feeds a row is of, int64 `[k]`; None if there is one."""
    member: np.ndarray | None = None
    """Which member of an ensemble a row is for, int64 `[k]`; None if it is for all."""

    @classmethod
    def joined(cls, parts: Sequence[Drawn]) -> Drawn:
        """Concatenate several, in order."""
        if len(parts) == 1:
            return parts[0]
        slots = np.concatenate([part.slots for part in parts])
        # One number for all rows stays one number, rather than an array of equal ones.
        alike = all(
            not isinstance(part.occurrence, np.ndarray)
            and part.occurrence == parts[0].occurrence
            for part in parts
        )
        occurrence = (
            parts[0].occurrence
            if alike
            else np.concatenate(
                [
                    np.broadcast_to(
                        np.asarray(part.occurrence, np.int64), len(part.slots)
                    )
                    for part in parts
                ]
            )
        )
        source = (
            None
            if parts[0].source is None
            else np.concatenate(
                [part.source for part in parts if part.source is not None]
            )
        )
        member = (
            None
            if parts[0].member is None
            else np.concatenate(
                [part.member for part in parts if part.member is not None]
            )
        )
        return cls(slots, occurrence, source, member)

    def take(self, at: Any) -> Drawn:
        """Select some of them: `at` is a slice, a mask or an array of indices."""
        occurrence = (
            self.occurrence[at]
            if isinstance(self.occurrence, np.ndarray)
            else self.occurrence
        )
        return Drawn(
            self.slots[at],
            occurrence,
            None if self.source is None else self.source[at],
            None if self.member is None else self.member[at],
        )


class Draws(Protocol):
    """What an order gives to a loader: the number of positions of an epoch, and the row at each."""

    @property
    def rows(self) -> int:
        """The number of positions of an epoch."""

    def draw(self, epoch: int, positions: np.ndarray) -> Drawn:
        """The row at each position; positions from `rows` on begin the epoch again."""

    def empty(self, epoch: int) -> np.ndarray | None:
        """The positions whose row was taken out, sorted; None if only drawing can tell."""


def is_in(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Which of `values` are in the sorted array `among`: bool `[k]`."""
    if not len(among):
        return np.zeros(len(values), bool)
    inside: np.ndarray = (
        # A value beyond the last gets the last's place, and differs from it.
        among[np.minimum(np.searchsorted(among, values), len(among) - 1)] == values
    )
    return inside


@dataclass(frozen=True)
class Subset:
    """`rows` of `of` slots, the same in all epochs, in stored order."""

    of: int
    rows: int
    seed: int = 0

    @classmethod
    def fraction(cls, of: int, share: float | None, seed: int) -> Subset:
        """The subset for a share of `of` rows: at least one row if there is any, all if `share` is
        None.
        """
        # A share of few rows still leaves one to learn from.
        return cls(of, of if share is None else min(of, max(round(of * share), 1)), seed)

    @property
    def is_all(self) -> bool:
        """Whether no slot is left out."""
        return self.rows == self.of

    def slots(self, numbers: np.ndarray) -> np.ndarray:
        """The slot of each chosen row, by its number from 0."""
        if self.is_all:
            return numbers
        # The first `more` runs have a slot more than the others.
        each, more = divmod(self.of, self.rows)
        # Where the run of each number begins: runs differ by one slot at most.
        start = numbers * each + np.minimum(numbers, more)
        # One slot of each run, by chance: evenly spread, and still in stored order.
        slots: np.ndarray = start + _chosen(
            numbers.astype(np.uint64),
            derive_seed(self.seed, "fraction"),
            each + (numbers < more),
        ).astype(np.int64)
        return slots

    def numbers(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The reverse: the number of the run that each slot lies in, and whether it is the one chosen."""
        if self.is_all:
            return slots, np.ones(len(slots), bool)
        each, more = divmod(self.of, self.rows)
        # Runs of the longer kind come first, so two divisions tell a slot's run.
        number = np.where(
            slots < more * (each + 1),
            slots // (each + 1),
            more + (slots - more * (each + 1)) // each,
        )
        number = np.minimum(number, self.rows - 1)
        return number, self.slots(number) == slots


@dataclass(frozen=True)
class Once:
    """Each row of a subset once an epoch."""

    subset: Subset
    order: Order
    """Over the subset; its epoch is set by drawing."""
    holes: np.ndarray = field(default_factory=NO_HOLES.copy)

    @property
    def rows(self) -> int:
        """Positions of an epoch: one a row."""
        return self.subset.rows

    def draw(self, epoch: int, positions: np.ndarray) -> Drawn:
        """As `Draws.draw`."""
        # A turn more is another occurrence, so a row that `wrap` repeats is augmented
        # otherwise.
        turn, positions = around(positions, self.rows)
        return Drawn(
            self.subset.slots(replace(self.order, epoch=epoch).slots(positions)), turn
        )

    def empty(self, epoch: int) -> np.ndarray:
        """As `Draws.empty`; known without drawing."""
        if not len(self.holes):
            return NO_HOLES
        # A hole outside the subset is drawn by no position.
        numbers, chosen = self.subset.numbers(self.holes)
        return np.sort(replace(self.order, epoch=epoch).positions(numbers[chosen]))


@dataclass(frozen=True)
class Replaced:
    """Rows drawn with replacement, uniformly or by weight.

    Raises:
        UserError: no row can be drawn.
    """

    subset: Subset
    rows: int
    """Positions of an epoch."""
    seed: int
    holes: np.ndarray = field(default_factory=NO_HOLES.copy)
    sums: np.ndarray | None = None
    """Running sums of the subset's weights; None: all are alike."""

    def __post_init__(self) -> None:
        # Only so many holes can have taken out every row; else the list is not made.
        last = (
            self.subset.slots(np.arange(self.subset.rows))
            if len(self.holes) >= self.subset.rows
            else NO_HOLES
        )
        weightless = (
            self.sums is not None and len(self.sums) > 0 and not self.sums[-1] > 0
        )
        if self.rows and (
            not self.subset.rows
            or weightless
            or (len(last) and is_in(last, self.holes).all())
        ):
            raise UserError("no row can be drawn: there is none, or all weights are 0")
        if self.sums is not None and len(self.holes) and self.rows:
            numbers, chosen = self.subset.numbers(self.holes)
            taken = numbers[chosen]
            gone = float(
                # A weight is the difference of two sums; the first has none before it.
                np.sum(self.sums[taken] - np.where(taken > 0, self.sums[taken - 1], 0.0))
            )
            # Differences of large sums are not exact, so nearly all counts as all.
            if gone >= float(self.sums[-1]) * (1 - 1e-9):
                raise UserError(
                    "no row can be drawn: every row that has a weight was taken out"
                )

    def draw(self, epoch: int, positions: np.ndarray) -> Drawn:
        """As `Draws.draw`."""
        key = derive_seed(self.seed, "draw", epoch)
        turn, places = around(positions, self.rows)
        slots = self._slots(places, key, 0)
        if len(self.holes):
            again = np.flatnonzero(is_in(slots, self.holes))
            attempt = 1
            # Only the positions that drew a hole draw again, so all others keep their
            # rows.
            while len(again):
                slots[again] = self._slots(places[again], key, attempt)
                again = again[is_in(slots[again], self.holes)]
                attempt += 1
        return Drawn(slots, places + turn * self.rows)

    def _slots(self, positions: np.ndarray, key: int, attempt: int) -> np.ndarray:
        # The attempt in bits above all positions (2^44), so that no two draws have one
        # key.
        values = positions.astype(np.uint64) + (np.uint64(attempt) << np.uint64(44))
        if self.sums is None:
            return self.subset.slots(
                _chosen(values, key, self.subset.rows).astype(np.int64)
            )
        # The upper 53 bits as a number in [0, 1), which a double has exactly.
        aim = (_hash(values, key) >> np.uint64(11)).astype(np.float64) * (
            2.0**-53 * float(self.sums[-1])
        )
        # sums of many rows are walked through once, where random looks would each miss the cache
        rising = np.argsort(aim)
        slots = np.empty(len(aim), np.int64)
        # a weight of 0 ends where it begins, and is never found
        slots[rising] = np.searchsorted(self.sums, aim[rising], side="right")
        beyond = slots == len(self.sums)
        # Where the product was rounded up to the whole sum, the last row with a weight.
        if beyond.any():
            slots[beyond] = np.searchsorted(self.sums, self.sums[-1], side="left")
        return self.subset.slots(slots)

    def empty(self, epoch: int) -> np.ndarray:
        """As `Draws.empty`."""
        return NO_HOLES


def around(positions: np.ndarray, rows: int) -> tuple[int | np.ndarray, np.ndarray]:
    """For each position, the number of whole epochs before it, and its position within the epoch."""
    # The usual case costs one comparison and no division.
    if not len(positions) or positions.max() < rows:
        return 0, positions
    return positions // rows, positions % rows


def running_sums(
    weights: Callable[[], Iterable[np.ndarray]], subset: Subset
) -> np.ndarray:
    """The running sums of the subset's weights, float64 `[subset.rows]`.

    Args:
        weights: opens the weights of all slots, in pieces.
    """
    sums = room_for(subset.rows, np.dtype(np.float64))
    total, done, slot = 0.0, 0, 0
    for piece in weights():
        # In doubles, whatever the weights are: sums of many floats of 32 bits stop
        # growing.
        chosen = np.asarray(piece, np.float64)
        if not subset.is_all:
            chosen = chosen[subset.numbers(np.arange(slot, slot + len(piece)))[1]]
        slot += len(piece)
        if len(chosen):
            # The sum goes on from piece to piece, so a weight of a later one lies above
            # all before.
            sums[done : done + len(chosen)] = total + np.cumsum(chosen)
            done += len(chosen)
            total = float(sums[done - 1])
    return sums


def room_for(rows: int, dtype: np.dtype) -> np.ndarray:
    """An uninitialised array; a large one is mapped from an unnamed temporary file, which is
    removed with it.
    """
    if rows * dtype.itemsize <= HELD_BYTES:
        return np.empty(rows, dtype)
    with tempfile.TemporaryFile(prefix="penstock-") as file:
        file.truncate(rows * dtype.itemsize)
        # The map keeps the file alive after it is closed; nothing is left when it goes.
        return np.memmap(file, dtype, mode="r+", shape=(rows,))


def _hash(values: np.ndarray, key: int) -> np.ndarray:
    return mix(mix(values ^ np.uint64(key)) + np.uint64(0x9E3779B97F4A7C15))


def _chosen(values: np.ndarray, key: int, below: int | np.ndarray) -> np.ndarray:
    """For each value a number below `below`, uint64: a hash of 64 bits times `below`, the upper half of the
    product. For n ≤ 2^40 no number is likelier than another by more than one part in 2^24 (Lemire 2019,
    without his rejection).
    """
    # The 128 bits of the product by halves of 32 bits, since numpy has no wider
    # numbers.
    bits, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    noise, n = _hash(values, key), np.asarray(below, np.uint64)
    n_high, n_low = n >> bits, n & low
    high, small = noise >> bits, noise & low
    middle = high * n_low + ((small * n_low) >> bits)
    other = small * n_high + (middle & low)
    chosen: np.ndarray = high * n_high + (middle >> bits) + (other >> bits)
    return chosen
