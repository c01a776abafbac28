"""Share of the truth's variance that is explained."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.means import divide
from penstock.metrics.numbers import Errors


class R2(Metric):
    """Share of the truth's variance that is explained; 0 is what its mean reaches, and it may be negative."""

    phrase: ClassVar[str] = (
        "the share of the target's variation that is explained; 0 is what its mean reaches, 1 is perfect"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("number",)
    bounds: ClassVar[tuple[float, float]] = (-math.inf, 1.0)
    place: ClassVar[int] = 170
    undefined: ClassVar[str] = "the truth is constant"

    def sums(self, kind: Kind) -> Statistic | None:
        return Errors()

    def value(self, totals: Totals) -> np.ndarray:
        return 1 - divide(totals["mse"], totals["variance"])
