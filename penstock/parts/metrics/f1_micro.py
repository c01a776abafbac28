"""F1 of all classes' counts together."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.classes import ClassCounts


class F1Micro(Metric):
    """F1 of all classes' counts together; with one class a row this is accuracy."""

    phrase: ClassVar[str] = (
        "the f1 of all classes counted together, common ones counting most"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category", "set", "sequence")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 120
    undefined: ClassVar[str] = "no rows; of a set, no label is true in any row"

    def sums(self, kind: Kind) -> Statistic | None:
        return ClassCounts()

    def value(self, totals: Totals) -> np.ndarray:
        rows, both = totals["true"].sum(axis=1), totals["both"].sum(axis=1)
        return np.where(
            rows > 0, 2 * both / (rows + totals["answered"].sum(axis=1)), np.nan
        )
