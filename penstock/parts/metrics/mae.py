"""Mean absolute error, in the target's units."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows, Statistic, Totals
from penstock.metrics.numbers import Errors
from penstock.metrics.series import Errors as SeriesErrors


class Mae(Metric):
    """Mean absolute error, in the target's units."""

    phrase: ClassVar[str] = (
        "how far answers are from the truth on average, in the target's units"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("number", "series")
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    place: ClassVar[int] = 190

    def sums(self, kind: Kind) -> Statistic | None:
        return Errors() if kind == "number" else None

    def statistic(self, rows: Rows) -> dict[str, np.ndarray]:
        errors = SeriesErrors.of(rows)
        return {"mae": errors.mean(np.abs(errors.error))}

    def value(self, totals: Totals) -> np.ndarray:
        return totals["mae"]
