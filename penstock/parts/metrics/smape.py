"""Symmetric mean absolute percentage error: mean of 2·|error| / (|truth| + |answer|)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows
from penstock.metrics.series import Errors


class Smape(Metric):
    """Symmetric mean absolute percentage error: mean of 2·|error| / (|truth| + |answer|), from 0 to 2; 0
    where both are 0.
    """

    phrase: ClassVar[str] = (
        "how far answers are from the truth on average, as a share of both; from 0 to 2"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("series",)
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, 2.0)
    place: ClassVar[int] = 240

    def statistic(self, rows: Rows) -> np.ndarray:
        errors = Errors.of(rows)
        spread = np.abs(rows.answer) + np.abs(errors.known)
        share = 2 * np.abs(errors.error) / np.where(spread > 0, spread, 1.0)
        return errors.mean(np.where(spread > 0, share, 0.0))
