"""How many epochs a time allows: the rule of `train.budget`, without a model.

    epochs = (0.9 × budget) / (seconds of an epoch's steps + seconds of judging the validation split)

Not one whole epoch: as many steps as the time allows, and one judging.
"""

from __future__ import annotations

import math
import socket
from dataclasses import asdict, dataclass, field
from typing import Any

from penstock.recipe.schema import Recipe

_SHARE = 0.9
"""Of the budget that is planned with: checkpoints, metrics and reading take the rest."""


@dataclass(frozen=True)
class Pace:
    """What fits into the budget."""

    epochs: int
    max_steps: int | None
    """Where not even one epoch fits, or the recipe declares it."""
    epoch_seconds: float
    """What an epoch takes where it was measured, judging among it."""
    host: str = field(default_factory=lambda: socket.gethostname())
    """Where it was measured."""

    @classmethod
    def of(cls, facts: Any) -> Pace:
        """What `to_dict` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            steps = facts["max_steps"]
            pace = cls(
                int(facts["epochs"]),
                None if steps is None else int(steps),
                float(facts["epoch_seconds"]),
                str(facts["host"]),
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(str(error)) from None
        if pace.epochs < 1 or (pace.max_steps or 1) < 1 or not pace.epoch_seconds >= 0:
            raise ValueError("a number is out of its range")
        return pace

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with so many epochs and steps."""
        update = {"epochs": self.epochs, "max_steps": self.max_steps}
        return recipe.model_copy(update={"train": recipe.train.model_copy(update=update)})

    def to_dict(self) -> dict[str, Any]:
        """What the run keeps of it, as JSON."""
        return asdict(self)


def fitted(
    epochs: int,
    max_steps: int | None,
    *,
    budget: float,
    training_seconds: float,
    judging_seconds: float,
    steps: int,
) -> Pace:
    """Of the declared epochs and steps, those that fit.

    Args:
        budget: seconds.
        training_seconds: of the steps of one epoch.
        judging_seconds: of the validation split, once.
        steps: of one epoch.
    """
    time = _SHARE * budget
    each = training_seconds + judging_seconds
    # `max_steps` may end long before the epochs do.
    declared = min(epochs, (max_steps or math.inf) / steps)
    # An epoch that ends early is judged as any other.
    if declared * training_seconds + math.ceil(declared) * judging_seconds <= time:
        return Pace(epochs, max_steps, each)
    if each <= time:
        return Pace(min(int(time // each), epochs), max_steps, each)
    share = max(time - judging_seconds, 0.0) / max(training_seconds, 1e-9)
    fit = max(int(min(share, declared) * steps), 1)
    return Pace(1, min(fit, max_steps or fit), each)


__all__ = ["Pace", "fitted"]
