"""Mean squared error over the squared deviation of the training split."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows, Statistic, Totals
from penstock.metrics.means import divide
from penstock.metrics.numbers import Errors
from penstock.metrics.series import Errors as SeriesErrors


class MseStandardised(Metric):
    """Mean squared error over the squared deviation of the training split (the truth's own where that is not
    known); of a series each variable by its own, as the literature reports it.
    """

    phrase: ClassVar[str] = (
        "the average of squared errors, in squared standard deviations of each variable"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("number", "series")
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    reported: ClassVar[tuple[Kind, ...] | None] = ("series",)
    place: ClassVar[int] = 220
    undefined: ClassVar[str] = "that deviation is 0"

    def sums(self, kind: Kind) -> Statistic | None:
        return Errors() if kind == "number" else None

    def statistic(self, rows: Rows) -> dict[str, np.ndarray]:
        errors = SeriesErrors.of(rows)
        return {"mse": errors.mean((errors.error / errors.std) ** 2)}

    def value(self, totals: Totals) -> np.ndarray:
        return (
            divide(totals["mse"], totals["unit"]) if "unit" in totals else totals["mse"]
        )
