"""Runs the stages in order; a stage that is done already is skipped, with the reason.

    prepare → encode → train → pack → evaluate

Each stage is a function from one immutable artefact to the next. What identifies a stage's work is a key made
of its inputs alone (`keys`); the key is looked up first. A training is `training`'s, a report `reports`'.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from penstock.bundle.bundle import Bundle
from penstock.bundle.pack import pack
from penstock.core import audit
from penstock.core.errors import BundleError, RecipeError, StoreError
from penstock.core.events import Events
from penstock.core.interrupts import interrupts
from penstock.core.listeners import listening
from penstock.core.making import made_once
from penstock.core.memory import MemoryWatch
from penstock.core.mine import recall
from penstock.core.store import Store
from penstock.encode.feed import Feed, feed_id, write_feed
from penstock.pipeline.ceiling import Limits
from penstock.pipeline.keys import bundle_index, packed, train_key, training_lock
from penstock.pipeline.known_leaks import leak_warnings
from penstock.pipeline.outcome import Outcome
from penstock.pipeline.reports import find_report, write_report
from penstock.pipeline.training import resume_advice, resume_command, train_into
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import find_dataset, prepare
from penstock.prepare.versions import open_version, over_version
from penstock.recipe.schema import Recipe
from penstock.run import Run

STAGES = ("prepare", "encode", "train", "pack", "evaluate")
_AGAIN = "Run the same command again to continue."


class Pipeline:
    """Runs the stages of one recipe in one store: one by one, or with `until(stage)`.

    Args:
        fresh: begin a new run even where an interrupted one of the same recipe and data could go on.
        of: a run that goes on: its dataset and its feed are meant, whatever the source holds by now, and no
            other training.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        events: Events,
        *,
        fresh: bool = False,
        of: Run | None = None,
    ) -> None:
        # A version that is named stands in the place of what the source would give.
        recipe, self._version = over_version(recipe, store)
        self.recipe, self.store, self.events, self.fresh, self._of = (
            recipe,
            store,
            events,
            fresh,
            of,
        )
        self.outcome = Outcome()
        self._limits = Limits(recipe, events)

    def until(self, last: str) -> Outcome:
        """Run every stage up to and including `last`.

        Where several processes were started for it, the first runs them, and every one returns what came of
        it.
        """
        needs = STAGES.index(last) + 1
        # Refused now, not after hours of preparing.
        if needs > 1:
            self._can_learn()
        named = self.recipe.launcher.lead(lambda: self._all(needs).named())
        # Only rank 0 ran the stages; the others open what it made.
        if self.recipe.launcher.here().rank:
            self.outcome = Outcome.opened(named, self.store)
        return self.outcome

    def _all(self, needs: int) -> Outcome:
        with listening(self.events), interrupts.installed(), MemoryWatch() as watch:
            try:
                for name in STAGES[:needs]:
                    with interrupts.advice(
                        f"The stage {name} did not finish; the results of earlier stages are saved."
                        f" {_AGAIN}"
                    ):
                        # A signal that came between two stages is answered here.
                        interrupts.check()
                        getattr(self, name)()
            finally:
                # Known where a stage failed, too.
                self.outcome.peak_memory_bytes = watch.peak_bytes
        # Closing the watch has taken a last measurement.
        self.outcome.peak_memory_bytes = watch.peak_bytes
        return self.outcome

    def _can_learn(self) -> None:
        if not self.recipe.inputs or not self.recipe.targets:
            lacking = " and ".join(
                word for word in ("inputs", "targets") if not getattr(self.recipe, word)
            )
            raise RecipeError(
                f"To train, the recipe {self.recipe.name!r} needs {lacking}. `penstock init"
                " SOURCE --target COLUMN` proposes them from the data."
            )

    def _stage(
        self,
        name: str,
        find: Callable[[], Any],
        make: Callable[[], Any],
        what: Callable[[Any], str],
    ) -> Any:
        """Return what `find` finds, or else what `make` makes, timed; `what` names it
        for events.
        """
        start = time.perf_counter()
        value = find()
        skipped = value is not None
        if value is not None:
            self.events.emit(
                "stage_skipped", stage=name, why=f"{what(value)} is there already"
            )
        else:
            with self.events.stage(name), self._limits.over(name):
                value = make()
        self.outcome.skipped[name] = skipped
        self.outcome.seconds[name] = round(time.perf_counter() - start, 3)
        return value

    def prepare(self) -> None:
        """Open the recipe's dataset, or make it. Raises UserError or DataError."""
        self.outcome.dataset = self._stage(
            "prepare",
            lambda: (
                self._version
                or self._dataset_of_run()
                or find_dataset(self.recipe, self.store)
            ),
            self._prepared,
            lambda d: f"dataset {d.reference}",
        )
        self._check_run("dataset", self.outcome.dataset.reference)

    def _prepared(self) -> Dataset:
        dataset = prepare(self.recipe, self.store, self.events)
        audit.note(self.store, "prepared", dataset.reference, rows=dataset.counts["in"])
        return dataset

    def _dataset_of_run(self) -> Dataset | None:
        """Return the dataset of the run that goes on, even if the source has changed
        since.
        """
        if self._of is None:
            return None
        whole = self._of.dataset.partition("?")[0]
        if not self.store.has(f"datasets/{whole.replace('@', '/')}"):
            return None
        return open_version(self.store, self._of.dataset)

    def _check_run(self, word: str, reference: str) -> None:
        """Check that a run that goes on has its own dataset or feed, where that had to
        be made anew.
        """
        wanted = reference if self._of is None else getattr(self._of, word)
        if wanted != reference:
            raise StoreError(
                f"{(self._of.id if self._of else '')} was trained on the {word} {wanted},"
                f" which is no longer in the store {self.store.url}. Prepared again, it is"
                f" {reference}, because its source or Penstock has changed. Restore it, or"
                " train again with `penstock run`."
            )

    def encode(self) -> None:
        """Open the dataset's feed, or fit and write it. Raises DataError."""
        dataset = self.outcome.dataset
        assert dataset is not None

        def find() -> Feed | None:
            # A run that goes on keeps its own feed, even if the recipe would make
            # another.
            name = feed_id(self.recipe, dataset) if self._of is None else self._of.feed
            return (
                Feed.open(self.store, id=name)
                if self.store.has(f"feeds/{name}")
                else None
            )

        self.outcome.feed = self._stage(
            "encode",
            find,
            lambda: self._encoded(dataset),
            lambda f: f"feed {f.id}",
        )
        self._check_run("feed", self.outcome.feed.id)
        self.outcome.rows()  # raises where they do not add up

    def _encoded(self, dataset: Dataset) -> Feed:
        feed = write_feed(self.recipe, dataset, self.store, self.events)
        audit.note(self.store, "encoded", dataset.reference, feed=feed.id)
        return feed

    def train(self) -> None:
        """Find a finished run, go on with an unfinished one, or start a new one.

        Raises TrainingError where training fails, Interrupted where a signal ended it.
        """
        dataset, feed = self.outcome.dataset, self.outcome.feed
        assert dataset is not None and feed is not None
        key = train_key(self.recipe, feed)

        def make() -> Run:
            # A training that cannot fit is refused before anyone waits for its lock.
            self._limits.training_fits(feed)
            return made_once(
                self.store,
                training_lock(key),
                f"the training of {self.recipe.name!r}",
                self.events,
                find=lambda: self._trained(key),
                make=learn,
                # `--fresh` wants a training of its own, so it waits for nobody else's.
                waits=not self.fresh,
            )

        def learn() -> Run:
            earlier = None if self.fresh else self._left_off(key)
            # To train reads no row of a dataset in a bucket; `check` has asked it.
            if earlier is None and not dataset.is_far:
                for warning in leak_warnings(self.recipe, dataset):
                    self.events.warn(warning)
            with ExitStack() as stack:
                # A stop waits here, so that its message names a run of the store.
                with interrupts.deferred():
                    run = earlier or Run.create(
                        self.store,
                        recipe=self.recipe,
                        dataset=dataset.reference,
                        feed=feed.id,
                        key=key,
                    )
                    stack.enter_context(interrupts.advice(resume_advice(run)))
                return train_into(
                    run, self.recipe, feed, self.events, resume=earlier is not None
                )

        self.outcome.run = self._stage(
            "train", lambda: self._trained(key), make, lambda r: r.id
        )
        self.outcome.training = self.outcome.run.summary

    def _trained(self, key: str) -> Run | None:
        return (
            self._of
            if self._of is not None and self._of.status == "done"
            else Run.find(self.store, key=key)
        )

    def _left_off(self, key: str) -> Run | None:
        """Return the unfinished run of the same recipe and data to go on with; None to
        start a new one.

        One that failed is for the user to judge: where only the launcher's processes were lost it goes on by
        itself (`goes_on`), and else a new one begins.
        """
        left = Run.left_off(self.store, key=key)
        if not left:
            self._say_of_other()
            return None
        earlier = left[0]
        if earlier.status == "interrupted" or self.recipe.launcher.goes_on():
            others = (
                f" {len(left) - 1} more such runs can be continued; the next is {left[1].id}:"
                f" {resume_command(left[1])}."
                if left[1:]
                else ""
            )
            self.events.say(
                f"Continuing {earlier.id}, which has the same recipe and data and was"
                f" {earlier.status}.{others} To start a new run instead, add --fresh.",
                run=earlier.id,
            )
            return earlier
        self.events.say(
            f"{earlier.id}, with the same recipe and data, failed; this is a new run. To"
            f" continue from its last checkpoint instead: {resume_command(earlier)}",
            run=earlier.id,
        )
        return None

    def _say_of_other(self) -> None:
        """Tell the user of an interrupted run of this name whose data or recipe
        differs.
        """
        latest = Run.latest(self.store)
        if (
            latest is not None
            and latest.name == self.recipe.name
            and latest.was_interrupted
        ):
            self.events.say(
                f"{latest.id} of {latest.name!r} was interrupted, but the data or the recipe"
                " has changed since, so this is a new run. To continue the old one as it was:"
                f" {resume_command(latest)}",
                run=latest.id,
            )

    def pack(self) -> None:
        """Open the run's bundle, or export, prove and write it."""
        run, feed, dataset = self.outcome.run, self.outcome.feed, self.outcome.dataset
        assert run is not None and feed is not None and dataset is not None

        def make() -> Bundle:
            bundle = pack(run, feed, dataset, self.store, self.events, recipe=self.recipe)
            # Written after the bundle, so that the index never names one that is not
            # there.
            self.store.write_text(bundle_index(self.recipe, run), text=bundle.reference)
            audit.note(
                self.store,
                "packed",
                dataset.reference,
                run=run.id,
                bundle=bundle.reference,
            )
            return bundle

        def make_once() -> Bundle:
            return made_once(
                self.store,
                bundle_index(self.recipe, run),
                f"the bundle of {run.id}",
                self.events,
                # The warning was given by the first look.
                find=lambda: self._packed(run, quiet=True),
                make=make,
            )

        self.outcome.bundle = self._stage(
            "pack", lambda: self._packed(run), make_once, lambda b: b.reference
        )

    def _packed(self, run: Run, *, quiet: bool = False) -> Bundle | None:
        """Open the run's bundle, if it is in the store and may be used."""
        reference = packed(self.recipe, run, self.store)
        if reference is None:
            return None
        # Lying in the store is no proof. An id is that of the content, and those whose code this user packed
        # are noted.
        is_mine = recall("bundle", reference.removeprefix("bundle-")) is not None
        try:
            return Bundle.open(reference, store=self.store, trust=is_mine)
        except BundleError as error:
            # A bundle of one's own that does not open is an error, and packing it again
            # would hide that.
            if is_mine:
                raise
            if not quiet:
                self.events.warn(
                    f"{reference} in the store is not used: {error.message} The run is packed"
                    " again."
                )
            return None

    def evaluate(self) -> None:
        """Read the report on the bundle, or measure and write it."""
        bundle, dataset = self.outcome.bundle, self.outcome.dataset
        assert bundle is not None and dataset is not None
        self.outcome.report = self._stage(
            "evaluate",
            lambda: find_report(self.recipe, bundle, dataset, self.store),
            lambda: self._evaluated(bundle, dataset),
            lambda _: "its report",
        )

    def _evaluated(self, bundle: Bundle, dataset: Dataset) -> dict[str, Any]:
        report = write_report(self.recipe, bundle, dataset, self.store, self.events)
        audit.note(self.store, "evaluated", dataset.reference, bundle=bundle.reference)
        return report
