"""Training, as the user's own process sees it: decide once, send `work` to the processes, send it again after
a loss.

`train` decides what has to be decided once (from what to start, how many processes) and launches `work`
(`train.worker`) in each of them. When processes are lost, or come back, it launches again from the last
checkpoint.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from penstock.core.errors import (
    LeaseLost,
    Outgrown,
    PenstockError,
    RankLost,
    TrainingError,
    UserError,
)
from penstock.core.events import Events
from penstock.core.interrupts import interrupts
from penstock.encode.feed import Feed
from penstock.recipe.schema import Recipe
from penstock.run import Run
from penstock.train.autotune import choose
from penstock.train.budget import within_budget
from penstock.train.checkpoint import Checkpoints
from penstock.train.elastic_pool import ElasticPool
from penstock.train.event_forwarding import following
from penstock.train.nonfinite import NotFinite
from penstock.train.session import Job
from penstock.train.warm_start import tell_other_sorts, weights_of
from penstock.train.worker import work


def train(
    recipe: Recipe, feed: Feed, run: Run, events: Events, *, resume: bool = False
) -> dict[str, Any]:
    """Train the recipe's model on a feed; leaves the best epoch's weights (their average if `ema` is on) in
    the run.

    Args:
        recipe: what to do.
        feed: encoded rows.
        run: an open run; its status, diary and closing are the caller's business.
        events: told of choices, progress and measurements.
        resume: go on from the run's newest whole checkpoint.

    Returns:
        `epochs`, `steps`, `best_epoch` (from 1), `validation_loss`, `validation` ({target: {metric: value}}
        of the best epoch), `train_loss`, `ended` (`epochs`, `max_steps`, `early_stop`, `budget`),
        `parameters`, `seconds`, `examples_per_second`, `processes`, `threads`, `communication`
        ({`bytes_per_step`, `ratio`}, see `Learner.communication`), `checkpoints` ({`count`,
        `pause_seconds`, `write_seconds`}),
        `stages` (seconds of `read`, `decode`, `copy`, `wait` and `model`), `slow` (what of them is slow, in
        words), `left_out` (batches that were not finite), `restarts` (after lost processes), `taken_in` (how
        often it went on with more processes).

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint.
        TrainingError: the loss is not finite; processes were lost more often than the launcher allows; the
            model's code failed (at which line), or ran out of memory.
        UserError: the run is finished or in other hands; `train.from` names weights that fit nowhere.
    """
    if not feed.sizes.get("train"):
        raise TrainingError(
            "The training split has no rows. Look at `split`, `where` and the quarantine."
        )
    with run.at_work(events):
        return _Supervisor(recipe, feed, run, events, resume=resume).run_to_end()


class _Supervisor:
    """One training, over as many launches as it takes."""

    def __init__(
        self, recipe: Recipe, feed: Feed, run: Run, events: Events, *, resume: bool
    ) -> None:
        self._recipe, self._run, self._events = recipe, run, events
        self._checkpoints = Checkpoints(run.checkpoints, recipe.train.checkpoint.keep)
        newest = self._newest_to_resume() if resume else None
        start = None
        # A checkpoint of the run itself holds all weights: `from` matters at step 0
        # alone.
        if recipe.train.from_ is not None and newest is None:
            start = str(weights_of(recipe.train.from_.weights, run.store))
            tell_other_sorts(recipe, feed.dataset, run.store, events)
        # Measured again it might come out otherwise, and change the last digits of the
        # weights.
        earlier = run.world().get("chosen") if resume else None
        self._chosen = choose(recipe, feed, run.store.url, events, earlier=earlier)
        if not earlier:
            run.choose({**self._chosen.to_dict(), "accelerators": _accelerators()})
        before = (earlier or {}).get("budget")
        pace = within_budget(
            recipe, feed, self._chosen, run.store.url, events, earlier=before
        )
        if pace is not None:
            recipe = pace.applied(recipe)
            if not before:
                run.choose({"budget": pace.to_dict()})

        self._recovery = recipe.launcher.recovery()
        (run.path / ".events").unlink(missing_ok=True)  # of a launcher that was killed
        self._pool = ElasticPool(self._recovery, self._chosen.processes)
        # Where processes may be lost even a single one is started apart, and its events
        # come by a file.
        is_elsewhere = self._chosen.processes > 1 or self._pool.may_shrink
        self._relay = run.path / ".events" if is_elsewhere else None
        self._job = Job(
            recipe=recipe,
            run=run.id,
            folder=str(run.path),
            store=run.store.url,
            feed=feed.id,
            checkpoint=str(newest) if newest else None,
            start=start,
            relay=str(self._relay) if self._relay else None,
            processes=self._chosen.processes,
            token=run.token,
        )

    def _newest_to_resume(self) -> Path | None:
        newest = self._checkpoints.newest(self._events)
        if newest is None:
            self._events.say(
                "There is no checkpoint to continue from; starting at step 0"
            )
        else:
            self._events.say(f"Continuing from {newest.name}")
        return newest

    def run_to_end(self) -> dict[str, Any]:
        """Launch until a launch ends well, or nothing is left to try. Returns what `train` does."""
        while True:
            interrupts.check()  # a wish to stop that came while processes were lost
            try:
                summary = self._launch()
            except (LeaseLost, NotFinite):
                raise  # it is another's business now; going on from a checkpoint would end there again
            except Outgrown as error:
                self._grow(error)
            except (TrainingError, UserError) as error:
                self._recover(error)
            else:
                return {
                    **summary,
                    "restarts": self._pool.restarts,
                    "taken_in": self._pool.taken_in,
                }

    def _launch(self) -> dict[str, Any]:
        growth = self._pool.growth(time.monotonic())
        # Given only where it has something to say: launchers of a fixed number need not
        # know the word.
        elastic: dict[str, Any] = {"grows": growth} if growth else {}
        # Listeners cannot be sent to another process; there the file stands in for
        # them.
        listeners = None if self._relay else self._events
        with following(self._relay, self._events) if self._relay else nullcontext():
            summary: dict[str, Any] = self._recipe.launcher.launch(
                work,
                (self._job, listeners),
                processes=self._pool.processes,
                threads=self._chosen.threads,
                **elastic,
            )
        return summary

    def _grow(self, error: Outgrown) -> None:
        """More processes have room: go on with them from the checkpoint that was just written."""
        self._pool.outgrown(error)
        path = self._from_newest()
        # 0, unless the checkpoint could not be written, which was said.
        again = max(error.step + 1 - _step_of(path), 0)
        repeated = f"; {again} steps are done again" if again else ""
        self._events.say(
            f"{error.message}: continuing from step {_step_of(path)} with"
            f" {self._counted()}{repeated}",
            step=_step_of(path),
            processes=self._pool.processes,
            repeated=again,
        )

    def _recover(self, error: PenstockError) -> None:
        """Set up a launch from the newest checkpoint, if the error and the launcher allow one.

        Raises:
            TrainingError, UserError: they do not; the sentence says what is kept.
        """
        # Without a step gained since this launch, more processes may be what is wrong.
        began_at = _step_of(self._job.checkpoint)
        path = self._from_newest()
        if _step_of(path) <= began_at and self._pool.falls_back(error):
            self._events.warn(
                f"{error.message} More processes could not join; continuing from step"
                f" {_step_of(path)} with {self._counted()}, as before.",
                step=_step_of(path),
                processes=self._pool.processes,
            )
            return
        # What the user has to mend would end the next launch as well.
        if isinstance(error, UserError):
            raise error
        if trace := getattr(error, "traceback", None):
            self._events.emit("traceback", text=trace)
        # Errors of the model or the data come again from any checkpoint: only losses do
        # not.
        if not isinstance(error, RankLost) or not self._pool.lost(
            error, time.monotonic()
        ):
            raise TrainingError(f"{error.message}{self._what_is_kept()}") from None
        again = max(error.step - _step_of(path), 0)
        self._events.warn(
            f"{error.message} Restarting from step {_step_of(path)} with"
            f" {self._counted()}: {again} step{('s are' if again != 1 else ' is')}"
            f" repeated (restart {self._pool.restarts}; at most {self._recovery.restarts}"
            " an hour).",
            restart=self._pool.restarts,
            step=_step_of(path),
            repeated=again,
            processes=self._pool.processes,
            lost=list(error.ranks),
        )

    def _from_newest(self) -> Path | None:
        """The newest checkpoint; the next launch goes on from it."""
        path = self._checkpoints.newest(self._events)
        self._job = replace(self._job, checkpoint=str(path) if path else None)
        return path

    def _what_is_kept(self) -> str:
        text = ""
        if restarts := self._pool.restarts:
            text += f" It was started again {restarts} time{'s' if restarts != 1 else ''} already."
        if checkpoints := self._checkpoints.all():
            text += f" {checkpoints[-1].name} is kept; go on from it with: penstock resume {self._run.id}"
        return text

    def _counted(self) -> str:
        processes = self._pool.processes
        return f"{processes} process{'es' if processes != 1 else ''}"


def _accelerators() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [
        torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())
    ]


def _step_of(checkpoint: Path | str | None) -> int:
    return int(Path(checkpoint).name.removeprefix("step-")) if checkpoint else 0


__all__ = ["train"]
