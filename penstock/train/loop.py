"""The loop: epochs, batches, and the verdict on each epoch. What a step is lives in `train.learner`."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from penstock.core.errors import Interrupted
from penstock.train.collectives import gathered, shared
from penstock.train.learner import Number, StepResult
from penstock.train.nonfinite import NotFinite, check_something_learnt, leave_out
from penstock.train.parallel import chance_depends, even_buffers
from penstock.train.session import Session
from penstock.train.state import TrainState, ranked
from penstock.train.telemetry import Telemetry
from penstock.train.validate import flat, validate, value_of

_LATE = 1.1
"""Of the budget: `train.budget` plans with less, so only a machine that became slower comes here."""
_LOOK_STEPS = 16
"""With `on_nan: rollback` on an accelerator, ranks look together every so many steps whether all was
finite.
"""


class Loop:
    """Goes through the epochs of a session until the training has ended.

    Args:
        session: what this process holds open.
        state: where training begins; moved on in place.
    """

    def __init__(self, session: Session, state: TrainState) -> None:
        self._session, self._options = session, session.recipe.train
        self._state = state
        self._telemetry = Telemetry(session, state)
        self._loss: Number = 0.0
        self._weight: Number = 0.0
        self._seconds_before = state.seconds
        # A single process draws for all rows: there is nothing to warn of.
        self._knows_chance = session.world.size == 1

    def run(self) -> TrainState:
        """Train to the end, and return where that is.

        Raises:
            Interrupted: by a signal, after a checkpoint.
            NotFinite: and the recipe wants to stop there.
        """
        while self._state.ended is None:
            if self._train_epoch():
                self._judge_epoch()
        return self._state

    # -- an epoch --------------------------------------------------------------------------------------------

    def _train_epoch(self) -> bool:
        """All batches that are left of the present epoch; False where training went back to a checkpoint
        instead.
        """
        session, state = self._session, self._state
        # In each epoch, since judging puts the network into eval mode.
        session.learner.to_train()
        began = time.perf_counter()
        # Of an epoch that is resumed in the middle, the sums of its first part.
        self._loss, self._weight = state.loss, state.weight
        try:
            ahead: Any = session.loader.batches(state.epoch, start=state.position)
            # Ends the threads that read ahead, also where a step raises.
            with closing(ahead) as batches:
                for position, batch in batches:
                    # `max_steps` may end in the middle of an epoch.
                    if state.step == session.total_steps:
                        break
                    self._train_batch(position, batch)
            # On an accelerator nobody has looked at the last steps yet.
            session.learner.check()
        except NotFinite as error:
            # Raises again, unless the recipe wants to go back.
            leave_out(error, state, session.recipe, session.events)
            self._state = session.checkpoints.go_back(state, error)
            self._telemetry.went_back(self._state)
            return False
        # On an accelerator this waits for all steps.
        state.loss, state.weight = float(self._loss), float(self._weight)
        if state.epoch + 1 == self._options.epochs or state.step == session.total_steps:
            check_something_learnt(state, session.recipe)
        state.loop_seconds += time.perf_counter() - began
        state.stages = self._telemetry.stages(state.loop_seconds)
        return True

    def _train_batch(self, position: int, batch: Any) -> None:
        """Take one step, count and report it, and write a checkpoint or stop where any rank asks for it."""
        session, state = self._session, self._state
        session.heartbeat.progress(state.step)
        if state.step in state.left_out:
            # Counted as a step, so that rates and seeds of the steps to come stay.
            state.step, state.position = state.step + 1, position + 1
            return
        rows = session.loader.rows_at(state.epoch, position=position)
        is_last = (
            position + 1 == len(session.loader) or state.step + 1 == session.total_steps
        )
        # Else ranks have moved apart, and only some have been heard.
        agrees = session.learner.agrees(state.step, is_last)
        now = time.perf_counter()
        tells = agrees and self._telemetry.is_due(now)
        try:
            done = session.learner.step(
                batch,
                rows=rows,
                step=state.step,
                total=session.total_steps,
                scale=session.rate_scale.scale if session.rate_scale else 1.0,
                stop=session.stop.asked,
                save=not is_last and session.checkpoints.is_due(state, now),
                wants_norm=tells,
                is_last=is_last,
            )
        except NotFinite as error:
            # Going back is the epoch's business, since another batch comes next then.
            if self._options.on_nan == "rollback":
                raise
            leave_out(error, state, session.recipe, session.events)
            # With `skip` nothing has moved, and all ranks have met the same error.
            state.step, state.position = state.step + 1, position + 1
            return
        self._warn_of_chance()
        state.step, state.position, state.rows = (
            state.step + 1,
            position + 1,
            state.rows + rows,
        )
        # Tensors on an accelerator: adding them up waits for nothing.
        self._loss, self._weight = self._loss + done.loss, self._weight + done.weight
        # A step has gone well since the last one that was left out.
        if state.in_row and state.step > state.left_out[-1] + 1:
            state.in_row = 0
        # Telling reads the loss, and so waits for the device anyway. With `rollback`
        # all ranks must look at the same step, and the clock that decides here is each
        # rank's own.
        if tells:
            if self._options.on_nan == "stop":
                session.learner.check()
            self._telemetry.tell(done)
        self._keep_or_stop(done)

    def _keep_or_stop(self, done: StepResult) -> None:
        session, state = self._session, self._state
        # Stop and save are sums over ranks, so that each rank does the same here.
        if done.stop or done.save or state.step % _LOOK_STEPS == 0:
            session.learner.check()
        # The checkpoint holds these sums, so that the epoch's mean loss is right when
        # resumed.
        if done.stop or done.save:
            state.loss, state.weight = float(self._loss), float(self._weight)
            state.seconds = self._elapsed()
            # Before a stop the file must be there; otherwise the thread goes on alone.
            session.checkpoints.write(state, wait=done.stop)
        if done.stop:
            raise self._interrupted()

    def _warn_of_chance(self) -> None:
        """Say once that the answer depends on the number of processes, if a step draws from chance."""
        if not self._knows_chance and self._session.learner.draws is not None:
            self._knows_chance = True
            if self._session.learner.draws:
                self._session.events.warn(chance_depends(self._session.world))

    # -- its verdict, the same at every rank -----------------------------------------------------------------

    def _judge_epoch(self) -> None:
        """Validate, decide what follows (best so far, lower the rate, stop), and keep a checkpoint of it."""
        session, state, options = self._session, self._state, self._options
        # Before judging: rank 0's running means are what the checkpoint keeps.
        even_buffers(session.learner.network, session.world)
        verdict = None
        if session.has_validation:
            verdict = validate(
                session.learner,
                session.feed,
                session.recipe,
                session.world,
                session.batch_size,
                session.heartbeat,
                session.watched,
            )
        value = value_of(verdict, session.watched, session.events)
        epoch = state.epoch + 1
        # Where no epoch has had a value so far, the latest weights are better than
        # none.
        is_best = session.early_stopping.see(epoch, value) or state.best_step is None
        is_higher = session.early_stopping.better == "higher"
        state.ranking = ranked(
            state, value, higher=is_higher, keep=options.checkpoint.keep_best
        )
        if session.rate_scale and session.rate_scale.see(
            verdict["loss"] if verdict else None
        ):
            session.events.say(
                f"epoch {epoch}: the validation loss has not improved; the learning rate is"
                f" now {options.lr * session.rate_scale.scale:.2g}"
            )
        # Rows that all weigh 0 have no mean.
        train_loss = state.loss / max(state.weight, 1e-30)
        # Before the checkpoint, which must say that this epoch is over.
        state.epoch, state.position, state.loss, state.weight = epoch, 0, 0.0, 0.0
        if is_best:
            figures = verdict or {"loss": None, "targets": {}}
            state.best_step = state.step
            state.best = {"epoch": epoch, "train_loss": train_loss, **figures}
        state.ended = self._why_ended()
        session.events.emit(
            "measured",
            step=state.step,
            epoch=epoch,
            train_loss=train_loss,
            is_best=is_best,
            stages=state.stages,
            **flat(verdict),
        )
        state.seconds = self._elapsed()
        self._keep_epoch(is_best)

    def _why_ended(self) -> str | None:
        if self._state.step == self._options.max_steps:
            return "max_steps"
        if self._state.epoch == self._options.epochs:
            return "epochs"
        if self._session.early_stopping.is_over:
            return "early_stop"
        return "budget" if self._is_spent() else None

    def _is_spent(self) -> bool:
        """Whether another epoch would end well after the budget, by rank 0's clock."""
        budget, elapsed = self._options.budget, self._elapsed()
        if budget is None:
            return False
        each = elapsed / self._state.epoch
        spent: bool = shared(elapsed + each > _LATE * budget, self._session.world)
        return spent

    def _keep_epoch(self, is_best: bool) -> None:
        """A checkpoint of the epoch's end, unless pauses have had their share; stop where any rank was asked
        to.
        """
        session, state = self._session, self._state
        spares = state.ended is None and session.checkpoints.spares(is_best)
        # A signal reaches ranks at different moments. What one decided alone would
        # leave the others in a collective.
        flags = shared(
            gathered((session.stop.asked, spares), session.world), session.world
        )
        asked, spared = zip(*flags, strict=True)
        # Only rank 0 knows what checkpoints have cost.
        if any(asked) or not spared[0]:
            session.checkpoints.write(state, best=is_best, wait=any(asked))
        # There may be room for more processes, and nothing left to do for them.
        if any(asked) and not (
            state.ended and session.world.size < session.job.processes
        ):
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return self._session.checkpoints.interrupted(self._state)

    def _elapsed(self) -> float:
        return self._seconds_before + time.perf_counter() - self._session.began


__all__ = ["Loop"]
