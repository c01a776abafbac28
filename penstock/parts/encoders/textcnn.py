"""A convolutional network over words (Kim 2014, "Convolutional Neural Networks for Sentence
Classification").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.parts.encoders._sequences import table, unreadable

if TYPE_CHECKING:
    from torch import nn


class TextCnnEncoder(Encoder):
    """Learnt vectors, convolutions of several widths, the maximum over time; a bag of hashed n-grams beside
    it where the feature has them. Reads `tokens [B, T]`, `mask [B, T]` and, if there, `grams [B, G]`.
    """

    width: int | None = Field(None, ge=1)
    """Of the tokens and of what is pooled; what the combiner asks for, or 128 where any will do."""
    embedding: int = Field(128, ge=1)
    """Of the words' vectors."""
    channels: int = Field(128, ge=1)
    """Of each convolution."""
    kernels: tuple[int, ...] = (1, 2, 3, 4)
    """Widths of the convolutions, in tokens."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Of the vectors' components and of what is pooled, in training."""
    forget: float = Field(0.01, ge=0, lt=1)
    """In training, the chance that a token is taken for unknown, so that the unknown vector is learnt."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return unreadable("textcnn", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.sequences import Grams, SequenceEncoder, TextCnn

        ((name, arrays),) = features.items()
        width = self.width or width or 128
        vectors = table(arrays, self.embedding, dropout=self.dropout, forget=self.forget)
        grams = (
            Grams(int(arrays["grams"].cardinality or 2), width, dropout=self.dropout)
            if "grams" in arrays
            else None
        )
        return SequenceEncoder(
            name,
            vectors,
            TextCnn(
                self.embedding, self.channels, self.kernels, width, dropout=self.dropout
            ),
            width,
            grams=grams,
        )
