"""Feed: a dataset version, encoded for one set of features.

A cache in the store: it may be deleted, and is made again.

Two passes over the dataset, each a stream of batches, spread over threads and put back in order. The first
summarises the training split and fits the features; the second encodes every split into shards. Rows that
cannot be encoded (a value that a feature refuses, a target that is missing or of a class the training split
lacks) go to the feed's own quarantine with their reasons: for each split, dataset rows = feed rows +
quarantined rows.

    feeds/<id>/  fitted.json   <split>-00000.arrow …   quarantine.parquet   manifest.json

`holes` in the manifest names slots whose rows are gone, so that all other rows keep their places and an order
drawn before holds. Nothing writes it yet: forgetting (`pipeline.forget`) makes feeds anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from penstock.contracts.data import ROW_ID
from penstock.contracts.foreign import is_loaded, no_foreign_code
from penstock.core.errors import BundleError, Problem, RecipeError, StoreError
from penstock.core.events import Events
from penstock.core.identity import fingerprint
from penstock.core.making import made_once
from penstock.core.near import Hints
from penstock.core.paths import below, shown
from penstock.core.sound import sound
from penstock.core.store import Artefact, Store, as_store_error, atomic_write
from penstock.core.wording import counted
from penstock.encode.distributed import DistributedWriter
from penstock.encode.encoding import Encoding
from penstock.encode.fit import fit_encoding
from penstock.encode.local import LocalWriter
from penstock.encode.order_columns import OrderColumns
from penstock.encode.quarantine import Quarantine, commonest
from penstock.encode.recipe_encoding import row_encoding
from penstock.encode.reuse_fitted import columns_of, other_sorts, reuse_fitted
from penstock.encode.series.feed import SeriesWriter
from penstock.encode.series.windows import WindowShards
from penstock.encode.writer import FeedJob, FeedWriter
from penstock.prepare.budget import rows_within, threads_of
from penstock.prepare.dataset import SPLITS, Dataset
from penstock.recipe.schema import Recipe
from penstock.shards.cache import Cache
from penstock.shards.layout import rows_in
from penstock.shards.remote_files import HELD_BYTES
from penstock.shards.shards import Shards

# Part of every feed's id: with another number, all feeds are made anew.
FORMAT = 1


class Feed:
    """One dataset version, encoded.

    Args:
        path: its folder.
        manifest: what was written last.
        far: the bucket in which it lies, if it is not here: its shards are then fetched as they are needed.
        memory_bytes: the most that shards take in memory where the cache keeps no copies of them.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        *,
        far: Store | None = None,
        memory_bytes: int = HELD_BYTES,
    ) -> None:
        self.path = path
        self._far, self._memory_bytes = far, memory_bytes
        self.manifest = manifest
        with self._sound():
            self.id: str = manifest["id"]
            self.dataset: str = manifest["dataset"]
            """Reference of the dataset version."""
            self.rows = _counted(manifest["rows"])
            """Encoded rows by split."""
            self.samples = (
                None if manifest.get("samples") is None else _counted(manifest["samples"])
            )
            """Where a row is a step of a series: samples by split. None: a row is a sample."""
            self.quarantined_by_split = _counted(manifest["quarantined"])
            self.quarantined = sum(self.quarantined_by_split.values())
            """Rows that could not be encoded."""
            self.reasons = _counted(manifest["reasons"])
            """`column: reason` → rows."""

    def _sound(self) -> AbstractContextManager[None]:
        """A context in which whatever is wrong with the manifest is raised as a `StoreError`."""
        return sound(f"the feed {self.path}", advice="Delete it, and it is made again")

    @classmethod
    def open(cls, store: Store, *, id: str, memory_bytes: int = HELD_BYTES) -> Feed:
        """The feed `id`. Of one in a bucket only the manifest is read; its shards come as they are needed.

        Args:
            memory_bytes: the most that shards of a bucket take in memory where the cache
                (`Store.cache_bytes`) keeps no copies of them.

        Raises:
            StoreError: it is not there, or was torn or changed.
        """
        name = f"feeds/{id}"
        if store.is_remote and not store.is_here(name):
            manifest = store.manifest(name)
            if "shard_rows" in manifest:
                return cls(store.at(name), manifest, far=store, memory_bytes=memory_bytes)
        # a feed that does not say the rows of its shards was written by an earlier Penstock
        artefact: Artefact = store.open(name)
        return cls(artefact.path, artefact.manifest)

    def _file(self, name: str) -> Path:
        if self._far is not None:
            # By the manifest's names alone, so that no name leads out of the feed.
            return self._far.file(
                f"feeds/{self.id}", file=self._known(name), manifest=self.manifest
            )
        return below(self.path, self._known(name), where=f"a file of the feed {self.id}")

    def _known(self, name: str) -> str:
        """`name`, which the manifest must name as a file of the feed.

        Raises:
            StoreError: it does not.
        """
        if name not in self.manifest["files"]:
            raise StoreError(
                f"the feed {self.id} has no file {shown(name)} in its manifest: it was changed. Delete it,"
                " and it is made again."
            )
        return name

    @cached_property
    def encoding(self) -> Encoding:
        """The features as fitted to the training split."""
        # a feed runs nothing; the user's recipe has brought the modules it names
        with self._sound(), no_foreign_code(but=is_loaded):
            try:
                return Encoding.load(
                    json.loads(self._file("fitted.json").read_text("utf-8"))
                )
            except BundleError as error:
                raise StoreError(
                    f"the feed {self.id} cannot be read: {error.message}. Your own features are"
                    " known once their recipe is loaded or their module is imported."
                ) from None

    @property
    def sizes(self) -> dict[str, int]:
        """Samples by split; each row is one unless rows are steps of series."""
        return self.rows if self.samples is None else self.samples

    def shards(self, split: str) -> Shards | WindowShards:
        """The encoded rows of a split, or its samples.

        Raises:
            StoreError: there is no such split, or a shard cannot be read.
        """
        if split not in self.rows:
            raise StoreError(
                f"the feed {self.id} has the splits {', '.join(self.rows)}; found {split!r}"
            )
        with self._sound():
            shards = self._shards(split)
            if "windows" not in self.manifest:
                return shards
            steps, singles = self._shards("steps"), self._shards("singles")
            return WindowShards(shards, steps, singles, self.manifest["windows"])

    def _shards(self, name: str) -> Shards:
        files = self.manifest["shards"][name]
        if self._far is None:
            return Shards([self._file(file) for file in files])
        _, members = self._far.members(f"feeds/{self.id}", manifest=self.manifest)
        return Shards.far(
            [members[self._known(file)] for file in files],
            self.manifest["shard_rows"][name],
            Cache(self._far.cache_bytes),
            memory_bytes=self._memory_bytes,
        )

    def holes(self, split: str) -> np.ndarray:
        """The slots of a split whose rows were taken out, sorted: int64. The other rows keep their places."""
        with self._sound():
            return np.unique(
                np.array((self.manifest.get("holes") or {}).get(split, ()), np.int64)
            )

    @property
    def quarantine(self) -> Path:
        """A Parquet file of `REJECT_SCHEMA`."""
        return self._file("quarantine.parquet")

    def __repr__(self) -> str:
        return f"Feed({self.id!r}, rows={self.rows})"


def _counted(words: Mapping[str, int]) -> dict[str, int]:
    return {str(word): int(count) for word, count in words.items()}


def feed_id(recipe: Recipe, dataset: Dataset) -> str:
    """16 hexadecimal digits of the dataset version and of what is declared of features."""
    # Whatever enters here makes another feed, so what leaves the encoded bytes alone
    # stays out.
    return fingerprint("feed", FORMAT, dataset.id, *_declared(recipe))


def _declared(recipe: Recipe) -> list[Any]:
    sides = [
        {name: feature.to_dict() for name, feature in side.items()}
        for side in (recipe.inputs, recipe.targets)
    ]
    # the order of features is the model's order of inputs
    declared: list[Any] = [[list(side.items()) for side in sides], recipe.weight]
    # Added only where columns are named: feeds without an order of their own keep their
    # id.
    if ordered := OrderColumns.of(recipe).to_dict():
        declared.append({"order": ordered})
    # The same for samples.
    return declared if recipe.samples is None else [*declared, recipe.samples.to_dict()]


def batch_size_for(recipe: Recipe, rows: int) -> int:
    """Rows (or samples) of a global batch for a training split of `rows`: as declared, or about 1/128 of
    those trained on, as a power of two in 32–1024.
    """
    rows = round(rows * (recipe.train.order.fraction or 1))
    if recipe.train.batch_size != "auto":
        return recipe.train.batch_size
    # The power of two at or below 1/128 of the rows.
    return min(max(1 << max(rows // 128, 1).bit_length() - 1, 32), 1024)


def write_feed(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    events: Events,
    *,
    like: Feed | None = None,
) -> Feed:
    """Fit the recipe's features to the training split, and encode every split.

    Returns the finished feed if it is there.

    Args:
        like: a feed of the same features; they are taken as they were fitted there, and not fitted again.

    Raises:
        RecipeError: a column that the recipe names is not in the dataset; names them all.
        ContractError: a column cannot be learnt from, or no row is left to learn from.
        StoreError: the store cannot be written.
    """
    # What another feed learnt stands in no recipe, so it enters the id beside.
    id = (
        feed_id(recipe, dataset)
        if like is None
        else fingerprint(feed_id(recipe, dataset), "like", like.encoding.fingerprint)
    )
    name = f"feeds/{id}"
    if store.has(name) or store.finish(name):
        return Feed.open(store, id=id)
    encoding = row_encoding(recipe)
    _check_columns(recipe, encoding, dataset)
    return made_once(
        store,
        name,
        f"feed {id}",
        events,
        find=lambda: Feed.open(store, id=id) if store.has(name) else None,
        make=lambda: _write(recipe, dataset, store, events, encoding, id=id, like=like),
    )


def _write(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    events: Events,
    encoding: Encoding,
    *,
    id: str,
    like: Feed | None,
) -> Feed:
    """Fit the features, encode every split, and finish the feed in the store."""
    if like is None:
        _take_over(recipe, encoding, dataset, store, events)
    else:
        encoding.fitted |= like.encoding.fitted
    threads = threads_of(recipe)
    rows_at_once = rows_within(
        dataset, encoding, memory_bytes=recipe.resources.memory, num_workers=threads
    )
    job = FeedJob(recipe, dataset, encoding, rows_at_once, threads, events)
    manifest: dict[str, Any] = {"type": "feed", "id": id, "dataset": dataset.reference}
    with ExitStack() as stack:
        writer = _writer(job, store, stack)
        # Before there is a draft: what cannot be learnt leaves nothing in the store.
        writer.fit()
        folder = stack.enter_context(store.draft(f"feeds/{id}", manifest=manifest))
        with (
            as_store_error(folder),
            Quarantine(folder / "quarantine.parquet") as quarantine,
        ):
            # Within the draft, so that a feed which lost a row is never finished.
            parts = writer.write(folder, quarantine)
            _check_all_read(dataset, parts.rows, quarantine.by_split)
        facts = json.dumps(parts.encoding.to_dict(), indent=1, ensure_ascii=False)
        atomic_write(folder / "fitted.json", facts)
        # Samples of series have no columns of an order.
        if recipe.samples is None and (ordered := OrderColumns.of(recipe)).columns:
            manifest["order"] = ordered.to_dict()
        manifest.update(parts.manifest)
        # With these, a feed in a bucket opens by its manifest alone.
        manifest["shard_rows"] = {
            name: [rows_in(folder / file) for file in files]
            for name, files in parts.shards.items()
        }
        manifest.update(
            rows=parts.rows,
            shards=parts.shards,
            quarantined={split: quarantine.by_split[split] for split in SPLITS},
            reasons=dict(quarantine.reasons.most_common()),
        )
    feed = Feed.open(store, id=id)
    _warn_of_quarantine(feed, events)
    return feed


def _writer(job: FeedJob, store: Store, stack: ExitStack) -> FeedWriter:
    """The writer for this recipe. One process cuts samples of series, since they follow from the order of
    time; rows may be spread over the engine's executors, if it has any. These run until `stack` closes.
    """
    recipe = job.recipe
    if recipe.samples is not None:
        return SeriesWriter(job)
    # A folder of this job's own: of the staging folder itself another process may dispose.
    shared = stack.enter_context(store.scratch("scratch-"))
    context = recipe.engine.executors(
        shared, memory_bytes=recipe.resources.memory, threads=job.threads
    )
    executors = None if context is None else stack.enter_context(context)
    return LocalWriter(job) if executors is None else DistributedWriter(job, executors)


def _check_all_read(
    dataset: Dataset, rows: Mapping[str, int], quarantined: Mapping[str, int]
) -> None:
    """Every row of the dataset is in the feed or in its quarantine."""
    # A file that was changed under the dataset shows as rows too few or too many.
    for split in SPLITS:
        read = rows[split] + quarantined[split]
        if read != dataset.counts[split]:
            raise StoreError(
                f"the dataset {dataset.reference} should have {dataset.counts[split]} rows in"
                f" {split}, but has {read}: it was changed. Prepare it again."
            )


def _warn_of_quarantine(feed: Feed, events: Events) -> None:
    if feed.quarantined:
        events.warn(
            f"{counted(feed.quarantined, 'row')} could not be encoded. They are in {feed.quarantine}."
            f" {commonest(feed.reasons, feed.quarantine)}",
            rows=feed.quarantined,
            reasons=feed.reasons,
        )


def _check_columns(recipe: Recipe, encoding: Encoding, dataset: Dataset) -> None:
    # The row id is nobody's feature.
    known = [name for name in dataset.schema.names if name != ROW_ID]
    there, hint = set(known), Hints(known)
    problems = [
        Problem(
            (side, name),
            f"reads the column {column!r}, which the data lacks.{hint(column)}",
        )
        for side, features in (("inputs", encoding.inputs), ("targets", encoding.targets))
        for name, feature in features.items()
        for column in feature.columns(name)
        if column not in there
    ]
    if recipe.samples:
        problems += [
            Problem(
                ("samples", word),
                f"is the column {column!r}, which the data lacks.{hint(column)}",
            )
            for word, columns in (
                ("time", (recipe.samples.order,)),
                ("entity", recipe.samples.entity),
            )
            for column in columns
            if column not in known
        ]
    if encoding.weight and encoding.weight not in known:
        problems.append(
            Problem(
                ("weight",),
                f"is the column {encoding.weight!r}, which the data lacks.{hint(encoding.weight)}",
            )
        )
    # All problems of the recipe are told at once.
    problems += OrderColumns.of(recipe).problems(known)
    if problems:
        raise RecipeError.of(
            problems, where=f"the recipe {recipe.name!r}" if recipe.name else "the recipe"
        )


def _take_over(
    recipe: Recipe, encoding: Encoding, dataset: Dataset, store: Store, events: Events
) -> None:
    """Fill `encoding.fitted` for features that name an earlier bundle (`fitted_from`), and say so."""
    where = f"the recipe {recipe.name!r}" if recipe.name else "the recipe"
    taken = {
        **reuse_fitted(recipe.inputs, "inputs", store, where=where),
        **reuse_fitted(recipe.targets, "targets", store, where=where),
    }
    encoding.fitted |= taken
    for name in taken:
        feature = (recipe.inputs | recipe.targets)[name]
        events.say(
            f"{name} is taken over from {feature.fitted_from} as it was fitted there",
            feature=name,
        )
        # Only features that name a bundle are in `taken`.
        assert feature.fitted_from is not None
        for text in other_sorts(
            {name: feature},
            dataset.schema,
            columns_of(store, feature.fitted_from),
            feature.fitted_from,
        ):
            events.warn(text, feature=name)


__all__ = [
    "FORMAT",
    "SPLITS",
    "Feed",
    "batch_size_for",
    "feed_id",
    "fit_encoding",
    "write_feed",
]
