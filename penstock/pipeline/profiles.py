"""`profile`: all rows of a source, of a recipe's source or of a dataset, measured and judged.

what was named → a sample, judged as `init` judges it → every row, streamed past `Measures` → `Profile`
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_FILE, ROW_ID, ROW_NUMBER, Source
from penstock.contracts.sample import Sample
from penstock.contracts.snapshot import SourceFile
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.inspect import look
from penstock.inspect.findings import Findings, looks_of
from penstock.inspect.profile import Measures, remarks
from penstock.inspect.profile.measure import ALL
from penstock.inspect.profile.private import covered, without_values
from penstock.pipeline.layouts import lay_out
from penstock.pipeline.reading_notes import reading_notes
from penstock.prepare.budget import batch_rows
from penstock.prepare.dataset import Dataset
from penstock.prepare.subset import Subset
from penstock.recipe.schema import Recipe, load_recipe

ROWS = 20_000
"""Rows that are looked at one by one, as by `init`; all rows are counted."""
FORMAT = 1
"""Of the plain data."""
_BATCH = 65_536
_BATCH_BYTES = 32 << 20
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, repr=False)
class Profile:
    """What a profile found."""

    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON: `source`, `rows`, `splits`, `target`, `columns`, `findings` (the worst first)."""
        return dict(self.facts)

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Each with `severity`, `kind`, `column`, `sentence`, `evidence`, `recipe`; the worst first."""
        return list(self.facts["findings"])

    def __repr__(self) -> str:
        rows, columns = self.facts["rows"], len(self.facts["columns"])
        return f"Profile({self.facts['source']!r}, {rows:,} rows, {columns} columns)"


@dataclass
class _Rows:
    """Rows to be measured: a sample that was judged, and where all of them are."""

    name: str
    findings: Findings
    files: list[Path | str]
    """Parquet."""
    splits: list[str]
    """The split of each file of the source (by `ROW_FILE`), or of each of `files`."""
    rejected: int = 0
    is_dataset: bool = False


def profile_source(
    declaration: Mapping[str, Any], *, target: str | None, name: str, events: Events
) -> Profile:
    """The profile of a source: laid out and sampled as `init` does it, so that both say the same.

    Args:
        declaration: of the source, whole; paths start from the working folder.
        target: the column to predict; None takes the likeliest.
        name: how the source is to be named.

    Raises:
        SourceError: nothing can be read there.
        RecipeError: a reading option does not hold, or there is no column `target`.
    """
    layout = lay_out(declaration, target=target, sampled=_sampled)
    findings = _judged(layout.sample, layout.target, name, layout.no_inputs)
    notes = reading_notes(layout, declaration)
    findings.notes = [*notes, *layout.notes, *findings.notes]
    memory = load_recipe(
        {"source": dict(layout.declaration)}, name="profile"
    ).resources.memory
    with _extracted(layout.source, Path.cwd(), findings, name, memory, events) as rows:
        return _profiled(rows, target=layout.target)


def profile_recipe(
    recipe: Recipe, *, target: str | None, name: str, events: Events
) -> Profile:
    """The profile of a recipe's source, with the recipe's first target unless another is named.

    Raises:
        SourceError: nothing can be read there.
        RecipeError: there is no column `target`.
    """
    source = recipe.source
    chosen = target or first_target(recipe)
    sample = source.sample(source.preview(recipe.base), ROWS)
    findings = _judged(sample, chosen, name)
    memory = recipe.resources.memory
    with _extracted(source, recipe.base, findings, name, memory, events) as rows:
        return _profiled(rows, target=chosen, declared=frozenset(recipe.private))


def profile_dataset(dataset: Dataset, *, target: str | None) -> Profile:
    """The profile of a dataset version, split by split.

    Raises:
        StoreError: its files were changed.
        RecipeError: there is no column `target`.
    """
    # The first rows by row id, which is a hash: a uniform sample of the split.
    table = _first_rows(dataset)
    files = tuple(SourceFile(split, split, 0, "", split) for split in _SPLITS)
    total = sum(dataset.counts.get(split, 0) for split in _SPLITS)
    is_all = table.num_rows == total
    sample = Sample(table, rows=total, complete=is_all, files=files)
    findings = _judged(sample, target, dataset.reference)
    paths = {split: dataset.files(split) for split in _SPLITS}
    return _profiled(
        _Rows(
            dataset.reference,
            findings,
            [path for some in paths.values() for path in some],
            [split for split, some in paths.items() for _ in some],
            is_dataset=True,
        ),
        target=target,
    )


def first_target(recipe: Recipe) -> str | None:
    """The column of a recipe's first target; None where it has none."""
    for name, feature in recipe.targets.items():
        return getattr(feature, "column", None) or name
    return None


def _sampled(declaration: dict[str, Any]) -> tuple[Source, Sample, dict[str, Any]]:
    """The source, a sample of it, and the reading options that the files ask for."""
    source = load_recipe({"source": declaration}, base=Path.cwd(), name="profile").source
    snapshot = source.preview(Path.cwd())
    words = source.proposed(snapshot)
    if words:
        whole = {"source": declaration | words}
        source = load_recipe(whole, base=Path.cwd(), name="profile").source
    return source, replace(source.sample(snapshot, ROWS), reading=words), words


def _judged(
    sample: Sample,
    target: str | None,
    name: str,
    no_inputs: Mapping[str, str] | None = None,
) -> Findings:
    if not sample.table.num_rows:
        raise SourceError(
            f"No row could be read from {name}. Say how its files are to be read, such as"
            "  --set encoding=auto  or  --set delimiter=';'"
        )
    return look(sample, target=target, no_inputs=no_inputs)


@contextmanager
def _extracted(
    source: Source, base: Path, findings: Findings, name: str, memory: int, events: Events
) -> Iterator[_Rows]:
    """All rows of a source as Parquet, for as long as they are measured."""
    snapshot = source.snapshot(base)
    with tempfile.TemporaryDirectory(prefix="penstock-profile-") as scratch:
        extract = source.extract(
            snapshot, Path(scratch) / "rows", memory_bytes=memory, events=events
        )
        splits = [file.split or ALL for file in snapshot.files]
        yield _Rows(name, findings, extract.parquet, splits, extract.rejected)


def _first_rows(dataset: Dataset) -> pa.Table:
    total = sum(dataset.counts.get(split, 0) for split in _SPLITS)
    if dataset.cluster_by and total > ROWS and not isinstance(dataset, Subset):
        # In another order than that of ids the first rows are like each other.
        dataset = Subset(dataset, sample=ROWS / total)
    counts = {split: dataset.counts.get(split, 0) for split in _SPLITS}
    pieces = []
    for place, split in enumerate(_SPLITS):
        room = ROWS * counts[split] // max(1, sum(counts.values()))
        number = 0
        for batch in dataset.batches(split):
            some = batch.slice(0, room - number)
            table = pa.Table.from_batches([some]).drop_columns([ROW_ID])
            here = pa.array(np.arange(number, number + len(some)), pa.int64())
            table = table.append_column(
                ROW_FILE, pa.array([place] * len(some), pa.int32())
            )
            pieces.append(table.append_column(ROW_NUMBER, here))
            number += len(some)
            if number >= room:
                break
    return pa.concat_tables(pieces)


def _profiled(
    rows: _Rows, *, target: str | None, declared: frozenset[str] = frozenset()
) -> Profile:
    """Measure all rows and judge them.

    Args:
        declared: columns that the recipe declares private.
    """
    findings = rows.findings
    judged = {f.column: f for f in findings.columns}
    if findings.target is not None:
        judged[findings.target.column] = findings.target
    looks = looks_of(findings.sample)
    measures = Measures(looks, judged)
    try:
        for place, path in enumerate(rows.files):
            _measure(measures, path, rows, place)
        columns, equal_rows = measures.columns(), measures.equal_rows()
        records = remarks(findings, measures, columns, looks, equal_rows)
        records = without_values(records, declared & looks.keys())
    finally:
        measures.close()
    features = {name: finding.type for name, finding in judged.items()}
    private = {name for name, finding in judged.items() if finding.role == "personal"}
    private |= declared
    return Profile(
        {
            "format": FORMAT,
            "source": rows.name,
            "rows": sum(measures.rows.values()),
            "rejected": rows.rejected,
            "looked_at": findings.rows,
            "splits": {split: n for split, n in measures.rows.items() if split},
            "target": target,
            "equal_rows": equal_rows,
            "columns": [
                covered(
                    {**facts, "feature": features.get(facts["name"])},
                    is_private=facts["name"] in private,
                )
                for facts in columns
            ],
            "findings": [remark.to_dict() for remark in records],
        }
    )


def _measure(measures: Measures, path: Path | str, rows: _Rows, place: int) -> None:
    """Stream the rows of a Parquet file past the measures, split by split."""
    names = set(pq.read_schema(path).names)
    coded = [name for name in measures.texts() if name in names]
    with pq.ParquetFile(path, read_dictionary=coded, pre_buffer=False) as file:
        size = batch_rows(file, _BATCH_BYTES, least=64, most=_BATCH)
        for batch in file.iter_batches(size):
            if rows.is_dataset:
                measures.update(rows.splits[place], batch, np.full(batch.num_rows, place))
                continue
            numbers = batch.column(ROW_FILE).to_numpy()
            splits = np.array(rows.splits, object)[numbers]
            for split in dict.fromkeys(splits.tolist()):
                mine = splits == split
                part = batch if mine.all() else batch.filter(pa.array(mine))
                measures.update(split, part, numbers[mine])
