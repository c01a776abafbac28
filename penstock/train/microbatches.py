"""How a rank's rows go through the network: in pieces, and where passes are collectives, as often as every
other rank's.

With sharded weights or norms over all ranks a rank that went forward less often than another would leave it
waiting. So a rank with fewer pieces, or with an empty slice, sends a padding row: it sends a row through
whose loss counts nothing, its own first, or where it has none the last rank's, which always has one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from penstock.contracts.learn import World
from penstock.contracts.strategy import Layout
from penstock.train.blocks import SyncBatchNorm
from penstock.train.collectives import shared

Batch = dict[str, Tensor]


class Microbatches:
    """The pieces of a batch, in turn.

    Args:
        pieces: how many a batch is cut into, one after another.
        synced: norms that see the rows of all ranks.
        layout: of the network's tensors; where they are divided, passes are collectives.
    """

    def __init__(
        self,
        world: World,
        device: torch.device,
        *,
        pieces: int,
        synced: list[SyncBatchNorm],
        layout: Layout,
    ) -> None:
        self._world, self._device, self._most = world, device, pieces
        self._synced, self._layout = synced, layout
        self.are_collective = layout.is_divided or bool(synced)

    def of(self, batch: Batch, padding: Batch | None, rows: int) -> Iterator[Batch]:
        """The pieces of this rank's `batch` of `rows` in all; `padding` itself where it has none left."""
        if padding is None:
            yield from self._pieces(batch)
            return
        # As many pieces as the largest slice has, ceil(rows / ranks) rows, at every
        # rank.
        passes = min(self._most, -(-rows // self._world.size))
        pieces = self._pieces(batch)
        for i in range(passes):
            # A slice that is smaller runs out of pieces first.
            piece = next(pieces, None)
            self.counts(piece is not None)
            # Before the pass: FSDP decides by it whether the backward sums gradients
            # over ranks.
            self._layout.before_pass(is_last=i == passes - 1)
            yield padding if piece is None else piece

    def counts(self, are_there: bool) -> None:
        """Tell norms over all ranks whether the rows to come count, or only pad."""
        for norm in self._synced:
            norm.counts = are_there

    def _pieces(self, batch: Batch) -> Iterator[Batch]:
        """The rank's rows in near-equal pieces, without empty ones."""
        rows = len(batch["row_id"])
        if self._most == 1:
            if rows:
                yield batch
            return
        for i in range(self._most):
            # Sizes differ by one row at most.
            start, end = i * rows // self._most, (i + 1) * rows // self._most
            if end > start:
                yield {name: array[start:end] for name, array in batch.items()}

    def padding(self, batch: Batch, rows: int) -> Batch | None:
        """A row to send through; None where nobody waits.

        Every rank calls, with its slice of a batch of `rows`.
        """
        if not self.are_collective:
            return None
        # Empty where the slice is: it is then not given back below.
        own = {name: array[:1] for name, array in batch.items()}
        # No slice is empty: every rank pads with a row of its own, and nothing is sent.
        if rows >= self._world.size:
            return own
        last = self._world.size - 1
        # `rows` is the global batch's, so that either all ranks are here or none.
        lent: Batch = shared(own, self._world, source=last)
        if len(batch["row_id"]):
            return own
        return {name: array.to(self._device) for name, array in lent.items()}
