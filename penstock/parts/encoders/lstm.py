"""A long short-term memory (Hochreiter and Schmidhuber 1997) over each variable of a series, beside a linear
map of the window.

It reads a few steps at a time (`stride`): a window of 96 as 24 pieces of 4 is learnt faster and better than
as 96 steps (Lin et al. 2023, "SegRNN").
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


class LstmEncoder(Encoder):
    """A window read from its beginning to its end.

    One token a variable; its last two components are level and scale.
    """

    hidden: int = Field(64, ge=1)
    """Of the memory."""
    layers: int = Field(1, ge=1)
    stride: int = Field(4, ge=1)
    """Steps read at a time."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of what is remembered of the window, in training."""
    normalise: Literal["window", "last", "none"] = "window"
    """What is taken out of a window and put back into its forecast: its mean and deviation, its last value,
    or nothing.
    """
    width: int | None = Field(None, ge=3)
    """W of a token; what the combiner asks for, or 98 where any will do."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return unreadable("lstm", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from torch import nn

        from penstock.nn.series import (
            PerVariable,
            Recurrence,
            Straight,
            hidden_width,
            shape_of,
        )

        name, spec, steps = shape_of(features)
        hidden = hidden_width(self.width, width, 96)
        read = Recurrence(
            # A window shorter than the stride is read in one piece.
            min(self.stride, steps),
            self.hidden,
            self.layers,
            dropout=self.dropout,
        )
        core = Straight(
            nn.Sequential(read, nn.Dropout(self.dropout), nn.Linear(self.hidden, hidden)),
            steps,
            hidden,
        )
        return PerVariable(name, spec, core, hidden, normalise=self.normalise)
