"""The residual network for tables (Gorishniy, Rubachev, Khrulkov, Babenko 2021, "Revisiting Deep Learning
Models for Tabular Data", section 3.2), with LayerNorm in place of BatchNorm so that rows do not depend on
their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from penstock.contracts.learn import SharingCombiner

if TYPE_CHECKING:
    from torch import nn


class ResidualNetwork(SharingCombiner):
    """Every feature's pooled vector side by side, a linear map, then blocks that each add to it."""

    width: int = Field(192, ge=1)
    """Of the stream that blocks add to, and of what decoders get."""
    depth: int = Field(2, ge=1)
    """Blocks."""
    hidden: float = Field(2.0, gt=0)
    """Width inside a block, as a multiple of `width`."""
    dropout: float = Field(0.25, ge=0, lt=1)
    """Inside a block, in training."""
    residual_dropout: float = Field(0.0, ge=0, lt=1)
    """Of what a block adds, in training."""
    activation: Literal["relu", "gelu", "silu"] = "relu"

    def build(self, encoders: Sequence[nn.Module]) -> nn.Module:
        from penstock.nn.combine import Pooled

        return Pooled(self._layers(encoders), self.width)

    def build_members(self, encoders: Sequence[nn.Module], members: int) -> nn.Module:
        from penstock.nn.members import MembersPooled, signs_of

        return MembersPooled(
            self._layers(encoders), self.width, members, signs_of(encoders)
        )

    def _layers(self, encoders: Sequence[nn.Module]) -> nn.Module:
        from torch import nn

        from penstock.nn.blocks import Residual, activation
        from penstock.nn.combine import pooled_width

        hidden = max(1, round(self.width * self.hidden))
        blocks = [
            Residual(
                self.width,
                hidden,
                dropout=self.dropout,
                residual_dropout=self.residual_dropout,
                activate=self.activation,
            )
            for _ in range(self.depth)
        ]
        return nn.Sequential(
            nn.Linear(pooled_width(encoders), self.width),
            *blocks,
            nn.LayerNorm(self.width),
            activation(self.activation),
        )
