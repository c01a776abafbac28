"""Series apart: the tokens of the series that look back go on as they are, one a variable, for a forecast of
each.

What the other inputs say (numbers, categories, series known ahead) goes through a small network, and is laid
beside every token, each variable heeding each component of it more or less. Where no series is among the
inputs, this is `mlp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from penstock.contracts.learn import Combiner

if TYPE_CHECKING:
    from torch import nn


class VariablesCombiner(Combiner):
    """One token a variable.

    `width`, `depth` and `dropout` are of the network over the other inputs, if there are any.
    """

    width: int = Field(64, ge=1)
    """Of what is laid beside each token."""
    depth: int = Field(2, ge=1)
    """Layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """After each layer, in training."""

    def build(self, encoders: Sequence[nn.Module]) -> nn.Module:
        from penstock.nn.blocks import mlp
        from penstock.nn.combine import Pooled, pooled_width
        from penstock.nn.series import Apart, PerVariable

        series = [
            i
            for i, encoder in enumerate(encoders)
            # A series known ahead has no past to go on from, so it counts among the
            # others.
            if isinstance(encoder, PerVariable) and encoder.past
        ]
        others = [i for i in range(len(encoders)) if i not in series]
        layers = (
            mlp(
                pooled_width([encoders[i] for i in others]),
                self.width,
                self.depth,
                dropout=self.dropout,
                activate="relu",
                norm=False,
            )
            if others
            else None
        )
        if not series:
            # Without series every encoder is among the others, and there is at least
            # one.
            assert layers is not None
            return Pooled(layers, self.width)
        return Apart(encoders, series, others, layers, self.width)
