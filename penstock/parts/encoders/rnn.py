"""A recurrent network over tokens, both ways: LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al.
2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.parts.encoders._sequences import table, unreadable

if TYPE_CHECKING:
    from torch import nn


class RnnEncoder(Encoder):
    """Learnt vectors through a bidirectional recurrent network, pooled by the maximum over time; a bag of
    hashed n-grams beside it where the feature has them. Reads `tokens [B, T]`, `mask [B, T]` and, if there,
    `grams [B, G]`.
    """

    cell: Literal["lstm", "gru"] = "lstm"
    width: int | None = Field(None, ge=1)
    """Of the tokens; what the combiner asks for, or twice `hidden`."""
    embedding: int = Field(128, ge=1)
    """Of the tokens' vectors."""
    hidden: int = Field(96, ge=1)
    """Of each direction."""
    depth: int = Field(1, ge=1)
    """Layers."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Of the vectors' components and of each layer's output, in training."""
    forget: float = Field(0.01, ge=0, lt=1)
    """In training, the chance that a token is taken for unknown, so that the unknown vector is learnt."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return unreadable("rnn", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.recurrent import Recurrent
        from penstock.nn.sequences import Grams, SequenceEncoder

        ((name, arrays),) = features.items()
        vectors = table(arrays, self.embedding, dropout=self.dropout, forget=self.forget)
        body = Recurrent(
            self.embedding, self.hidden, self.depth, cell=self.cell, dropout=self.dropout
        )
        grams = (
            Grams(
                int(arrays["grams"].cardinality or 2),
                body.pooled_width,
                dropout=self.dropout,
            )
            if "grams" in arrays
            else None
        )
        return SequenceEncoder(
            name, vectors, body, self.width or width or body.width, grams=grams
        )
