"""Mean of the classes' f1, every class alike."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.classes import ClassCounts, f1


class F1Macro(Metric):
    """Mean of the classes' f1, every class alike; a class (of a set: label) that is neither true nor answered
    anywhere is left out.
    """

    phrase: ClassVar[str] = (
        "the mean of the f1 of each class, rare classes counting as much as common ones"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category", "set", "sequence")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 110
    undefined: ClassVar[str] = (
        "no rows; of a set, no label is true or answered in any row"
    )

    def sums(self, kind: Kind) -> Statistic | None:
        return ClassCounts()

    def value(self, totals: Totals) -> np.ndarray:
        by_class = f1(totals)
        there = ~np.isnan(by_class)
        return np.where(
            there.any(axis=1),
            np.nan_to_num(by_class).sum(axis=1) / there.sum(axis=1),
            np.nan,
        )
