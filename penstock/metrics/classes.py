"""How often each class is true, is answered, and both: precision, recall and the f1 family follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from penstock.contracts.metric import Accumulator, Rows, Statistic, Totals
from penstock.metrics.exact import Cells


@dataclass(frozen=True)
class ClassCounts(Statistic):
    """`true`, `answered` and `both`, the weights of rows by class, `[R, K]`."""

    def accumulator(self) -> Accumulator:
        return _Sums()

    def resampler(self, rows: Rows) -> Callable[[np.ndarray], Totals]:
        # Found once: a resampling changes weights only.
        pairs, classes = hits(rows), rows.classes

        def totals(weights: np.ndarray) -> Totals:
            counts = (
                np.stack(
                    [
                        np.bincount(label, weights=one[row], minlength=classes)
                        for one in weights
                    ]
                )
                for row, label in pairs
            )
            return dict(zip(("true", "answered", "both"), counts, strict=True))

        return totals


class _Sums(Accumulator):
    """Exact counts: class k has its three in cells 3k to 3k + 2."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.classes = 0

    def update(self, rows: Rows) -> None:
        self.classes = rows.classes
        for what, (row, label) in enumerate(hits(rows)):
            # Exact sums take no empty array.
            if len(row):
                self.cells.add(label * 3 + what, rows.weight[row])

    def merge(self, other: Self) -> None:
        self.cells.merge(other.cells)
        self.classes = max(self.classes, other.classes)

    def totals(self) -> Totals:
        # Class k has its three counts in a row.
        counts = self.cells.floats(3 * self.classes).reshape(1, -1, 3)
        return {
            "true": counts[..., 0],
            "answered": counts[..., 1],
            "both": counts[..., 2],
        }


def hits(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs (row, class) that are true, that are answered, and that are
    both: three int64 `[2, n]`.
    """
    if rows.kind == "set":
        true, answered = rows.truth > 0, rows.predicted > 0
        return (
            np.stack(np.nonzero(true)),
            np.stack(np.nonzero(answered)),
            np.stack(np.nonzero(true & answered)),
        )
    each = np.arange(len(rows))
    # A predicted class beyond the last means that none was answered.
    answered, right = rows.predicted < rows.classes, rows.truth == rows.predicted
    return (
        np.stack([each, rows.truth]),
        np.stack([each[answered], rows.predicted[answered]]),
        np.stack([each[right], rows.truth[right]]),
    )


def f1(totals: Totals) -> np.ndarray:
    """Return each class's f1 `[R, K]`; NaN for a class that is neither true nor
    answered anywhere, which averages leave out.
    """
    here = totals["true"] + totals["answered"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(here > 0, 2 * totals["both"] / here, np.nan)
