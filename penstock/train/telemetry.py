"""What is told while an epoch goes on: progress, and the figures of the last steps."""

from __future__ import annotations

import time
from typing import Any

from penstock.train.learner import StepResult
from penstock.train.session import Session
from penstock.train.state import TrainState
from penstock.train.timing import StageTimer

_TELL_SECONDS = 0.5
"""How often progress is told and measured."""
_FIRST_STEPS = 1000
"""Where ranks do not agree within so many steps, the first telling waits for the clock."""


class Telemetry:
    """Tells the events of a session how training goes, at most every half a second."""

    def __init__(self, session: Session, state: TrainState) -> None:
        self._session, self._state = session, state
        self._timer = StageTimer(session.loader.timings, state.stages)
        self._told = time.perf_counter()
        # Rows of earlier processes of this run are not of this lap.
        self._told_rows = state.rows
        strategy = session.recipe.parallel.strategy
        self._first = next(
            (step for step in range(_FIRST_STEPS) if strategy.agrees(step)), 0
        )
        """The first step after which there is something to tell."""

    def went_back(self, state: TrainState) -> None:
        """Follow `state`, an earlier one, from here on."""
        self._state, self._told_rows = state, state.rows

    def is_due(self, now: float) -> bool:
        """Whether the step that comes is to be told: the first ones, then by the clock (`time.perf_counter`,
        seconds).
        """
        return now - self._told > _TELL_SECONDS or self._state.step <= self._first

    def tell(self, done: StepResult) -> None:
        """Tell what the step that was just taken came to, and the figures since the last telling."""
        session, state, options = self._session, self._state, self._session.recipe.train
        lap = time.perf_counter() - self._told
        measured: dict[str, Any] = {
            "loss": float(done.loss) / max(float(done.weight), 1e-30),
            "examples_per_second": round(
                (state.rows - self._told_rows) / max(lap, 1e-9), 1
            ),
            **self._timer.lap(lap),
        }
        sent: dict[str, Any] = {}
        if session.world.size > 1:
            sent = {
                f"communication_{word}": value
                for word, value in session.learner.communication().items()
            }
        epoch = state.epoch + 1
        session.events.progress(
            "train", state.step, session.total_steps, "steps", epoch=epoch, **measured
        )
        # `state.step` is the next step already; the rate told is that of the one just
        # taken.
        share = options.schedule.rate(state.step - 1, session.total_steps)
        scale = session.rate_scale.scale if session.rate_scale else 1.0
        session.events.emit(
            "measured",
            step=state.step,
            epoch=epoch,
            lr=options.lr * (share * scale),
            grad_norm=float(done.norm) if done.norm is not None else None,
            **sent,
            **measured,
        )
        # Read anew: what telling itself took is part of no lap.
        self._told, self._told_rows = time.perf_counter(), state.rows

    def stages(self, loop_seconds: float) -> dict[str, float]:
        """Seconds by stage, over all of training: see `StageTimer.stages`."""
        return self._timer.stages(loop_seconds)


__all__ = ["Telemetry"]
