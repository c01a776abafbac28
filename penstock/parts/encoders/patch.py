"""A transformer over pieces of each variable's window (Nie, Nguyen, Sinthong, Kalagnanam 2023, "A Time Series
is Worth 64 Words: Long-term Forecasting with Transformers", PatchTST).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from penstock.contracts.learn import Encoder
from penstock.contracts.part import mistakes
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import Problem
from penstock.parts.encoders._series import unreadable

if TYPE_CHECKING:
    from torch import nn


class PatchEncoder(Encoder):
    """A window as overlapping pieces that attend to one another.

    One token a variable; its last two components are level and scale.
    """

    patch: int = Field(16, ge=1)
    """Steps of a piece."""
    stride: int = Field(8, ge=1)
    """Steps from one piece to the next."""
    inner: int = Field(32, ge=1)
    """Width of a piece's token."""
    depth: int = Field(2, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """They divide `inner`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """In the blocks, in training."""
    normalise: Literal["window", "last", "none"] = "window"
    """What is taken out of a window and put back into its forecast: its mean and deviation, its last value,
    or nothing.
    """
    width: int | None = Field(None, ge=3)
    """W of a token; what the combiner asks for, or 98 where any will do."""

    @model_validator(mode="after")
    def _divides(self) -> PatchEncoder:
        if self.inner % self.heads:
            raise mistakes(
                Problem(
                    ("heads",), f"must divide `inner`, {self.inner}; found {self.heads}"
                )
            )
        return self

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return unreadable("patch", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.series import Patches, PerVariable, hidden_width, shape_of

        name, spec, steps = shape_of(features)
        hidden = hidden_width(self.width, width, 96)
        core = Patches(
            steps,
            self.patch,
            self.stride,
            self.inner,
            hidden,
            self.depth,
            self.heads,
            dropout=self.dropout,
        )
        return PerVariable(name, spec, core, hidden, normalise=self.normalise)
