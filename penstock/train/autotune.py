"""How many processes and threads: measured with the real model on real batches, on the machine as it is now.

The rule. A launcher's declared numbers are obeyed. Threads (1, 2, 4 … cores) are tried in this process, a
fraction of a second each, about two in all: on a small model a second thread may cost ten times what it
brings, and on a busy machine more so, which no formula knows. More processes cost seconds to start and wait
for each other in every step, so they are tried only if one process would train for more than a minute, and
taken only if they are a fifth faster. With accelerators there is one process for each, and its share of the
cores; nothing is measured.

What was chosen is recorded in the run's world.json, with the reason, and used again when the run is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from penstock.contracts.learn import World
from penstock.contracts.tasks import launchable
from penstock.contracts.tensors import MEMBER
from penstock.core.cores import usable_cores
from penstock.core.errors import TrainingError
from penstock.core.events import Events
from penstock.encode.feed import Feed, batch_size_for
from penstock.loader.loader import Loader
from penstock.loader.options import LoaderOptions
from penstock.model import separate_members
from penstock.recipe.schema import Recipe
from penstock.recipe.sent import SentRecipe
from penstock.recipe.stores import store_of
from penstock.train.learner import Learner
from penstock.train.optim import total_steps
from penstock.train.parallel import joined, settled

LONG_SECONDS = 60.0
"""Trainings estimated to be shorter are left to one process."""
# Seconds for all tries and for one; how much faster more processes must be to be taken;
# batches that are read once and then used in turn.
_ALL_SECONDS = 2.0
_TRY_SECONDS = 0.3
_GAIN = 1.2
_BATCHES = 8
_JUDGED = 4


@dataclass(frozen=True)
class Chosen:
    """A place among machines, and why."""

    processes: int
    threads: int
    reason: str
    speeds: dict[str, float] = field(default_factory=dict)
    """Examples a second by `<processes>x<threads>`, where measured."""

    def to_dict(self) -> dict[str, Any]:
        """What the run keeps of it, as JSON."""
        return {
            "processes": self.processes,
            "threads": self.threads,
            "reason": self.reason,
            "examples_per_second": self.speeds,
        }


def choose(
    recipe: Recipe,
    feed: Feed,
    store_url: str,
    events: Events,
    *,
    earlier: dict[str, Any] | None = None,
) -> Chosen:
    """The processes and threads to train with, said aloud.

    Args:
        recipe: its launcher may have declared either.
        feed: whose training split is trained on.
        store_url: where other processes find the feed.
        earlier: what was chosen when this run began, if it did.
    """
    processes, threads = recipe.launcher.limits()
    if earlier:
        # What the recipe declares now goes before what was chosen then.
        chosen = Chosen(
            processes or int(earlier["processes"]),
            threads or int(earlier["threads"]),
            "as when the run began",
        )
        if (chosen.processes, chosen.threads) != (
            earlier["processes"],
            earlier["threads"],
        ):
            events.warn(
                f"Continuing with {_said(chosen.processes, chosen.threads)}, as the recipe"
                f" declares now, instead of {_said(earlier['processes'], earlier['threads'])}."
                " Rows and their order stay the same; the last digits of the weights may"
                " differ."
            )
        return chosen
    if torch.cuda.is_available():
        count = processes or torch.cuda.device_count()
        return _say(
            Chosen(
                count,
                threads or max(1, usable_cores() // count),
                "one process for each accelerator, its share of the cores for each",
            ),
            events,
        )
    if processes is not None and processes > 1:
        reason = (
            "as declared"
            if threads
            else "processes as declared, its share of the cores for each"
        )
        return _say(
            Chosen(processes, threads or max(1, usable_cores() // processes), reason),
            events,
        )
    if processes and threads:
        return Chosen(processes, threads, "as declared")
    return _say(_measured(recipe, feed, store_url, processes, threads, events), events)


def _measured(
    recipe: Recipe,
    feed: Feed,
    store_url: str,
    processes: int | None,
    threads: int | None,
    events: Events,
) -> Chosen:
    available = usable_cores()
    candidates = [threads] if threads else _thread_counts(available)
    if candidates == [1] and (processes == 1 or available == 1):
        return Chosen(1, 1, "there is one core")
    measured: dict[str, float] = {}
    start: float | None = None
    for count in candidates:
        events.progress("train", len(measured), len(candidates), "thread counts tried")
        if start is not None and time.perf_counter() - start > _ALL_SECONDS:
            break
        measured[f"1x{count}"] = speed(World(threads=count), recipe, feed, _TRY_SECONDS)
        # the first one also pays for what torch imports late, seconds sometimes
        start = start or time.perf_counter()
        if len(measured) > 1 and list(measured.values())[-1] < 0.8 * max(
            measured.values()
        ):
            break  # still more threads will not mend it
    best = max(measured, key=lambda word: measured[word])
    if (
        processes is None
        and available > 1
        and _seconds(recipe, feed, measured[best]) > LONG_SECONDS
    ):
        each = threads or 1
        count = max(1, available // each)
        if count > 1:
            word = f"{count}x{each}"
            try:
                measured[word] = recipe.launcher.launch(
                    _trial,
                    (recipe, store_url, feed.id, 5 * _TRY_SECONDS),
                    processes=count,
                    threads=each,
                )
            except TrainingError as error:  # nobody asked for processes; one will do
                events.warn(
                    f"Training with {_said(count, each)} was tried and failed, so one process"
                    f" trains: {error}"
                )
            if measured.get(word, 0.0) > _GAIN * measured[best]:
                best = word
    count, each = map(int, best.split("x"))
    tried = "; ".join(
        f"{_said(*map(int, word.split('x')))}: {_round(value)} examples/s"
        for word, value in measured.items()
    )
    return Chosen(
        count,
        each,
        f"measured: {tried}",
        {word: round(value, 1) for word, value in measured.items()},
    )


def _thread_counts(available: int) -> list[int]:
    """The powers of two up to the cores that there are, and all of them."""
    return sorted(
        {*(2**i for i in range(available.bit_length()) if 2**i <= available), available}
    )


def _seconds(recipe: Recipe, feed: Feed, examples_a_second: float) -> float:
    """How long the whole training takes at that speed, about."""
    rows = feed.sizes["train"]
    batch_size, an_epoch = batch_size_for(recipe, rows), recipe.train.order.an_epoch(rows)
    steps = total_steps(recipe.train, -(-an_epoch // batch_size))
    # A batch is never larger than the epoch itself.
    return steps * min(batch_size, an_epoch) / examples_a_second


@launchable
def _trial(
    world: World, recipe: SentRecipe, store_url: str, feed_id: str, seconds: float
) -> float:
    with joined(world):
        return speed(
            world, recipe, Feed.open(store_of(recipe, store_url), id=feed_id), seconds
        )


@launchable
def speeds_of_feed(
    world: World, recipe: SentRecipe, store_url: str, feed_id: str, seconds: float
) -> tuple[float, float]:
    """`speeds`, in one of several processes, each of which opens the feed."""
    with joined(world):
        feed = Feed.open(store_of(recipe, store_url), id=feed_id)
        return speeds(world, recipe, feed, seconds)


def speed(world: World, recipe: Recipe, feed: Feed, seconds: float) -> float:
    """Examples a second of real steps on a copy of the model, for about so many seconds; the same at every
    rank.
    """
    with _trial_of(world, recipe, feed) as trial:
        return trial.steps(seconds)


def speeds(
    world: World, recipe: Recipe, feed: Feed, seconds: float
) -> tuple[float, float]:
    """Examples a second of real steps, for about so many seconds, and of judging as validation does."""
    with _trial_of(world, recipe, feed) as trial:
        return trial.steps(seconds), trial.judging()


@dataclass(frozen=True)
class _Opened:
    """A copy of the model and some batches, to measure with."""

    learner: Learner
    batches: list[tuple[int, Any]]
    """With the rows of each over all ranks."""

    def steps(self, seconds: float) -> float:
        """Examples a second of training."""
        rows, step, begun = 0, 0, time.perf_counter()
        while True:
            in_batch, batch = self.batches[step % len(self.batches)]
            # It goes through the step's collective, so that ranks stop at the same step
            # whatever their own clocks say.
            over = step > 1 and time.perf_counter() - begun > seconds
            done = self.learner.step(
                batch, rows=in_batch, step=step, total=1_000_000, scale=1.0, stop=over
            )
            step += 1
            rows += in_batch
            if step == 2:  # the first steps allocate, and start threads
                rows, begun = 0, time.perf_counter()
            if done.stop:
                # An epoch has each row once for each member of an ensemble.
                members = separate_members(self.learner.recipe) or 1
                return rows / members / (time.perf_counter() - begun)

    def judging(self) -> float:
        """Examples a second of judging. Every rank judges the same number of batches, since weights that are
        divided are gathered for each.
        """
        self.learner.network.eval()
        some = self.batches[:_JUDGED]
        begun = time.perf_counter()
        for in_batch, batch in some:
            # Every member of an ensemble judges every row.
            batch = {name: array for name, array in batch.items() if name != MEMBER}
            self.learner.accompany(batch, in_batch)
            # A rank without rows of its own has nothing to judge.
            if len(batch["row_id"]):
                float(self.learner.judge(batch)[0])  # waits for an accelerator
        rows = sum(in_batch for in_batch, _ in some)
        return rows / (time.perf_counter() - begun)


@contextmanager
def _trial_of(world: World, recipe: Recipe, feed: Feed) -> Iterator[_Opened]:
    batch_size = batch_size_for(recipe, feed.sizes["train"])
    members = separate_members(recipe)
    loader = Loader(
        feed,
        batch_size=batch_size * (members or 1),
        seed=recipe.seed,
        order=recipe.train.order,
        members=members,
        options=LoaderOptions(rank=world.rank, world=world.size),
    )
    train = recipe.train.model_copy(
        update={"compile": False}
    )  # compiling takes longer than the measurement
    with (
        settled(
            # An `Events` that nobody listens to: of a try nothing is told.
            threads=world.threads,
            deterministic=train.deterministic,
            events=Events(),
        ),
        # What a try draws from chance must not shift the training that follows.
        torch.random.fork_rng(devices=[]),
    ):
        learner = Learner(recipe.model_copy(update={"train": train}), feed, world)
        ahead: Any = loader.batches(0)
        # Read before the clock starts, so that the model is measured and not the disk.
        with closing(ahead):
            batches = [
                (loader.global_rows(position), batch)
                for position, batch in islice(ahead, _BATCHES)
            ]
        yield _Opened(learner, batches)


def _say(chosen: Chosen, events: Events) -> Chosen:
    events.say(
        f"Training with {_said(chosen.processes, chosen.threads)} ({chosen.reason})",
        **chosen.to_dict(),
    )
    return chosen


def _said(processes: int, threads: int) -> str:
    several, more = "es" if processes != 1 else "", "s" if threads != 1 else ""
    return f"{processes} process{several} × {threads} thread{more}"


def _round(speed: float) -> str:
    return f"{speed / 1000:.0f} k" if speed >= 10_000 else f"{speed:.0f}"
