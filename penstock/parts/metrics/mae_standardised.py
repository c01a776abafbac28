"""Mean absolute error, each variable over its deviation in the training split."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows
from penstock.metrics.series import Errors


class MaeStandardised(Metric):
    """Mean absolute error, each variable over its deviation in the training split."""

    phrase: ClassVar[str] = (
        "how far answers are from the truth on average, in standard deviations of each variable"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("series",)
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    place: ClassVar[int] = 230

    def statistic(self, rows: Rows) -> np.ndarray:
        errors = Errors.of(rows)
        return errors.mean(np.abs(errors.error / errors.std))
