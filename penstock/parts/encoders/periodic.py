"""Periodic embeddings of numbers, "PLR" (Gorishniy, Rubachev, Babenko 2022, "On Embeddings for Numerical
Features in Tabular Deep Learning", section 3.2): sines and cosines of learnt frequencies, then linear and
ReLU.

They suit smooth targets and many distinct values; `scale` is the option that matters, so tune it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec

if TYPE_CHECKING:
    from torch import nn


class PeriodicNumbers(Encoder):
    """Numbers as waves of learnt frequency. Reads `value [B]` (standardised) and, if there, `missing [B]`."""

    together: ClassVar[bool] = True

    width: int | None = Field(None, ge=1)
    """W of a token; what the combiner asks for, or 24 where any will do."""
    frequencies: int = Field(48, ge=1)
    """Waves a feature."""
    scale: float = Field(0.05, gt=0)
    """Deviation of the initial frequencies, in waves per standard deviation of the feature: greater is less
    smooth.
    """
    lite: bool = False
    """One linear map for all features (they are then told apart by their frequencies alone): fewer
    weights.
    """

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        value = spec.get("value")
        if (
            value is None
            or value.role != "values"
            or value.shape != ()
            or set(spec) - {"value", "missing"}
        ):
            return "periodic encodes one number a row; this feature has " + ", ".join(
                f"{name} {list(s.shape)}" for name, s in spec.items()
            )
        return None

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from torch import nn

        from penstock.nn.tokens import FeatureLinear, Periodic, Tokens

        width = self.width or width or 24
        waves = 2 * self.frequencies
        linear = (
            nn.Linear(waves, width)
            if self.lite
            else FeatureLinear(len(features), waves, width)
        )
        layers = nn.Sequential(
            Periodic(len(features), self.frequencies, scale=self.scale), linear, nn.ReLU()
        )
        missing = all("missing" in arrays for arrays in features.values())
        return Tokens(
            list(features), ["value"], layers, width, missing=missing, scalar=True
        )
