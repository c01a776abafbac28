"""Share of rows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows


class Accuracy(Metric):
    """Share of rows (of a sequence: steps) answered right."""

    phrase: ClassVar[str] = (
        "the share of rows that are answered right (of a sequence: of steps)"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category", "sequence")
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 50

    def statistic(self, rows: Rows) -> np.ndarray:
        return rows.correct()
