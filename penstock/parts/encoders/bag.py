"""A bag of words: the mean of the tokens' vectors (Joulin et al. 2017, "Bag of Tricks for Efficient Text
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


class BagEncoder(Encoder):
    """The mean of learnt vectors of the tokens, and of hashed n-grams where the feature has them: quick, and
    hard to beat on short texts. Reads `tokens [B, T]` (or a set's `members [B, T]`, or numbers `values [B, T,
    V]`), `mask [B, T]` and, if there, `grams [B, G]`.
    """

    width: int | None = Field(None, ge=1)
    """Of the vectors; what the combiner asks for, or 64 where any will do."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Of the vectors' components, in training."""
    forget: float = Field(0.01, ge=0, lt=1)
    """In training, the chance that a token is taken for unknown, so that the unknown vector is learnt."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        members = spec.get("members")
        # A set's members have no order, which a bag does not need.
        if (
            members is not None
            and members.role == "index"
            and members.cardinality
            and set(spec) == {"members", "mask"}
        ):
            return None
        return unreadable("bag", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.sequences import Bag, Grams, SequenceEncoder

        ((name, arrays),) = features.items()
        width = self.width or width or 64
        vectors = table(arrays, width, dropout=self.dropout, forget=self.forget)
        grams = (
            Grams(int(arrays["grams"].cardinality or 2), width, dropout=self.dropout)
            if "grams" in arrays
            else None
        )
        return SequenceEncoder(name, vectors, Bag(width), width, grams=grams)
