"""The largest gradients only; the rest waits (Stich, Cordonnier and Jaggi 2018, "Sparsified SGD with Memory";
the ramp of the share from Lin et al. 2018, "Deep Gradient Compression").

Each rank adds its gradients to what it has not sent yet, sends the entries of largest magnitude, of all
tensors together, as places and values, and keeps the others. Every rank adds up what all have sent, in order
of rank.

What was given up: DGC's momentum correction (the optimiser hears of gradients late and does not know), and
choosing by sampling (`topk` over a few million numbers is fast enough).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from penstock.contracts.learn import Exchanging, GradientCompressor, Wire

if TYPE_CHECKING:
    from torch import Tensor

_BYTES = 8
"""Of a place (int32) and a value (float32)."""


class TopK(GradientCompressor):
    """Only the largest entries are sent, with their places; the others are kept and added to the next
    gradients.
    """

    depends: ClassVar[str | None] = (
        "each process chooses which of its own gradients to send now, so another number of processes sends"
        " others"
    )

    share: float = Field(0.01, gt=0, le=1)
    """Of all entries, how many a step sends.

    Each process gathers what every other sends, so bytes grow with their number.
    """
    warm_up: int = Field(0, ge=0)
    """Over so many first steps the share falls from 1 to `share`, by an equal factor each."""

    def share_at(self, step: int) -> float:
        """The share of step `step` (from 0)."""
        return self.share if step >= self.warm_up else self.share ** (step / self.warm_up)

    def open(self, tensors: Sequence[Tensor], wire: Wire) -> Exchanging:
        return _Exchanging(self, tensors, wire)


class _Exchanging:
    def __init__(self, declared: TopK, tensors: Sequence[Tensor], wire: Wire) -> None:
        import torch

        self._declared, self._tensors, self._wire = declared, tensors, wire
        self._sizes = [tensor.numel() for tensor in tensors]
        self.errors: dict[str, Tensor] = {
            # `[n]` for the n entries of all tensors, in float32.
            "unsent": torch.zeros(sum(self._sizes), device=tensors[0].device)
        }
        self.shared: dict[str, Tensor] = {"steps": torch.zeros((), dtype=torch.int64)}

    def sum(self) -> None:
        import torch

        unsent, steps = self.errors["unsent"], self.shared["steps"]
        share = self._declared.share_at(int(steps))
        steps += 1
        unsent += torch.cat([tensor.reshape(-1) for tensor in self._tensors])
        count = max(1, math.ceil(share * len(unsent)))
        # a sum of all is no longer then: 2 · 4 bytes an entry
        if count * _BYTES * self._wire.size >= 8 * len(unsent) or count == len(unsent):
            sent = unsent.clone()
            self._wire.add(sent)
            unsent.zero_()
        else:
            places = unsent.abs().topk(count, sorted=False).indices
            values = unsent[places]
            unsent[places] = 0.0
            # `[2 kept]` int32: places, then values by their bits, so that one message
            # holds both.
            message = torch.cat([places.to(torch.int32), values.view(torch.int32)])
            sent = torch.zeros_like(unsent)
            # In order of rank everywhere: float sums in another order would drift
            # apart.
            for theirs in self._wire.all(message):
                sent.index_add_(
                    0,
                    theirs[:count].long(),
                    # Another type is viewed over memory in one piece only.
                    theirs[count:].contiguous().view(torch.float32),
                )
        for tensor, part in zip(
            self._tensors, torch.split(sent, self._sizes), strict=True
        ):
            tensor.copy_(part.view(tensor.shape))

    def let_go(self) -> None:
        import torch

        for tensor, part in zip(
            self._tensors, torch.split(self.errors["unsent"], self._sizes), strict=True
        ):
            tensor += part.view(tensor.shape)
        self.errors["unsent"].zero_()
