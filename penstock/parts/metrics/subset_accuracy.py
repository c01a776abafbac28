"""Share of rows whose labels are all answered, and no other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows


class SubsetAccuracy(Metric):
    """Share of rows whose labels are all answered, and no other."""

    phrase: ClassVar[str] = (
        "the share of rows whose labels are all right, with none too many"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("set",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 40

    def statistic(self, rows: Rows) -> np.ndarray:
        return rows.correct()
