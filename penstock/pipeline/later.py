"""A labelled file that came later, as the test split of a dataset, so that a bundle is measured on it as it
was on its own.

Its rows go through the bundle's own reading, `where`, the rules of `expect` (those on targets, too),
derivations and cleaners, in the order of `prepare`. Each of them is
counted: measured, refused by a feature, breaking a rule, without a truth, filtered, or unreadable. Training
rows, which baselines learn from, are those of the bundle's dataset, where the store still has it.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.bundle.bundle import Bundle
from penstock.bundle.contract import RowContract
from penstock.bundle.mixed import Mixed
from penstock.bundle.rows import absent_columns
from penstock.bundle.steps import Steps
from penstock.bundle.typing import Typing
from penstock.contracts.data import (
    ROW_FILE,
    ROW_ID,
    ROW_NUMBER,
    Extract,
    Snapshot,
    Source,
)
from penstock.core.drafts import Draft
from penstock.core.errors import Problem, RequestError, StoreError, UserError
from penstock.core.events import Events
from penstock.core.identity import fingerprint
from penstock.core.store import STAGING, Store
from penstock.core.wording import counted, without_values
from penstock.encode.encoding import Encoding
from penstock.encode.recipe_encoding import row_encoding
from penstock.formats.learnt import KEPT, MISFIT
from penstock.formats.typed import to_text
from penstock.prepare.dataset import Dataset
from penstock.prepare.protect import admitted, private_names
from penstock.prepare.versions import open_version
from penstock.recipe.schema import Recipe

_WHERE = "__p_where"
"""The column that says whether `where` keeps a row."""
_ROW = "__p_row"
"""The column of a row's place in its table."""
_JUDGED = "later, by all rules"
"""How rows are judged: a report from before, without the rules on targets, is made again."""
_ROWS = 8_192
CAME = ("in", "test", "without_truth", "broken", "filtered", "unreadable")
"""What becomes of a row: the first is the sum of the others."""


@dataclass
class LaterDataset:
    """Rows of later files, with the face of `Dataset` as far as rows are read."""

    reference: str
    path: Path
    """Where it would lie in the store."""
    train: Dataset | None
    """The bundle's own; None where the store has it no more."""
    schema: pa.Schema
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    """The prepared rows."""
    came: Counter[str] = field(default_factory=Counter)
    """Rows by what became of them before they were measured."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Of the rows that break a rule, without their values."""
    examples: dict[str, str] = field(default_factory=dict)
    """By reason the first that was met, with its value."""
    withheld: frozenset[str] = frozenset()
    """Columns whose values nobody may see."""
    shared: list[str] = field(default_factory=list)
    """The files that the bundle's dataset was made of as well."""

    @property
    def name(self) -> str:
        """What is before the `@` of the reference."""
        return self.reference.partition("@")[0]

    @property
    def id(self) -> str:
        """What is behind it."""
        return self.reference.partition("@")[2]

    @property
    def manifest(self) -> dict[str, Any]:
        """Nothing was shared with training on purpose."""
        return {}

    def break_rules(self, problems: Mapping[int, Sequence[Problem]]) -> None:
        """Count rows that break a rule or an expression, by the first of their problems."""
        self.came["broken"] += len(problems)
        for first, *_ in problems.values():
            # The column stays whole: its name may have digits in it.
            reason = str(replace(first, text=without_values(first.text)))
            self.reasons[reason] += 1
            # A rule of the table may be about any column.
            is_open = not self.withheld or (
                bool(first.path) and str(first.path[0]) not in self.withheld
            )
            self.examples.setdefault(reason, str(first) if is_open else reason)

    @property
    def counts(self) -> dict[str, int]:
        """Rows by split."""
        own = {} if self.train is None else self.train.counts
        return {
            "in": self.came["in"],
            "train": own.get("train", 0),
            "validation": own.get("validation", 0),
            "test": self.came["test"],
        }

    def files(self, split: str) -> list[Path]:
        """The files with a split's rows; of later rows alone, whose series need no training rows."""
        return self.tables if split == "test" else []

    def batches(
        self,
        split: str,
        *,
        columns: Sequence[str] | None = None,
        rows: int = 65_536,
        coded: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a split: all but the test split are those of the bundle's dataset."""
        if split != "test":
            if self.train is not None:
                yield from self.train.batches(
                    split, columns=columns, rows=rows, coded=coded
                )
            return
        wanted = list(dict.fromkeys([ROW_ID, *(columns or self.schema.names)]))
        for table in self.tables:
            with pq.ParquetFile(table) as file:
                for batch in file.iter_batches(rows, columns=wanted):
                    yield batch.select(wanted)


def later_dataset(
    bundle: Bundle, source: Source, snapshot: Snapshot, recipe: Recipe, store: Store
) -> LaterDataset:
    """Return the dataset of later files before they are read: its reference says what they are."""
    try:
        train = open_version(store, bundle.dataset)
    except StoreError:
        train = None
    words = {w: v for w, v in source.to_dict().items() if w != "path"}
    # What the rows are compared with is in the id, since a report says it.
    id = fingerprint(
        _JUDGED, snapshot.to_dict(), words, None if train is None else train.reference
    )
    name = f"{recipe.name or 'rows'}-later"
    return LaterDataset(
        f"{name}@{id}",
        store.at(f"datasets/{name}/{id}"),
        train,
        bundle.learnt.schema.insert(0, pa.field(ROW_ID, pa.string())),
        withheld=private_names(recipe.private, recipe.derive, list(_schema(bundle))),
        shared=_shared(snapshot, train),
    )


def _shared(snapshot: Snapshot, train: Dataset | None) -> list[str]:
    """Return the files that a dataset was made of, too, whatever they are called now."""
    lineage = {} if train is None else train.manifest.get("lineage", {})
    known = {file["sha256"] for file in lineage.get("source", ())}
    return [file.path for file in snapshot.files if file.sha256 in known]


def read_later(
    dataset: LaterDataset,
    bundle: Bundle,
    source: Source,
    snapshot: Snapshot,
    recipe: Recipe,
    events: Events,
) -> None:
    """Read the files into the dataset, and count what becomes of each row.

    Raises:
        RequestError: a column is absent, or no row has a truth.
        SourceError: the files cannot be read.
    """
    # The rows lie on the store's disk, which has room for datasets.
    draft = Draft(dataset.path.parents[2] / STAGING, "scratch-")
    weakref.finalize(dataset, draft.close)
    extract = source.extract(
        snapshot, draft.path, memory_bytes=bundle.resources.memory, events=events
    )
    dataset.came.update(dict.fromkeys(CAME, 0))
    dataset.came["in"] = extract.rows + extract.rejected
    dataset.came["unreadable"] = extract.rejected
    preparing = _Preparing.of(bundle, recipe, extract, snapshot)
    done = 0
    for number, table in enumerate(preparing.tables()):
        done += table.num_rows
        rows = preparing.prepared(table, dataset)
        events.progress("read", done, extract.rows, "rows")
        if rows.num_rows:
            path = draft.path / f"later-{number}.parquet"
            pq.write_table(rows, path)
            # A file need not have columns that nothing reads.
            dataset.schema = rows.schema
            dataset.tables.append(path)
            dataset.came["test"] += rows.num_rows
    if not dataset.came["test"]:
        raise RequestError(
            f"no row can be measured: of {dataset.came['in']:,} that came in, {_became(dataset)}. Give rows"
            " with their truth; `penstock predict` answers rows without one."
        )
    events.say(balance(dataset))


@dataclass
class _Preparing:
    """How later rows become rows as `prepare` would have made them."""

    bundle: Bundle
    encoding: Encoding
    """Of a row: where rows are steps, of a step."""
    extract: Extract
    prefixes: list[str]
    """By file: what a row's id begins with, before it is hashed."""
    key: tuple[str, ...]
    filter: Steps
    """Gives `_WHERE`; nothing where the recipe has no `where`, `consent` or `retention`."""
    contract: RowContract | None
    """The rules on every column of the files: `prepare` knew the truth as well."""
    steps: Steps
    typing: Typing

    @classmethod
    def of(
        cls, bundle: Bundle, recipe: Recipe, extract: Extract, snapshot: Snapshot
    ) -> _Preparing:
        encoding = bundle.encoding
        if recipe.samples is not None:
            encoding = row_encoding(recipe)
        wanted = encoding.columns(targets=True)
        if recipe.samples is not None:
            time = recipe.samples.time
            wanted += [*recipe.samples.entity, *([time] if time else [])]
        filter, filtering = _filter(bundle, recipe)
        steps, required = _steps(bundle, recipe, wanted)
        required = list(dict.fromkeys([*filtering, *required]))
        present = extract.schema.names
        if absent := [name for name in required if name not in present]:
            targets = {
                column
                for name, feature in encoding.targets.items()
                for column in feature.columns(name)
            }
            if truths := [name for name in absent if name in targets]:
                raise RequestError(
                    f"the rows have no column {', '.join(map(repr, truths))}, which holds the truth that the"
                    f" answers are measured by. Columns found: {', '.join(present[:40])}. To answer rows"
                    " without it:  penstock predict",
                    tuple(
                        Problem((name,), "is the truth, and absent") for name in truths
                    ),
                )
            raise absent_columns(absent, present)
        return cls(
            bundle,
            encoding,
            extract,
            [f"{file.path}|{file.sha256}|" for file in snapshot.files],
            tuple(name for name in recipe.key if name in present),
            filter,
            _contract(bundle, recipe, steps, present),
            steps,
            # Where rows are steps, the bundle's own columns are windows of them.
            Typing({} if recipe.samples is not None else bundle.columns, bundle.learnt),
        )

    def tables(self) -> Iterator[pa.Table]:
        """The rows as they were read, each with its id."""
        rows = self.encoding.rows_at_once(_ROWS)
        for file in self.extract.parquet:
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
            for batch in parquet.iter_batches(rows):
                yield self._whole(pa.Table.from_batches([batch]))

    def _whole(self, table: pa.Table) -> pa.Table:
        """The table with every column of the source, and the ids of the rows."""
        files = table[ROW_FILE].to_pylist()
        numbers = table[ROW_NUMBER].to_pylist()
        ids = [
            hashlib.md5(
                f"{self.prefixes[file]}{number}".encode(), usedforsecurity=False
            ).hexdigest()
            for file, number in zip(files, numbers, strict=True)
        ]
        for column in self.extract.schema:
            if column.name not in table.column_names:
                table = table.append_column(column, pa.nulls(table.num_rows, column.type))
        own = [n for n in (ROW_FILE, ROW_NUMBER, ROW_ID) if n in table.column_names]
        return table.drop_columns(own).append_column(ROW_ID, pa.array(ids, pa.string()))

    def prepared(self, table: pa.Table, dataset: LaterDataset) -> pa.Table:
        """Rows as `prepare` would have made them; the others are counted by what became of them."""
        typed, mixed = self.typing.typed(table, {})
        typed, mixed = self._filtered(typed, mixed, dataset)
        if self.contract is not None:
            typed, mixed, problems = self.contract.filtered(typed, mixed)
            dataset.break_rules(problems)
        typed, mixed, refused = self.steps.apply(typed, mixed)
        dataset.break_rules(refused)
        one_type = _one_type(typed, mixed, self.extract.misfits)
        there = self._has_truth(one_type)
        dataset.came["without_truth"] += int((~there).sum())
        return one_type.filter(pa.array(there))

    def _filtered(
        self, table: pa.Table, mixed: dict[str, Mixed], dataset: LaterDataset
    ) -> tuple[pa.Table, dict[str, Mixed]]:
        """The rows that may be here and that `where` keeps, before any rule judges them, as in `prepare`."""
        if not self.filter:
            return table, mixed
        places = pa.array(np.arange(table.num_rows))
        filtered, _, refused = self.filter.apply(table.append_column(_ROW, places), mixed)
        dataset.break_rules(refused)
        left = filtered.filter(pc.fill_null(filtered[_WHERE], False))[_ROW]
        dataset.came["filtered"] += filtered.num_rows - len(left)
        rows = np.sort(np.asarray(left.to_numpy(), np.int64))
        return table.take(pa.array(rows)), {
            name: column.only(rows) for name, column in mixed.items()
        }

    def _has_truth(self, table: pa.Table) -> np.ndarray:
        """Where every target has a value, bool `[n]`; whether it is a known one is judged later."""
        there = np.ones(table.num_rows, bool)
        for name, feature in self.encoding.targets.items():
            raw = [table[column].combine_chunks() for column in feature.columns(name)]
            column, refused = feature.accept(raw)
            has = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)
            # What the feature refuses is there, and is counted as refused.
            has[refused.rows] = True
            there &= has
        return there


def _schema(bundle: Bundle) -> dict[str, pa.DataType]:
    return {**{c.name: c.type for c in bundle.learnt.schema}, **bundle.columns}


def _filter(bundle: Bundle, recipe: Recipe) -> tuple[Steps, list[str]]:
    """Return what says whether consent, retention and `where` keep a row, and the raw columns that it reads.

    Rows without consent are not measured either, as they were not learnt from.
    """
    schema = _schema(bundle)
    conditions = admitted(recipe.governance, schema)
    if recipe.where:
        conditions.append(recipe.where)
    if not conditions:
        return Steps(), []
    return Steps.needed(
        [_WHERE],
        derived={_WHERE: " and ".join(f"({condition})" for condition in conditions)},
        clean=[],
        schema=schema,
        targets=[],
    )


def _contract(
    bundle: Bundle, recipe: Recipe, steps: Steps, present: Sequence[str]
) -> RowContract | None:
    """Return the rules on raw columns that are there, and on derived ones that are made."""
    contract = RowContract.of(
        recipe, columns=present, steps=steps, schema=_schema(bundle)
    )
    # Steps of series are rows of their own here, and no windows yet.
    return contract and replace(contract, sampled=False, series={})


def _steps(
    bundle: Bundle, recipe: Recipe, wanted: Sequence[str]
) -> tuple[Steps, list[str]]:
    """Return the steps that inputs and targets depend on, and the raw columns that they need.

    Raises:
        UserError: a target depends on a cleaner whose facts the bundle does not carry.
    """
    learnt = [(cleaner.to_dict(), facts) for cleaner, facts in bundle.steps.clean]
    clean = [
        (cleaner, next((f for c, f in learnt if c == cleaner.to_dict()), {}))
        for cleaner in recipe.clean
    ]
    steps, required = Steps.needed(
        wanted,
        derived=recipe.derive,
        clean=clean,
        private=recipe.private,
        schema=_schema(bundle),
        targets=[],
    )
    for cleaner, facts in steps.clean:
        if cleaner.is_fitted() and not facts:
            raise UserError(
                f"the targets depend on the cleaner {cleaner.type!r}, which learnt from the training data;"
                " the bundle carries what it learnt for inputs alone. Clean the file's truth yourself, or"
                " prepare it as a dataset: penstock evaluate --dataset"
            )
    return steps, required


def _one_type(
    table: pa.Table, mixed: dict[str, Mixed], texts: frozenset[str]
) -> pa.Table:
    """The table with each column in one type: as text where some values are not of theirs."""
    columns = {
        name: table[name]
        for name in table.column_names
        if not name.startswith((MISFIT, KEPT)) and name
    }
    columns |= {name: column.joined(to_text) for name, column in mixed.items()}
    # The same type in every batch of a file, whether this one has such values or not.
    columns |= {
        name: to_text(columns[name].combine_chunks())
        for name in texts
        if name in columns and name not in mixed
    }
    return pa.table(columns)


def _became(dataset: LaterDataset) -> str:
    words = {
        "without_truth": "have no truth",
        "filtered": "are filtered by `where`",
        "broken": "break a rule",
        "unreadable": "could not be read",
    }
    return ", ".join(
        f"{dataset.came[word]:,} {text}"
        for word, text in words.items()
        if dataset.came[word]
    )


def balance(dataset: LaterDataset) -> str:
    """Return what became of every row of the files, as a sum."""
    came = dataset.came
    return (
        f"rows in {came['in']:,} = {came['test']:,} with a truth + {came['without_truth']:,} without +"
        f" {came['broken']:,} that break a rule + {came['filtered']:,} filtered + {came['unreadable']:,}"
        " unreadable"
    )


def notes(dataset: LaterDataset) -> list[str]:
    """Return what a reader should know of the files, and why rows break rules."""
    lines: list[str] = []
    if dataset.shared:
        files = ", ".join(dataset.shared[:5])
        lines.append(
            f"{counted(len(dataset.shared), 'file')} of these ({files}) made the bundle's own dataset: the"
            " model learnt from such rows, so the figures flatter it. Give rows that came later, or measure"
            " the test split: penstock evaluate without a file"
        )
    for reason, rows in dataset.reasons.most_common(5):
        example = dataset.examples[reason]
        lines.append(
            f"1 row breaks a rule: {example}"
            if rows == 1
            else f"{rows:,} rows break a rule, such as: {example}"
        )
    return lines
