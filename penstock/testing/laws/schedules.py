"""The laws of schedules: `check(Schedule.load({"type": "acme.staircase", "steps": 4}))`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise

from penstock.contracts.optim import Schedule
from penstock.testing.laws import _learning as _

Law = Callable[[Schedule], None]
TOTALS = (1, 2, 7, 100, 1000)
LOSSES = (1.0, 0.9, 0.9, 0.95, 0.9, None, 0.9, 0.8, 0.9, 0.9, 0.9, 0.9)
"""Validation losses of epochs; None where there was nothing to judge by."""


def bounded(schedule: Schedule) -> None:
    """The share of the rate is a finite number, and never negative."""
    for total in TOTALS:
        for step in range(total):
            share = schedule.rate(step, total)
            assert (
                isinstance(share, (int, float)) and math.isfinite(share) and share >= 0
            ), (
                f"bounded: the share of step {step} of {total} is {share!r}; expected a number of 0 or more"
            )


def rises(schedule: Schedule) -> None:
    """It rises in each step of the warm-up, from more than 0, up to the declared rate at most."""
    for total in TOTALS:
        warm = [
            schedule.rate(step, total) for step in range(round(schedule.warmup * total))
        ]
        assert all(0 < share < 1 for share in warm), f"rises: not within 0 and 1: {warm}"
        assert all(one < other for one, other in pairwise(warm)), (
            f"rises: the warm-up of {total} steps does not rise: {warm}"
        )


def pure(schedule: Schedule) -> None:
    """A step's share depends on the step alone: asked again, in another order, it is the same."""
    for total in TOTALS:
        forth = [schedule.rate(step, total) for step in range(total)]
        back = [schedule.rate(step, total) for step in reversed(range(total))]
        assert forth == back[::-1], (
            f"pure: of {total} steps, asked in another order, some have another share"
        )


def learns(schedule: Schedule) -> None:
    """Some step moves weights."""
    for total in TOTALS:
        assert any(schedule.rate(step, total) > 0 for step in range(total)), (
            f"learns: of {total} steps none has a rate above 0"
        )


def follows(schedule: Schedule) -> None:
    """What follows the validation loss begins at 1, is one of its own for each training, and what another
    recalls of its memory, as JSON, goes on the same.
    """
    first, fresh = schedule.follow(), schedule.follow()
    if first is None or fresh is None:
        return
    assert first.scale == 1, f"follows: `scale` begins at {first.scale!r}; expected 1"
    scales, memories = [], []
    for loss in LOSSES:
        before = first.scale
        changed = first.see(loss)
        assert changed == (first.scale != before), (
            f"follows: `see` said {changed!r} where the scale went from {before:g} to {first.scale:g}"
        )
        assert math.isfinite(first.scale) and first.scale >= 0, (
            f"follows: the scale is {first.scale!r}"
        )
        scales.append(first.scale)
        memories.append(json.dumps(first.memory()))
    assert fresh.scale == 1, (
        "follows: two trainings share one memory; make a new one in `follow`"
    )
    for epoch, memory in enumerate(memories):
        resumed = schedule.follow()
        assert resumed is not None
        resumed.recall(json.loads(memory))
        again = [resumed.scale]
        for loss in LOSSES[epoch + 1 :]:
            resumed.see(loss)
            again.append(resumed.scale)
        assert again == scales[epoch:], (
            f"follows: recalled after epoch {epoch} it goes on with {again}; expected {scales[epoch:]}"
        )


def declared(schedule: Schedule) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", schedule)


def light(schedule: Schedule) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", schedule)


LAWS: tuple[Law, ...] = (bounded, rises, pure, learns, follows, declared, light)


def check(schedule: Schedule) -> None:
    """Judge one schedule by every law.

    Raises:
        AssertionError: it breaks a law.
    """
    for law in LAWS:
        law(schedule)
