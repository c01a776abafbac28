"""FT-transformer (Gorishniy, Rubachev, Khrulkov, Babenko 2021, "Revisiting Deep Learning Models for Tabular
Data", section 3.3): every token of every feature attends to every other, and a class token gathers what
decoders get.

Slower than `mlp` by an order, and the one combiner that reads sequences (texts, series) token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from penstock.contracts.learn import Combiner
from penstock.contracts.part import mistakes
from penstock.core.errors import Problem

if TYPE_CHECKING:
    from torch import nn


class AttentionCombiner(Combiner):
    """A transformer over the features' tokens.

    Encoders must give tokens of this `width`; those of the shelf do.
    """

    width: int = Field(64, ge=1)
    """Of every token, and of what decoders get."""
    depth: int = Field(3, ge=1)
    """Blocks."""
    heads: int = Field(8, ge=1)
    """They divide `width`."""
    hidden: float = Field(4 / 3, gt=0)
    """Width of a block's feed-forward part, as a multiple of `width`; it is gated, so 4/3 weighs as much as
    2.
    """
    dropout: float = Field(0.1, ge=0, lt=1)
    """Inside the feed-forward part, in training."""
    attention_dropout: float = Field(0.2, ge=0, lt=1)
    """Of what is attended to, in training."""
    residual_dropout: float = Field(0.0, ge=0, lt=1)
    """Of what a block adds, in training."""
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    """In training, the chance that a row does not hear an encoder at all; it always hears one.

    Columns that are encoded together go together.
    """

    @model_validator(mode="after")
    def _divides(self) -> AttentionCombiner:
        if self.width % self.heads:
            raise mistakes(
                Problem(
                    ("heads",), f"must divide the width {self.width}; found {self.heads}"
                )
            )
        return self

    def token_width(self) -> int | None:
        return self.width

    def build(self, encoders: Sequence[nn.Module]) -> nn.Module:
        from penstock.nn.attention import Block
        from penstock.nn.combine import Attended

        # Rounded, since 4/3 of a width need not be whole.
        hidden = max(1, round(self.width * self.hidden))
        drops = {
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "residual_dropout": self.residual_dropout,
        }
        return Attended(
            [Block(self.width, self.heads, hidden, **drops) for _ in range(self.depth)],
            self.width,
            modality_dropout=self.modality_dropout,
        )
