"""Mean of -log(probability given to the truth), in nats, clipped at the answer's own precision."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows


class LogLoss(Metric):
    """Mean of -log(probability given to the truth), in nats, clipped at the answer's own precision (1.2e-7
    for float32); of a set the mean over its labels.
    """

    phrase: ClassVar[str] = (
        "the penalty for probability not given to the truth; 0 is perfect, sure mistakes cost most"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("binary", "category", "set", "sequence")
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    place: ClassVar[int] = 60

    def statistic(self, rows: Rows) -> np.ndarray:
        least = float(np.finfo(rows.answer.dtype).eps)
        if rows.kind in ("binary", "set"):
            given = np.where(
                rows.truth == 1, rows.answer, 1 - rows.answer.astype(np.float64)
            )
        else:
            given = rows.answer[np.arange(len(rows)), rows.truth].astype(np.float64)
        losses = np.asarray(-np.log(np.clip(given, least, 1 - least)))
        return losses.mean(axis=1) if rows.kind == "set" else losses
