"""Mean absolute error over that of the seasonal naive forecast within the training split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows
from penstock.metrics.series import Errors


class Mase(Metric):
    """Mean absolute error over that of the seasonal naive forecast within the training split; below 1 is
    better than it (Hyndman and Koehler 2006). Variables that never move there are left out.
    """

    phrase: ClassVar[str] = (
        "the average error, as a multiple of that of repeating the last season; below 1 is better than that"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("series",)
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    place: ClassVar[int] = 250
    undefined: ClassVar[str] = (
        "no variable moves in the training split, or one season is longer than what was seen"
    )

    def statistic(self, rows: Rows) -> np.ndarray:
        errors = Errors.of(rows)
        naive: Sequence[float | None] = errors.scale.naive if errors.scale else ()
        # 0 or None: the variable never moves, or one season is longer than what was
        # seen.
        moves = np.array([bool(error) for error in naive], bool)
        if not moves.any():
            return np.full(len(rows), np.nan)
        scaled = np.abs(errors.error[:, :, moves]) / np.array(
            [error for error in naive if error]
        )
        count = errors.there[:, :, moves].sum(axis=(1, 2))
        return np.asarray(
            # Of the variables that move nothing was observed: the row says nothing.
            np.where(count > 0, scaled.sum(axis=(1, 2)) / np.maximum(count, 1), np.nan)
        )
