"""Chance that a positive row is ranked above a negative one, ties counting half."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.ranking import Ranking


class RocAuc(Metric):
    """Chance that a positive row is ranked above a negative one, ties counting half; for a category or set
    the mean over classes, each against the rest.
    """

    phrase: ClassVar[str] = (
        "the chance that a positive row is ranked above a negative one; 0.5 is guessing, 1 is perfect"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category", "set")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 10
    undefined: ClassVar[str] = (
        "only one class is there; classes without rows, or with all of them, are left out of the mean"
    )

    def sums(self, kind: Kind) -> Statistic | None:
        return Ranking(frozenset({"roc"}))

    def value(self, totals: Totals) -> np.ndarray:
        return totals["roc"]
