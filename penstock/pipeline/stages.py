"""The stages in order; what is done is not done again, and says why.

    prepare → encode → train → pack → evaluate

Each stage is a function from one immutable artefact to the next. What identifies a stage's work is a key made
of its inputs alone; the key is looked up first. Engines, launchers, stores and memory are in no key: they do
not change answers.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.bundle.bundle import Bundle
from penstock.bundle.pack import pack
from penstock.core.errors import BundleError, Interrupted, LeaseLost, PenstockError, RecipeError, StoreError
from penstock.core.events import Events, JsonLines, Sink
from penstock.core.identity import fingerprint
from penstock.core.interrupts import interrupts
from penstock.core.making import made_once
from penstock.core.memory import MemoryWatch
from penstock.core.mine import recall
from penstock.core.paths import shown
from penstock.core.remote import listening
from penstock.core.sound import object_in, sound
from penstock.core.store import FORMAT, Store
from penstock.encode.feed import Feed, feed_id, write_feed
from penstock.evaluate import evaluate, report_markdown
from penstock.pipeline.ceiling import Limits
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import find_dataset, prepare
from penstock.recipe.order import TrainOrder
from penstock.recipe.schema import Recipe
from penstock.run import Run

_REFERENCE = re.compile(r"bundle-[0-9a-f]{16}")
STAGES = ("prepare", "encode", "train", "pack", "evaluate")


@dataclass
class Outcome:
    """What a pipeline made, and what it found there already."""

    dataset: Dataset | None = None
    feed: Feed | None = None
    run: Run | None = None
    bundle: Bundle | None = None
    report: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, bool] = field(default_factory=dict)
    peak_memory_bytes: int = 0

    def named(self) -> dict[str, Any]:
        """What another process needs to open the same: references, and what is no artefact, plain."""
        return {
            "dataset": self.dataset.reference if self.dataset else None,
            "feed": self.feed.id if self.feed else None,
            "run": self.run.id if self.run else None,
            "bundle": self.bundle.reference if self.bundle else None,
            "report": self.report,
            "training": self.training,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "peak_memory_bytes": self.peak_memory_bytes,
            "is_trusted": self.bundle is not None and self.bundle.trusted,
        }

    @classmethod
    def opened(cls, named: dict[str, Any], store: Store) -> Outcome:
        """What `named` told of in another process of this very command, from the store that both see."""
        named = dict(named)
        trust = named.pop("is_trusted")
        return cls(
            **{
                **named,
                "dataset": Dataset.open(store, named["dataset"]) if named["dataset"] else None,
                "feed": Feed.open(store, named["feed"]) if named["feed"] else None,
                "run": Run.open(store, named["run"]) if named["run"] else None,
                "bundle": Bundle.open(named["bundle"], store, trust=trust) if named["bundle"] else None,
            }
        )

    def rows(self) -> dict[str, int]:
        """in = train + validation + test + quarantined + duplicates + filtered."""
        if self.dataset is None:
            return {}
        counts = dict(self.dataset.counts)
        if self.feed is not None:
            for split in ("train", "validation", "test"):
                counts[split] = self.feed.rows.get(split, 0)
            counts["quarantined"] += self.feed.quarantined
        total = sum(n for word, n in counts.items() if word != "in")
        if total != counts["in"]:
            raise PenstockError(
                f"rows do not add up: {counts['in']} came in, {total} are accounted for ({counts}). This is a"
                " defect of Penstock; please report it."
            )
        return counts

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        report = self.report or {}
        return {
            "dataset": self.dataset.reference if self.dataset else None,
            "run": self.run.id if self.run else None,
            "bundle": self.bundle.reference if self.bundle else None,
            "rows": self.rows(),
            "samples": self.feed.samples if self.feed else None,
            "metrics": report.get("metrics", {}),
            "intervals": report.get("intervals", {}),
            "baseline": report.get("baseline", {}),
            "classical": report.get("classical", {}),
            "slices": report.get("slices", []),
            "verdict": report.get("verdict"),
            "training": self.training,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def train_key(recipe: Recipe, feed: Feed) -> str:
    """What decides a training's answer."""
    whole = recipe.to_dict()
    # came later: left out where it says nothing, so that what was trained before is found
    usual = {"order": TrainOrder().to_dict()}
    train = {
        word: value
        for word, value in whole["train"].items()
        if word != "checkpoint" and value != usual.get(word)
    }
    # runs from before there was the word keep their keys
    parallel = [] if recipe.parallel == type(recipe.parallel)() else [whole["parallel"]]
    return fingerprint("train", FORMAT, feed.id, whole["model"], train, recipe.seed, *parallel)


def training(key: str) -> str:
    """The name under which one process at a time trains for a key (`core.making`)."""
    return f"trainings/{key}"


def pack_key(recipe: Recipe, run: Run) -> str:
    """What decides a bundle's content, beside the weights."""
    whole = recipe.to_dict()
    return fingerprint("pack", FORMAT, run.id, recipe.name, whole["keep"], whole["derive"], whole["clean"])


def packed(recipe: Recipe, run: Run, store: Store) -> str | None:
    """The reference of the bundle that was packed of this run by this recipe and that lies in the store, if
    there is one. It is not opened.

    Raises:
        StoreError: what the store says of it is no reference.
    """
    reference = (store.read_text(_memo(recipe, run)) or "").strip()
    if reference and not _REFERENCE.fullmatch(reference):
        raise StoreError(
            f"{store.url}/{_memo(recipe, run)} says {shown(reference)}, which is no bundle: it was changed."
            " Delete it, and the run is packed anew."
        )
    return reference if reference and store.has(f"bundles/{reference.removeprefix('bundle-')}") else None


def _memo(recipe: Recipe, run: Run) -> str:
    return f"index/bundle-{pack_key(recipe, run)}"


def report_key(recipe: Recipe, bundle: str, dataset: Dataset) -> str:
    """What decides an evaluation's result; `bundle` is the bundle's id."""
    return fingerprint("report", FORMAT, bundle, dataset.reference, recipe.to_dict()["evaluate"])


class Pipeline:
    """The stages over one recipe and store. Call the stages in order, or `until(stage)`.

    Args:
        fresh: begin a new run even where an interrupted one of the same recipe and data could go on.
        of: a run that goes on: its dataset and its feed are meant, whatever the source holds by now, and no
            other training.
    """

    def __init__(
        self, recipe: Recipe, store: Store, events: Events, *, fresh: bool = False, of: Run | None = None
    ) -> None:
        self.recipe, self.store, self.events, self.fresh, self._of = recipe, store, events, fresh, of
        self.outcome = Outcome()
        self._limits = Limits(recipe, events)

    def until(self, last: str) -> Outcome:
        """Run every stage up to and with `last`.

        Where several processes were started for it, the first runs them, and every one returns what came of
        it.
        """
        needs = STAGES.index(last) + 1
        if needs > 1:
            self._can_learn()
        named = self.recipe.launcher.lead(lambda: self._all(needs).named())
        if self.recipe.launcher.here().rank:
            self.outcome = Outcome.opened(named, self.store)
        return self.outcome

    def _all(self, needs: int) -> Outcome:
        with listening(self.events), interrupts.installed(), MemoryWatch() as watch:
            try:
                for name in STAGES[:needs]:
                    with interrupts.advice(
                        f"It was in the stage {name}; what earlier stages made is kept. {_AGAIN}"
                    ):
                        interrupts.check()
                        getattr(self, name)()
            finally:
                self.outcome.peak_memory_bytes = watch.peak_bytes
        self.outcome.peak_memory_bytes = watch.peak_bytes
        return self.outcome

    def _can_learn(self) -> None:
        if not self.recipe.inputs or not self.recipe.targets:
            lacking = " and ".join(word for word in ("inputs", "targets") if not getattr(self.recipe, word))
            raise RecipeError(
                f"to train, the recipe {self.recipe.name!r} needs {lacking}. `penstock init SOURCE --target"
                " COLUMN` writes them by looking at the data."
            )

    def _stage(
        self, name: str, found: Callable[[], Any], make: Callable[[], Any], what: Callable[[Any], str]
    ) -> Any:
        start = time.perf_counter()
        value = found()
        skipped = value is not None
        if value is not None:
            self.events.emit("stage_skipped", stage=name, why=f"{what(value)} is there already")
        else:
            with self.events.stage(name), self._limits.over(name):
                value = make()
        self.outcome.skipped[name] = skipped
        self.outcome.seconds[name] = round(time.perf_counter() - start, 3)
        return value

    def prepare(self) -> None:
        """The dataset of the recipe: opened where it is there, else made. Raises UserError or DataError."""
        self.outcome.dataset = self._stage(
            "prepare",
            lambda: self._dataset_of_run() or find_dataset(self.recipe, self.store),
            lambda: prepare(self.recipe, self.store, self.events),
            lambda d: f"dataset {d.reference}",
        )
        self._is_of_run("dataset", self.outcome.dataset.reference)

    def _dataset_of_run(self) -> Dataset | None:
        """What the run that goes on has learnt from: a source that changed meanwhile must not begin another
        run in its place.
        """
        if self._of is None or not self.store.has(f"datasets/{self._of.dataset.replace('@', '/')}"):
            return None
        return Dataset.open(self.store, self._of.dataset)

    def _is_of_run(self, word: str, found: str) -> None:
        """That a run which goes on goes on with what it has learnt from, where that had to be made anew."""
        wanted = found if self._of is None else getattr(self._of, word)
        if wanted != found:
            raise StoreError(
                f"{self._of.id if self._of else ''} has learnt from the {word} {wanted}, which is no longer"
                f" in the store {self.store.url}; made anew it is {found}: its source, or Penstock, has"
                " changed since. Restore it, or train anew with `penstock run`."
            )

    def encode(self) -> None:
        """The feed of the dataset: opened where it is there, else fitted and written. Raises DataError."""
        dataset = self.outcome.dataset
        assert dataset is not None

        def found() -> Feed | None:
            name = feed_id(self.recipe, dataset) if self._of is None else self._of.feed
            return Feed.open(self.store, name) if self.store.has(f"feeds/{name}") else None

        self.outcome.feed = self._stage(
            "encode",
            found,
            lambda: write_feed(self.recipe, dataset, self.store, self.events),
            lambda f: f"feed {f.id}",
        )
        self._is_of_run("feed", self.outcome.feed.id)
        self.outcome.rows()  # they add up, or we stop here

    def train(self) -> None:
        """The run of the recipe on the feed: a finished one, one that goes on, or a new one.

        Raises TrainingError where training fails, Interrupted where a signal ended it.
        """
        dataset, feed = self.outcome.dataset, self.outcome.feed
        assert dataset is not None and feed is not None
        key = train_key(self.recipe, feed)

        def make() -> Run:
            self._limits.training_fits(feed)
            return made_once(
                self.store,
                training(key),
                f"the training of {self.recipe.name!r}",
                self.events,
                found=lambda: self._trained(key),
                make=learn,
                waits=not self.fresh,
            )

        def learn() -> Run:
            earlier = None if self.fresh else self._left_off(key)
            with ExitStack() as stack:
                # a run that is in the store is always named by what is said of a stop
                with interrupts.deferred():
                    run = earlier or Run.create(
                        self.store, self.recipe, dataset=dataset.reference, feed=feed.id, key=key
                    )
                    stack.enter_context(interrupts.advice(resume_advice(run)))
                return train_into(run, self.recipe, feed, self.events, resume=earlier is not None)

        self.outcome.run = self._stage("train", lambda: self._trained(key), make, lambda r: r.id)
        self.outcome.training = self.outcome.run.summary

    def _trained(self, key: str) -> Run | None:
        return self._of if self._of is not None and self._of.status == "done" else Run.find(self.store, key)

    def _left_off(self, key: str) -> Run | None:
        """The run of the same recipe and data to go on with.

        One that failed is for the user to judge: where only the launcher's processes were lost it goes on by
        itself (`goes_on`), and else a new one begins.
        """
        left = Run.left_off(self.store, key)
        if not left:
            self._say_of_other()
            return None
        earlier = left[0]
        if earlier.status == "interrupted" or self.recipe.launcher.goes_on():
            others = (
                f" {len(left) - 1} more like it can still go on; the next is {left[1].id}:"
                f" {resume_command(left[1])}."
                if left[1:]
                else ""
            )
            self.events.say(
                f"{earlier.id} of the same recipe and data was {earlier.status}: going on with it.{others} To"
                " begin a new run instead, add --fresh.",
                run=earlier.id,
            )
            return earlier
        self.events.say(
            f"{earlier.id} of the same recipe and data failed; this is a new run. To go on from its last"
            f" checkpoint instead: {resume_command(earlier)}",
            run=earlier.id,
        )
        return None

    def _say_of_other(self) -> None:
        """The latest run may have been interrupted over data, or with words, that are no longer these: it is
        named, not forgotten.
        """
        latest = Run.latest(self.store)
        if latest is not None and latest.name == self.recipe.name and latest.was_interrupted:
            self.events.say(
                f"{latest.id} of {latest.name!r} was interrupted, and the data or the recipe is no longer"
                " what it was: this is a new run. To go on with that one, as it was:"
                f" {resume_command(latest)}",
                run=latest.id,
            )

    def pack(self) -> None:
        """The bundle of the run: opened where it is there, else exported, replayed and written."""
        run, feed, dataset = self.outcome.run, self.outcome.feed, self.outcome.dataset
        assert run is not None and feed is not None and dataset is not None

        def make() -> Bundle:
            bundle = pack(run, feed, dataset, self.store, self.events, recipe=self.recipe)
            self.store.write_text(_memo(self.recipe, run), bundle.reference)
            return bundle

        def make_once() -> Bundle:
            return made_once(
                self.store,
                _memo(self.recipe, run),
                f"the bundle of {run.id}",
                self.events,
                found=lambda: self._packed(run, quiet=True),
                make=make,
            )

        self.outcome.bundle = self._stage("pack", lambda: self._packed(run), make_once, lambda b: b.reference)

    def _packed(self, run: Run, *, quiet: bool = False) -> Bundle | None:
        """The bundle of the run, if it is in the store and may be used."""
        reference = packed(self.recipe, run, self.store)
        if reference is None:
            return None
        # Lying in the store is no proof. An id is that of the content, and those whose code this user packed
        # are noted.
        is_mine = recall("bundle", reference.removeprefix("bundle-")) is not None
        try:
            return Bundle.open(reference, self.store, trust=is_mine)
        except BundleError as error:
            if is_mine:
                raise
            if not quiet:
                self.events.warn(
                    f"{reference}, which lies in the store, is not used: {error.message} The run is packed"
                    " anew."
                )
            return None

    def evaluate(self) -> None:
        """The report of the bundle on the dataset: read where it is there, else measured and written."""
        bundle, dataset = self.outcome.bundle, self.outcome.dataset
        assert bundle is not None and dataset is not None
        self.outcome.report = self._stage(
            "evaluate",
            lambda: find_report(self.recipe, bundle, dataset, self.store),
            lambda: write_report(self.recipe, bundle, dataset, self.store, self.events),
            lambda _: "its report",
        )


_AGAIN = "Give the same command again to go on."


def resume_command(run: Run) -> str:
    """What a user types to go on with a run; it may be copied as it stands."""
    is_usual = run.store.url in ("./store", str(Path("store").absolute()))
    return f"penstock resume {run.id}" + ("" if is_usual else f" --store {shlex.quote(run.store.url)}")


def resume_advice(run: Run) -> str:
    """What is said where a training is stopped before it could save."""
    return f"No new checkpoint was saved; those before are kept. Continue with: {resume_command(run)}"


def train_into(run: Run, recipe: Recipe, feed: Feed, events: Events, *, resume: bool = False) -> Run:
    """Train into an open run; close its diary with what came of it, whatever that is."""
    diary = JsonLines(run.events_path)
    sinks: list[Sink] = [diary, *(tracker.sink(run.path) for tracker in recipe.trackers)]
    with interrupts.installed(), interrupts.advice(resume_advice(run)):
        _train_told(run, recipe, feed, events, sinks, resume=resume)
    return run


def _train_told(
    run: Run, recipe: Recipe, feed: Feed, events: Events, sinks: list[Sink], *, resume: bool
) -> None:
    from penstock.train.supervisor import train

    for sink in sinks:
        events.attach(sink)
    try:
        summary = train(recipe, feed, run, events, resume=resume)
    except BaseException as error:
        # What was interrupted may answer with an error of its own.
        if isinstance(error, (Interrupted, KeyboardInterrupt)) or interrupts.is_stopping:
            _recorded(run, {"status": "interrupted"}, events)
            raise _interrupted(error, run) from None
        _recorded(run, {"status": "failed", "error": str(error)}, events)
        raise
    finally:
        for sink in sinks:
            events.detach(sink)
    _finish(run, summary)


def _interrupted(error: BaseException, run: Run) -> Interrupted:
    """What the user is told of a training that was stopped: always with the command that goes on."""
    command = resume_command(run)
    if not isinstance(error, Interrupted):
        trouble = f" {error.message}" if isinstance(error, PenstockError) else ""
        return Interrupted(f"Stopped.{trouble} {resume_advice(run)}")
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
        if run.status != "done":
            raise
        raise StoreError(
            f"{error.message} The training is done, and whole on this machine: give the same command again,"
            " and it is sent; nothing is trained anew."
        ) from None


def _recorded(run: Run, facts: Mapping[str, Any], events: Events) -> None:
    """Write down how it ended. What kept us from it is said, and hides nothing of the end itself."""
    try:
        run.record(facts)
    except (StoreError, LeaseLost) as error:
        events.warn(f"that {run.id} was {facts['status']} could not be written everywhere: {error.message}")


def find_report(recipe: Recipe, bundle: Bundle, dataset: Dataset, store: Store) -> dict[str, Any] | None:
    """The evaluation that was made of this bundle, this dataset and these `evaluate` words, if any."""
    name = f"reports/{report_key(recipe, bundle.id, dataset)}"
    if not store.has(name):
        return None
    folder = store.open(name).path
    with sound(f"the report {folder}", advice="Delete it, and it is made again"):
        found = object_in(folder / "report.json")
    return {**found, "path": str(folder / "report.md")}


def write_report(
    recipe: Recipe, bundle: Bundle, dataset: Dataset, store: Store, events: Events
) -> dict[str, Any]:
    """Evaluate, and keep the result as an artefact of its own (a run and a bundle are never edited)."""
    return made_once(
        store,
        f"reports/{report_key(recipe, bundle.id, dataset)}",
        f"the report on {bundle.reference}",
        events,
        found=lambda: find_report(recipe, bundle, dataset, store),
        make=lambda: _reported(recipe, bundle, dataset, store, events),
    )


def _reported(
    recipe: Recipe, bundle: Bundle, dataset: Dataset, store: Store, events: Events
) -> dict[str, Any]:
    result = evaluate(bundle, dataset, recipe, events)
    name = f"reports/{report_key(recipe, bundle.id, dataset)}"
    with store.draft(
        name, {"type": "report", "bundle": bundle.reference, "dataset": dataset.reference}
    ) as folder:
        (folder / "report.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), "utf-8")
        (folder / "report.md").write_text(report_markdown(result), "utf-8")
    return {**result, "path": str(store.at(f"{name}/report.md"))}
