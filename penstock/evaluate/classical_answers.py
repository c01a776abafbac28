"""The answers of the quick classical models to the judged sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Tried:
    """One classical model that was tried for a target."""

    model: str
    rows: int = 0
    """Training rows that it learnt from."""
    seconds: float = 0.0
    metric: str = ""
    """By which the best one was chosen."""
    validation: float | None = None
    """Its figure on the validation split; None without such rows."""
    second: float | None = None
    """Its figure there by the metric that decides between equal ones."""
    judged: float | None = None
    """Its figure on the split that is judged."""
    is_chosen: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as a report has it."""
        return {
            "model": self.model,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "metric": self.metric,
            "validation": self.validation,
            "judged": self.judged,
            "chosen": self.is_chosen,
        }


@dataclass
class Classical:
    """The answers of the best classical model of each target, on the judged sample."""

    model: str = "gradient boosting"
    """What the models are called where no target is named."""
    answers: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """By target and answer, `[rows of the sample, …]`."""
    rows: int = 0
    """Training rows that were learnt from, the most of any target."""
    seconds: float = 0.0
    note: str = ""
    """What was left out, or why there is no comparison."""
    thresholds: dict[str, np.ndarray] = field(default_factory=dict)
    """Of sets: one a label."""
    models: dict[str, str] = field(default_factory=dict)
    """By target the name of the model that answers it."""
    total: int = 0
    """Rows of the training split."""
    budget: float = 0.0
    """Seconds that were allowed."""
    tried: dict[str, list[Tried]] = field(default_factory=dict)
    """By target all models that were fitted."""

    def threshold(self, target: str) -> Any:
        """Return the least probability that is answered as positive: 0.5, or one a
        label `[K]` for a set.
        """
        return self.thresholds.get(target, 0.5)

    def take(self, target: str, tried: list[Tried], chosen: int) -> None:
        """Note the models of a target, and which of them answers it."""
        best = tried[chosen]
        best.is_chosen = True
        self.tried[target], self.models[target] = tried, best.model
        self.rows = max(self.rows, best.rows)

    def named(self, target: str) -> str:
        """Return the name of the model that answers a target."""
        return self.models.get(target, self.model)
