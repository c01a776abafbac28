"""What one process of a training holds open, in the order in which it is opened, and what it comes to.

Only rank 0 tells events (forwarded by a file if it is elsewhere) and writes checkpoints. Every rank validates
its own rows, and rank 0 merges what they measured.
Everything that ranks must agree on travels in a collective: a wish to stop or to keep a checkpoint with the
gradients, the verdict on an epoch after it.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.contracts.learn import World
from penstock.contracts.optim import RateScale
from penstock.core.events import Events
from penstock.core.heartbeat import Heartbeat
from penstock.core.listeners import listening
from penstock.core.wording import duration
from penstock.encode.feed import Feed, batch_size_for
from penstock.loader.loader import Loader
from penstock.loader.options import LoaderOptions
from penstock.model import parameter_count, separate_members
from penstock.recipe.sent import SentRecipe
from penstock.recipe.stores import store_of
from penstock.train.checkpoint_manager import CheckpointManager
from penstock.train.early_stopping import EarlyStopping
from penstock.train.errors import explaining_errors
from penstock.train.event_forwarding import telling
from penstock.train.learner import Learner
from penstock.train.optim import total_steps
from penstock.train.parallel import device_of, joined, settled
from penstock.train.state import TrainState
from penstock.train.stop import Stop
from penstock.train.timing import slow
from penstock.train.warm_start import start_from
from penstock.train.watched import watched_of

_FEED_SHARE = 4
"""The feed of all processes together may take this part of `resources.memory`."""
_PREFETCH_SHARE = 4
"""Batches that all processes together read ahead may take this part of `resources.memory`."""


@dataclass(frozen=True)
class Job:
    """What a process must know: plain and small, since it may be sent far."""

    recipe: SentRecipe
    run: str
    folder: str
    """The run's."""
    store: str
    feed: str
    checkpoint: str | None
    """The checkpoint to go on from."""
    start: str | None
    """The weights of an earlier run to start from."""
    relay: str | None
    """The file to tell events to."""
    processes: int
    """How many were asked for."""
    token: int = 0
    """Under which the run may be written (`core.lease`); 0: nobody asks."""


class Session:
    """What one process holds open while it trains.

    Args:
        stack: closes what is opened here, in the reverse order.
    """

    def __init__(
        self, stack: ExitStack, world: World, job: Job, here: Events | None
    ) -> None:
        recipe, options = job.recipe, job.recipe.train
        self.world, self.job, self.recipe = world, job, recipe
        # Above rank 0 an `Events` without listeners: whatever is said there is said to
        # nobody.
        self.events = Events() if world.rank else here or telling(Path(job.relay or ""))
        # First of all: from here on a signal asks for a checkpoint and an end.
        self.stop = stack.enter_context(Stop())
        # Before the learner, whose strategy and norms talk to the other ranks.
        stack.enter_context(joined(world))
        stack.enter_context(
            settled(
                threads=world.threads,
                deterministic=options.deterministic,
                events=self.events,
            )
        )
        self.began = time.perf_counter()
        self.heartbeat = Heartbeat.here()
        self.heartbeat.progress()
        stack.enter_context(listening(self.events, waiting=self.heartbeat.progress))
        # The ceiling is for all processes together, so each gets its part of the share.
        self.feed = Feed.open(
            store_of(recipe, job.store),
            id=job.feed,
            memory_bytes=recipe.resources.memory // _FEED_SHARE // world.size,
        )
        self.batch_size = batch_size_for(recipe, self.feed.sizes["train"])
        stack.enter_context(explaining_errors(recipe, world, self.batch_size))
        self.loader = self._open_loader()
        self.learner = Learner(recipe, self.feed, world)
        self.watched = watched_of(recipe, self.learner.decoders)
        self.total_steps = total_steps(options, len(self.loader))
        self.has_validation = bool(self.feed.sizes.get("validation"))
        self.early_stopping, self.rate_scale = self._deciders()
        self.checkpoints = CheckpointManager(
            recipe,
            Path(job.folder),
            job.run,
            job.store,
            self.learner,
            self.loader,
            self.early_stopping,
            self.rate_scale,
            self.events,
            world,
            self.heartbeat,
            token=job.token,
        )
        # Called first of all at the end: the writer is done before the process group
        # goes.
        stack.callback(self.checkpoints.close)

    def _open_loader(self) -> Loader:
        """The training split, in the order of the recipe."""
        recipe, world = self.recipe, self.world
        # Each member of an ensemble has a batch of its own in every step.
        members = separate_members(recipe)
        return Loader(
            self.feed,
            batch_size=self.batch_size * (members or 1),
            seed=recipe.seed,
            order=recipe.train.order,
            members=members,
            options=LoaderOptions(
                rank=world.rank,
                world=world.size,
                device=device_of(world),
                memory_bytes=recipe.resources.memory // _PREFETCH_SHARE // world.size,
            ),
            # What it says of the order has been said when the run began.
            events=None if self.job.checkpoint else self.events,
        )

    def _deciders(self) -> tuple[EarlyStopping, RateScale | None]:
        """What the verdicts of epochs lead to."""
        early_stop, rate_scale = (
            self.recipe.train.early_stop,
            self.recipe.train.schedule.follow(),
        )
        if not self.has_validation and (early_stop or rate_scale is not None):
            self.events.warn(
                "The validation split has no rows, so there is no early stopping, and no"
                " learning rate that follows the validation loss. The weights of the last"
                " epoch are used"
            )
        early_stopping = EarlyStopping(self.watched.better)
        if early_stop and self.has_validation:
            early_stopping.patience, early_stopping.min_delta = (
                early_stop.patience,
                early_stop.min_delta,
            )
        return early_stopping, rate_scale

    def start_state(self) -> TrainState:
        """Where training is to begin: at a checkpoint, with the weights of an earlier model, or at step 0."""
        state = TrainState()
        if self.job.checkpoint:
            # Every rank reads the whole checkpoint and takes up its own part.
            state = self.checkpoints.restore(Path(self.job.checkpoint))
        elif self.job.start:
            start_from(Path(self.job.start), self.recipe, self.learner, self.events)
        if self.world.size < self.job.processes:
            self.events.say(
                f"{self.world.size} of {self.job.processes} processes are training; more join"
                " when there is room",
                processes=self.world.size,
            )
        for text in self.learner.depends():
            self.events.warn(text)
        schedule = self.recipe.train.schedule
        for word in schedule.unheeded:
            self.events.warn(
                f"train.schedule.{word} has no effect with the schedule {schedule.type}"
            )
        if self.job.checkpoint is None:
            self._announce()
            if self.recipe.train.on_nan == "rollback":
                self.checkpoints.write(
                    state, wait=True
                )  # there must be one to go back to
        return state

    def _announce(self) -> None:
        parameters = parameter_count(self.learner.network)
        rows = "rows" if self.feed.samples is None else "samples"
        members = separate_members(self.recipe)
        of_members = (
            ""
            if members is None
            else f" of {members} members, each with an order of its own,"
        )
        chosen = (
            " (chosen from the number of rows)"
            if self.recipe.train.batch_size == "auto"
            else ""
        )
        self.events.say(
            f"{parameters:,} parameters{of_members} on {self.learner.device.type};"
            f" {self.loader.rows // (members or 1):,} {rows} in batches"
            f" of {self.batch_size}{chosen}; {self.total_steps:,} steps",
            parameters=parameters,
            batch_size=self.batch_size,
            steps=self.total_steps,
        )

    def close(self, state: TrainState) -> dict[str, Any]:
        """Write the best weights, say what was slow, and return the summary that `train` documents."""
        if state.ended == "early_stop":
            self.events.say(
                f"Stopped after epoch {state.epoch}: {self.watched} has not improved since"
                f" epoch {state.best['epoch']}"
            )
        if state.ended == "budget":
            self.events.say(
                f"Stopped after epoch {state.epoch}: another would end after the budget of"
                f" {duration(self.recipe.train.budget or 0)}"
            )
        # Every rank calls: the others wait here while rank 0 writes.
        self.checkpoints.write_weights(state)
        self.events.say(f"Time spent: {slow(state.stages)}.", stages=state.stages)
        self.events.progress(
            "train",
            state.step,
            state.step,
            "steps",
            epoch=state.epoch,
            loss=state.best["train_loss"],
        )
        return {
            "epochs": state.epoch,
            "steps": state.step,
            "best_epoch": state.best["epoch"],
            "ended": state.ended,
            "validation_loss": state.best["loss"],
            "validation": state.best["targets"],
            "train_loss": state.best["train_loss"],
            "parameters": parameter_count(self.learner.network),
            "seconds": round(state.seconds, 3),
            "examples_per_second": round(state.rows / max(state.loop_seconds, 1e-9), 1),
            "processes": self.world.size,
            "threads": self.world.threads,
            "communication": self.learner.communication(),
            "checkpoints": self.checkpoints.measured(),
            "stages": state.stages,
            "slow": slow(state.stages),
            "left_out": len(state.left_out),
        }


__all__ = ["Job", "Session"]
