"""What the validation split's verdicts lead to: which epoch is best, and when to stop.
What they make of the rate is the schedule's business (`penstock.contracts.optim`).

Pure: numbers in, decisions out; the whole memory is plain data and travels in checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal


@dataclass
class EarlyStopping:
    """The best epoch so far, and how long it has been.

    Args:
        better: whether a `higher` or a `lower` value is better.
        patience: epochs without improvement after which `is_over`; None never ends.
        min_delta: an improvement smaller than this does not count.
    """

    better: Literal["higher", "lower"] = "lower"
    patience: int | None = None
    min_delta: float = 0.0
    best_value: float | None = None
    best_epoch: int | None = None
    waited: int = 0

    def see(self, epoch: int, value: float | None) -> bool:
        """Whether `epoch` is the best so far.

        No value (nothing to validate on): the latest is the best. NaN never is.
        """
        if value is None:
            improved = True
        elif math.isnan(value):
            # Not left to the comparisons below: a first epoch of NaN would otherwise
            # become the best.
            improved = False
        elif self.best_value is None:
            improved = True
        elif self.better == "higher":
            improved = value > self.best_value + self.min_delta
        else:
            improved = value < self.best_value - self.min_delta
        if improved:
            self.best_value, self.best_epoch, self.waited = value, epoch, 0
        else:
            self.waited += 1
        return improved

    @property
    def is_over(self) -> bool:
        """Whether so many epochs have brought nothing that training ends."""
        return self.patience is not None and self.waited >= self.patience

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "waited": self.waited,
        }

    def recall(self, memory: dict[str, Any]) -> None:
        """The inverse of `memory`."""
        self.best_value, self.best_epoch, self.waited = (
            memory["best_value"],
            memory["best_epoch"],
            memory["waited"],
        )
