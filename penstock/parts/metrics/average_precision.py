"""Area under precision over recall, as steps."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.ranking import Ranking


class AveragePrecision(Metric):
    """Area under precision over recall, as steps; for a category or set the mean over classes."""

    phrase: ClassVar[str] = (
        "precision averaged over all thresholds; 1 is perfect, chance gives the share of positives"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category", "set")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 20
    undefined: ClassVar[str] = (
        "only one class is there; classes without rows, or with all of them, are left out of the mean"
    )

    def sums(self, kind: Kind) -> Statistic | None:
        return Ranking(frozenset({"precision"}))

    def value(self, totals: Totals) -> np.ndarray:
        return totals["precision"]
