"""Keeping: when a checkpoint is due, copying it aside, and a thread that writes it while training goes on.

The loop pauses while tensors are copied into memory of their own (`Snapshot`); hashing, writing and renaming
happen in a thread, one checkpoint at a time. One that falls due by the clock meanwhile is taken as soon as
the thread is free; one that falls due by its step, an epoch's end and the last word before an end wait for
it. What the thread has met is told by the loop's own thread, since listeners are not made for two.

What a checkpoint costs is its pause. With `auto` the pause that was measured decides the spacing, so that
pauses stay under 2 % of the time. Every rank has its part in a checkpoint (sharded states are gathered), so
rank 0's wish for one travels with the gradients, and all write at the same step.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from penstock.contracts.learn import World
from penstock.contracts.optim import RateScale
from penstock.core.errors import Interrupted, StoreError
from penstock.core.events import Events
from penstock.core.heartbeat import Heartbeat
from penstock.core.listeners import as_here
from penstock.core.store import Store
from penstock.loader.loader import Loader
from penstock.nn.weights import read_tensors
from penstock.recipe.schema import CheckpointPolicy, Recipe
from penstock.train.checkpoint import (
    AVERAGE,
    MODEL,
    OPTIMISER,
    Checkpoint,
    Checkpoints,
    Snapshot,
    sound_checkpoint,
    write_weights,
)
from penstock.train.checkpoint_uploader import CheckpointUploader
from penstock.train.collectives import shared
from penstock.train.early_stopping import EarlyStopping
from penstock.train.foreign_state import remembers
from penstock.train.learner import Learner
from penstock.train.nonfinite import NotFinite
from penstock.train.state import TrainState
from penstock.train.state_dict import StateDict, capture, restore

OVERHEAD = 0.02
"""The share of the time that pauses may take, where nobody has set a spacing."""
LEAST_SECONDS, MOST_SECONDS = 30.0, 600.0
_SHORT_SECONDS = 10.0
"""Below this nobody minds an overhead; an epoch's end is kept whatever it costs."""


class Spacing:
    """When the next checkpoint within an epoch is due. Pure: the caller brings the clock."""

    def __init__(self, policy: CheckpointPolicy, *, now: float, step: int) -> None:
        self._policy = policy
        # Seconds and step of the newest checkpoint; what it cost, and what all have
        # cost.
        self._began = self._at = now
        self._step = step
        self._pause = self.pauses = 0.0

    @property
    def seconds(self) -> float | None:
        """From one to the next; None: by steps alone."""
        policy = self._policy
        if policy.every_seconds != "auto":
            return policy.every_seconds
        # Who asks for steps alone gets no clock besides. Else so far apart that a pause
        # of the same length takes OVERHEAD of the time.
        return (
            None
            if policy.every_steps
            else min(max(self._pause / OVERHEAD, LEAST_SECONDS), MOST_SECONDS)
        )

    def is_due(self, *, now: float, step: int) -> bool:
        """Whether one should be written after `step`."""
        seconds, steps = self.seconds, self._policy.every_steps
        return (seconds is not None and now - self._at >= seconds) or (
            steps is not None and step - self._step >= steps
        )

    def note(self, *, now: float, step: int, pause: float) -> None:
        """Note that a checkpoint was taken, and that the loop paused for `pause` seconds."""
        self._at, self._step, self._pause = now, step, pause
        self.pauses += pause

    def is_dear(self, *, now: float) -> bool:
        """Whether pauses have taken more than their share, where nobody has set a spacing."""
        policy = self._policy
        return (
            policy.every_seconds == "auto"
            and not policy.every_steps
            and now - self._began > _SHORT_SECONDS
            and self.pauses > OVERHEAD * (now - self._began)
        )


@dataclass
class _Written:
    """The outcome of writing one checkpoint, for the loop's thread to report."""

    step: int
    seconds: float
    error: Exception | None


class CheckpointManager:
    """Write and restore checkpoints and the final weights, on rank 0.

    The other ranks call the same methods: they take part in gathering tensors, and wait where they must.

    Args:
        folder: the run's.
        run: its id.
        store: the URL of its store; to a bucket checkpoints are copied.
        token: under which the run may be written; 0: nobody asks.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        run: str,
        store: str,
        learner: Learner,
        loader: Loader,
        early_stopping: EarlyStopping,
        rate_scale: RateScale | None,
        events: Events,
        world: World,
        heartbeat: Heartbeat,
        *,
        token: int = 0,
    ) -> None:
        self._learner, self._loader = learner, loader
        self._early_stopping, self._rate_scale = early_stopping, rate_scale
        self._events, self._world, self._heartbeat = events, world, heartbeat
        self._policy = recipe.train.checkpoint
        self._folder, self._run = folder, run
        # a path may be relative to elsewhere
        own = (
            Store(store if "://" in store else folder.parents[1])
            if world.rank == 0
            else None
        )
        # Only rank 0 writes, so only rank 0 has to hold the lease.
        self._leased = own.leased(run) if own is not None and token else None
        self._token = token
        # In a bucket the uploader checks the token, before it sends anything.
        may_write = self._check_token if own is not None and not own.is_remote else None
        self._checkpoints = Checkpoints(
            folder / "checkpoints", self._policy.keep, may_write=may_write
        )
        self._snapshot = Snapshot()
        self._spacing = Spacing(self._policy, now=time.perf_counter(), step=0)
        self._thread: threading.Thread | None = None
        self._written: list[_Written] = []
        self._unwritten: dict[str, Tensor] | None = None
        """The best weights, if no checkpoint could be written of them."""
        self._is_saved = False
        self._said_slow = self._said_dear = False
        self.count, self.pause_seconds, self.write_seconds = 0, 0.0, 0.0
        self._uploader = (
            CheckpointUploader(own, f"runs/{run}", may_write=self._check_token)
            if own is not None and own.is_remote
            else None
        )

    def _check_token(self) -> None:
        """Check that this process still has the lease of the run.

        Raises:
            LeaseLost: another process has taken it over.
        """
        if self._leased is not None:
            self._leased.check(self._token)

    # -- when ------------------------------------------------------------------------------------------------

    def is_due(self, state: TrainState, now: float) -> bool:
        """Whether one should be written after the step that comes; rank 0's wish. Called at each step."""
        # The wish travels with the gradients, so that the other ranks need no clock.
        if self._world.rank:
            return False
        # Here, in the loop's own thread, since listeners belong to it.
        if self._written or self._uploader is not None:
            self.tell()
        # Of the step that comes, since the wish is sent along with it.
        if not self._spacing.is_due(now=now, step=state.step + 1):
            return False
        # The clock can wait for the thread; `every_steps` means that very step, so
        # `write` blocks.
        if (
            self._thread is not None
            and self._thread.is_alive()
            and not self._policy.every_steps
        ):
            if not self._said_slow:
                self._said_slow = True
                self._events.say(
                    "Writing a checkpoint takes longer than the interval between two, so each is"
                    " taken as soon as the one before it is written"
                )
            return False
        return True

    def spares(self, best: bool) -> bool:
        """Whether an epoch's end needs no checkpoint: pauses have had more than their share, and it is not
        the best; rank 0's word.
        """
        if best or not self._spacing.is_dear(now=time.perf_counter()):
            return False
        if not self._said_dear:
            self._said_dear = True
            self._events.say(
                "Epochs are so short that a checkpoint after each would take more than"
                f" {OVERHEAD:.0%} of the time, so some are left out"
            )
        return True

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, state: TrainState, *, best: bool = False, wait: bool = False) -> None:
        """A checkpoint of now; every rank calls, at the same step.

        If it cannot be written training goes on, and says so.

        Args:
            best: this is the best epoch so far.
            wait: return when it is written.
        """
        began = time.perf_counter()
        # The thread still reads the memory that the next snapshot overwrites.
        self.wait()
        # Sharded states are gathered here: a rank that stayed away would block the
        # others.
        tensors = capture(self._learner)
        if tensors is None:
            return
        scaler = self._learner.precision.scaler
        # These keys are the format of `state.json`.
        facts = {
            "place": asdict(state),
            "watch": self._early_stopping.memory(),
            "plateau": self._rate_scale.memory()
            if self._rate_scale is not None
            else None,
            "scaler": scaler.state_dict() if scaler else None,
            "loader": self._loader.state_dict(),
            "processes": self._world.size,
        }
        checkpoint = Checkpoint(
            facts, tensors.model, tensors.optimiser, tensors.average, tensors.extra
        )
        if self._policy.background:
            # Steps move the weights in place while the thread writes: it gets copies.
            checkpoint = Checkpoint.of(facts, self._snapshot.take(checkpoint.files()))
            self._thread = threading.Thread(
                target=as_here(self._write),
                # Numbers are read here and now, as the loop moves `state` on meanwhile.
                args=(state.step, checkpoint, state.best_step, self._others(state), best),
                name="penstock-checkpoint",
            )
            self._thread.start()
        else:
            self._write(
                state.step, checkpoint, state.best_step, self._others(state), best
            )
        # With the wait for the thread before it: all of it is time without a step.
        pause = time.perf_counter() - began
        self.count += 1
        self.pause_seconds += pause
        self._spacing.note(now=time.perf_counter(), step=state.step, pause=pause)
        if wait or not self._policy.background:
            self.wait()

    def _others(self, state: TrainState) -> list[int]:
        return [int(step) for _, step in state.ranking]

    def _write(
        self,
        step: int,
        checkpoint: Checkpoint,
        best_step: int | None,
        others: list[int],
        best: bool,
    ) -> None:
        began = time.perf_counter()
        error: Exception | None = None
        try:
            self._checkpoints.write(step, checkpoint, best=best_step, also=others)
        # `tell` says it, or raises it where training was asked for.
        except Exception as failure:  # noqa: BLE001
            error = failure
            # These weights are in no file: they are kept for `write_weights`.
            if best:
                # The average, where one is kept, is what is deployed. Copies, since the
                # snapshot's memory is used again.
                self._unwritten = {
                    name: tensor.detach().cpu().clone()
                    for name, tensor in (checkpoint.average or checkpoint.model).items()
                }
        else:
            # The best weights so far are in a checkpoint now, and need no memory.
            if best:
                self._unwritten = None
            if self._uploader is not None:
                self._uploader.push()
        # Writing may take long: the launcher must not take it for a stall.
        self._heartbeat.progress()
        self._written.append(_Written(step, time.perf_counter() - began, error))

    def wait(self) -> None:
        """Wait for the checkpoint that is being written, and report it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.tell()

    def tell(self) -> None:
        """Report what the threads have done since the last call, as events.

        Raises:
            Exception: an error of the writer that is no failure of a disk or bucket.
            LeaseLost: another process has taken the run over.
        """
        while self._written:
            done = self._written.pop(0)
            self.write_seconds += done.seconds
            # `interrupted` says by this whether there is something to resume from.
            self._is_saved = done.error is None
            # Disks and buckets may fail while training is sound; any other error is a
            # defect.
            if isinstance(done.error, (StoreError, OSError)):
                self._events.warn(
                    f"The checkpoint of step {done.step} could not be written; training continues"
                    f" without it: {done.error}"
                )
            elif done.error is not None:
                raise done.error
            else:
                pause = self.pause_seconds / max(self.count, 1)
                self._events.emit(
                    "measured",
                    step=done.step,
                    checkpoint_pause_seconds=round(pause, 6),
                    checkpoint_write_seconds=round(done.seconds, 6),
                )
        self._tell_uploader()

    def _tell_uploader(self) -> None:
        if self._uploader is not None:
            for is_trouble, text in self._uploader.heard():
                (self._events.warn if is_trouble else self._events.say)(text)
            if self._uploader.lost is not None:
                raise self._uploader.lost

    def measured(self) -> dict[str, Any]:
        """`count`, `pause_seconds` and `write_seconds` of all since the process began."""
        return {
            "count": self.count,
            "pause_seconds": round(self.pause_seconds, 4),
            "write_seconds": round(self.write_seconds, 4),
        }

    # -- going back ------------------------------------------------------------------------------------------

    def restore(self, path: Path) -> TrainState:
        """Take up the checkpoint in `path`.

        Raises:
            UserError, StoreError: it belongs to another order of rows, or to another model.
        """
        checkpoint = Checkpoint.read(path)
        with sound_checkpoint(path):
            state = self._taken_up(checkpoint)
        # The best weights are in a checkpoint of their own, which may be damaged by
        # itself.
        if state.best_step is not None:
            try:
                self._checkpoints.whole(state.best_step)
            except StoreError as error:
                # No epoch is to come that could take the place of the best.
                if state.ended:
                    raise
                self._events.warn(
                    f"The best weights so far, of epoch {state.best['epoch']}, are lost; the best"
                    f" of the later epochs is used: {error}"
                )
                state.best_step, state.best = None, {}
                # With the lost epoch's value in memory, the epochs to come would be
                # measured by it.
                self._early_stopping.recall(
                    {**checkpoint.state["watch"], "best_value": None, "best_epoch": None}
                )
        # The clock starts here: how long ago the checkpoint was written means nothing
        # now.
        self._spacing.note(now=time.perf_counter(), step=state.step, pause=0.0)
        return state

    def _taken_up(self, checkpoint: Checkpoint) -> TrainState:
        place = TrainState(**checkpoint.state["place"])
        # A step that was learnt from leaves moments; without them training would
        # silently differ.
        if (
            place.step > len(place.left_out)
            and not checkpoint.optimiser
            and remembers(self._learner)
        ):
            raise StoreError(
                f"the checkpoint of step {place.step} lacks {OPTIMISER}, which the optimiser"
                " needs to continue: it was changed. Delete it to use the one before it, or"
                " train again."
            )
        # First, as it refuses another order of rows: the learner is whole until then.
        self._loader.load_state_dict(checkpoint.state["loader"])
        tensors = StateDict(
            checkpoint.model, checkpoint.optimiser, checkpoint.average, checkpoint.extra
        )
        for text in restore(self._learner, tensors, checkpoint.state["scaler"]):
            self._events.warn(text)
        self._early_stopping.recall(checkpoint.state["watch"])
        if self._rate_scale is not None and checkpoint.state["plateau"]:
            self._rate_scale.recall(checkpoint.state["plateau"])
        return place

    def go_back(self, state: TrainState, error: NotFinite) -> TrainState:
        """The state of the last whole checkpoint, with what has been left out since; every rank calls.

        Raises:
            NotFinite: there is no checkpoint to go back to.
        """
        # The newest one may still be in the thread's hands.
        self.wait()
        # Rank 0 chooses for all: ranks that looked for themselves could differ.
        path: Path | None = shared(
            self._checkpoints.newest(self._events) if self._world.rank == 0 else None,
            self._world,
        )
        if path is None:
            raise NotFinite(
                f"{error.message} There is no checkpoint to go back to.",
                step=error.step,
                culprits=error.culprits,
                batch=error.batch,
            )
        before = self.restore(path)
        self._events.say(
            f"Going back to step {before.step}: {state.step - before.step} steps are"
            f" repeated, without the batch of step {error.step}"
        )
        # Newer than the checkpoint: without it the same batch would come again.
        before.left_out, before.in_row = state.left_out, state.in_row
        return before

    # -- ending ----------------------------------------------------------------------------------------------

    def write_weights(self, state: TrainState) -> None:
        """Write the best weights where the bundle looks for them; the other ranks wait."""
        if self._world.rank == 0:
            self.wait()
            best = self._unwritten
            # None unless the best epoch's checkpoint could not be written.
            if best is None:
                assert state.best_step is not None
                folder = self._checkpoints.whole(state.best_step)
                best = read_tensors(
                    folder / (AVERAGE if self._learner.average else MODEL)
                )
            # The last look before the run gets its result: another process may own it
            # by now.
            self._check_token()
            write_weights(self._folder / MODEL, best)
        # A barrier: no rank leaves while rank 0 still writes.
        shared(None, self._world)

    def interrupted(self, state: TrainState) -> Interrupted:
        """The error that ends every rank, once rank 0 has written; every rank calls."""
        # Only rank 0 knows, and every rank ends with the same fate.
        fate = (
            "A checkpoint is saved"
            if shared(self._is_saved, self._world)
            else "No checkpoint could be written of it; those before are kept"
        )
        return Interrupted(
            f"stopped after step {state.step} ({state.epoch} epochs and {state.position} batches). {fate};"
            f" resume with: penstock resume {self._run}"
        )

    def close(self) -> None:
        """Wait for the writer and, for a while, for the uploader; report what is left."""
        # It writes a whole checkpoint or none, so it may finish.
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._uploader is not None:
            self._uploader.close()
            self._tell_uploader()


__all__ = ["CheckpointManager", "Spacing"]
