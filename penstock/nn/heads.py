"""Heads: what is known of a row, `Encoded.pooled` `[B, W]` → one raw tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded


class LinearHead(nn.Module):
    """An affine map of `pooled`: raw `[B, outputs]`, or `[B]` where `outputs` is None.

    Args:
        width: of `pooled`.
        outputs: how many numbers; None: one, without an axis of its own.
        bias: where the head starts (the split's own shares or mean), so that the first steps are not spent on
            learning them.
    """

    def __init__(self, width: int, outputs: int | None, *, bias: Sequence[float]) -> None:
        super().__init__()
        self.alone = outputs is None
        self.linear = nn.Linear(width, outputs or 1)
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor(bias, dtype=torch.float32))

    def forward(
        self, encoded: Encoded, target: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        raw: Tensor = self.linear(encoded.pooled)
        return raw.squeeze(-1) if self.alone else raw


class StepHead(nn.Module):
    """An affine map of every token: raw `[B, T, K + 1]`, of which the last says whether the token is there
    (1) or not (-1).

    Args:
        width: of the tokens.
        bias: where each of the K classes starts.
    """

    def __init__(self, width: int, *, bias: Sequence[float]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(bias))
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor(bias, dtype=torch.float32))

    def forward(
        self, encoded: Encoded, target: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        # The mask rides along as numbers, since a raw tensor has no mask beside it.
        there = encoded.mask.unsqueeze(-1).to(encoded.tokens.dtype) * 2 - 1
        return torch.cat([self.linear(encoded.tokens), there], dim=-1)
