"""Training, told top to bottom.

`train` runs where the user is: it decides what has to be decided once (start from what, how many processes)
and sends `work` to them; when processes are lost it sends it again, from the last checkpoint. `work` runs in
each process: the loop over epochs and batches. What a step is lives in `learner`, what the world does to it
in `parallel`, what is kept in `keeper`, what goes wrong in `troubles`.

Only rank 0 tells events (relayed by a file if it is elsewhere), writes checkpoints and judges. Everything
that ranks must agree on travels in a collective: a wish to stop or to keep a checkpoint with the gradients,
the verdict on an epoch after it.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penstock.contracts.learn import World
from penstock.core.errors import LeaseLost, Outgrown, RankLost, TrainingError, UserError
from penstock.core.events import Events
from penstock.core.interrupts import interrupts
from penstock.core.pulse import Pulse
from penstock.core.remote import heard
from penstock.core.store import Store
from penstock.data.feed import Feed, batch_size_for
from penstock.data.loader import Loader
from penstock.metrics import better
from penstock.model import parameter_count
from penstock.recipe.schema import Recipe
from penstock.run import Run
from penstock.train.checkpoint import Checkpoints
from penstock.train.crew import Crew
from penstock.train.judge import flat, judge, value_of, watched_of
from penstock.train.keeper import Keeper, Place, ranked
from penstock.train.learner import Learner, NotFinite, Number
from penstock.train.measure import choose
from penstock.train.optim import rate, total_steps
from penstock.train.pace import Pace, slow
from penstock.train.parallel import chance_depends, device_of, even_buffers, gathered, joined, settled, shared
from penstock.train.relay import following, telling
from penstock.train.start import start_from, tell_other_sorts, weights_of
from penstock.train.stop import Stop
from penstock.train.troubles import left_out, none_learnt, plainly
from penstock.train.watch import Plateau, Watch

_AHEAD = 4
"""Batches that are read ahead may take this part of `resources.memory`."""
_TELL_SECONDS = 0.5
"""How often progress is told and measured."""
_LOOK_STEPS = 16
"""With `on_nan: rollback` on an accelerator, ranks look together every so many steps whether all was
finite.
"""


@dataclass(frozen=True)
class Job:
    """What a process must know: plain and small, since it may be sent far."""

    recipe: Recipe
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


def train(recipe: Recipe, feed: Feed, run: Run, events: Events, *, resume: bool = False) -> dict[str, Any]:
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
        of the best epoch), `train_loss`, `ended` (`epochs`, `max_steps`, `early_stop`), `parameters`,
        `seconds`, `examples_per_second`, `processes`, `threads`, `communication` ({`bytes_per_step`,
        `ratio`}, see `Learner.communication`), `checkpoints` ({`count`, `pause_seconds`, `write_seconds`}),
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
        raise TrainingError("the training split has no rows. Look at `split`, `where` and the quarantine.")
    with run.at_work(events):
        return _train(recipe, feed, run, events, resume=resume)


def _train(recipe: Recipe, feed: Feed, run: Run, events: Events, *, resume: bool) -> dict[str, Any]:
    checkpoints = Checkpoints(run.checkpoints, recipe.train.checkpoint.keep)
    found = checkpoints.newest(events) if resume else None
    if resume:
        events.say(
            f"going on from {found.name}"
            if found
            else "there is no checkpoint to go on from; starting at step 0"
        )
    start = None
    if recipe.train.from_ is not None and found is None:
        start = str(weights_of(recipe.train.from_.weights, run.store))
        tell_other_sorts(recipe, feed.dataset, run.store, events)
    earlier = run.world().get("chosen") if resume else None
    chosen = choose(recipe, feed, run.store.url, events, earlier=earlier)
    if not earlier:
        accelerators = (
            [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            if torch.cuda.is_available()
            else []
        )
        run.choose({**chosen.declared(), "accelerators": accelerators})

    recovery = recipe.launcher.recovery()
    (run.path / ".events").unlink(missing_ok=True)  # of a launcher that was killed
    crew = Crew(recovery, chosen.processes)
    relay = run.path / ".events" if chosen.processes > 1 or crew.may_shrink else None
    job = Job(
        recipe,
        run.id,
        str(run.path),
        run.store.url,
        feed.id,
        str(found) if found else None,
        start,
        str(relay) if relay else None,
        chosen.processes,
        run.token,
    )
    while True:
        interrupts.check()  # a wish to stop that came while processes were lost
        try:
            with following(relay, events) if relay else nullcontext():
                here = None if relay else events
                elastic: dict[str, Any] = (
                    {"grows": growth} if (growth := crew.growth(time.monotonic())) else {}
                )
                summary: dict[str, Any] = recipe.launcher.launch(
                    work, (job, here), processes=crew.processes, threads=chosen.threads, **elastic
                )
            return {**summary, "restarts": crew.restarts, "taken_in": crew.taken_in}
        except LeaseLost:
            raise  # it is another's business now
        except NotFinite:
            raise  # going on from a checkpoint would end there again
        except Outgrown as error:
            crew.outgrown(error)
            path = checkpoints.newest(events)
            # None, unless the checkpoint could not be written, which was said.
            again = max(error.step + 1 - _step_of(path), 0)
            repeated = f"; {again} steps are done again" if again else ""
            processes = _counted(crew.processes, "process", "es")
            events.say(
                f"{error.message}: going on from step {_step_of(path)} with {processes}{repeated}",
                step=_step_of(path),
                processes=crew.processes,
                repeated=again,
            )
            job = replace(job, checkpoint=str(path) if path else None)
        except (TrainingError, UserError) as error:
            path = checkpoints.newest(events)
            if _step_of(path) <= _step_of(job.checkpoint) and crew.falls_back(error):
                events.warn(
                    f"{error.message} More processes did not come to work; going on from step"
                    f" {_step_of(path)} with {_counted(crew.processes, 'process', 'es')}, as before.",
                    step=_step_of(path),
                    processes=crew.processes,
                )
                job = replace(job, checkpoint=str(path) if path else None)
                continue
            if isinstance(error, UserError):
                raise
            if trace := getattr(error, "traceback", None):
                events.emit("traceback", text=trace)
            if not isinstance(error, RankLost) or not crew.lost(error, time.monotonic()):
                kept = checkpoints.all()
                before = (
                    f" It was started again {_counted(crew.restarts, 'time', 's')} already."
                    if crew.restarts
                    else ""
                )
                on = f" {kept[-1].name} is kept; go on from it with: penstock resume {run.id}" if kept else ""
                raise TrainingError(f"{error.message}{before}{on}") from None
            again = max(error.step - _step_of(path), 0)
            events.warn(
                f"{error.message} Starting again from step {_step_of(path)} with"
                f" {_counted(crew.processes, 'process', 'es')}: {again}"
                f" step{'s are' if again != 1 else ' is'} done again (restart {crew.restarts}; at most"
                f" {recovery.restarts} an hour).",
                restart=crew.restarts,
                step=_step_of(path),
                repeated=again,
                processes=crew.processes,
                lost=list(error.ranks),
            )
            job = replace(job, checkpoint=str(path) if path else None)


def _step_of(checkpoint: Path | str | None) -> int:
    return int(Path(checkpoint).name.removeprefix("step-")) if checkpoint else 0


def _counted(number: int, word: str, more: str) -> str:
    return f"{number} {word}{more if number != 1 else ''}"


def work(world: World, job: Job, here: Events | None = None) -> dict[str, Any]:
    """The whole of training in one process; every process returns the same summary.

    `here` listens if the process is this one.
    """
    recipe, options = job.recipe, job.recipe.train
    events = Events() if world.rank else here or telling(Path(job.relay or ""))
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        stack.enter_context(joined(world))
        stack.enter_context(
            settled(threads=world.threads, deterministic=options.deterministic, events=events)
        )
        began = time.perf_counter()
        pulse = Pulse.here()
        pulse.move()

        # -- what is trained, on what ------------------------------------------------------------------------
        stack.enter_context(heard(events, waiting=pulse.move))
        feed = Feed.open(
            Store(job.store, cache_bytes=recipe.resources.cache),
            job.feed,
            memory_bytes=recipe.resources.memory // 4 // world.size,
        )
        batch_size = batch_size_for(recipe, feed.sizes["train"])
        stack.enter_context(plainly(recipe, world, batch_size))
        loader = Loader(
            feed,
            "train",
            batch_size=batch_size,
            seed=recipe.seed,
            order=options.order,
            rank=world.rank,
            world=world.size,
            device=device_of(world),
            memory_bytes=recipe.resources.memory // _AHEAD,
            events=None if job.checkpoint else events,
        )
        learner = Learner(recipe, feed, world)
        watched = watched_of(recipe, learner)
        total = total_steps(options, len(loader))
        validates = bool(feed.sizes.get("validation"))
        if not validates and (options.early_stop or options.schedule.type == "plateau"):
            events.warn(
                "the validation split has no rows: no early stopping, no plateau; the last epoch's weights"
                " are taken"
            )

        is_higher = better(watched.rsplit(".", 1)[-1])
        watch = Watch(is_higher)
        if options.early_stop and validates:
            watch.patience, watch.min_delta = options.early_stop.patience, options.early_stop.min_delta
        plateau = (
            Plateau(options.schedule.factor, options.schedule.patience, options.schedule.floor)
            if options.schedule.type == "plateau"
            else None
        )
        place = Place()
        keeper = Keeper(
            recipe,
            Path(job.folder),
            job.run,
            job.store,
            learner,
            loader,
            watch,
            plateau,
            events,
            world,
            pulse,
            token=job.token,
        )
        stack.callback(keeper.close)
        if job.checkpoint:
            place = keeper.recall(Path(job.checkpoint))
        elif job.start:
            start_from(Path(job.start), recipe, learner, events)
        if world.size < job.processes:
            events.say(
                f"{world.size} of {job.processes} processes are at work; more are taken in when there is"
                " room",
                processes=world.size,
            )
        pace = Pace(loader.timings, place.stages)
        for text in learner.depends():
            events.warn(text)
        if job.checkpoint is None:
            events.say(
                f"{parameter_count(learner.network):,} parameters on {learner.device.type}; {loader.rows:,}"
                f" {'rows' if feed.samples is None else 'samples'} in batches of"
                f" {batch_size}{' (chosen from the number of rows)' if options.batch_size == 'auto' else ''};"
                f" {total:,} steps",
                parameters=parameter_count(learner.network),
                batch_size=batch_size,
                steps=total,
            )
            if options.on_nan == "rollback":
                keeper.write(place, wait=True)  # there must be one to go back to
        seconds_before = place.seconds
        told_of_chance = world.size == 1

        def elapsed() -> float:
            return seconds_before + time.perf_counter() - began

        # -- the loop ----------------------------------------------------------------------------------------
        told = time.perf_counter()
        told_rows = place.rows
        while place.ended is None:
            epoch = place.epoch
            learner.to_train()
            loop_began = time.perf_counter()
            loss: Number = place.loss
            weight: Number = place.weight
            try:
                ahead: Any = loader.batches(epoch, start=place.position)
                with closing(ahead) as batches:
                    for position, batch in batches:
                        if place.step == total:
                            break
                        pulse.move(place.step)
                        if place.step in place.left_out:
                            place.step, place.position = place.step + 1, position + 1
                            continue
                        now = time.perf_counter()
                        rows = loader.rows_at(epoch, position)
                        is_last = position + 1 == len(loader) or place.step + 1 == total
                        # else ranks have moved apart, and only some have been heard
                        agrees = learner.agrees(place.step, is_last)
                        telling_now = agrees and (
                            now - told > _TELL_SECONDS or place.step < recipe.parallel.interval
                        )
                        try:
                            done = learner.step(
                                batch,
                                rows=rows,
                                step=place.step,
                                total=total,
                                scale=plateau.scale if plateau else 1.0,
                                stop=stop.asked,
                                save=not is_last and keeper.is_due(place, now),
                                wants_norm=telling_now,
                                is_last=is_last,
                            )
                        except NotFinite as error:
                            if options.on_nan == "rollback":
                                raise
                            left_out(error, place, recipe, events)
                            place.step, place.position = place.step + 1, position + 1
                            continue
                        if not told_of_chance and learner.draws is not None:
                            told_of_chance = True
                            if learner.draws:
                                events.warn(chance_depends(world))
                        place.step += 1
                        place.position = position + 1
                        place.rows += rows
                        loss, weight = loss + done.loss, weight + done.weight
                        if place.in_row and place.step > place.left_out[-1] + 1:
                            place.in_row = 0
                        if telling_now:
                            if options.on_nan == "stop":
                                learner.check()
                            last = float(done.loss) / max(float(done.weight), 1e-30)
                            lap = time.perf_counter() - told
                            measured: dict[str, Any] = {
                                "loss": last,
                                "examples_per_second": round((place.rows - told_rows) / max(lap, 1e-9), 1),
                                **pace.lap(lap),
                            }
                            sent = (
                                {
                                    f"communication_{word}": value
                                    for word, value in learner.communication().items()
                                }
                                if world.size > 1
                                else {}
                            )
                            events.progress("train", place.step, total, "steps", epoch=epoch + 1, **measured)
                            lr = options.lr * rate(
                                options.schedule, place.step - 1, total, plateau.scale if plateau else 1.0
                            )
                            events.emit(
                                "measured",
                                step=place.step,
                                epoch=epoch + 1,
                                lr=lr,
                                grad_norm=float(done.norm) if done.norm is not None else None,
                                **sent,
                                **measured,
                            )
                            told, told_rows = time.perf_counter(), place.rows
                        if done.stop or done.save or place.step % _LOOK_STEPS == 0:
                            learner.check()
                        if done.stop or done.save:
                            place.loss, place.weight, place.seconds = float(loss), float(weight), elapsed()
                            keeper.write(place, wait=done.stop)
                        if done.stop:
                            raise keeper.interrupted(place)
                learner.check()
            except NotFinite as error:
                left_out(error, place, recipe, events)
                place = keeper.gone_back(place, error)
                told_rows = place.rows
                continue
            place.loss, place.weight = float(loss), float(weight)
            if epoch + 1 == options.epochs or place.step == total:
                none_learnt(place, recipe)
            place.loop_seconds += time.perf_counter() - loop_began
            place.stages = pace.stages(place.loop_seconds)

            # -- the epoch's verdict: the same at every rank -------------------------------------------------
            even_buffers(learner.network, world)
            verdict = judge(learner, feed, recipe, world, batch_size, pulse) if validates else None
            value = value_of(verdict, watched, events)
            best = watch.see(epoch + 1, value) or place.best_step is None
            place.ranking = ranked(
                place, value, higher=is_higher == "higher", keep=options.checkpoint.keep_best
            )
            if plateau and plateau.see(verdict["loss"] if verdict else None):
                events.say(
                    f"epoch {epoch + 1}: the validation loss has not improved; the rate is now"
                    f" {options.lr * plateau.scale:.2g}"
                )
            train_loss = place.loss / max(place.weight, 1e-30)
            place.epoch, place.position, place.loss, place.weight = epoch + 1, 0, 0.0, 0.0
            if best:
                place.best_step, place.best = (
                    place.step,
                    {
                        "epoch": epoch + 1,
                        "train_loss": train_loss,
                        **(verdict or {"loss": None, "targets": {}}),
                    },
                )
            place.ended = (
                "max_steps"
                if place.step == options.max_steps
                else "epochs"
                if place.epoch == options.epochs
                else "early_stop"
                if watch.is_over
                else None
            )
            events.emit(
                "measured",
                step=place.step,
                epoch=epoch + 1,
                train_loss=train_loss,
                is_best=best,
                stages=place.stages,
                **flat(verdict),
            )
            place.seconds = elapsed()
            asked, spared = zip(
                *shared(gathered((stop.asked, place.ended is None and keeper.spares(best)), world), world),
                strict=True,
            )
            if any(asked) or not spared[0]:
                keeper.write(place, best=best, wait=any(asked))
            # there may be room for more, and nothing left to do
            if any(asked) and not (place.ended and world.size < job.processes):
                raise keeper.interrupted(place)

        # -- the end -----------------------------------------------------------------------------------------
        if place.ended == "early_stop":
            events.say(
                f"stopped after epoch {place.epoch}: {watched} has not improved since epoch"
                f" {place.best['epoch']}"
            )
        keeper.settle(place)
        events.say(f"slow: {slow(place.stages)}", stages=place.stages)
        events.progress(
            "train", place.step, place.step, "steps", epoch=place.epoch, loss=place.best["train_loss"]
        )
        return {
            "epochs": place.epoch,
            "steps": place.step,
            "best_epoch": place.best["epoch"],
            "ended": place.ended,
            "validation_loss": place.best["loss"],
            "validation": place.best["targets"],
            "train_loss": place.best["train_loss"],
            "parameters": parameter_count(learner.network),
            "seconds": round(place.seconds, 3),
            "examples_per_second": round(place.rows / max(place.loop_seconds, 1e-9), 1),
            "processes": world.size,
            "threads": world.threads,
            "communication": learner.communication(),
            "checkpoints": keeper.measured(),
            "stages": place.stages,
            "slow": slow(place.stages),
            "left_out": len(place.left_out),
        }


__all__ = ["Job", "Place", "train", "work"]
