"""Share of the rows answered positive that are."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Statistic, Totals
from penstock.metrics.classes import ClassCounts


class Precision(Metric):
    """Share of the rows answered positive that are; 0 where there are positives and none is answered."""

    phrase: ClassVar[str] = "of the rows that are answered positive, the share that is"
    kinds: ClassVar[tuple[Kind, ...]] = ("binary",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 80
    undefined: ClassVar[str] = "nothing is positive, neither in truth nor in answers"

    def sums(self, kind: Kind) -> Statistic | None:
        return ClassCounts()

    def value(self, totals: Totals) -> np.ndarray:
        true, answered, both = (
            totals[name][:, 1] for name in ("true", "answered", "both")
        )
        return np.where(answered > 0, both / answered, np.where(true > 0, 0.0, np.nan))
