"""Harmonic mean of precision and recall."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.classes import ClassCounts, f1


class F1(Metric):
    """Harmonic mean of precision and recall."""

    phrase: ClassVar[str] = (
        "the balance of recall and precision for the positive value; 1 is perfect"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("binary",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 100
    undefined: ClassVar[str] = "nothing is positive, neither in truth nor in answers"

    def sums(self, kind: Kind) -> Statistic | None:
        return ClassCounts()

    def value(self, totals: Totals) -> np.ndarray:
        return f1(totals)[:, 1]
