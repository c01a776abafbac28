"""A linear map of each feature's own: the plainest encoder of numbers, vectors, timestamps and yes-or-no."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec

if TYPE_CHECKING:
    from torch import nn


class Linear(Encoder):
    """All arrays of values of a feature, side by side, through one linear map.

    Reads any float arrays `[B]` or `[B, …]` of fixed shape and, if there, `missing [B]`.
    """

    together: ClassVar[bool] = True

    width: int | None = Field(None, ge=1)
    """W of a token; what the combiner asks for, or 24 where any will do."""
    activation: Literal["none", "relu"] = "none"
    """After the linear map."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        for name, array in spec.items():
            if name == "missing" and array.shape == ():
                continue
            if array.role != "values" or not array.dtype.startswith("float"):
                return (
                    f"linear encodes standardised numbers; the array {name!r} of this feature holds"
                    f" {array.role} ({array.dtype})"
                )
            if None in array.shape:
                return (
                    f"linear needs arrays of fixed length; the array {name!r} varies in length. Use an"
                    " encoder of sequences"
                )
        return None if set(spec) - {"missing"} else "linear found no array of values"

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from torch import nn

        from penstock.nn.tokens import FeatureLinear, Tokens

        width = self.width or width or 24
        # Features that are encoded together have the same arrays.
        spec = next(iter(features.values()))
        arrays = [name for name in spec if name != "missing"]
        inputs = sum(math.prod(int(n or 0) for n in spec[name].shape) for name in arrays)
        layers: list[nn.Module] = [FeatureLinear(len(features), inputs, width)]
        if self.activation == "relu":
            layers.append(nn.ReLU())
        return Tokens(
            list(features),
            arrays,
            nn.Sequential(*layers),
            width,
            missing="missing" in spec,
            scalar=False,
        )
