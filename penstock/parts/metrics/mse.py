"""Mean squared error, in the target's units squared."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows, Statistic, Totals
from penstock.metrics.numbers import Errors
from penstock.metrics.series import Errors as SeriesErrors


class Mse(Metric):
    """Mean squared error, in the target's units squared."""

    phrase: ClassVar[str] = (
        "the average of squared errors, which large errors rule, in the target's units squared"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("number", "series")
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    place: ClassVar[int] = 200

    def sums(self, kind: Kind) -> Statistic | None:
        return Errors() if kind == "number" else None

    def statistic(self, rows: Rows) -> dict[str, np.ndarray]:
        errors = SeriesErrors.of(rows)
        return {"mse": errors.mean(errors.error**2)}

    def value(self, totals: Totals) -> np.ndarray:
        return totals["mse"]
