"""Piecewise-linear encoding of numbers at the training split's quantiles (Gorishniy, Rubachev, Babenko 2022,
"On Embeddings for Numerical Features in Tabular Deep Learning"): what brings an MLP near to gradient boosting
on tables.

Design: all features of a group at once; bins padded to the widest feature's. Given up: bins chosen by a tree
on the target (the paper's other kind), since a feature then could not be encoded without its target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec

if TYPE_CHECKING:
    from torch import nn


class Piecewise(Encoder):
    """Numbers as their places in quantile bins, then a linear map of each feature's own.

    Reads `value [B]` (fact `edges`: bin edges in the value's own units; without it the value is its own
    single piece, as for 0 and 1) and, if there, `missing [B]`.
    """

    together: ClassVar[bool] = True

    width: int | None = Field(None, ge=1)
    """W of a token; what the combiner asks for, or 24 where any will do (the paper's order of size)."""
    activation: Literal["none", "relu"] = "none"
    """After the linear map.

    With `relu` a feature's token is a small network of its own; a deep combiner seldom needs it.
    """

    straight: bool = False
    """Add a linear term of the value itself, and start the bins at zero: a straight line first, that bends
    where the data say so. Better on tables of a few hundred rows, where bins are rougher than the truth (R²
    0.57 → 0.60 on 442 rows of diabetes); worse on larger ones with heavy tails (ROC AUC 0.926 → 0.924 on
    Adult), hence not the default.
    """

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        value = spec.get("value")
        if (
            value is None
            or value.role != "values"
            or value.shape != ()
            or set(spec) - {"value", "missing"}
        ):
            return "piecewise encodes one number a row; this feature has " + ", ".join(
                f"{name} {list(s.shape)}" for name, s in spec.items()
            )
        return None

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from torch import nn

        from penstock.nn.tokens import (
            FeatureLinear,
            PiecewiseLinear,
            StraightAndBent,
            Tokens,
        )

        width = self.width or width or 24
        # Without edges a value is its own single piece from 0 to 1.
        bins = PiecewiseLinear(
            [
                arrays["value"].facts.get("edges", (0.0, 1.0))
                for arrays in features.values()
            ]
        )
        layers: list[nn.Module] = (
            [StraightAndBent(bins, width)]
            if self.straight
            else [bins, FeatureLinear(len(features), bins.bins, width)]
        )
        if self.activation == "relu":
            layers.append(nn.ReLU())
        # Features of one group have the same arrays.
        missing = all("missing" in arrays for arrays in features.values())
        return Tokens(
            list(features),
            ["value"],
            nn.Sequential(*layers),
            width,
            missing=missing,
            scalar=True,
        )
