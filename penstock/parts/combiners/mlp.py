"""Concatenate, then a multilayer perceptron: the strong and quick default for tables (Gorishniy et al. 2021;
2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from penstock.contracts.learn import SharingCombiner

if TYPE_CHECKING:
    from torch import nn


class Mlp(SharingCombiner):
    """Every feature's pooled vector side by side, through `depth` dense layers."""

    width: int = Field(256, ge=1)
    """Of each layer, and of what decoders get."""
    depth: int = Field(2, ge=1)
    """Layers."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """After each layer, in training."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    norm: bool = False
    """LayerNorm before each activation: steadier with many layers or large learning rates."""
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    """In training, the chance that a row does not hear an encoder at all; it always hears one.

    Columns that are encoded together go together.
    """

    def build(self, encoders: Sequence[nn.Module]) -> nn.Module:
        from penstock.nn.combine import Pooled

        layers = self._layers(encoders)
        return Pooled(layers, self.width, modality_dropout=self.modality_dropout)

    def build_members(self, encoders: Sequence[nn.Module], members: int) -> nn.Module:
        from penstock.nn.members import MembersPooled, signs_of

        return MembersPooled(
            self._layers(encoders),
            self.width,
            members,
            signs_of(encoders),
            modality_dropout=self.modality_dropout,
        )

    def _layers(self, encoders: Sequence[nn.Module]) -> nn.Module:
        from penstock.nn.blocks import mlp
        from penstock.nn.combine import pooled_width

        return mlp(
            pooled_width(encoders),
            self.width,
            self.depth,
            dropout=self.dropout,
            activate=self.activation,
            norm=self.norm,
        )
