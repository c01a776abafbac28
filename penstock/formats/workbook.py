"""A sheet of an Excel workbook (`.xlsx`) as rows, streamed by openpyxl.

The table of a sheet begins with its header: titles and empty rows above it are passed over, and two rows of
names, the upper one with merged cells, become one, aloud. Cells come as Excel holds them: numbers, dates,
truth values, texts; of a formula, the value that was computed last. Empty rows are no rows.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from itertools import chain, islice
from typing import Any

from penstock.contracts.reading import Row, TableFile
from penstock.core.errors import PenstockError, SourceError
from penstock.core.near import did_you_mean
from penstock.core.optional import require
from penstock.formats.workbook_bounds import check

_LOOKED_AT_ROWS = 64
"""Of a sheet, to find its header."""
_PORTION_ROWS = 256
_YEARS = range(1800, 2201)
"""Whole numbers that may be names of columns."""
_ERRORS = frozenset(
    {
        "#N/A",
        "#DIV/0!",
        "#VALUE!",
        "#REF!",
        "#NAME?",
        "#NUM!",
        "#NULL!",
        "#SPILL!",
        "#CALC!",
    }
)
_MOST_SHOWN = 10
_MOST_MERGED = 3
"""Columns below a merged name, on average."""

Cells = tuple[Any, ...]
_CELL = re.compile(r"\$?([A-Za-z]{1,3})\$?([1-9][0-9]{0,6})?")


@dataclass(frozen=True)
class Area:
    """Cells of a sheet, both ends included, numbered from 1; None: to the sheet's own end."""

    first_row: int | None = None
    last_row: int | None = None
    first_column: int | None = None
    last_column: int | None = None


def area_of(text: str) -> Area:
    """The cells that `B3:F200` or `B:F` names.

    Raises:
        ValueError: it names none; a sentence.
    """
    ends = [_CELL.fullmatch(end.strip()) for end in text.split(":")]
    if len(ends) != 2 or None in ends:
        raise ValueError(f"is written B3:F200, or B:F for whole columns; found {text!r}")
    (left, top), (right, bottom) = (end.groups() for end in ends if end is not None)
    area = Area(_row(top), _row(bottom), _column(left), _column(right))
    rows = area.first_row or 1, area.last_row or area.first_row or 1
    if rows[0] > rows[1] or _column(left) > _column(right):
        raise ValueError(f"goes from the upper left to the lower right; found {text!r}")
    return area


def _row(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def _column(letters: str) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


@dataclass(frozen=True)
class _Header:
    names: dict[int, str]
    """By the place of the column."""
    last: int
    """The row, from 1, after which rows of data begin."""


@contextmanager
def opened(file: TableFile) -> Iterator[Any]:
    """The workbook of a file, for reading alone.

    Raises:
        MissingPackage: openpyxl is not installed.
        SourceError: it is none, is damaged, protected, or too large.
    """
    excel = require("openpyxl", extra="excel", why="reading .xlsx")
    with file.local() as path, open(path, "rb") as raw:
        check(file, path)
        with _in_words(file):
            book = excel.load_workbook(
                raw, read_only=True, data_only=True, keep_links=False
            )
        with closing(book):
            yield book


@contextmanager
def _in_words(file: TableFile) -> Iterator[None]:
    """Tell whatever openpyxl makes of a damaged workbook in one sentence, and its warnings not at all."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PenstockError:
        raise
    except Exception as error:  # noqa: BLE001
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise SourceError(
            f"{file.path} cannot be read as a workbook of Excel ({reason}). Open it in Excel or LibreOffice"
            " and save it again, or save the sheet as CSV."
        ) from None


def _rows(file: TableFile, sheet: Any, area: Area) -> Iterator[tuple[int, Cells]]:
    """The rows of a sheet that are not empty, with their numbers from 1."""
    # What a sheet says of its size may be wrong, and would cut it.
    sheet.reset_dimensions()
    rows = iter(
        sheet.iter_rows(
            min_row=area.first_row,
            max_row=area.last_row,
            min_col=area.first_column,
            max_col=area.last_column,
            values_only=True,
        )
    )
    number = (area.first_row or 1) - 1
    while True:
        with _in_words(file):
            portion = list(islice(rows, _PORTION_ROWS))
        if not portion:
            return
        for cells in portion:
            number += 1
            if any(cell is not None and cell != "" for cell in cells):
                yield number, cells


def sheet_of(file: TableFile, book: Any, wanted: str | int | None, area: Area) -> Any:
    """The sheet to be read: the first that has a table, unless one is named.

    Raises:
        SourceError: there is none of that name or number, or none has rows.
    """
    sheets = [sheet for sheet in book.worksheets if hasattr(sheet, "reset_dimensions")]
    names = [sheet.title for sheet in sheets]
    some = ", ".join(map(repr, names[:_MOST_SHOWN]))
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(sheets):
            raise SourceError(
                f"source.format: {file.path} has {len(sheets)} sheets ({some}), and no sheet {wanted}."
            )
        return sheets[wanted - 1]
    if wanted is not None:
        if wanted not in names:
            raise SourceError(
                f"source.format: {file.path} has no sheet {wanted!r}.{did_you_mean(wanted, names)} Its"
                f" sheets: {some}."
            )
        return sheets[names.index(wanted)]
    filled = [
        sheet
        for sheet in sheets
        # One row is a title or a note, and no table.
        if sheet.sheet_state == "visible"
        and len(list(islice(_rows(file, sheet, area), 2))) > 1
    ]
    if not filled:
        raise SourceError(
            f"{file.path} has no visible sheet with a table in it. Its sheets: {some}."
        )
    if len(filled) > 1:
        others = ", ".join(repr(sheet.title) for sheet in filled[1 : _MOST_SHOWN + 1])
        file.say(
            f"has several sheets with rows; {filled[0].title!r} is read, and not {others}. Name another with"
            f" `format: {{type: xlsx, sheet: {filled[1].title!r}}}`.",
            warn=True,
        )
    return filled[0]


def rows(file: TableFile, sheet: Any, area: Area) -> Iterator[Row]:
    """The rows of a sheet's table, within an area of it."""
    stream = _rows(file, sheet, area)
    beginning = list(islice(stream, _LOOKED_AT_ROWS))
    header = _header(file, beginning)
    names, errors = header.names, 0
    for number, cells in chain(beginning, stream):
        if number <= header.last:
            continue
        values: dict[str, Any] = {}
        for place, cell in enumerate(cells):
            if cell is None and place not in names:
                continue
            if isinstance(cell, str) and cell in _ERRORS:
                cell, errors = None, errors + 1
            values[names.get(place) or _unnamed(names, place)] = _value(cell)
        yield Row(number, values)
    if errors:
        file.say(
            f"has {errors:,} cells with an error of Excel, such as #N/A; they are missing values.",
            warn=True,
        )


def _unnamed(names: dict[int, str], place: int) -> str:
    """The name of a column that the header lacks."""
    name = names.get(place) or _free(f"column_{place + 1}", set(names.values()))
    names[place] = name
    return name


def _free(wanted: str, taken: set[str]) -> str:
    """A name that no other column has: `x`, else `x_2`, `x_3`, …"""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def _told_apart(file: TableFile, names: dict[int, str]) -> dict[int, str]:
    """The names of a header, none of them twice; aloud where one was."""
    different: dict[int, str] = {}
    taken: set[str] = set()
    for place, wanted in names.items():
        name = _free(wanted, taken)
        if name != wanted:
            file.say(
                f"has more than one column called {wanted!r}; the later one is called {name!r}.",
                warn=True,
            )
        different[place] = name
        taken.add(name)
    return different


def _value(cell: Any) -> Any:
    if isinstance(cell, str):
        stripped = cell.strip()
        return stripped or None
    # Times of day and durations, as they are shown.
    if isinstance(cell, time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    return cell


def _header(file: TableFile, beginning: list[tuple[int, Cells]]) -> _Header:
    """The header among the first rows that are not empty; made-up names, aloud, where there is none."""
    width = max((len(_filled(cells)) for _, cells in beginning), default=0)
    for i, (number, cells) in enumerate(beginning):
        filled = _filled(cells)
        below = beginning[i + 1][1] if i + 1 < len(beginning) else ()
        if _are_names(filled) and _is_second(filled, below, beginning[i + 2 :]):
            second = beginning[i + 1][0]
            joined = _told_apart(file, _joined(cells, below))
            example = joined[min(joined.keys() - filled.keys())]
            file.say(
                f"has two rows of names, {number} and {second}, which are joined, as in {example!r}. If row"
                f" {second} is data, give every column a name in row {number}.",
                warn=True,
            )
            return _Header(joined, second)
        # A title, a note or a date stands alone above the table.
        if len(filled) * 2 <= width and i + 1 < len(beginning):
            continue
        if not _are_names(filled):
            break
        if i:
            file.say(f"has its header in row {number}; what stands above is not read.")
        names = {place: _name(cell) for place, cell in filled.items()}
        return _Header(_told_apart(file, names), number)
    first = beginning[0][0] if beginning else 1
    file.say(
        f"has no header in its first rows: its columns are called column_1, column_2, … (the first row of"
        f" data is row {first}).",
        warn=True,
    )
    return _Header({}, first - 1)


def _filled(cells: Cells) -> dict[int, Any]:
    return {
        place: cell
        for place, cell in enumerate(cells)
        if cell is not None and str(cell).strip()
    }


def _are_names(filled: dict[int, Any]) -> bool:
    """Whether cells are texts, or years or dates among or instead of them."""
    texts = [cell for cell in filled.values() if isinstance(cell, str)]
    others = [cell for cell in filled.values() if not isinstance(cell, str)]
    are_times = all(
        isinstance(cell, datetime) or (type(cell) is int and cell in _YEARS)
        for cell in others
    )
    return bool(texts) and are_times


def _is_second(
    upper: dict[int, Any], below: Cells, rest: list[tuple[int, Cells]]
) -> bool:
    """Whether a row is a second one of names, below cells that are merged. Where that is in doubt it is a row
    of data.

    Columns without a name at the right are no sign of it: a header that lacks names looks like that.
    """
    lower = _filled(below)
    # One cell, or few, over many columns are a title.
    are_merged = 1 < len(upper) < len(lower) <= len(upper) * _MOST_MERGED
    fills_a_gap = any(
        min(upper) < place < max(upper) for place in lower.keys() - upper.keys()
    )
    are_names = all(isinstance(cell, str) for cell in lower.values())
    if not (are_merged and fills_a_gap and are_names):
        return False
    if len(set(lower.values())) < len(lower):
        return False
    rows = [_filled(cells) for _, cells in rest]
    columns = [[row[place] for row in rows if place in row] for place in lower]
    if any(name in column for name, column in zip(lower.values(), columns, strict=True)):
        return False
    of_another_kind = [column for column in columns if column and not _has_text(column)]
    return len(of_another_kind) * 2 >= len(columns)


def _has_text(column: list[Any]) -> bool:
    return any(isinstance(cell, str) and cell not in _ERRORS for cell in column)


def _joined(upper: Cells, lower: Cells) -> dict[int, str]:
    """Two rows of names as one: a merged cell's text stands at its first column."""
    names: dict[int, str] = {}
    above = ""
    for place in range(max(len(upper), len(lower))):
        top = upper[place] if place < len(upper) else None
        sub = lower[place] if place < len(lower) else None
        above = _name(top) if top is not None else above
        parts = [part for part in (above, _name(sub) if sub is not None else "") if part]
        if top is not None or sub is not None:
            names[place] = ".".join(dict.fromkeys(parts))
    return names


def _name(cell: Any) -> str:
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat()
    return " ".join(str(cell).split())
