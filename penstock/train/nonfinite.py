"""Batches whose loss or gradient is not finite: the error that names them, and what the recipe wants done.

`train.on_nan` says it: `stop` ends the training, `skip` leaves the batch out before anything has moved,
`rollback` goes back to the last checkpoint and leaves it out then.
"""

from __future__ import annotations

from penstock.core.errors import TrainingError
from penstock.core.events import Events
from penstock.recipe.schema import Recipe, Train
from penstock.train.state import TrainState

MOST_IN_ROW = 10
"""Batches that may not be finite one after another: more is no matter of the data."""


class NotFinite(TrainingError):
    """The loss or the gradient is infinite or not a number; equal at every rank.

    Args:
        step: of the batch, from 0.
        culprits: ids of the rows whose losses are not finite, where that is known.
        batch: ids of all the rows of the batch (of this rank, where a device is looked at late).
    """

    def __init__(
        self,
        message: str,
        *,
        step: int = -1,
        culprits: tuple[str, ...] = (),
        batch: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.step, self.culprits, self.batch = step, culprits, batch

    @classmethod
    def at(
        cls, step: int, what: str, culprits: list[str], batch: list[str], train: Train
    ) -> NotFinite:
        """The error for a `what` (`loss`, `gradient`) that is not finite, with what the user can do about
        it.
        """
        rows = culprits or batch
        shown = ", ".join(rows[:5]) + (
            f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        )
        which = (
            f"row{'s' if len(rows) != 1 else ''} {shown}"
            if culprits
            else f"in a batch of the rows {shown}"
        )
        look_at = "those rows" if culprits else "the data"
        return cls(
            f"the {what} is not finite at step {step}, {which}. Look at {look_at} for extreme values;"
            f" otherwise lower train.lr (now {train.lr:g}){'' if train.clip else ' or set train.clip'}.",
            step=step,
            culprits=tuple(culprits),
            batch=tuple(batch),
        )


def leave_out(
    error: NotFinite, state: TrainState, recipe: Recipe, events: Events
) -> None:
    """Note that a batch is left out, and say which rows it had.

    Raises:
        NotFinite: the recipe wants to stop there; too many in a row were not finite.
    """
    word = recipe.train.on_nan
    # Without a step there is no batch that could be left out.
    if word == "stop" or error.step < 0:
        raise error
    state.in_row += 1
    if state.in_row > MOST_IN_ROW:
        raise NotFinite(
            f"{MOST_IN_ROW} batches in a row were left out, and the next is not finite either:"
            f" {error.message}",
            step=error.step,
            culprits=error.culprits,
            batch=error.batch,
        )
    state.left_out = [*state.left_out, error.step]
    rows = list(error.culprits or error.batch)
    shown = ", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    events.emit(
        "nan",
        step=error.step,
        policy=word,
        rows=rows,
        is_culprit=bool(error.culprits),
        batch=list(error.batch),
    )
    events.warn(
        f"The batch of step {error.step} gave values that are not finite and is left"
        f" out. Look at the row{('s' if len(rows) != 1 else '')} {shown}"
    )


def check_something_learnt(state: TrainState, recipe: Recipe) -> None:
    """At the last epoch's end: whether any of its batches has taught the model anything.

    Before that, `MOST_IN_ROW` is the bound.

    Raises:
        TrainingError: all of them were left out.
    """
    # The weight adds up over the rows of this epoch that were learnt from.
    if state.in_row and state.weight == 0:
        raise TrainingError(
            f"epoch {state.epoch + 1}: every batch gave values that are not finite"
            f" ({state.in_row} in a row), so the model learnt nothing. Lower train.lr (now"
            f" {recipe.train.lr:g}), or look at the rows named above."
        )


__all__ = ["MOST_IN_ROW", "NotFinite", "check_something_learnt", "leave_out"]
