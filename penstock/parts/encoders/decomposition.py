"""Moving average and remainder, linearly (Zeng, Chen, Zhang, Xu 2023, "Are Transformers Effective for Time
Series Forecasting?", DLinear and NLinear), each window's own level taken out first (Kim et al. 2022, RevIN).

The default for series: on few data little beats it, and it is quick. All variables share it; `gain` lets each
follow its window more or less closely. Where no width is asked for, the two parts go on as they are, and the
decoder's map from them to the horizon is the whole model.
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


class DecompositionEncoder(Encoder):
    """A window as its moving average and what is left of it.

    One token a variable; its last two components are level and scale.
    """

    kernel: int = Field(25, ge=1)
    """Steps of the moving average; the paper's, a day of hours and its ends."""
    normalise: Literal["window", "last", "none"] = "window"
    """What is taken out of a window and put back into its forecast: its mean and deviation, its last value,
    or nothing.
    """
    width: int | None = Field(None, ge=3)
    """W of a token, through a linear map; unless given what the combiner asks for, or the parts as they
    are.
    """

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return unreadable("decomposition", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.series import Decomposition, PerVariable, hidden_width, shape_of

        name, spec, steps = shape_of(features)
        # Without a width the two parts go on as they are.
        mapped = hidden_width(self.width, width, 0) or None
        return PerVariable(
            name,
            spec,
            Decomposition(steps, self.kernel, mapped),
            mapped or 2 * steps,
            normalise=self.normalise,
        )
