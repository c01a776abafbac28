"""Gated fusion (Arevalo, Solorio, Montes-y-Gómez, González 2017, "Gated Multimodal Units for Information
Fusion"): each row decides by itself how much to hear of its picture, its text, its facts.

It suits a few rich modalities; for a table of many columns, where encoding them together makes one part of
all, take `mlp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from penstock.contracts.learn import Combiner

if TYPE_CHECKING:
    from torch import nn


class GatedFusion(Combiner):
    """Every encoder's pooled vector projected and gated by what all of them say, then summed.

    The tokens that a decoder may attend to are the gated vectors, one an encoder.
    """

    width: int = Field(256, ge=1)
    """Of the projected vectors, and of what decoders get."""
    depth: int = Field(1, ge=1)
    """Dense layers after the sum."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """After the sum's layers, in training."""
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    """In training, the chance that a row does not hear an encoder at all; it always hears one."""

    def build(self, encoders: Sequence[nn.Module]) -> nn.Module:
        from penstock.nn.blocks import mlp
        from penstock.nn.modalities import Gated

        layers = mlp(
            self.width,
            self.width,
            self.depth,
            dropout=self.dropout,
            activate="relu",
            norm=False,
        )
        # Encoders' vectors differ in width; each is projected.
        widths = [int(encoder.pooled_width) for encoder in encoders]  # type: ignore[arg-type]
        return Gated(widths, self.width, layers, modality_dropout=self.modality_dropout)
