"""Gradients as bfloat16 on the wire: half the bytes, eight bits of precision, the range of float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.contracts.learn import Exchanging, GradientCompressor, Wire

if TYPE_CHECKING:
    from torch import Tensor


class BFloat16(GradientCompressor):
    """Half the bytes: bfloat16, with the range of float32, so that nothing is too small or too large to
    send.
    """

    def open(self, tensors: Sequence[Tensor], wire: Wire) -> Exchanging:
        return _Exchanging(tensors, wire)


class _Exchanging:
    def __init__(self, tensors: Sequence[Tensor], wire: Wire) -> None:
        self._tensors, self._wire = tensors, wire
        self.errors: dict[str, Tensor] = {}
        self.shared: dict[str, Tensor] = {}

    def sum(self) -> None:
        import torch

        # One collective for all tensors; the sum itself is rounded to bfloat16, too.
        flat = torch.cat(
            [tensor.reshape(-1).to(torch.bfloat16) for tensor in self._tensors]
        )
        self._wire.add(flat)
        for tensor, part in zip(
            self._tensors,
            torch.split(flat, [t.numel() for t in self._tensors]),
            strict=True,
        ):
            tensor.copy_(part.view(tensor.shape))

    def let_go(self) -> None:
        """There is nothing: what is rounded away is not kept."""
