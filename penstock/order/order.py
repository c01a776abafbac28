"""Order: who comes when, as pure functions of (seed, epoch, position).

Numbers in, numbers out: no data, no clock, no state.

    stored   as the rows lie
    full     a permutation of all rows (`permutation`)
    blocks   blocks of rows permuted, rows mixed within a window of blocks (`blocks`)

Each can be asked at any position in constant memory, and backwards for the position of a slot. So a loader's
whole state is a position, a thousand processes agree without a word, and a billion rows need no index.

A global batch is a run of positions; a process takes its contiguous share of it. The sequence of global
batches is therefore the same for any number of processes, and uneven ends are exact: nothing is dropped or
repeated unless asked.

Who may come more than once, or not at all, is said in `samplers` and `mixture`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from penstock.contracts.chance import mix
from penstock.core.identity import derive_seed
from penstock.order.blocks import Blocks
from penstock.order.permutation import permute, unpermute

Shuffle = Literal["full", "blocks", "stored"]
WINDOW = 16
"""Blocks mixed at once: near a full shuffle on data sorted by label (measured by `quality`), and about 1 GB
where a block is a shard.
"""


@dataclass(frozen=True)
class Order:
    """The order of `rows` slots in one epoch."""

    rows: int
    seed: int = 0
    epoch: int = 0
    shuffle: bool | Shuffle = True
    """True is `full`; False is `stored`: slots as they lie, every epoch alike."""
    block: int = 0
    """Rows of a block, for `blocks`."""
    window: int = WINDOW
    """Blocks mixed at once, for `blocks`."""

    def slots(self, positions: np.ndarray) -> np.ndarray:
        """The slot at each position, int64 `[k]`; over all positions each slot comes exactly once.

        Raises:
            IndexError: a position is outside [0, rows).
        """
        positions = self._within(positions, "positions")
        if self._is_stored:
            return positions
        if self.shuffle == "blocks":
            return self._blocks.slots(positions)
        # A view, not a copy: positions are checked, so their sign bit is 0.
        return permute(positions.view(np.uint64), self.rows, self._key).view(np.int64)

    def positions(self, slots: np.ndarray) -> np.ndarray:
        """The reverse: the position at which each slot comes.

        Raises:
            IndexError: a slot is outside [0, rows).
        """
        slots = self._within(slots, "slots")
        if self._is_stored:
            return slots
        if self.shuffle == "blocks":
            return self._blocks.positions(slots)
        return unpermute(slots.view(np.uint64), self.rows, self._key).view(np.int64)

    def blocks(self, start: int, stop: int, block: int | None = None) -> np.ndarray:
        """The blocks that the positions [start, stop) read, in the order of first need, int64: what to fetch
        ahead.

        For `blocks` those of all windows touched, without looking at a single row; otherwise, by looking at
        each position.

        Args:
            block: rows of a block, where it is not this order's own.
        """
        if self.shuffle == "blocks" and block in (None, self.block) and self.rows:
            # Both ends are checked; all positions between them lie within then.
            self._within(np.array([start, max(stop - 1, start)]), "positions")
            return self._blocks.blocks(start, stop)
        if not (block or self.block):
            raise ValueError("Give the rows of a block: this order has no default")
        # Other orders have no windows, so each position is looked up.
        blocks = self.slots(np.arange(start, stop)) // (block or self.block)
        distinct, first = np.unique(blocks, return_index=True)
        # `np.unique` sorts by number; the first need decides instead.
        return distinct[np.argsort(first)]

    def _within(self, numbers: np.ndarray, what: str) -> np.ndarray:
        numbers = np.asarray(numbers, np.int64)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= self.rows):
            raise IndexError(
                f"{what} must be from 0 to {self.rows - 1}; found {numbers.min()} to {numbers.max()}"
            )
        return numbers

    @property
    def _is_stored(self) -> bool:
        # A permutation of one row, or of none, is as stored.
        return self.shuffle is False or self.shuffle == "stored" or self.rows < 2

    @cached_property
    def _key(self) -> int:
        # Seed, epoch and a word: another use of the same seed is another chance.
        return derive_seed(self.seed, "order", self.epoch)

    @cached_property
    def _blocks(self) -> Blocks:
        if self.block < 1 or self.window < 1:
            raise ValueError(
                "an order by blocks needs a block of at least 1 row and a window of at least 1 block; found"
                f" {self.block} and {self.window}"
            )
        return Blocks(self.rows, self.block, self.window, self.seed, self.epoch)


Last = Literal["keep", "drop", "wrap"]


@dataclass(frozen=True)
class Batches:
    """An epoch's positions in global batches."""

    rows: int
    batch_size: int
    """Rows of a global batch."""
    last: Last = "keep"
    """A last batch that is not full: `keep` has what is left; `drop` leaves it out; `wrap` fills it up from
    the epoch's beginning (positions from `rows` on are those from 0 again).
    """

    def __len__(self) -> int:
        return (
            self.rows // self.batch_size
            if self.last == "drop"
            else -(-self.rows // self.batch_size)
        )

    def bounds(self, batch: int) -> tuple[int, int]:
        """The first position of a global batch, and the first one after it."""
        if not 0 <= batch < len(self):
            raise IndexError(
                f"there are {len(self)} batches an epoch, numbered from 0; found {batch}"
            )
        stop = (batch + 1) * self.batch_size
        # `wrap` goes beyond the rows, where positions start again.
        return batch * self.batch_size, stop if self.last == "wrap" else min(
            stop, self.rows
        )


def share(start: int, stop: int, index: int, count: int) -> tuple[int, int]:
    """The `index`-th of `count` near-equal contiguous parts of [start, stop), possibly empty; together they
    are all of it.
    """
    rows = stop - start
    # Whole numbers only: parts meet without a gap whatever rows and count are.
    return start + rows * index // count, start + rows * (index + 1) // count


def augmentation_keys(
    seed: int, epoch: int, row_id: np.ndarray, occurrence: int | np.ndarray = 0
) -> np.ndarray:
    """A uint64 for each row that decides its augmentation: the same in whatever batch or process
    the row is drawn.

    Args:
        row_id: the two halves of each row's md5, int64 `[n, 2]`.
        occurrence: which time in this epoch the row is drawn, from 0; one for all, or int64 `[n]`.
    """
    key: np.ndarray | np.uint64
    if isinstance(occurrence, np.ndarray):
        # One key for each distinct occurrence.
        distinct, at = np.unique(occurrence, return_inverse=True)
        key = np.array(
            [derive_seed(seed, "augment", epoch, number) for number in distinct.tolist()],
            np.uint64,
        )[at]
    else:
        key = np.uint64(derive_seed(seed, "augment", epoch, occurrence))
    halves = np.ascontiguousarray(row_id).view(np.uint64)
    # Both halves of the id and the key, so that rows alike in one half differ.
    return mix(mix(halves[:, 0] ^ key) + halves[:, 1])


__all__ = [
    "WINDOW",
    "Batches",
    "Last",
    "Order",
    "Shuffle",
    "augmentation_keys",
    "permute",
    "share",
    "unpermute",
]
