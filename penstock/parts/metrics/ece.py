"""Expected calibration error: Σ over bins |Σ w (probability - came true)| / Σ w (Naeini 2015; Guo 2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from penstock.contracts.metric import Accumulator, Kind, Metric, Rows, Statistic, Totals
from penstock.metrics.exact import Cells
from penstock.metrics.means import divide, ratio


@dataclass(frozen=True)
class Calibration(Statistic):
    """`ece`, from the sums of gaps by bin of probability."""

    bins: int

    def gaps(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Each row's bin `[N]`, and its probability minus what came true `[N]`.

        Binary: of the positive class; category: of the class answered (top-label calibration).
        """
        if rows.kind == "binary":
            confidence, came_true = (
                rows.answer.astype(np.float64),
                rows.truth.astype(np.float64),
            )
        else:
            confidence = (
                rows.answer.max(axis=1).astype(np.float64) if len(rows) else np.empty(0)
            )
            came_true = rows.correct()
        # A probability of 1 belongs to the last bin.
        bins = np.clip((confidence * self.bins).astype(np.int64), 0, self.bins - 1)
        return bins, confidence - came_true

    def accumulator(self) -> Accumulator:
        return _Sums(self)

    def resampler(self, rows: Rows) -> Callable[[np.ndarray], Totals]:
        bins, gap = self.gaps(rows)
        # One entry a row, `[N, bins]`, so that a resampling is a matrix product.
        by_bin = np.zeros((len(bins), self.bins))
        by_bin[np.arange(len(bins)), bins] = gap

        def totals(weights: np.ndarray) -> Totals:
            return {
                "ece": divide(np.abs(weights @ by_bin).sum(axis=1), weights.sum(axis=1))
            }

        return totals


class _Sums(Accumulator):
    """Exact sums: bin i's gaps in cell i, all weight in the cell behind the last."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self.cells = Cells()

    def update(self, rows: Rows) -> None:
        bins, gap = self.calibration.gaps(rows)
        self.cells.add(bins, rows.weight * gap)
        self.cells.add(self.calibration.bins, rows.weight)

    def merge(self, other: Self) -> None:
        self.cells.merge(other.cells)

    def totals(self) -> Totals:
        bins = self.calibration.bins
        # Gaps within a bin may cancel, so the absolute value waits for all of its rows.
        gaps = sum((abs(self.cells.fraction(i)) for i in range(bins)), Fraction(0))
        return {"ece": np.array([ratio(gaps, self.cells.fraction(bins))])}


class Ece(Metric):
    """Expected calibration error over equal bins: how far probabilities are from shares; binary by the
    positive class's probability, category by the answered class's (Naeini 2015; Guo 2017).
    """

    phrase: ClassVar[str] = (
        "how far probabilities are from the shares that come true; 0 is perfect"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category")
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 70

    bins: int = Field(15, ge=1, le=1000)
    """How many bins there are from 0 to 1."""

    def sums(self, kind: Kind) -> Statistic | None:
        return Calibration(self.bins)

    def value(self, totals: Totals) -> np.ndarray:
        return totals["ece"]
