"""Errors of forecasts by row (a window's whole horizon), which several metrics of
series average.

A row's number is the mean over the steps and variables that were observed; a row of which nothing was
observed is left out. Windows that overlap are nearly the same row many times: a resampling therefore draws
blocks of neighbouring rows (Künsch 1989), each as long as the horizon, and intervals are as wide as they
should be.
"""

from __future__ import annotations

import numpy as np

from penstock.contracts.metric import Forecasting, Rows


class Errors:
    """Errors of a batch of windows, computed once for all metrics (`of`)."""

    def __init__(self, rows: Rows) -> None:
        self.there = np.isfinite(rows.truth)
        """What was observed, `[N, H, V]`."""
        self.known = np.where(self.there, rows.truth, 0.0)
        """The truth, 0 where nothing was observed, `[N, H, V]`."""
        self.error = np.where(self.there, rows.answer - self.known, 0.0)
        """Answer minus truth, 0 where nothing was observed, `[N, H, V]`."""
        self.scale = rows.scale if isinstance(rows.scale, Forecasting) else None
        self.std = (
            np.array(self.scale.std)
            if self.scale
            else _deviations(self.known, self.there)
        )
        """Each variable's deviation, `[V]`: the truth's own where the training split's is not known."""
        self._count = np.maximum(self.there.sum(axis=(1, 2)), 1)

    @classmethod
    def of(cls, rows: Rows) -> Errors:
        """Return the errors of these rows, shared by all metrics."""
        return rows.shared("series errors", cls)

    def mean(self, each: np.ndarray) -> np.ndarray:
        """Average over what was observed `[N]`; `each` `[N, H, V]` is 0 elsewhere."""
        return np.asarray(each.sum(axis=(1, 2)) / self._count)


def _deviations(known: np.ndarray, there: np.ndarray) -> np.ndarray:
    # By variable, over rows and steps.
    count = np.maximum(there.sum(axis=(0, 1)), 1)
    mean = known.sum(axis=(0, 1)) / count
    std = np.sqrt((np.where(there, known - mean, 0.0) ** 2).sum(axis=(0, 1)) / count)
    # A variable that never moves is divided by 1.
    return np.where(std > 0, std, 1.0)
