"""Mean of the classes' f1, weighted by how many rows each has."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.classes import ClassCounts, f1


class F1Weighted(Metric):
    """Mean of the classes' f1, weighted by how many rows each has."""

    phrase: ClassVar[str] = "the mean of the f1 of each class, weighted by its rows"
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category", "set", "sequence")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 130
    undefined: ClassVar[str] = "no rows; of a set, no label is true in any row"

    def sums(self, kind: Kind) -> Statistic | None:
        return ClassCounts()

    def value(self, totals: Totals) -> np.ndarray:
        true = totals["true"]
        rows = true.sum(axis=1)
        return np.where(
            rows > 0, (np.nan_to_num(f1(totals)) * true).sum(axis=1) / rows, np.nan
        )
