"""Training, told top to bottom.

`train` runs where the user is: it decides what has to be decided once (start from what, how many processes) and sends
`work` to them. `work` runs in each process: the loop over epochs and batches. What a step is lives in `learner`, what the
world does to it in `parallel`.

Only rank 0 tells events (relayed by a file if it is elsewhere), writes checkpoints and judges. Everything that ranks must
agree on travels in a collective: a wish to stop with the gradients, the verdict on an epoch after it.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from penstock.contracts.learn import World
from penstock.core.errors import Interrupted, StoreError, TrainingError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.data.feed import Feed, batch_size_for
from penstock.data.loader import Loader
from penstock.metrics import better
from penstock.model import parameter_count
from penstock.recipe.schema import Recipe
from penstock.run import Run
from penstock.train.checkpoint import AVERAGE, MODEL, Checkpoint, Checkpoints, read_tensors, write_weights
from penstock.train.judge import flat, judge, value_of, watched_of
from penstock.train.learner import Learner, NotFinite, Number
from penstock.train.measure import choose
from penstock.train.optim import rate, total_steps
from penstock.train.parallel import even_buffers, gathered, joined, settled, shared
from penstock.train.relay import following, telling
from penstock.train.start import start_from, weights_of
from penstock.train.stop import Stop
from penstock.train.watch import Plateau, Watch

_TELL_SECONDS = 0.5
"""How often progress is told and measured."""


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


@dataclass
class Place:
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
    best_step: int | None = None
    best: dict[str, Any] = field(default_factory=dict)
    """The verdict of the best epoch."""
    ended: str | None = None
    """Why training is over: `epochs`, `max_steps`, `early_stop`."""


def train(recipe: Recipe, feed: Feed, run: Run, events: Events, *, resume: bool = False) -> dict[str, Any]:
    """Train the recipe's model on a feed; leaves the best epoch's weights (their average if `ema` is on) in the run.

    Args:
        recipe: what to do.
        feed: encoded rows.
        run: an open run; its status, diary and closing are the caller's business.
        events: told of choices, progress and measurements.
        resume: go on from the run's newest whole checkpoint.

    Returns:
        `epochs`, `steps`, `best_epoch` (from 1), `validation_loss`, `validation` ({target: {metric: value}} of the best epoch),
        `train_loss`, `ended` (`epochs`, `max_steps`, `early_stop`), `parameters`, `seconds`, `examples_per_second`,
        `processes`, `threads`, `communication` ({`bytes_per_step`, `ratio`}, see `Learner.communication`).

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint.
        TrainingError: the loss is not finite; a process died.
        UserError: the run is finished or in other hands; `train.from` names weights that fit nowhere.
    """
    if not feed.sizes.get("train"):
        raise TrainingError("the training split has no rows. Look at `split`, `where` and the quarantine.")
    run.begin()
    checkpoints = Checkpoints(run.checkpoints, recipe.train.checkpoint.keep)
    found = checkpoints.newest(events) if resume else None
    if resume:
        events.say(f"going on from {found.name}" if found else "there is no checkpoint to go on from; starting at step 0")
    start = None
    if recipe.train.from_ is not None and found is None:
        start = str(weights_of(recipe.train.from_.weights, run.store))
    earlier = run.world().get("chosen") if resume else None
    chosen = choose(recipe, feed, run.store.url, events, earlier=earlier)
    if not earlier:
        accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        run.choose({**chosen.declared(), "accelerators": accelerators})

    relay = run.path / ".events" if chosen.processes > 1 else None
    job = Job(recipe, run.id, str(run.path), run.store.url, feed.id, str(found) if found else None, start, str(relay) if relay else None)
    with following(relay, events) if relay else nullcontext():
        here = None if relay else events
        try:
            summary: dict[str, Any] = recipe.launcher.launch(work, (job, here), processes=chosen.processes, threads=chosen.threads)
        except NotFinite:
            raise  # going on from a checkpoint would end there again
        except TrainingError as error:
            kept = checkpoints.all()
            raise TrainingError(f"{error.message} {kept[-1].name} is kept; go on from it with: penstock resume {run.id}" if kept else error.message) from None
    return summary


def work(world: World, job: Job, here: Events | None = None) -> dict[str, Any]:
    """The whole of training in one process; every process returns the same summary. `here` listens if the process is this one."""
    recipe, options = job.recipe, job.recipe.train
    events = Events() if world.rank else here or telling(Path(job.relay or ""))
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        stack.enter_context(joined(world))
        stack.enter_context(settled(threads=world.threads, deterministic=options.deterministic, events=events))
        began = time.perf_counter()

        # -- what is trained, on what ----------------------------------------------------------------------------------
        feed = Feed.open(Store(job.store), job.feed)
        batch_size = batch_size_for(recipe, feed.sizes["train"])
        loader = Loader(feed, "train", batch_size=batch_size, seed=recipe.seed, rank=world.rank, world=world.size)
        learner = Learner(recipe, feed, world)
        watched = watched_of(recipe, learner)
        total = total_steps(options, len(loader))
        validates = bool(feed.sizes.get("validation"))
        if not validates and (options.early_stop or options.schedule.type == "plateau"):
            events.warn("the validation split has no rows: no early stopping, no plateau; the last epoch's weights are taken")

        watch = Watch(better(watched.rsplit(".", 1)[-1]))
        if options.early_stop and validates:
            watch.patience, watch.min_delta = options.early_stop.patience, options.early_stop.min_delta
        plateau = Plateau(options.schedule.factor, options.schedule.patience, options.schedule.floor) if options.schedule.type == "plateau" else None
        place = Place()
        keeper = _Keeper(job, learner, loader, watch, plateau, events)
        if job.checkpoint:
            place = keeper.recall(Path(job.checkpoint))
        elif job.start:
            start_from(Path(job.start), recipe, learner, events)
        for text in learner.depends():
            events.warn(text)
        if job.checkpoint is None:
            events.say(
                f"{parameter_count(learner.network):,} parameters on {learner.device.type}; {feed.sizes['train']:,} {'rows' if feed.samples is None else 'samples'} in batches of {batch_size}"
                f"{' (chosen from the number of rows)' if options.batch_size == 'auto' else ''}; {total:,} steps",
                parameters=parameter_count(learner.network), batch_size=batch_size, steps=total)
        seconds_before = place.seconds

        def elapsed() -> float:
            return seconds_before + time.perf_counter() - began

        # -- the loop --------------------------------------------------------------------------------------------------
        told = saved = time.perf_counter()
        told_rows = place.rows
        while place.ended is None:
            epoch = place.epoch
            learner.to_train()
            loop_began = time.perf_counter()
            loss: Number = place.loss
            weight: Number = place.weight
            batches: Any = loader.batches(epoch, start=place.position)
            stack.enter_context(closing(batches))
            for position, batch in batches:
                if place.step == total:
                    break
                now = time.perf_counter()
                rows = loader.global_rows(position)
                is_last = position + 1 == len(loader) or place.step + 1 == total
                agrees = learner.agrees(place.step, is_last)  # else ranks have moved apart, and only some have been heard
                telling_now = agrees and (now - told > _TELL_SECONDS or place.step == 0)
                done = learner.step(
                    batch, rows=rows, step=place.step, total=total, scale=plateau.scale if plateau else 1.0, stop=stop.asked, wants_norm=telling_now, is_last=is_last)
                place.step += 1
                place.position = position + 1
                place.rows += rows
                loss, weight = loss + done.loss, weight + done.weight
                if telling_now:
                    learner.check()
                    last = float(done.loss) / max(float(done.weight), 1e-30)
                    speed = (place.rows - told_rows) / max(time.perf_counter() - told, 1e-9)
                    measured: dict[str, Any] = {"loss": last, "examples_per_second": round(speed, 1)}
                    sent = learner.communication()
                    events.progress("train", place.step, total, "steps", epoch=epoch + 1, **measured)
                    lr = options.lr * rate(options.schedule, place.step - 1, total, plateau.scale if plateau else 1.0)
                    events.emit("measured", step=place.step, epoch=epoch + 1, lr=lr, grad_norm=float(done.norm) if done.norm is not None else None, **sent, **measured)
                    told, told_rows = time.perf_counter(), place.rows
                if done.stop or (agrees and now - saved > (60.0 if options.checkpoint.every_seconds == "auto" else options.checkpoint.every_seconds) and not is_last):
                    learner.check()
                    place.loss, place.weight, place.seconds = float(loss), float(weight), elapsed()
                    keeper.write(place, world)
                    saved = time.perf_counter()
                if done.stop:
                    raise keeper.interrupted(place, world)
            learner.check()
            place.loss, place.weight = float(loss), float(weight)
            place.loop_seconds += time.perf_counter() - loop_began

            # -- the epoch's verdict: the same at every rank -----------------------------------------------------------
            even_buffers(learner.network, world)
            verdict = judge(learner, feed, recipe, world, batch_size) if validates else None
            value = value_of(verdict, watched, events)
            best = watch.see(epoch + 1, value) or place.best_step is None
            if plateau and plateau.see(verdict["loss"] if verdict else None):
                events.say(f"epoch {epoch + 1}: the validation loss has not improved; the rate is now {options.lr * plateau.scale:.2g}")
            train_loss = place.loss / max(place.weight, 1e-30)
            place.epoch, place.position, place.loss, place.weight = epoch + 1, 0, 0.0, 0.0
            if best:
                place.best_step, place.best = place.step, {"epoch": epoch + 1, "train_loss": train_loss, **(verdict or {"loss": None, "targets": {}})}
            place.ended = "max_steps" if place.step == options.max_steps else "epochs" if place.epoch == options.epochs else "early_stop" if watch.is_over else None
            events.emit("measured", step=place.step, epoch=epoch + 1, train_loss=train_loss, is_best=best, **flat(verdict))
            place.seconds = elapsed()
            keeper.write(place, world, best=best)
            saved = time.perf_counter()
            if any(shared(gathered(stop.asked, world), world)):
                raise keeper.interrupted(place, world)

        # -- the end ---------------------------------------------------------------------------------------------------
        if place.ended == "early_stop":
            events.say(f"stopped after epoch {place.epoch}: {watched} has not improved since epoch {place.best['epoch']}")
        keeper.settle(place, world)
        events.progress("train", place.step, place.step, "steps", epoch=place.epoch, loss=place.best["train_loss"])
        return {
            "epochs": place.epoch, "steps": place.step, "best_epoch": place.best["epoch"], "ended": place.ended, "validation_loss": place.best["loss"],
            "validation": place.best["targets"], "train_loss": place.best["train_loss"], "parameters": parameter_count(learner.network),
            "seconds": round(place.seconds, 3), "examples_per_second": round(place.rows / max(place.loop_seconds, 1e-9), 1),
            "processes": world.size, "threads": world.threads, "communication": learner.communication(),
        }


# -- keeping -----------------------------------------------------------------------------------------------------------


class _Keeper:
    """Rank 0's hands: checkpoints, and the final weights. The other ranks wait where they must."""

    def __init__(self, job: Job, learner: Learner, loader: Loader, watch: Watch, plateau: Plateau | None, events: Events) -> None:
        self._learner, self._loader, self._watch, self._plateau, self._events = learner, loader, watch, plateau, events
        self._folder = Path(job.folder)
        self._checkpoints = Checkpoints(self._folder / "checkpoints", job.recipe.train.checkpoint.keep)
        self._unwritten: dict[str, torch.Tensor] | None = None
        """The best weights, if no checkpoint could be written of them."""
        self._run, self._is_saved = job.run, False

    def write(self, place: Place, world: World, *, best: bool = False) -> None:
        """A checkpoint of now; every rank calls. If it cannot be written training goes on, and says so."""
        learner = self._learner
        held = learner.held()
        if held is not None:
            scaler = learner.precision.scaler
            state = {
                "place": asdict(place), "watch": self._watch.memory(), "plateau": self._plateau.memory() if self._plateau else None,
                "scaler": scaler.state_dict() if scaler else None, "loader": self._loader.state_dict(), "processes": world.size,
            }
            try:
                self._checkpoints.write(place.step, Checkpoint(state, held.model, held.optimiser, held.average, held.extra), best=place.best_step)
                self._is_saved = True
                if best:
                    self._unwritten = None
            except (StoreError, OSError) as error:
                self._is_saved = False
                self._events.warn(f"no checkpoint at step {place.step}, training goes on without: {error}")
                if best:
                    self._unwritten = {name: tensor.detach().cpu().clone() for name, tensor in (held.average or held.model).items()}

    def recall(self, path: Path) -> Place:
        """Take up the checkpoint in `path`.

        Raises:
            UserError, StoreError: it belongs to another order of rows, or to another model.
        """
        kept = Checkpoint.read(path)
        self._loader.load_state_dict(kept.state["loader"])
        for text in self._learner.recall(kept.model, kept.optimiser, kept.average, kept.state["scaler"], kept.extra):
            self._events.warn(text)
        self._watch.recall(kept.state["watch"])
        if self._plateau and kept.state["plateau"]:
            self._plateau.recall(kept.state["plateau"])
        place = Place(**kept.state["place"])
        if place.best_step is not None:
            try:
                self._checkpoints.whole(place.best_step)
            except StoreError as error:
                if place.ended:
                    raise
                self._events.warn(f"the best weights so far, of epoch {place.best['epoch']}, are lost; the best of the epochs to come is taken: {error}")
                place.best_step, place.best = None, {}
                self._watch.recall({**kept.state["watch"], "best_value": None, "best_epoch": None})
        return place

    def settle(self, place: Place, world: World) -> None:
        """Write the best weights where the bundle looks for them; the other ranks wait."""
        if world.rank == 0:
            best = self._unwritten
            if best is None:
                assert place.best_step is not None
                folder = self._checkpoints.whole(place.best_step)
                best = read_tensors(folder / (AVERAGE if self._learner.average else MODEL))
            write_weights(self._folder / MODEL, best)
        shared(None, world)

    def interrupted(self, place: Place, world: World) -> Interrupted:
        """What ends every rank, once rank 0 has written."""
        kept = "A checkpoint is saved" if shared(self._is_saved, world) else "No checkpoint could be written of it; those before are kept"
        return Interrupted(f"stopped after step {place.step} ({place.epoch} epochs and {place.position} batches). {kept}; resume with: penstock resume {self._run}")


__all__ = ["Job", "Place", "train", "work"]
