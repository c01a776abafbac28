"""Feed: a dataset version, encoded for one set of features.

A cache in the store: it may be deleted, and is made again.

Two passes over the dataset, each a stream of batches, spread over threads and put back in order. The first
summarises the training split and fits the features; the second encodes every split into shards. Rows that
cannot be encoded (a value that a feature refuses, a target that is missing or of a class the training split
lacks) go to the feed's own quarantine with their reasons: for each split, dataset rows = feed rows +
quarantined rows.

    feeds/<id>/  fitted.json   <split>-00000.arrow …   quarantine.parquet   manifest.json
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import REJECT_SCHEMA, ROW_ID, Feature, Fitted, Hands
from penstock.contracts.part import is_loaded, no_foreign_code
from penstock.contracts.summary import Summary, sample_keys
from penstock.core.errors import BundleError, ContractError, Problem, RecipeError, StoreError
from penstock.core.events import Events
from penstock.core.identity import fingerprint
from penstock.core.making import made_once
from penstock.core.near import Hints
from penstock.core.paths import below, shown
from penstock.core.sound import sound
from penstock.core.store import STAGING, Artefact, Store, atomic_write, told_plainly
from penstock.data.budget import rows_within, threads_of
from penstock.data.cache import Cache
from penstock.data.encoding import WEIGHT, Accepted, Encoding
from penstock.data.far import HELD_BYTES
from penstock.data.inherit import columns_of, inherited, other_sorts
from penstock.data.order_columns import OrderColumns
from penstock.data.shards import SHARD_BYTES, Shards, ShardWriter, rows_in
from penstock.data.spans import (
    SPAN_ROWS,
    Encoded,
    Joined,
    Summarised,
    Tally,
    cuts,
    kept_ids,
    shard_rows_for,
    spans,
)
from penstock.data.spread import in_order
from penstock.data.steps import step_encoding, whole_encoding
from penstock.data.windows import WindowShards
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    from penstock.data.dataset import Dataset

FORMAT = 1
SPLITS = ("train", "validation", "test")
_SHOWN_BYTES = 64
MOST_REASONS = 200
"""So many different reasons are counted apart; what comes later is counted by column.

Every row's own is in the quarantine.
"""


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
            self.samples = None if manifest.get("samples") is None else _counted(manifest["samples"])
            """Where a row is a step of a series: samples by split. None: a row is a sample."""
            self.quarantined_by_split = _counted(manifest["quarantined"])
            self.quarantined = sum(self.quarantined_by_split.values())
            """Rows that could not be encoded."""
            self.reasons = _counted(manifest["reasons"])
            """`column: reason` → rows."""

    def _sound(self) -> AbstractContextManager[None]:
        """Within this, what it says of itself is read."""
        return sound(f"the feed {self.path}", advice="Delete it, and it is made again")

    @classmethod
    def open(cls, store: Store, id: str, *, memory_bytes: int = HELD_BYTES) -> Feed:
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
            return self._far.file(f"feeds/{self.id}", self._known(name), self.manifest)
        return below(self.path, self._known(name), where=f"a file of the feed {self.id}")

    def _known(self, name: str) -> str:
        """A file that the manifest names, and that was checked when the feed was opened."""
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
                return Encoding.load(json.loads(self._file("fitted.json").read_text("utf-8")))
            except BundleError as error:
                raise StoreError(
                    f"the feed {self.id} cannot be read: {error.message}. Features of your own are known once"
                    " their recipe is loaded, or their module imported."
                ) from None

    @property
    def sizes(self) -> dict[str, int]:
        """What there is to learn from by split: samples, which are the rows unless rows are steps."""
        return self.rows if self.samples is None else self.samples

    def shards(self, split: str) -> Shards | WindowShards:
        """The encoded rows of a split, or its samples.

        Raises:
            StoreError: there is no such split, or a shard cannot be read.
        """
        if split not in self.rows:
            raise StoreError(f"the feed {self.id} has the splits {', '.join(self.rows)}; found {split!r}")
        with self._sound():
            found = self._shards(split)
            return (
                WindowShards(found, self._shards("steps"), self._shards("singles"), self.manifest["windows"])
                if "windows" in self.manifest
                else found
            )

    def _shards(self, name: str) -> Shards:
        files = self.manifest["shards"][name]
        if self._far is None:
            return Shards([self._file(file) for file in files])
        _, members = self._far.members(f"feeds/{self.id}", self.manifest)
        return Shards.far(
            [members[self._known(file)] for file in files],
            self.manifest["shard_rows"][name],
            Cache(self._far.cache_bytes),
            memory_bytes=self._memory_bytes,
        )

    def holes(self, split: str) -> np.ndarray:
        """The slots of a split whose rows were taken out, sorted: int64. The other rows keep their places."""
        with self._sound():
            return np.unique(np.array((self.manifest.get("holes") or {}).get(split, ()), np.int64))

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
    return fingerprint("feed", FORMAT, dataset.id, *_declared(recipe))


def _declared(recipe: Recipe) -> list[Any]:
    sides = [
        {name: feature.declared() for name, feature in side.items()}
        for side in (recipe.inputs, recipe.targets)
    ]
    # the order of features is the model's order of inputs
    declared: list[Any] = [[list(side.items()) for side in sides], recipe.weight]
    if ordered := OrderColumns.of(recipe).declared():
        declared.append({"order": ordered})
    return declared if recipe.samples is None else [*declared, recipe.samples.declared()]


def batch_size_for(recipe: Recipe, rows: int) -> int:
    """Rows (or samples) of a global batch for a training split of `rows`: as declared, or about 1/128 of
    those trained on, as a power of two in 32–1024.
    """
    rows = round(rows * (recipe.train.order.fraction or 1))
    if recipe.train.batch_size != "auto":
        return recipe.train.batch_size
    return min(max(1 << max(rows // 128, 1).bit_length() - 1, 32), 1024)


def write_feed(
    recipe: Recipe, dataset: Dataset, store: Store, events: Events, *, like: Feed | None = None
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
    id = (
        feed_id(recipe, dataset)
        if like is None
        else fingerprint(feed_id(recipe, dataset), "like", like.encoding.fingerprint)
    )
    name = f"feeds/{id}"
    if store.has(name) or store.finish(name):
        return Feed.open(store, id)
    encoding = step_encoding(recipe)
    _check_columns(recipe, encoding, dataset)
    return made_once(
        store,
        name,
        f"feed {id}",
        events,
        found=lambda: Feed.open(store, id) if store.has(name) else None,
        make=lambda: _made(recipe, dataset, store, events, encoding, id=id, like=like),
    )


def _made(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    events: Events,
    encoding: Encoding,
    *,
    id: str,
    like: Feed | None,
) -> Feed:
    """Fit and encode."""
    name = f"feeds/{id}"
    if like is None:
        _take_over(recipe, encoding, dataset, store, events)
    else:
        encoding.fitted |= like.encoding.fitted
    hands = threads_of(recipe)
    rows_at_once = rows_within(dataset, encoding, memory_bytes=recipe.resources.memory, hands=hands)
    manifest: dict[str, Any] = {"type": "feed", "id": id, "dataset": dataset.reference}
    with ExitStack() as around:
        # Samples are steps in the order of time, which one process cuts into windows; all else may be done by
        # many hands.
        afar = (
            recipe.engine.afar(store.at(STAGING), memory_bytes=recipe.resources.memory, threads=hands)
            if recipe.samples is None
            else None
        )
        others = around.enter_context(afar) if afar is not None else None
        if others is None:
            _fit(encoding, _train_batches(encoding, dataset, rows_at_once, events), events, hands=hands)
        else:
            _fit_afar(encoding, dataset, others, rows_at_once, events)
        folder = around.enter_context(store.draft(name, manifest))
        with told_plainly(folder), _Quarantine(folder / "quarantine.parquet") as quarantine:
            if recipe.samples is None:
                ordered = OrderColumns.of(recipe)
                if others is None:
                    rows, shards = _write_rows(
                        encoding,
                        dataset,
                        folder,
                        quarantine,
                        rows_at_once,
                        events,
                        hands=hands,
                        ordered=ordered,
                    )
                else:
                    rows, shards = _write_afar(
                        encoding,
                        dataset,
                        folder,
                        quarantine,
                        rows_at_once,
                        events,
                        others=others,
                        ordered=ordered,
                    )
                if ordered.columns:
                    manifest["order"] = ordered.declared()
            else:
                from penstock.data.sampled import write_samples

                whole = whole_encoding(recipe)
                rows, shards, more = write_samples(
                    recipe, dataset, encoding, whole, folder, quarantine.add, events
                )
                manifest.update(more)
                encoding = whole
            for split in SPLITS:
                found = rows[split] + quarantine.by_split[split]
                if found != dataset.counts[split]:
                    raise StoreError(
                        f"the dataset {dataset.reference} says it has {dataset.counts[split]} rows of"
                        f" {split}, but {found} were read; it was changed. Prepare it again."
                    )
        atomic_write(folder / "fitted.json", json.dumps(encoding.declared(), indent=1, ensure_ascii=False))
        manifest["shard_rows"] = {
            part: [rows_in(folder / file) for file in files] for part, files in shards.items()
        }
        manifest.update(
            rows=rows,
            shards=shards,
            quarantined={split: quarantine.by_split[split] for split in SPLITS},
            reasons=dict(quarantine.reasons.most_common()),
        )
    feed = Feed.open(store, id)
    if feed.quarantined:
        often = "; ".join(f"{reason} ({count})" for reason, count in list(feed.reasons.items())[:5])
        events.warn(
            f"{feed.quarantined} rows could not be encoded and are in {feed.quarantine}: {often}",
            rows=feed.quarantined,
            reasons=feed.reasons,
        )
    return feed


def _write_rows(
    encoding: Encoding,
    dataset: Dataset,
    folder: Path,
    quarantine: _Quarantine,
    rows_at_once: int,
    events: Events,
    *,
    hands: int,
    ordered: OrderColumns,
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Every split's rows as shards: rows and files by split."""
    writers = {split: ShardWriter(folder, split) for split in SPLITS}
    for split, writer in writers.items():
        with writer:
            _encode_split(
                encoding,
                dataset,
                split,
                writer,
                quarantine,
                rows_at_once,
                events,
                hands=hands,
                ordered=ordered,
            )
    return {split: writer.rows for split, writer in writers.items()}, {
        split: writer.files for split, writer in writers.items()
    }


def fit_encoding(recipe: Recipe, table: pa.Table) -> Encoding:
    """The recipe's features fitted to a few rows at hand, to size a model before there is a dataset.

    Raises:
        ContractError: they cannot be fitted to these rows, or the rows lack a column (a derived or joined
            one).
    """
    if waiting := [
        name for name, feature in {**recipe.inputs, **recipe.targets}.items() if feature.fitted_from
    ]:
        raise ContractError(
            f"{', '.join(waiting)} take over what a bundle learnt; that is known once the store is open"
        )
    encoding = step_encoding(recipe)
    absent = [column for column in encoding.columns(targets=True) if column not in table.column_names]
    if absent:
        raise ContractError(
            f"the sample does not have {', '.join(map(repr, absent))}; such columns come with preparing"
        )
    if ROW_ID not in table.column_names:
        table = table.append_column(
            ROW_ID,
            pa.array(
                [hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest() for i in range(len(table))],
                pa.string(),
            ),
        )
    _fit(encoding, iter([table]), Events())
    whole = whole_encoding(recipe)
    whole.fitted = encoding.fitted
    return whole


def _check_columns(recipe: Recipe, encoding: Encoding, dataset: Dataset) -> None:
    known = [name for name in dataset.schema.names if name != ROW_ID]
    there, hint = set(known), Hints(known)
    problems = [
        Problem((side, name), f"reads the column {column!r}, which the data lacks.{hint(column)}")
        for side, features in (("inputs", encoding.inputs), ("targets", encoding.targets))
        for name, feature in features.items()
        for column in feature.columns(name)
        if column not in there
    ]
    if recipe.samples:
        problems += [
            Problem(("samples", word), f"is the column {column!r}, which the data lacks.{hint(column)}")
            for word, columns in (("time", (recipe.samples.time,)), ("entity", recipe.samples.entity))
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
    problems += OrderColumns.of(recipe).problems(known)
    if problems:
        raise RecipeError.of(problems, where=f"the recipe {recipe.name!r}" if recipe.name else "the recipe")


def _take_over(recipe: Recipe, encoding: Encoding, dataset: Dataset, store: Store, events: Events) -> None:
    """What features take over from earlier bundles; they are not fitted again."""
    where = f"the recipe {recipe.name!r}" if recipe.name else "the recipe"
    taken = {
        **inherited(recipe.inputs, "inputs", store, where=where),
        **inherited(recipe.targets, "targets", store, where=where),
    }
    encoding.fitted |= taken
    for name in taken:
        feature = (recipe.inputs | recipe.targets)[name]
        events.say(f"{name} takes over what {feature.fitted_from} learnt", feature=name)
        assert feature.fitted_from is not None
        for text in other_sorts(
            {name: feature}, dataset.schema, columns_of(store, feature.fitted_from), feature.fitted_from
        ):
            events.warn(text, feature=name)


# -- the first pass ------------------------------------------------------------------------------------------


def _train_batches(
    encoding: Encoding, dataset: Dataset, rows_at_once: int, events: Events
) -> Iterator[pa.Table]:
    done = 0
    for batch in dataset.batches(
        "train", columns=encoding.columns(targets=True), rows=rows_at_once, coded=True
    ):
        yield pa.Table.from_batches([batch])
        done += batch.num_rows
        events.progress("fit", done, dataset.counts["train"], "rows")


def _fit(encoding: Encoding, tables: Iterable[pa.Table], events: Events, *, hands: int = 1) -> None:
    """Fill `encoding.fitted` from the training split.

    Every column that cannot be learnt from is named at once.

    Summaries are free of order, so batches are taken in as they come, each summary by one thread at a time.
    """
    features = _unfitted(encoding)
    summaries = {name: feature.summary() for name, feature in features.items()}
    locks = {name: threading.Lock() for name in summaries}
    tally = Tally()

    def take(numbered: tuple[int, pa.Table]) -> tuple[Accepted, int, float]:
        number, table = numbered
        accepted = encoding.accept(table, targets=True)
        kept = accepted.kept()
        keys = pa.array(sample_keys(kept_ids(table, accepted)))  # once, not once a feature
        names = list(summaries)
        # threads begin at different summaries, so that they seldom wait for each other
        turn = number * 7 % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            with locks[name]:
                summaries[name].update(kept.columns[name], keys)
        return accepted, kept.rows, float(kept.weight.max()) if kept.weight is not None and kept.rows else 0.0

    for accepted, rows, weight in in_order(take, enumerate(tables), hands=hands):
        tally.count(accepted, rows, weight)
    _learn(encoding, features, summaries, tally, events)


def _fit_afar(encoding: Encoding, dataset: Dataset, others: Hands, rows_at_once: int, events: Events) -> None:
    """The same by other hands: each span's summaries, merged in the order of spans."""
    features = _unfitted(encoding)
    summaries = {name: feature.summary() for name, feature in features.items()}
    tally = Tally()
    files = dataset.files("train")
    size = max(-(-dataset.counts["train"] // (4 * others.at_once)), SPAN_ROWS)
    for found, seen in others.each(Summarised(encoding, tuple(features), rows_at_once), spans(files, size)):
        for name, other in found.items():
            summaries[name].merge(other)
        tally.merge(seen)
    events.progress("fit", tally.seen, dataset.counts["train"], "rows")
    _learn(encoding, features, summaries, tally, events)


def _unfitted(encoding: Encoding) -> dict[str, Feature]:
    return {
        name: feature
        for name, feature in {**encoding.inputs, **encoding.targets}.items()
        if name not in encoding.fitted
    }


def _learn(
    encoding: Encoding,
    features: Mapping[str, Feature],
    summaries: Mapping[str, Summary],
    tally: Tally,
    events: Events,
) -> None:
    """What the summaries of the whole training split teach each feature."""
    if not tally.seen:
        raise ContractError(
            "the training split has no rows: there is nothing to learn from. Check `where`, `expect` and"
            " `split`"
        )
    if not tally.used:
        listed = "\n".join(f"  - {reason} ({count} rows)" for reason, count in tally.reasons.most_common(10))
        raise ContractError(
            f"nothing is left to learn from: every one of the {tally.seen} rows of the training split is"
            f" refused, for\n{listed}"
        )
    if encoding.weight and not tally.heaviest:
        raise ContractError(
            f"the weight {encoding.weight!r} is 0 in every row of the training split: there is nothing to"
            " learn from"
        )
    complaints: list[str] = []
    for name, feature in features.items():
        side = "targets" if name in encoding.targets else "inputs"
        try:
            fitted: Fitted = feature.fit(summaries[name].result(), target=side == "targets")
        except ContractError as error:
            complaints.append(f"{side}.{name} {error.message}")
            continue
        encoding.fitted[name] = json.loads(json.dumps(fitted))  # as it will be read back: lists for tuples
        for text in fitted.get("said", ()):
            events.say(f"{side}.{name} {text}", feature=name)
    if complaints:
        head = (
            "a column cannot be learnt from"
            if len(complaints) == 1
            else f"{len(complaints)} columns cannot be learnt from"
        )
        raise ContractError("\n".join([f"{head}:", *(f"  - {text}" for text in complaints)]))


# -- the second pass -----------------------------------------------------------------------------------------


def _encode_split(
    encoding: Encoding,
    dataset: Dataset,
    split: str,
    writer: ShardWriter,
    quarantine: _Quarantine,
    rows_at_once: int,
    events: Events,
    *,
    hands: int,
    ordered: OrderColumns,
) -> None:
    if not dataset.counts[split]:
        return
    done = 0
    columns = list(dict.fromkeys([*encoding.columns(targets=True), *ordered.columns]))
    work = Encoded(encoding, ordered, split, Path(), 0, rows_at_once)

    def encoded(batch: pa.RecordBatch) -> tuple[pa.Table, Accepted, dict[str, np.ndarray]]:
        table = pa.Table.from_batches([batch])
        return table, *work.encoded(table)

    for table, accepted, arrays in in_order(
        encoded, dataset.batches(split, columns=columns, rows=rows_at_once, coded=True), hands=hands
    ):
        quarantine.add(table, accepted, split)
        writer.write(arrays)
        done += accepted.rows
        events.progress("encode", done, dataset.counts[split], "rows", split=split)


def _write_afar(
    encoding: Encoding,
    dataset: Dataset,
    folder: Path,
    quarantine: _Quarantine,
    rows_at_once: int,
    events: Events,
    *,
    others: Hands,
    ordered: OrderColumns,
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """The same by other hands: spans of whole shards; cut anew where rows were refused."""
    rows, shards = dict.fromkeys(SPLITS, 0), {split: list[str]() for split in SPLITS}
    for split in SPLITS:
        if not dataset.counts[split]:
            continue
        files = dataset.files(split)
        drafts = folder / f".drafts-{split}"
        drafts.mkdir()
        work = Encoded(encoding, ordered, split, drafts, 0, rows_at_once)
        columns = list(dict.fromkeys([*encoding.columns(targets=True), *ordered.columns]))
        first = next(iter(spans(files, rows_at_once)[0].batches(columns, rows_at_once)))
        accepted, arrays = work.encoded(first)
        shard_rows = shard_rows_for(arrays, accepted.rows - len(accepted.refused), SHARD_BYTES)
        each = max(-(-dataset.counts[split] // (4 * others.at_once)) // shard_rows, 1) * shard_rows
        written = others.each(replace(work, shard_rows=shard_rows), spans(files, each))
        for one in written:
            for table, accepted in one.refused:
                quarantine.add(table, accepted, split)
        cut = cuts(
            [
                (file, count)
                for one in written
                for file, count in zip(one.files, one.rows_by_file, strict=True)
            ],
            shard_rows,
            split,
        )
        rows[split] = sum(others.each(Joined(drafts, folder), cut))
        shards[split] = [one.target for one in cut]
        shutil.rmtree(drafts)
        events.progress("encode", dataset.counts[split], dataset.counts[split], "rows", split=split)
    return rows, shards


class _Quarantine:
    """Refused rows with their reasons, as Parquet; one entry a row, whatever the number of its problems."""

    def __init__(self, path: Path) -> None:
        self.by_split: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._writer = pq.ParquetWriter(path, REJECT_SCHEMA, compression="zstd")

    def __enter__(self) -> _Quarantine:
        return self

    def __exit__(self, *problem: object) -> None:
        self._writer.close()

    def add(self, table: pa.Table, accepted: Accepted, split: str) -> None:
        if not accepted.refused:
            return
        order = sorted(accepted.refused)
        rows = table.take(pa.array(order)).to_pylist()
        entries = []
        for row, place in zip(rows, order, strict=True):
            problems = accepted.refused[place]
            text = f"{problems[0].path[0]}: {problems[0].text}"
            self.reasons[
                (
                    text
                    if text in self.reasons or len(self.reasons) < MOST_REASONS
                    else f"{problems[0].path[0]}: another reason"
                )
            ] += 1
            reason = problems[0].text if len(problems) == 1 else "; ".join(map(str, problems))
            entries.append(
                {
                    "row_id": row.pop(ROW_ID),
                    "file": None,
                    "line": None,
                    "stage": "feature",
                    "column": str(problems[0].path[0]),
                    "reason": reason,
                    "row": json.dumps(row, default=_plain, ensure_ascii=False),
                }
            )
        self._writer.write_table(pa.Table.from_pylist(entries, REJECT_SCHEMA))
        self.by_split[split] += len(entries)


def _plain(value: object) -> str:
    """What JSON does not know, as text; bytes that are more than a word only by their number and hash (the
    dataset has them).
    """
    if isinstance(value, bytes) and len(value) > _SHOWN_BYTES:
        return f"{len(value):,} bytes, sha256 {hashlib.sha256(value).hexdigest()}"
    return str(value)


__all__ = ["FORMAT", "SPLITS", "WEIGHT", "Feed", "batch_size_for", "feed_id", "fit_encoding", "write_feed"]
