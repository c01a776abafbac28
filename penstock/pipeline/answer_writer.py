"""Writes answers so that whoever opens the file can read them: plain cells in CSV, and the first rows by
themselves where no file is asked for.

In CSV an answer of several figures is as many columns: `income_probabilities.>50K`. Each row has its number
in the input beside it (and its file, of several), or the columns that name it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.core.errors import UserError
from penstock.formats.shelf import ending
from penstock.formats.write import TableWriter

FIRST_ROWS = 10
"""Rows that are shown where no file is asked for."""
_STARTS = "=+@\t\r\uff1d\uff0b\uff0d\uff20-"
"""How a text begins that a spreadsheet takes for a formula: the signs, and their full-width forms."""
_FORMULA = f"^[{_STARTS}]"
_ESCAPE = "'"


class Sink(Protocol):
    """Where tables of answers go; a context manager."""

    is_full: bool
    """Whether no more rows are wanted."""

    def write(self, table: pa.Table) -> None:
        """Take the rows of a table."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, *problem: object) -> None: ...


@dataclass(frozen=True)
class Layout:
    """How a row of answers is laid out in plain cells.

    Args:
        files: the input's files, which rows name by their index.
        numbered: whether rows have their number in the input.
        spreadsheet: whether texts that begin like a formula are made harmless.
    """

    files: Sequence[str] = ()
    numbered: bool = True
    spreadsheet: bool = False

    def plain(self, table: pa.Table) -> pa.Table:
        """The table in plain cells: where each row stood first, then kept columns and answers."""
        cells = [
            cell
            for name in table.column_names
            if not _is_place(name)
            for cell in _spread(name, table[name]).items()
        ]
        if self.spreadsheet:
            cells = [(_harmless_name(name), _harmless(column)) for name, column in cells]
        names = distinct([name for name, _ in cells])
        columns = dict(zip(names, (column for _, column in cells), strict=True))
        if self.numbered and ROW_NUMBER in table.column_names:
            columns = {**self._place(table, set(columns)), **columns}
        return pa.table(columns)

    def _place(self, table: pa.Table, taken: set[str]) -> dict[str, Any]:
        """Each row's number, counted from 1, and its file where there are several."""
        place: dict[str, Any] = {}
        if len(self.files) > 1:
            names = pa.array(list(self.files), pa.string())
            files = names.take(table[ROW_FILE].combine_chunks())
            place[_free("file", taken)] = _harmless(files) if self.spreadsheet else files
        place[_free("row", taken)] = pc.add(table[ROW_NUMBER], 1)
        return place


def refuse_spreadsheet(output: str | None) -> None:
    """Refuse to make texts harmless for a spreadsheet in a file that none opens.

    Raises:
        UserError: the output is no CSV.
    """
    if output is None or not is_cells(output):
        raise UserError(
            "`spreadsheet` changes texts that begin like a formula, in .csv and .tsv alone; found"
            f" {output or 'no output'}. Leave it out, or write a .csv."
        )


def is_cells(output: str) -> bool:
    """Whether a file has plain cells alone."""
    return ending(output) in ("csv", "tsv")


class AnswerFile:
    """A file of answers, in the format of its ending."""

    is_full = False

    def __init__(self, path: str, layout: Layout) -> None:
        self._writer = TableWriter(path)
        self._layout = layout if is_cells(path) else None

    def write(self, table: pa.Table) -> None:
        """Write the rows of a table."""
        self._writer.write(
            self._layout.plain(table)
            if self._layout is not None
            else table.select([n for n in table.column_names if not _is_place(n)])
        )

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: object, *problem: object) -> None:
        self._writer.__exit__(kind, *problem)


@dataclass
class FirstRows:
    """The first rows of the answers, in memory."""

    layout: Layout
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether no more rows are wanted."""
        return len(self.rows) >= FIRST_ROWS

    def write(self, table: pa.Table) -> None:
        """Keep rows until there are enough."""
        some = table.slice(0, FIRST_ROWS - len(self.rows))
        self.rows += [_as_json(row) for row in self.layout.plain(some).to_pylist()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *problem: object) -> None:
        return


def _as_json(value: Any) -> Any:
    """A value in JSON's types: times and bytes as text, and nothing for what is no finite number."""
    if isinstance(value, dict):
        return {str(name): _as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _is_place(name: str) -> bool:
    return name in (ROW_FILE, ROW_NUMBER)


def _free(name: str, taken: set[str]) -> str:
    """A name that no other column has."""
    while name in taken:
        name = f"input_{name}"
    return name


def distinct(names: Sequence[str]) -> list[str]:
    """The names of cells, each once: a kept column that has the name of a later one ends in `_kept`."""
    last = {name: place for place, name in enumerate(names)}
    taken = set(names)
    cells: list[str] = []
    for place, name in enumerate(names):
        own, count = name, 1
        while place != last[name] and own in taken:
            own = f"{name}_kept" if count == 1 else f"{name}_kept_{count}"
            count += 1
        taken.add(own)
        cells.append(own)
    return cells


def figure_names(answers: pa.Schema) -> list[str]:
    """The names of the cells of answers that are several figures."""
    empty = answers.empty_table()
    return [
        cell
        for name in answers.names
        for cell in _spread(name, empty[name])
        if cell != name
    ]


def _spread(name: str, column: pa.ChunkedArray) -> dict[str, Any]:
    """A column of figures by name, as one column a figure; any other as it is."""
    kind = column.type
    figures = pa.types.is_struct(kind) and all(
        pa.types.is_floating(member.type) for member in kind
    )
    if not figures:
        return {name: column}
    return {
        f"{name}.{member.name}": pc.struct_field(column, [i])
        for i, member in enumerate(kind)
    }


def _harmless_name(name: str) -> str:
    return f"{_ESCAPE}{name}" if name[:1] in tuple(_STARTS) else name


def _harmless(column: Any) -> Any:
    """Put an apostrophe before texts that begin like a formula; a spreadsheet shows them as text then."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    begins = pc.match_substring_regex(column, _FORMULA)
    escaped = pc.binary_join_element_wise(
        pa.scalar(_ESCAPE, column.type), column, pa.scalar("", column.type)
    )
    return pc.if_else(pc.fill_null(begins, False), escaped, column)
