"""A shuffle by blocks: rows are read block by block, and mixed within a window of blocks.

Pure: numbers in, numbers out.

Slots are cut into blocks of `block` rows (the last may be short) and the blocks are permuted. Windows of
`window` blocks that follow one another in that order are then read at once, and their rows permuted among
themselves. So only a window is ever touched, which is what data in a bucket or beyond memory wants, and yet a
row may come anywhere in the epoch.

The windows of an epoch's beginning have 1, 2, 4, … blocks until `window`: the first batch waits for one
block, not for all.

    stored     0 1 2 3 4 5 6 7 8 9 a b c      blocks of 2, the last of 1
    permuted   8 9|2 3 c|a b 6 7 0 1|4 5      windows of 1, 2, at most 4 blocks; the short one where it falls
    read       9 8|c 2 3|1 a 7 b 0 6|5 4      rows permuted within each window

All of it is arithmetic on a position: where the short block lies is asked of the permutation backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from penstock.core.identity import derive_seed
from penstock.order.permutation import Permutation, many, permute, permute_each, unpermute

_FEW = 64
"""Up to so many windows, positions are taken window by window."""


@dataclass(frozen=True)
class Blocks:
    """The order of `rows` slots in one epoch."""

    rows: int
    block: int
    """Rows of a block."""
    window: int
    """Blocks of a window."""
    seed: int = 0
    epoch: int = 0

    @property
    def count(self) -> int:
        """The number of blocks."""
        return -(-self.rows // self.block)

    def slots(self, positions: np.ndarray) -> np.ndarray:
        """The slot at each position, int64 `[k]`, each below `rows`.

        Fastest where positions rise within a few windows, as a batch's do.
        """
        # As a batch asks: the first and the last position say which windows are
        # touched.
        if len(positions) > 1 and (positions[1:] > positions[:-1]).all():
            places = self._block_at(positions[[0, -1]])
            first, after, number = self._bounds(places)
            if number[1] - number[0] < _FEW:
                return self._slots_by_window(positions, int(first[0]), int(after[1]))
        # Positions in any order: each by itself, in arrays.
        start, size, window = self._window(self._block_at(positions))
        read = start + self._within(permute, positions - start, size, window)
        # Rows are mixed within the window, then the block is looked up in which the
        # mixed position lies.
        place = self._block_at(read)
        slots: np.ndarray = (
            self._permuted(permute, place) * self.block + read - self._start(place)
        )
        return slots

    def _slots_by_window(self, positions: np.ndarray, low: int, high: int) -> np.ndarray:
        """The slots of positions that rise strictly within the permuted blocks [low, high): each
        block is looked up once, not once a row.
        """
        blocks = np.arange(low, high)
        first, after, number = self._bounds(blocks)
        # One more than there are blocks: the end of the last.
        starts = self._start(np.append(blocks, high))
        # from the place in the epoch's reading to the slot
        shift = self._permuted(permute, blocks) * self.block - starts[:-1]
        heads = blocks == first  # one a window
        read = self._read(
            positions,
            starts[first[heads] - low],
            starts[after[heads] - low],
            many(self._seeds[1], number[heads]),
        )
        # Only around the short block do blocks of these windows differ in length.
        if low <= self._short[0] < high:
            place = self._block_at(read)
        else:  # no row is beside the short block: one division says where each lies
            place = read + (low * self.block - starts[0])
            place //= self.block
        place -= low
        read += shift[place]
        return read

    def _read(
        self,
        positions: np.ndarray,
        begins: np.ndarray,
        ends: np.ndarray,
        seeds: np.ndarray,
    ) -> np.ndarray:
        """Positions that rise strictly, each permuted within its window [begin, end): int64 `[k]`."""
        slots = np.empty(len(positions), np.int64)
        # How many of the positions lie before each window's end.
        stops = np.searchsorted(positions, ends)
        counts, sizes = np.diff(stops, prepend=0), ends - begins
        i = 0
        while i < len(ends):
            size, done = int(sizes[i]), int(stops[i] - counts[i])
            alike = 1
            # Neighbouring windows of one size of which every row is wanted.
            while (
                i + alike < len(ends)
                and sizes[i + alike] == size == counts[i + alike] == counts[i]
            ):
                alike += 1
            part, begin = slice(done, int(stops[i + alike - 1])), begins[i : i + alike]
            if alike == 1:
                # From the window's first position, since a permutation begins at 0.
                slots[part] = permute(
                    (positions[part] - begin).view(np.uint64), size, int(seeds[i])
                ).view(np.int64)
                slots[part] += begin
            else:  # whole small windows: a call each would cost more than the rows
                offsets = np.tile(np.arange(size, dtype=np.uint64), (alike, 1))
                slots[part] = (
                    permute_each(offsets, size, seeds[i : i + alike]).view(np.int64)
                    + begin[:, None]
                ).reshape(-1)
            i += alike
        return slots

    def positions(self, slots: np.ndarray) -> np.ndarray:
        """The position at which each slot comes: the reverse of `slots`."""
        # Backwards: the block's place first, then the row's within the window.
        block = slots // self.block
        place = self._permuted(unpermute, block)
        read = self._start(place) + slots - block * self.block
        start, size, window = self._window(place)
        at: np.ndarray = start + self._within(unpermute, read - start, size, window)
        return at

    def blocks(self, start: int, stop: int) -> np.ndarray:
        """The blocks of all windows that the positions [start, stop) lie in, in the order in which they are
        first needed: int64.

        A window's blocks are needed together, within its first batches; they come in the order of the
        permutation.
        """
        if stop <= start:
            return np.empty(0, np.int64)
        # Mixing stays within windows, so the ends of the stretch say which windows it
        # needs.
        first, last = self._block_at(np.array([start, stop - 1], np.int64))
        bounds = self._bounds(np.array([first, last]))
        return self._permuted(permute, np.arange(bounds[0][0], bounds[1][1]))

    # -- where things lie ------------------------------------------------------------------------------------

    @cached_property
    def _short(self) -> tuple[int, int]:
        """The place of the short last block among the permuted ones, and how many rows it lacks."""
        lacks = self.count * self.block - self.rows
        # The block of fewer rows may come anywhere; asked backwards, it is found
        # without a search.
        place = self._permuted(unpermute, np.array([self.count - 1]))[0]
        return int(place), lacks

    def _start(self, place: np.ndarray) -> np.ndarray:
        """The position at which the `place`-th permuted block starts."""
        short, lacks = self._short
        # Every block is full but one, which lacks rows for all that come after it.
        start: np.ndarray = place * self.block - lacks * (place > short)
        return start

    def _block_at(self, positions: np.ndarray) -> np.ndarray:
        """The place of the permuted block in which a position falls, before rows are mixed."""
        short, lacks = self._short
        # Positions after the short block are moved by what it lacks; then one division
        # does.
        past = positions >= (short + 1) * self.block - lacks
        place: np.ndarray = (positions + lacks * past) // self.block
        return place

    @cached_property
    def _ramp(self) -> np.ndarray:
        """The first block of each of the windows that grow, and of the first whole one."""
        starts = [0]
        size = 1
        # 1, 2, 4, …: the first batch needs one block, and the window is reached in few
        # steps.
        while size < min(self.window, self.count):
            starts.append(starts[-1] + size)
            size *= 2
        return np.array(starts, np.int64)

    def _bounds(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For permuted blocks: the first block of their window, the one after its last, and the window's
        number.
        """
        ramp, grown = self._ramp, int(self._ramp[-1])
        whole = (place - grown) // self.window
        # The last window of the ramp that begins at or before the block.
        early = np.searchsorted(ramp, place, side="right") - 1
        growing = place < grown
        first = np.where(growing, ramp[early], grown + whole * self.window)
        # For windows that grow, the end is the next one's beginning; the bound only
        # serves the branch that is not taken.
        after = np.where(
            growing, ramp[np.minimum(early + 1, len(ramp) - 1)], first + self.window
        )
        return (
            first,
            # The last window may be short.
            np.minimum(after, self.count),
            np.where(growing, early, len(ramp) - 1 + whole),
        )

    def _window(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For permuted blocks: where their window starts, its rows, and its number."""
        first, after, number = self._bounds(place)
        start = self._start(first)
        return start, self._start(after) - start, number

    # -- the two permutations --------------------------------------------------------------------------------

    def _permuted(self, how: Permutation, blocks: np.ndarray) -> np.ndarray:
        # One block is where it is.
        if self.count < 2:
            return blocks
        permuted: np.ndarray = how(
            blocks.astype(np.uint64), self.count, self._seeds[0]
        ).astype(np.int64)
        return permuted

    def _within(
        self, how: Permutation, offsets: np.ndarray, size: np.ndarray, window: np.ndarray
    ) -> np.ndarray:
        """Rows permuted within their windows.

        Windows are of few sizes, so that there is one call a size, not one a window.
        """
        permuted = np.empty(len(offsets), np.int64)
        offsets = offsets.astype(np.uint64)
        # Few sizes: those of windows that grow, of whole ones, and of the one or two
        # that are short.
        sizes = np.unique(size)
        for rows in sizes.tolist():
            at = slice(None) if len(sizes) == 1 else np.flatnonzero(size == rows)
            own = window[at]
            # A batch lies in one window as a rule, and one seed is cheaper than one a
            # row.
            one = len(own) and own[0] == own[-1] and (own == own[0]).all()
            seeds = (
                many(self._seeds[1], own[:1]).item() if one else many(self._seeds[1], own)
            )
            permuted[at] = how(offsets[at], rows, seeds)
        return permuted

    @cached_property
    def _seeds(self) -> tuple[int, int]:
        return derive_seed(self.seed, "order", self.epoch, "blocks"), derive_seed(
            self.seed, "order", self.epoch, "rows"
        )
