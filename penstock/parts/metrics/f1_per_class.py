"""Each class's f1, a list."""

from __future__ import annotations

from typing import Any, ClassVar

from penstock.contracts.metric import Kind, Metric, Statistic, Totals, number
from penstock.metrics.classes import ClassCounts, f1


class F1PerClass(Metric):
    """Each class's f1, a list; null for a class that is neither true nor answered anywhere."""

    phrase: ClassVar[str] = "the f1 of each class by itself"
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category", "sequence")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    scalar: ClassVar[bool] = False
    place: ClassVar[int] = 140

    def sums(self, kind: Kind) -> Statistic | None:
        return ClassCounts()

    def result(self, totals: Totals) -> Any:
        return [number(value) for value in f1(totals)[0]]
