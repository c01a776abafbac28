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
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID
from penstock.core.store import MANIFEST, Store
from penstock.pipeline.forget.conditions import Matched
from penstock.prepare.dataset import SPLITS

BLANK = "[forgotten]"
_WORD = re.compile(r"\w{4,}")
_SHORTEST = 4
_LEAST_NUMBER = 10_000
GOLDEN = "golden.arrow"
"""The file of a bundle with its golden rows."""
_TEXTS = (".json", ".jsonl", ".md", ".yaml", ".yml", ".txt", ".html", ".csv")
_TABLES = (".parquet", ".arrow")
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
    kind = column.type
    if pa.types.is_integer(kind):
        numbers = pa.array([int(v) for v in wanted if v.isdecimal()], pa.float64())
        amounts = pc.abs(column.cast(pa.float64(), safe=False))
        there = amounts.filter(pc.is_in(amounts, value_set=numbers))
        return wanted & {str(int(number)) for number in pc.unique(there).to_pylist()}
    if not (pa.types.is_nested(kind) or pa.types.is_string(kind)):
        return set()  # no values are taken of other types
    if not pa.types.is_string(kind):
        values = Values()
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


def contents_of(store: Store, name: str) -> Iterator[tuple[str, bytes]]:
    """The files of an artefact that can hold values, as they lie there: one whose manifest disagrees, since
    this was interrupted, is read as well.

    What its user wrote (the recipe, code) is left out, and so is the manifest.
    """
    prefix = f"{name}/"
    if store.is_remote:
        keys = sorted(store.shelf.below(name))
    else:
        folder = store.at(name)
        keys = [
            prefix + path.relative_to(folder).as_posix()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink()
        ]
    for key in keys:
        file = key.removeprefix(prefix)
        is_asked = file.endswith((*_TEXTS, *_TABLES)) and not file.startswith(
            "checkpoints/"
        )
        if is_asked and file not in (MANIFEST, "recipe.yaml"):
            content = store.shelf.read(key)
            if content is not None:
                yield file, content


def text_of(file: str, content: bytes) -> str:
    """What stands in a file, a table's cells as text."""
    if not file.endswith(_TABLES):
        return content.decode("utf-8", "replace")
    table = _table(file, content)
    names = [f.name for f in table.schema if not _is_bytes(f.type)]
    return "\n".join(str(list(row.values())) for row in table.select(names).to_pylist())


def _table(file: str, content: bytes) -> pa.Table:
    if file.endswith(".parquet"):
        return pq.read_table(pa.BufferReader(content))
    return ipc.open_file(pa.BufferReader(content)).read_all()


def has_golden_row(matched: Matched, content: bytes) -> bool:
    """Whether golden rows have one that is equal to a row that is meant and to no other, in all of the
    dataset's columns that they have.
    """
    golden = _table(GOLDEN, content)
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


def blanked(file: str, text: str, values: set[str]) -> str:
    """A file's text with these values replaced, in any case; JSON stays JSON, with its numbers."""
    if file.endswith(".jsonl"):
        lines = (blanked(".json", line, values) for line in text.splitlines())
        return "".join(f"{line}\n" for line in lines)
    if file.endswith(".json"):
        try:
            data = json.loads(text)
        except ValueError:
            return _blanked(text, values)
        indent = 1 if "\n" in text else None
        return json.dumps(blanked_data(data, values), ensure_ascii=False, indent=indent)
    return _blanked(text, values)


def blanked_data(data: Any, values: set[str]) -> Any:
    """Plain data with these values replaced in its texts and names."""
    if isinstance(data, str):
        return _blanked(data, values)
    if isinstance(data, Mapping):
        return {
            _blanked(str(name), values): blanked_data(each, values)
            for name, each in data.items()
        }
    return (
        [blanked_data(each, values) for each in data] if isinstance(data, list) else data
    )


def _blanked(text: str, values: set[str]) -> str:
    folded = text.casefold()
    there = sorted((v for v in values if v in folded), key=len, reverse=True)
    if not there:
        return text
    left = re.sub("|".join(map(re.escape, there)), BLANK, text, flags=re.IGNORECASE)
    folded = left.casefold()
    # A spelling that folds to the value, and is not it letter by letter: nothing of the text stays.
    return BLANK if any(value in folded for value in there) else left
