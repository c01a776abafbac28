"""Causal convolutions with growing gaps (Bai, Kolter, Koltun 2018, "An Empirical Evaluation of Generic
Convolutional and Recurrent Networks for Sequence Modeling") over each variable of a series, beside a linear
map of the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.parts.encoders._series import unreadable

if TYPE_CHECKING:
    from torch import nn


class TcnEncoder(Encoder):
    """A window through convolutions that see ever further back.

    One token a variable; its last two components are level and scale.
    """

    channels: int = Field(32, ge=1)
    """Of each layer."""
    kernel: int = Field(3, ge=2)
    """Steps that one layer looks at, 1, 2, 4, … apart."""
    levels: int | None = Field(None, ge=1, le=16)
    """Layers; unless given, as many as see the whole window."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """After each layer, in training."""
    normalise: Literal["window", "last", "none"] = "window"
    """What is taken out of a window and put back into its forecast: its mean and deviation, its last value,
    or nothing.
    """
    width: int | None = Field(None, ge=3)
    """W of a token; what the combiner asks for, or 98 where any will do."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return unreadable("tcn", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from torch import nn

        from penstock.nn.series import (
            Convolutions,
            PerVariable,
            Straight,
            hidden_width,
            levels_for,
            shape_of,
        )

        name, spec, steps = shape_of(features)
        hidden = hidden_width(self.width, width, 96)
        convolutions = Convolutions(
            self.channels,
            self.kernel,
            self.levels or levels_for(steps, self.kernel),
            dropout=self.dropout,
        )
        core = Straight(
            nn.Sequential(convolutions, nn.Linear(self.channels, hidden)), steps, hidden
        )
        return PerVariable(name, spec, core, hidden, normalise=self.normalise)
