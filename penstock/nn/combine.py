"""What combiners share: several `Encoded` → one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded
from penstock.nn.attention import Block, with_class_token
from penstock.nn.modalities import ModalityDropout


def pooled_width(encoders: Sequence[Any]) -> int:
    """The width of all pooled vectors side by side."""
    return sum(int(encoder.pooled_width) for encoder in encoders)


class Pooled(nn.Module):
    """Pooled vectors side by side, through `layers` `[B, ΣW] → [B, W]`. What comes out is one token."""

    def __init__(
        self, layers: nn.Module, width: int, *, modality_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layers, self.width = layers, width
        self.drop = ModalityDropout(modality_dropout)

    def forward(self, parts: list[Encoded]) -> Encoded:
        parts = self.drop(parts)
        pooled: Tensor = self.layers(
            torch.cat([part.pooled for part in parts], dim=1)
            if len(parts) > 1
            else parts[0].pooled
        )
        return Encoded(
            # Later layers want tokens; there is one, `[B, 1, W]`, and it is always
            # there.
            pooled.unsqueeze(1),
            torch.ones((pooled.shape[0], 1), dtype=torch.bool, device=pooled.device),
            pooled,
        )


class Attended(nn.Module):
    """All tokens and one learnt class token attend to one another; `pooled` is what the class token
    became.
    """

    def __init__(
        self, blocks: Sequence[Block], width: int, *, modality_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.drop = ModalityDropout(modality_dropout)
        # As small as the tokens that encoders make, which start with deviation near
        # 1/√W.
        self.token = nn.Parameter(
            torch.empty(width).uniform_(-(width**-0.5), width**-0.5)
        )
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, parts: list[Encoded]) -> Encoded:
        parts = self.drop(parts)
        # `[B, ΣT, W]`; encoders give one width, which the combiner has asked them for.
        tokens = torch.cat([part.tokens for part in parts], dim=1)
        mask = torch.cat([part.mask for part in parts], dim=1)
        x, there = with_class_token(self.token, tokens, mask)
        for block in self.blocks:
            x = block(x, there)
        x = self.norm(x)
        # Without the class token, so that tokens and mask line up with what came in.
        return Encoded(x[:, 1:], mask, torch.relu(x[:, 0]))
