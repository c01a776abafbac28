"""Where a training stands: what a checkpoint knows beside tensors, and what the loop moves on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainState:
    """Where training stands; plain data, part of each checkpoint."""

    epoch: int = 0
    """Epochs completed."""
    position: int = 0
    """Batches of the present epoch that are done."""
    step: int = 0
    loss: float = 0.0
    """Of the present epoch so far: sum of the rows' weighted losses."""
    weight: float = 0.0
    rows: int = 0
    """Rows trained on, over all epochs."""
    seconds: float = 0.0
    loop_seconds: float = 0.0
    """Of `seconds`, those in the loop over batches."""
    stages: dict[str, float] = field(default_factory=dict)
    """Where these went, by stage (`train.timing`)."""
    best_step: int | None = None
    best: dict[str, Any] = field(default_factory=dict)
    """The verdict of the best epoch."""
    ended: str | None = None
    """Why training is over: `epochs`, `max_steps`, `early_stop`."""
    ranking: list[list[float]] = field(default_factory=list)
    """[value, step] of the best epochs, the best first: as many as `keep_best`."""
    left_out: list[int] = field(default_factory=list)
    """Steps whose batches are not learnt from, since they were not finite."""
    in_row: int = 0
    """How many of them came one after another, last."""


def ranked(
    state: TrainState, value: float | None, *, higher: bool, keep: int
) -> list[list[float]]:
    """The ranking of the best epochs after one more, at `state.step`, of this value (None, NaN: not
    compared).
    """
    # NaN alone differs from itself.
    if value is None or value != value:
        return state.ranking
    whole = sorted(
        [*state.ranking, [value, state.step]],
        # Of equal values the earlier step comes first.
        key=lambda pair: (-pair[0] if higher else pair[0], pair[1]),
    )
    return whole[:keep]


__all__ = ["TrainState", "ranked"]
