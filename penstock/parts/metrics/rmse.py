"""Root of the mean squared error, in the target's units."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.numbers import Errors


class Rmse(Metric):
    """Root of the mean squared error, in the target's units."""

    phrase: ClassVar[str] = (
        "the root of the average squared error, in the target's units; large errors count more than in mae"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("number",)
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    place: ClassVar[int] = 180

    def sums(self, kind: Kind) -> Statistic | None:
        return Errors()

    def value(self, totals: Totals) -> np.ndarray:
        return np.asarray(np.sqrt(totals["mse"]))
