"""Trains into one run, and records and explains an end that was not planned."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core import audit
from penstock.core.errors import Interrupted, LeaseLost, PenstockError, StoreError
from penstock.core.events import Events, JsonLines, Sink
from penstock.core.interrupts import interrupts
from penstock.encode.feed import Feed
from penstock.recipe.schema import Recipe
from penstock.run import Run


def resume_command(run: Run) -> str:
    """Return the command that goes on with a run, ready to be copied."""
    # A store that the command finds by itself need not be named.
    is_usual = run.store.url in ("./store", str(Path("store").absolute()))
    return f"penstock resume {run.id}" + (
        "" if is_usual else f" --store {shlex.quote(run.store.url)}"
    )


def resume_advice(run: Run) -> str:
    """Return the advice for a training that is stopped before it could save."""
    return (
        "Stopped before a new checkpoint; earlier ones are kept. Continue with:"
        f" {resume_command(run)}"
    )


def train_into(
    run: Run, recipe: Recipe, feed: Feed, events: Events, *, resume: bool = False
) -> Run:
    """Train into an open run, and close its event log however the training ends.

    Args:
        run: written to; its event log gets every event.
        recipe: how to train; its trackers hear every event, too.
        feed: what on.
        events: progress, and what is said.
        resume: go on from the run's last checkpoint.

    Raises:
        TrainingError: training fails; the run is then recorded as failed.
        Interrupted: a signal ended it; the sentence has the command that goes on.
    """
    event_log = JsonLines(run.events_path)
    sinks: list[Sink] = [
        event_log,
        *(tracker.sink(run.path) for tracker in recipe.trackers),
    ]
    # Before the first step: a training that is stopped has read rows as well.
    audit.note(run.store, "trained", run.dataset, run=run.id, feed=run.feed)
    with interrupts.installed(), interrupts.advice(resume_advice(run)):
        _train(run, recipe, feed, events, sinks, resume=resume)
    return run


def _train(
    run: Run,
    recipe: Recipe,
    feed: Feed,
    events: Events,
    sinks: list[Sink],
    *,
    resume: bool,
) -> None:
    from penstock.train.supervisor import train

    for sink in sinks:
        events.attach(sink)
    try:
        summary = train(recipe, feed, run, events, resume=resume)
    # Every way to end is recorded, Ctrl-C among them.
    except BaseException as error:
        # What was interrupted may answer with an error of its own.
        if isinstance(error, (Interrupted, KeyboardInterrupt)) or interrupts.is_stopping:
            _record(run, {"status": "interrupted"}, events)
            raise _interrupted(error, run) from None
        _record(run, {"status": "failed", "error": str(error)}, events)
        raise
    finally:
        for sink in sinks:
            events.detach(sink)
    _finish(run, summary)


def _interrupted(error: BaseException, run: Run) -> Interrupted:
    """Return the error for a training that was stopped; it always has the command that
    goes on.
    """
    command = resume_command(run)
    if not isinstance(error, Interrupted):
        trouble = f" {error.message}" if isinstance(error, PenstockError) else ""
        return Interrupted(f"{trouble} {resume_advice(run)}".strip())
    # The sentence has the command already.
    if command in error.message:
        return error
    bare = f"penstock resume {run.id}"
    if bare in error.message:
        return Interrupted(error.message.replace(bare, command))
    return Interrupted(f"{error.message} Continue with: {command}")


def _finish(run: Run, summary: Mapping[str, Any]) -> None:
    try:
        run.finish(summary)
    except StoreError as error:
        # Not even this machine has the run as done.
        if run.status != "done":
            raise
        raise StoreError(
            f"{error.message} The training is complete on this machine. Run the same"
            " command again to upload it; nothing is trained again."
        ) from None


def _record(run: Run, facts: Mapping[str, Any], events: Events) -> None:
    """Record how the run ended; a failure to write is a warning, and hides nothing of
    the end itself.
    """
    try:
        run.record(facts)
    except (StoreError, LeaseLost) as error:
        events.warn(
            f"The status of {run.id} ({facts['status']}) could not be written everywhere:"
            f" {error.message}"
        )
