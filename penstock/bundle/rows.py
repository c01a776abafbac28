"""Rows as users have them ↔ Arrow columns: frames, tables, dicts of lists, lists of records, JSON.

Python values carry their own types, and one column may hold several (`[39, "40", null]`). A row must be
accepted or refused for what it is, not for what its neighbours are; so a column whose values are of several
types stays in as many pieces (`Mixed`), and nothing is coerced across rows. A column of one type, the usual
case, is one array.

What this file refuses to know: features. It brings numbers to the declared column type only where nothing is
lost (39.0 in a column of whole numbers is 39); whether 39.5 or "abc" is acceptable there is the feature's to
say.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.core.errors import Problem, RequestError
from penstock.core.near import Hints
from penstock.formats.typed import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHOWN = 20
"""How many problems an error names."""

Types = Mapping[str, pa.DataType]


class Mixed:
    """A column whose values are of several types: one piece a type.

    Args:
        labels: which piece each row's value is in, `[n]`.
        pieces: the values of each piece, in the order of their rows.
    """

    def __init__(self, labels: np.ndarray, pieces: Sequence[pa.Array]) -> None:
        self.labels = labels
        self.pieces = list(pieces)
        self._rank = np.zeros(len(labels), np.int64)
        for label in range(len(self.pieces)):
            mine = labels == label
            self._rank[mine] = np.arange(int(mine.sum()))

    def take(self, rows: np.ndarray) -> pa.Array:
        """The values of `rows`, which must all be in one piece."""
        return self.pieces[int(self.labels[rows[0]])].take(pa.array(self._rank[rows]))

    def only(self, rows: np.ndarray) -> Mixed:
        """The same for some of the rows, ascending."""
        return Mixed(
            self.labels[rows],
            [
                piece.take(pa.array(self._rank[rows[self.labels[rows] == label]]))
                for label, piece in enumerate(self.pieces)
            ],
        )

    def joined(self, alike: Callable[[pa.Array], pa.Array]) -> pa.Array:
        """All values as one array, each piece made alike first."""
        order = np.argsort(
            np.concatenate([np.flatnonzero(self.labels == label) for label in range(len(self.pieces))]),
            kind="stable",
        )
        return pa.concat_arrays([alike(piece) for piece in self.pieces]).take(pa.array(order))


@dataclass
class Intake:
    """Rows as they came, ready to be accepted."""

    table: pa.Table
    """The columns of one type."""
    mixed: dict[str, Mixed]
    """The others, over the same rows."""
    places: np.ndarray | None
    """Where each of these rows stands in what came, ascending; None: they are all the rows that came, in
    order.
    """
    rows: int
    """How many rows came."""
    refused: dict[int, list[Problem]]
    """Rows that cannot even be read as columns (a missing field), by their place in what came."""


def refusal(refused: Mapping[int, Sequence[Problem]], *, rows: int) -> RequestError:
    """One error out of the rows that were refused: each row, field and reason, up to `SHOWN` of them."""
    every = [
        Problem((row, *problem.path), problem.text) for row in sorted(refused) for problem in refused[row]
    ]
    shown = tuple(every[:SHOWN])
    head = f"{len(refused)} of {rows} row{'s' if rows != 1 else ''} cannot be answered:"
    lines = [
        f"  - row {p.path[0]}{', field ' + repr(p.path[1]) if len(p.path) > 1 else ''}: {p.text}"
        for p in shown
    ]
    if len(every) > len(shown):
        lines.append(f"  … and {len(every) - len(shown)} more")
    return RequestError("\n".join([head, *lines]), shown)


# -- in ------------------------------------------------------------------------------------------------------


def from_table(table: pa.Table, required: Types) -> Intake:
    """An Arrow table, as it is.

    Raises:
        RequestError: a required column is absent.
    """
    present = set(table.column_names)
    absent = [name for name in required if name not in present]
    if absent:
        raise absent_columns(absent, table.column_names)
    return Intake(table, {}, None, table.num_rows, {})


def absent_columns(absent: Sequence[str], present: Sequence[str]) -> RequestError:
    """The error for columns that are not there at all."""
    free = list(present)
    hint = Hints(free)
    problems = tuple(
        Problem((name,), f"is required, and no such column is there.{hint(name)}") for name in absent[:SHOWN]
    )
    tail = f" Columns found: {', '.join(free[:40]) or 'none'}{' …' if len(free) > 40 else ''}."
    return RequestError(
        "the rows lack what the model reads: " + "; ".join(map(str, problems)) + tail, problems
    )


def from_records(records: Sequence[Any], required: Types, optional: Iterable[str] = ()) -> Intake:
    """A list of mappings, field → value.

    A missing field refuses its row; a field that is not asked for is ignored.

    Args:
        records: JSON-like mappings.
        required: fields that every record must have (null is a value), with the Arrow types of the training
            data.
        optional: fields that are carried along where at least one record has them; the other records have
            null.
    """
    refused: dict[int, list[Problem]] = {}
    columns: dict[str, list[Any] | pa.Array]
    try:
        columns = {name: [record[name] for record in records] for name in required}
        kept = list(records)
        places: np.ndarray | None = None
    except (KeyError, TypeError, IndexError):
        kept, found = [], []
        for i, record in enumerate(records):
            problems = _missing_fields(record, required, near=len(refused) < SHOWN)
            if problems:
                refused[i] = problems
            else:
                kept.append(record)
                found.append(i)
        columns = {name: [record[name] for record in kept] for name in required}
        places = np.array(found, np.int64)
    for name in optional:
        if name not in columns and any(name in record for record in kept):
            columns[name] = carried([record.get(name) for record in kept])
    intake = _columns(columns, len(kept), required)
    if places is None:
        return intake
    refused.update({int(places[row]): problems for row, problems in intake.refused.items()})
    return Intake(
        intake.table,
        intake.mixed,
        places if intake.places is None else places[intake.places],
        len(records),
        refused,
    )


_NAMES = 100
"""So many field names of a record, and characters of each, are compared to say what may have been meant."""


def _missing_fields(record: Any, required: Types, *, near: bool) -> list[Problem]:
    """What a record lacks.

    Args:
        near: say which field may have been meant; for the rows that are shown, since comparing names costs as
            much as answering.
    """
    if not isinstance(record, Mapping):
        return [
            Problem((), f"expected an object with the fields {', '.join(required)}; found {_shown(record)}")
        ]
    unknown = [
        str(name)[:_NAMES]
        for name in islice((name for name in record if name not in required), _NAMES if near else 0)
    ]
    hint = Hints(unknown)
    return [
        Problem((name,), f"is required but missing (null is allowed).{hint(name)}")
        for name in required
        if name not in record
    ]


def from_columns(columns: Mapping[str, Any], required: Types, optional: Iterable[str] = ()) -> Intake:
    """A mapping of column → list (or array) of values, all of one length.

    Raises:
        RequestError: a required column is absent, or lengths differ.
    """
    absent = [name for name in required if name not in columns]
    if absent:
        raise absent_columns(absent, list(columns))
    values = {name: _values(columns[name], name) for name in required}
    values.update(
        {
            name: carried(_values(columns[name], name))
            for name in optional
            if name in columns and name not in required
        }
    )
    lengths = {name: len(v) for name, v in values.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError(
            f"the columns have different lengths: {', '.join(f'{n} has {k}' for n, k in lengths.items())}."
            " Give one value a row in each."
        )
    rows = next(iter(lengths.values()), 0)
    return _columns(values, rows, required)


def _values(column: Any, name: str) -> list[Any] | pa.Array:
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column
    if isinstance(column, np.ndarray):
        if column.ndim > 1:
            return list(column)
        return column.tolist() if column.dtype == object else pa.array(column)
    if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
        raise RequestError(f"the column {name!r} must be a list of values, one a row; found {_shown(column)}")
    return list(column)


def _columns(columns: Mapping[str, list[Any] | pa.Array], rows: int, types: Types) -> Intake:
    """Each column as one array if it holds one type, otherwise in pieces.

    A row with a value that no column can hold (an object) is refused here.
    """
    arrays: dict[str, pa.Array] = {}
    marks: dict[str, list[str]] = {}
    for name, values in columns.items():
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else _one_type(values, types[name])
        if array is None:
            marks[name] = [_mark(value, types[name]) for value in values]
        else:
            arrays[name] = array
    table = pa.table(arrays) if arrays else pa.table({"": pa.nulls(rows)})
    if not marks:
        return Intake(table, {}, None, rows, {})
    refused: dict[int, list[Problem]] = {}
    for name, found in marks.items():
        for i in [i for i, mark in enumerate(found) if mark == _ODD]:
            refused.setdefault(i, []).append(
                Problem((name,), f"expected {_wanted(types[name])}; found {_shown(columns[name][i])}")
            )
    stays = np.setdiff1d(np.arange(rows), np.fromiter(refused, np.int64, len(refused)))
    mixed = {}
    for name, found in marks.items():
        words = sorted({found[i] for i in stays})
        labels = np.array([words.index(found[i]) for i in stays], np.int64)
        mixed[name] = Mixed(
            labels,
            [
                _of_mark([columns[name][i] for i in stays[labels == label]], word, types[name])
                for label, word in enumerate(words)
            ],
        )
    return (
        Intake(table.take(pa.array(stays)), mixed, stays, rows, refused)
        if refused
        else Intake(table, mixed, None, rows, {})
    )


_NUMBERS = {"int", "float", "huge", "null"}
_MATRIX = {"odd", "null"}
"""The marks of the parts of a list of lists: lists are odd where one value is expected."""
_ODD = "odd"
"""The mark of a value that no column of the declared type could hold."""


def _wanted(declared: pa.DataType) -> str:
    if pa.types.is_integer(declared) or pa.types.is_floating(declared) or pa.types.is_decimal(declared):
        return "a number"
    if pa.types.is_nested(declared):
        return "a list"
    if pa.types.is_binary(declared) or pa.types.is_large_binary(declared):
        return "bytes, or base64 text"
    if pa.types.is_temporal(declared):
        return "a date or time"
    return "true or false" if pa.types.is_boolean(declared) else "one text, number or truth value"


def _no_columns(rows: int) -> pa.Table:
    return pa.table({"": pa.nulls(rows)})


def _one_type(values: list[Any], declared: pa.DataType) -> pa.Array | None:
    """All values as one array if each would be taken so alone; None if rows must part ways.

    pyarrow would read `[0.5, False]` as two numbers; so what goes together is decided by Python types first.
    """
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values), declared)
    if kinds == {str}:
        try:
            return pa.array(values, pa.string())
        except UnicodeEncodeError:  # half of a surrogate pair, which is no text: its row alone is refused
            return None
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    try:
        if kinds == {int} and not pa.types.is_floating(declared):
            return _fitting(pa.array(values, pa.int64()), declared)
        if kinds == {float} and not pa.types.is_integer(declared):
            return _fitting(pa.array(values, pa.float64()), declared)
        if kinds <= {int, float} and pa.types.is_floating(declared):
            return pa.array([None if v is None else float(v) for v in values], pa.float64()).cast(
                declared, safe=False
            )
    except OverflowError:
        return None
    if kinds == {list} and pa.types.is_nested(declared):
        inner = {type(v) for value in values if value is not None for v in value}
        if inner <= {int, float, type(None)}:
            return _of_mark(values, "numbers", declared)
        if inner <= {list, type(None)}:
            deep = {
                type(v)
                for value in values
                if value is not None
                for part in value
                if part is not None
                for v in part
            }
            if deep <= {int, float, type(None)}:
                return _of_mark(values, "matrix", declared)
    marks = {_mark(value, declared) for value in values}
    known = marks - {"null"}
    return _of_mark(values, known.pop(), declared) if len(known) == 1 and _ODD not in known else None


def _fitting(array: pa.Array, declared: pa.DataType) -> pa.Array:
    """Whole numbers as the declared kind of whole numbers, doubles as doubles or floats; another type is left
    as it came.
    """
    alike = (pa.types.is_integer(declared) and pa.types.is_integer(array.type)) or (
        pa.types.is_floating(declared) and pa.types.is_floating(array.type)
    )
    return array.cast(declared, safe=False) if alike and pa.types.is_floating(declared) else array


def _mark(value: Any, declared: pa.DataType) -> str:
    """A word for how a value is taken; equal words go into one array."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if pa.types.is_floating(declared):
            return "float"
        return "int" if -(2**63) <= value < 2**63 else "huge"
    if isinstance(value, float):
        if pa.types.is_integer(declared):
            return (
                "null" if value != value else "int" if abs(value) < 2**53 and value.is_integer() else "float"
            )
        return "float"
    if isinstance(value, str):
        return "str" if value.isascii() or _is_text(value) else _ODD
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, decimal.Decimal):
        return "decimal"
    if isinstance(value, datetime.datetime):
        return "datetime" if value.tzinfo is None else "instant"
    if isinstance(value, datetime.date):
        return "date"
    if isinstance(value, (list, tuple, np.ndarray)) and pa.types.is_nested(declared):
        inner = {_mark(v, pa.null()) for v in value}
        if (
            inner <= _MATRIX
            and "odd" in inner
            and all(v is None or isinstance(v, (list, tuple, np.ndarray)) for v in value)
        ):
            deep = {_mark(v, pa.null()) for part in value if part is not None for v in part}
            return "matrix" if deep <= _NUMBERS else _ODD
        return "numbers" if inner <= _NUMBERS else "list" if inner <= {"str", "null"} else _ODD
    return _ODD


def _is_text(value: str) -> bool:
    """Whether a text has no half of a surrogate pair, which no encoding can say."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_mark(values: list[Any], mark: str, declared: pa.DataType) -> pa.Array:
    """Values of one mark, nulls among them, as an array whose type follows from the mark and the declared
    type alone.
    """
    if mark == "null":
        return pa.nulls(len(values), declared)
    if mark == "int":
        return pa.array([None if v is None or v != v else int(v) for v in values], pa.int64())
    if mark == "float":
        return _fitting(pa.array([None if v is None else _double(v) for v in values], pa.float64()), declared)
    if mark == "numbers":
        return pa.array(
            [
                None if value is None else [None if v is None else _double(v) for v in value]
                for value in values
            ],
            pa.list_(pa.float64()),
        )
    if mark == "matrix":
        plain = [
            (
                None
                if value is None
                else [
                    None if part is None else [None if v is None else _double(v) for v in part]
                    for part in value
                ]
            )
            for value in values
        ]
        return pa.array(plain, pa.list_(pa.list_(pa.float64())))
    if mark in ("huge", "decimal"):
        if pa.types.is_floating(declared) or pa.types.is_integer(declared) or pa.types.is_decimal(declared):
            return pa.array([None if v is None else _double(v) for v in values], pa.float64())
        return pa.array([None if v is None else _spelt(v) for v in values], pa.string())
    kinds = {
        "bool": pa.bool_(),
        "str": pa.string(),
        "bytes": pa.binary(),
        "list": pa.list_(pa.string()),
        "date": pa.date32(),
        "datetime": pa.timestamp("us"),
        "instant": pa.timestamp("us", "UTC"),
    }
    return pa.array([v.item() if isinstance(v, np.generic) else v for v in values], kinds[mark])


def _spelt(value: Any) -> str | None:
    """A number as text, as a file's would be: a whole one of any size as it is, another as the double that it
    is read as.
    """
    is_whole = not isinstance(value, decimal.Decimal) or value.as_tuple().exponent == 0
    return str(value) if is_whole else text_of(float(value))


def _double(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond any double: as infinite as it is to the model
        return float("inf") if value > 0 else float("-inf")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# -- the same kind comes out ---------------------------------------------------------------------------------


def read(rows: Any, required: Types, optional: Iterable[str]) -> tuple[Intake, Callable[[pa.Table], Any]]:
    """What the user gave, and a function that turns answers into the same kind.

    Args:
        rows: a pandas or Polars frame, `pa.Table`, `pa.RecordBatch`, dict of lists, or list of dicts.

    Raises:
        RequestError: it is none of these, or lacks a required column.
    """
    if isinstance(rows, pa.Table):
        return from_table(rows, required), lambda table: table
    if isinstance(rows, pa.RecordBatch):
        return from_table(pa.Table.from_batches([rows]), required), one_batch
    if isinstance(rows, Mapping):
        return from_columns(rows, required, optional), lambda table: table.to_pydict()
    if isinstance(rows, (list, tuple)):
        return from_records(rows, required, optional), lambda table: table.to_pylist()
    library = type(rows).__module__.split(".")[0]
    if library == "pandas" and hasattr(rows, "columns"):
        index = rows.index
        if absent := [name for name in required if name not in rows.columns]:
            raise absent_columns(absent, [str(c) for c in rows.columns])
        columns = {name: _from_series(rows[name]) for name in required}
        columns.update(
            {
                name: carried(_from_series(rows[name]))
                for name in optional
                if name in rows.columns and name not in columns
            }
        )
        return _columns(columns, len(rows), required), lambda table: table.to_pandas().set_axis(index, axis=0)
    if library == "polars" and hasattr(rows, "to_arrow"):
        return from_table(rows.to_arrow(), required), lambda table: _polars(table)
    raise RequestError(
        "rows must be a pandas or Polars frame, an Arrow table, a dict of lists or a list of dicts; found"
        f" {type(rows).__name__}"
    )


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one record batch, also when it has no rows."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def carried(values: list[Any] | pa.Array) -> pa.Array:
    """A column that is only carried along: as it is, or as text if one column cannot hold it."""
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if v is None else str(v) for v in values])
    except UnicodeEncodeError:  # half of a surrogate pair: it is written as Python would escape it
        return pa.array(
            [None if v is None else str(v).encode("utf-8", "backslashreplace").decode() for v in values]
        )


def _from_series(series: Any) -> list[Any] | pa.Array:
    if series.dtype == object:  # may hold anything; pandas writes a missing value as NaN, NaT or None
        return [
            None if missing else value
            for value, missing in zip(series.tolist(), series.isna().tolist(), strict=True)
        ]
    return pa.Array.from_pandas(series)


def _polars(table: pa.Table) -> Any:
    import polars

    return polars.from_arrow(table)


def slices(tables: Iterable[pa.Table | pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at most `rows` rows each."""
    for table in tables:
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        for start in range(0, whole.num_rows, rows):
            yield whole.slice(start, rows)
