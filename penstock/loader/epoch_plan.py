"""Which rows each global batch of an epoch has, and how much of it is this process's: `EpochPlan`.

Small batches are planned together, as a `Block`, since each would cost more to hand over than to gather. What
is in a batch does not depend on the block that it comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.loader.feeds import Rows
from penstock.loader.lookahead import shards_ahead
from penstock.loader.staging import Sent
from penstock.order.order import Batches, share
from penstock.order.samplers import Drawn, Draws, is_in
from penstock.shards.shards import Shards

TOGETHER_ROWS, TOGETHER_BYTES = 4096, 4 * 2**20
"""Batches are gathered together up to so many rows or bytes."""
_PLANNED_ROWS = 65_536
"""Positions whose slots are computed at once: for a small batch, numpy's cost per call would outweigh the
numbers.
"""


@dataclass
class Block:
    """Consecutive batches that are read at once: their rows, and later their arrays."""

    positions: list[int]
    drawn: list[Drawn]
    arrays: list[dict[str, Any]] = field(default_factory=list)
    """Arrays of all batches together, or of each on its own: as `sizes` says."""
    sizes: list[list[int]] = field(default_factory=list)
    """For each of `arrays`, the rows of its batches."""
    sent: Sent | None = None
    """The arrays, if they are on their way to a device."""
    size_bytes: int = 0
    """Bytes of the arrays."""


@dataclass(frozen=True)
class Share:
    """This process's part of a batch: its `rank` of `world`, and the number of pieces of a batch."""

    rank: int
    world: int
    accumulate: int

    def bounds(self, start: int, stop: int, piece: int) -> tuple[int, int]:
        """The positions of this process in one piece of the positions [start, stop)."""
        # Pieces first, then processes: a piece has rows for every process.
        return share(*share(start, stop, piece, self.accumulate), self.rank, self.world)


class EpochPlan:
    """The batches of epochs: which rows each has, and which of them are this process's."""

    def __init__(self, parts: Sequence[Rows], draws: Draws, batches: Batches) -> None:
        self.parts, self.draws, self.batches = parts, draws, batches
        # Most feeds have none, and then no draw is owed to count rows.
        self._has_holes = any(len(part.holes) for part in parts)
        self._remote = [
            (number, part.shards)
            for number, part in enumerate(parts)
            if isinstance(part.shards, Shards) and part.shards.is_far
        ]
        self._empty: tuple[int, np.ndarray | None] = (-1, None)
        """An epoch, and the positions in it whose rows were taken out, if they can be told at once."""

    def rows(self, epoch: int, position: int) -> int:
        """Rows of a global batch over all processes, without those that were taken out."""
        start, stop = self.batches.bounds(position)
        if not self._has_holes:
            return stop - start
        # One epoch is remembered, since a training asks for all its batches one after
        # another.
        if self._empty[0] != epoch:
            self._empty = epoch, self.draws.empty(epoch)
        empty = self._empty[1]
        # An order that cannot tell holes without drawing: this batch is drawn for their
        # number.
        if empty is None:
            return int(self._live(self.draws.draw(epoch, np.arange(start, stop))).sum())
        # `wrap` lets a batch go beyond the epoch's end: whole epochs before it count with all that are empty
        before, after = (
            at // self.draws.rows * len(empty)
            + int(np.searchsorted(empty, at % self.draws.rows))
            for at in (start, stop)
        )
        return stop - start - (after - before)

    def _live(self, drawn: Drawn) -> np.ndarray:
        """Which of the rows drawn are still there: bool `[k]`."""
        if drawn.source is None:
            return ~is_in(drawn.slots, self.parts[0].holes)
        gone = np.zeros(len(drawn.slots), bool)
        for number, part in enumerate(self.parts):
            # Holes are slots of their own feed only.
            gone |= (drawn.source == number) & is_in(drawn.slots, part.holes)
        return ~gone

    def blocks(
        self,
        epoch: int,
        start: int,
        *,
        batch_size: int,
        share: Share,
        row_bytes: Callable[[], int],
    ) -> Iterator[Block]:
        """Runs of consecutive batches that are read at once, from the batch `start` to the epoch's end.

        The first is a single batch, so that it comes soon; from it the bytes of a row are known.

        Args:
            row_bytes: bytes of a row, as far as that is known yet; asked for at every batch.
        """
        # Many small batches in one call of the order; a large one by itself.
        per_chunk = max(_PLANNED_ROWS // batch_size, 1)
        # The share is about so large; the limits need no more.
        share_rows = max(batch_size // (share.world * share.accumulate), 1)
        block = Block([], [])
        # A chunk of one, so that the first batch waits for no other to be planned.
        first, chunk = start, 1
        while first < len(self.batches):
            last = min(first + chunk, len(self.batches))
            for position, drawn in self._drawn(epoch, first, last, share):
                block.positions.append(position)
                block.drawn.append(drawn)
                rows = len(block.positions) * share_rows
                # By bytes once a row is known, by rows at the latest.
                if rows * row_bytes() >= TOGETHER_BYTES or rows >= TOGETHER_ROWS:
                    yield block
                    block = Block([], [])
            # Growing chunks: the first batch soon, and later ones at little cost each.
            first, chunk = last, min(chunk * 8, per_chunk)
        if block.positions:
            yield block

    def _drawn(
        self, epoch: int, first: int, last: int, share: Share
    ) -> Iterator[tuple[int, Drawn]]:
        """(position, rows) of each piece of the batches from `first` to `last`; drawn at once."""
        # One span for each piece of each batch, all drawn in one call.
        spans = [
            (position, *share.bounds(*self.batches.bounds(position), piece))
            for position in range(first, last)
            for piece in range(share.accumulate)
        ]
        drawn = self.draws.draw(
            epoch, np.concatenate([np.arange(low, high) for _, low, high in spans])
        )
        # Before the rows are read, so that shards are on their way while they are
        # waited for.
        if self._remote:
            self._fetch_ahead(epoch, first, last, drawn)
        ends = np.cumsum([high - low for _, low, high in spans])
        if self._has_holes:
            live = self._live(drawn)
            # The ends move down by the holes before them; a batch may become empty.
            drawn, ends = drawn.take(live), np.concatenate([[0], np.cumsum(live)])[ends]
        begin = 0
        for (position, _, _), end in zip(spans, ends.tolist(), strict=True):
            yield position, drawn.take(slice(begin, end))
            begin = end

    def _fetch_ahead(self, epoch: int, first: int, last: int, drawn: Drawn) -> None:
        """Tell shards that lie in a bucket which of them are needed soon."""
        # The whole batches of this chunk, all processes' shares: any of their shards
        # may be this one's.
        start, stop = self.batches.bounds(first)[0], self.batches.bounds(last - 1)[1]
        for number, shards in self._remote:
            slots = (
                drawn.slots
                if drawn.source is None
                else drawn.slots[drawn.source == number]
            )
            shards.want(shards_ahead(self.draws, shards, epoch, start, stop, slots))
