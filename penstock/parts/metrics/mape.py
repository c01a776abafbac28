"""Mean of |error| / |truth| over rows whose truth is not 0."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.numbers import Errors


class Mape(Metric):
    """Mean of |error| / |truth| over rows whose truth is not 0; 0.1 is ten per cent."""

    phrase: ClassVar[str] = (
        "how far answers are from the truth on average, as a share of the truth; 0.1 is ten per cent"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("number",)
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    place: ClassVar[int] = 210
    undefined: ClassVar[str] = "every truth is 0"

    def sums(self, kind: Kind) -> Statistic | None:
        return Errors()

    def value(self, totals: Totals) -> np.ndarray:
        return totals["mape"]
