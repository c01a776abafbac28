"""The declared rate until the validation loss gets no better, then less of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from penstock.contracts.optim import Schedule


class Plateau(Schedule):
    """After the warm-up the declared rate, lowered whenever the validation loss has not improved for a
    while.
    """

    floor: float = Field(0.01, ge=0, le=1)
    """The least rate, as a share of `lr`."""
    factor: float = Field(0.5, gt=0, lt=1)
    """What the rate is multiplied with."""
    patience: int = Field(2, ge=1)
    """Epochs without improvement of the validation loss."""

    def after_warmup(self, step: int, total: int) -> float:
        return 1.0

    def follow(self) -> Following:
        return Following(self.factor, self.patience, self.floor)


@dataclass
class Following:
    """Multiplies the rate with `factor` when the validation loss has not improved for `patience` epochs, down
    to `floor`.
    """

    factor: float
    patience: int
    floor: float
    scale: float = 1.0
    best: float | None = None
    waited: int = 0

    def see(self, loss: float | None) -> bool:
        """Whether the rate was lowered."""
        # Without a validation split the rate stays.
        if loss is None:
            return False
        # A loss that is not finite is never the best: nothing would be less than NaN.
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.waited = loss, 0
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        # The patience begins again after each lowering.
        self.waited = 0
        # Never below the floor; once there, nothing is lowered and nothing is reported.
        lower = max(self.scale * self.factor, self.floor)
        changed, self.scale = lower < self.scale, lower
        return changed

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def recall(self, memory: dict[str, Any]) -> None:
        """The inverse of `memory`."""
        self.scale, self.best, self.waited = (
            memory["scale"],
            memory["best"],
            memory["waited"],
        )
