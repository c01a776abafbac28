"""Where values of forgotten rows stand outside of their dataset: in bundles, reports and records of runs.

A value counts where it tells the rows that are meant from all others: a whole cell, or a word or a long
number of one, that no row which stays has. What most rows have ("high", "Oslo") is nobody's. A golden row
that is equal to a meant row in all that it has counts, too.

Numbers that are computed (weights, means, metrics) are not searched: nobody can tell whose they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID
from penstock.pipeline.forget.conditions import Matched
from penstock.prepare.dataset import SPLITS

BLANK = "[forgotten]"
_WORD = re.compile(r"\w{4,}")
_SHORTEST = 4
_LEAST_NUMBER = 10_000
_TEXTS = (".json", ".jsonl", ".md", ".yaml", ".yml", ".txt", ".html", ".csv", ".py")
_AT_ONCE = 500
"""Values that one pattern looks for."""


@dataclass
class Values:
    """Values of rows that are meant, as they may stand in texts; all in lower case."""

    words: set[str] = field(default_factory=set)
    phrases: set[str] = field(default_factory=set)
    """Cells with more than a word."""

    def add(self, cell: Any) -> None:
        """Take in the value of a cell, and what is in it."""
        if isinstance(cell, Mapping):
            cell = list(cell.values())
        if isinstance(cell, (list, tuple)):
            for each in cell:
                self.add(each)
        elif isinstance(cell, int) and not isinstance(cell, bool):
            if abs(cell) >= _LEAST_NUMBER:
                self.words.add(str(abs(cell)))
        elif isinstance(cell, str):
            folded = cell.strip().casefold()
            self.words.update(_WORD.findall(folded))
            if len(folded) >= _SHORTEST and not _WORD.fullmatch(folded):
                self.phrases.add(folded)

    def within(self, text: str) -> set[str]:
        """Those that stand in a text."""
        folded = text.casefold()
        return (self.words & set(_WORD.findall(folded))) | {
            phrase for phrase in self.phrases if phrase in folded
        }


def values_of(matched: Matched) -> Values:
    """The values of the rows that are meant."""
    values = Values()
    chosen = matched.subset()
    columns = [
        f.name for f in chosen.schema if f.name != ROW_ID and not _is_bytes(f.type)
    ]
    for split in SPLITS:
        for batch in chosen.batches(split, columns=columns, rows=4_096):
            for column in batch.select(columns).columns:
                for cell in pc.unique(column).to_pylist() if _flat(column) else column:
                    values.add(cell.as_py() if isinstance(cell, pa.Scalar) else cell)
    return values


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _flat(column: pa.Array) -> bool:
    return not bool(pa.types.is_nested(column.type))


def own_alone(matched: Matched, hits: set[str]) -> set[str]:
    """Those values that no row which stays has.

    Rows are read as long as any value is left; most go with the first batch.
    """
    left, dataset = set(hits), matched.dataset
    columns = [
        f.name for f in dataset.schema if f.name != ROW_ID and not _is_bytes(f.type)
    ]
    for split in SPLITS:
        if not left:
            break
        for batch in dataset.batches(split, columns=columns):
            gone = pc.is_in(batch[ROW_ID].cast(pa.string()), matched.row_ids[split])
            stays = batch.filter(pc.invert(gone))
            for column in stays.select(columns).columns:
                left -= _present(column, left)
            if not left:
                break
    return left


def _present(column: pa.Array, wanted: set[str]) -> set[str]:
    """Those of `wanted` that stand in a column."""
    if (
        not wanted
        or pa.types.is_floating(column.type)
        or pa.types.is_boolean(column.type)
    ):
        return set()
    values = Values()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        for cell in column.to_pylist():
            values.add(cell)
        return wanted & (values.words | values.phrases)
    unique = pc.unique(column)
    present: set[str] = set()
    listed = sorted(wanted)
    for start in range(0, len(listed), _AT_ONCE):
        some = "|".join(map(re.escape, listed[start : start + _AT_ONCE]))
        mask = pc.match_substring_regex(unique, some, ignore_case=True)
        # One text settles all that it has, so that common words cost one look.
        for text in unique.filter(mask).to_pylist():
            folded = text.casefold()
            present |= {value for value in wanted - present if value in folded}
            if present == wanted:
                return present
    return present


def texts_of(folder: Path) -> Iterator[tuple[str, str]]:
    """The files of an artefact that can hold values as texts, and what stands in them."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.is_symlink() or name.startswith("checkpoints/"):
            continue
        if path.suffix in _TEXTS:
            yield name, path.read_text("utf-8", "replace")
        elif path.suffix in (".parquet", ".arrow"):
            yield name, _cells(_table(path))


def _table(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    return ipc.open_file(path).read_all()


def _cells(table: pa.Table) -> str:
    names = [f.name for f in table.schema if not _is_bytes(f.type)]
    return "\n".join(str(list(row.values())) for row in table.select(names).to_pylist())


def has_golden_row(matched: Matched, folder: Path) -> bool:
    """Whether a bundle's golden rows have one that is equal to a row that is meant, in all of the dataset's
    columns that it has.
    """
    path = folder / "golden.arrow"
    if not path.is_file():
        return False
    golden = _table(path)
    hidden = matched.dataset.raw_types
    columns = [
        f.name
        for f in matched.dataset.schema
        if f.name in golden.column_names and f.name != ROW_ID and f.name not in hidden
    ]
    if not columns:
        return False
    rows, chosen = _rows(golden.select(columns).to_batches()), set()
    for split in SPLITS:
        for batch in matched.subset().batches(split, columns=columns, rows=4_096):
            chosen |= rows & _rows([batch.select(columns)])
    for split in SPLITS:
        # Where a row that stays is the same, the golden one is nobody's.
        for batch in matched.dataset.batches(split, columns=columns) if chosen else ():
            gone = pc.is_in(batch[ROW_ID].cast(pa.string()), matched.row_ids[split])
            stays = batch.filter(pc.invert(gone)).select(columns)
            chosen -= _rows([stays])
    return bool(chosen)


def _rows(batches: Iterable[pa.RecordBatch]) -> set[str]:
    return {repr(list(row.values())) for batch in batches for row in batch.to_pylist()}


def blanked(text: str, values: set[str]) -> str:
    """A text with these values replaced, in any case."""
    if not values:
        return text
    listed = sorted(values, key=len, reverse=True)
    pattern = "|".join(re.escape(json.dumps(v, ensure_ascii=False)[1:-1]) for v in listed)
    return re.sub(pattern, BLANK, text, flags=re.IGNORECASE)
