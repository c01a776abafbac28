"""Twice the pinball loss, mean over the quantiles, in deviations."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows
from penstock.metrics.series import Errors


class Pinball(Metric):
    """Twice the pinball loss, mean over the quantiles, in deviations; without quantiles that of the median,
    which is the absolute error.
    """

    phrase: ClassVar[str] = (
        "the error of the quantiles that are answered, in standard deviations; 0 is perfect"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("series",)
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    place: ClassVar[int] = 280

    def statistic(self, rows: Rows) -> np.ndarray:
        errors = Errors.of(rows)
        levels = (errors.scale.levels if errors.scale else ()) or (0.5,)
        total = np.zeros_like(errors.known)
        for i, level in enumerate(levels):
            # a forecast without quantiles is taken as sure of itself: its value at every level
            answer = (
                rows.answer
                if rows.quantiles is None
                else np.nan_to_num(rows.quantiles[..., i])
            )
            under = np.where(errors.there, errors.known - answer, 0.0) / errors.std
            total += 2 * np.maximum(level * under, (level - 1) * under)
        return errors.mean(total / len(levels))
