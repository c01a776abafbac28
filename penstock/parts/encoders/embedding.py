"""Embeddings of categories: one vector a value, in one table for all features, so that one lookup serves them
all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec

if TYPE_CHECKING:
    from torch import nn

UNSEEN = 1
"""The index of values never seen in training, where a feature has one (contracts.tensors: 0 is missing, 1 is
unseen).
"""


class Embedding(Encoder):
    """Categories as learnt vectors.

    Reads `index [B]` (its spec's `cardinality` and, as a fact, `unseen`: the index that stands for unseen
    values, 1 unless the fact says otherwise, None where the feature has none).
    """

    together: ClassVar[bool] = True

    width: int | None = Field(None, ge=1)
    """W of a token; what the combiner asks for, or 24 where any will do."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the vectors' components, in training."""
    forget: float = Field(0.005, ge=0, lt=1)
    """In training, the chance that a value is taken for one never seen, so that the unseen vector is learnt
    as well: it then stands for an average value, instead of for chance.
    """

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        index = spec.get("index")
        if (
            index is None
            or index.role != "index"
            or index.shape != ()
            or not index.cardinality
            or len(spec) != 1
        ):
            return "embedding encodes one category a row; this feature has " + ", ".join(
                f"{name} {list(s.shape)}" for name, s in spec.items()
            )
        return None

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.tokens import Lookup

        indices = [arrays["index"] for arrays in features.values()]
        cardinalities = [int(spec.cardinality or 0) for spec in indices]
        unseen = [spec.facts.get("unseen", UNSEEN) for spec in indices]
        # A feature may have no index for unseen values, or a table too small for it.
        known = [
            u if u is not None and u < n else None
            for u, n in zip(unseen, cardinalities, strict=True)
        ]
        return Lookup(
            list(features),
            cardinalities,
            self.width or width or 24,
            unseen=known,
            forget=self.forget,
            dropout=self.dropout,
        )
