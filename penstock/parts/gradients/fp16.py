"""Gradients as float16 on the wire: half the bytes, eleven bits of precision.

float16 ends at 65,504 and loses what is below 6e-8, and gradients may be either; so they are multiplied,
before they are sent, by a power of two that brings the largest of any rank near the top, and their sum below
it. Finding that takes a collective of one number; a power of two costs no digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.contracts.learn import Exchanging, GradientCompressor, Wire

if TYPE_CHECKING:
    from torch import Tensor

_TOP = 32_768.0
"""Half of float16's largest: sums are rounded on their way, and may end a little higher."""


class Float16(GradientCompressor):
    """Half the bytes: float16, scaled so that the largest gradient fits and small ones live."""

    def open(self, tensors: Sequence[Tensor], wire: Wire) -> Exchanging:
        return _Exchanging(tensors, wire)


class _Exchanging:
    def __init__(self, tensors: Sequence[Tensor], wire: Wire) -> None:
        self._tensors, self._wire = tensors, wire
        self.errors: dict[str, Tensor] = {}
        self.shared: dict[str, Tensor] = {}

    def sum(self) -> None:
        import torch

        # `[n]`, all tensors in one collective.
        flat = torch.cat([tensor.reshape(-1) for tensor in self._tensors])
        largest = flat.abs().max()
        # Every rank must scale by the same power, or the sum would mean nothing.
        self._wire.most(largest)
        # A gradient that is not finite stays so, for the trainer to see. 2^100 is as far as float32 can be
        # scaled up and back.
        power = torch.log2(_TOP / (largest * self._wire.size)).floor().clamp(-100, 100)
        scale = torch.where(
            torch.isfinite(power), torch.exp2(power), torch.ones_like(power)
        )
        # Summed in float16: the largest sum stays below the top by the choice of the
        # power.
        halved = (flat * scale).half()
        self._wire.add(halved)
        flat = halved.float() / scale
        for tensor, part in zip(
            self._tensors,
            torch.split(flat, [t.numel() for t in self._tensors]),
            strict=True,
        ):
            tensor.copy_(part.view(tensor.shape))

    def let_go(self) -> None:
        """There is nothing: what is rounded away is not kept."""
