"""The confusion matrix: rows by true class and answered class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from penstock.contracts.metric import Accumulator, Kind, Metric, Rows, Statistic, Totals
from penstock.metrics.exact import Cells

MATRIX_CLASSES = 1_000
"""Beyond so many classes the matrix is null: nobody reads it, and it would not fit."""


@dataclass(frozen=True)
class Pairs(Statistic):
    """`matrix`, the weight of rows by true and answered class, `[R, K, K]`; no entry beyond
    `MATRIX_CLASSES`.
    """

    def accumulator(self) -> Accumulator:
        return _Sums()

    def resampler(self, rows: Rows) -> Callable[[np.ndarray], Totals]:
        # One code for each pair of true and answered class.
        pair, classes = rows.truth * rows.classes + rows.predicted, rows.classes
        if classes > MATRIX_CLASSES:
            return lambda weights: {}

        def totals(weights: np.ndarray) -> Totals:
            counts = [
                np.bincount(pair, weights=one, minlength=classes**2) for one in weights
            ]
            return {"matrix": np.stack(counts).reshape(-1, classes, classes)}

        return totals


class _Sums(Accumulator):
    """Exact counts, a cell a pair."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.classes = 0

    def update(self, rows: Rows) -> None:
        self.classes = rows.classes
        if self.classes <= MATRIX_CLASSES:
            self.cells.add(rows.truth * rows.classes + rows.predicted, rows.weight)

    def merge(self, other: Self) -> None:
        self.cells.merge(other.cells)
        self.classes = max(self.classes, other.classes)

    def totals(self) -> Totals:
        if not 0 < self.classes <= MATRIX_CLASSES:
            return {}
        counts = self.cells.floats(self.classes**2)
        return {"matrix": counts.reshape(1, self.classes, self.classes)}


class ConfusionMatrix(Metric):
    """Rows by true class (down) and answered class (across)."""

    phrase: ClassVar[str] = "how many rows of each true class were given each answer"
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category")
    scalar: ClassVar[bool] = False
    place: ClassVar[int] = 160
    undefined: ClassVar[str] = "more than 1,000 classes"

    def sums(self, kind: Kind) -> Statistic | None:
        return Pairs()

    def result(self, totals: Totals) -> Any:
        matrix = totals["matrix"][0]
        # Without fractional weights the matrix is of whole numbers.
        whole = bool(np.all(matrix == np.floor(matrix)))
        return [
            [int(count) if whole else float(count) for count in row] for row in matrix
        ]
