"""Share of the positive rows that are answered so."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.classes import ClassCounts


class Recall(Metric):
    """Share of the positive rows that are answered so."""

    phrase: ClassVar[str] = "of the rows that are positive, the share that is found"
    kinds: ClassVar[tuple[Kind, ...]] = ("binary",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 90
    undefined: ClassVar[str] = "there is no positive row"

    def sums(self, kind: Kind) -> Statistic | None:
        return ClassCounts()

    def value(self, totals: Totals) -> np.ndarray:
        true, both = totals["true"][:, 1], totals["both"][:, 1]
        return np.where(true > 0, both / true, np.nan)
