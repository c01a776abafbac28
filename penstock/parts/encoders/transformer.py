"""A transformer over tokens (Vaswani et al. 2017; pre-norm, Xiong et al. 2020), with a class token that
gathers the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from penstock.contracts.learn import Encoder
from penstock.contracts.part import mistakes
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import Problem
from penstock.parts.encoders._sequences import table, unreadable

if TYPE_CHECKING:
    from torch import nn


class TransformerEncoder(Encoder):
    """Learnt vectors and places through attention blocks; a bag of hashed n-grams beside it where the feature
    has them. Reads `tokens [B, T]`, `mask [B, T]` and, if there, `grams [B, G]`.
    """

    width: int | None = Field(None, ge=1)
    """Of every token; what the combiner asks for, or 128 where any will do."""
    depth: int = Field(2, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """They divide the width."""
    hidden: float = Field(2.0, gt=0)
    """Width of a block's feed-forward part, as a multiple of the width."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of attention, of the feed-forward part and of what a block adds, in training."""
    forget: float = Field(0.01, ge=0, lt=1)
    """In training, the chance that a token is taken for unknown, so that the unknown vector is learnt."""

    @model_validator(mode="after")
    def _divides(self) -> TransformerEncoder:
        if self.width is not None and self.width % self.heads:
            raise mistakes(
                Problem(
                    ("heads",), f"must divide the width {self.width}; found {self.heads}"
                )
            )
        return self

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return unreadable("transformer", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.sequences import Grams, SequenceEncoder, Transformer

        ((name, arrays),) = features.items()
        width = self.width or width or 128
        # The next width that the heads divide; a linear map brings it to the asked one.
        inner = -(-width // self.heads) * self.heads
        vectors = table(arrays, inner, dropout=self.dropout, forget=self.forget)
        body = Transformer(
            inner,
            inner,
            self.depth,
            self.heads,
            max(1, round(inner * self.hidden)),
            dropout=self.dropout,
        )
        grams = (
            Grams(int(arrays["grams"].cardinality or 2), inner, dropout=self.dropout)
            if "grams" in arrays
            else None
        )
        return SequenceEncoder(name, vectors, body, width, grams=grams)
