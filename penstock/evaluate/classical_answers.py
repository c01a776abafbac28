"""The answers of a quick classical model, whichever it is, to the judged sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Classical:
    """The classical model's answers on the judged sample."""

    model: str = "gradient boosting"
    answers: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """By target and answer, `[rows of the sample, …]`."""
    rows: int = 0
    """Training rows that it learnt from."""
    seconds: float = 0.0
    note: str = ""
    """What was left out, or why there is no comparison."""
    thresholds: dict[str, np.ndarray] = field(default_factory=dict)
    """Of sets: one a label."""

    def threshold(self, target: str) -> Any:
        """Return the least probability that is answered as positive: 0.5, or one a
        label `[K]` for a set.
        """
        return self.thresholds.get(target, 0.5)
