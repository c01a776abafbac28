"""What a quick classical model answers to the judged sample, whichever model it is."""

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
    said: str = ""
    """What was left out, or why there is no comparison."""
    thresholds: dict[str, np.ndarray] = field(default_factory=dict)
    """Of sets: one a label."""

    def threshold(self, target: str) -> Any:
        """The least probability that is answered: 0.5, or of a set one a label `[K]`."""
        return self.thresholds.get(target, 0.5)
