"""Converts rows to Arrow columns (`Intake`), and makes the errors for rows that cannot
be read.

Python values carry their own types, and one column may hold several (`[39, "40", null]`). A row must be
accepted or refused for what it is, not for what its neighbours are; so a column whose values are of several
types stays in as many pieces (`Mixed`), and nothing is coerced across rows. A column of one type, the usual
case, is one array. What decides about a value is in `value_kinds`; frames and tables come in by `frames`.

What this file refuses to know: features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.bundle.mixed import Mixed
from penstock.bundle.record_shape import RecordShape
from penstock.bundle.value_kinds import (
    ODD,
    array_of_kind,
    array_of_one_kind,
    as_python,
    carried,
    expected,
    kind_of,
    shown,
)
from penstock.contracts.data import PLACE
from penstock.core.errors import Problem, RequestError
from penstock.core.near import WRITTEN, Hints
from penstock.formats.learnt import KEPT, MISFIT
from penstock.formats.typed import unpacked

SHOWN = 20
"""How many problems an error names."""
_NAMES = 100
"""So many field names of a record, and characters of each, are compared to say what may have been meant."""

_NO_OBJECT = (
    "is a field of {holder!r}, which must be an object, a list of objects, or missing; found"
    " {value}."
)

Types = Mapping[str, pa.DataType]
FLAT = RecordShape()
"""The shape of rows of which nothing is known but their columns."""


@dataclass
class Intake:
    """Rows as columns, ready to be accepted."""

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


# -- errors --------------------------------------------------------------------------------------------------


def refusal(refused: Mapping[int, Sequence[Problem]], *, rows: int) -> RequestError:
    """Make one error of the rows that were refused: row, field and reason of up to
    `SHOWN` problems.
    """
    # In order of rows, whatever order stages refused them in.
    every = [
        Problem((row, *problem.path), problem.text)
        for row in sorted(refused)
        for problem in refused[row]
    ]
    shown = tuple(every[:SHOWN])
    head = f"{len(refused)} of {rows} rows cannot be answered:"
    if rows == 1:
        head = "The row cannot be answered:"
    lines = [
        f"  - row {p.path[0]}{', field ' + repr(p.path[1]) if len(p.path) > 1 else ''}: {p.text}"
        for p in shown
    ]
    if len(every) > len(shown):
        lines.append(f"  … and {len(every) - len(shown)} more")
    return RequestError("\n".join([head, *lines]), shown)


def absent_columns(absent: Sequence[str], present: Sequence[str]) -> RequestError:
    """Make the error for required columns that are absent."""
    # Columns of Penstock's own mean nothing to a reader.
    free = [n for n in present if n not in PLACE and not n.startswith((MISFIT, KEPT))]
    hint = Hints(free)
    problems = tuple(
        Problem((name,), f"is required, and no such column is there.{hint(name)}")
        for name in absent[:SHOWN]
    )
    tail = f" Columns found: {', '.join(free[:40]) or 'none'}{' …' if len(free) > 40 else ''}."
    return RequestError(
        "the rows lack inputs of the model: " + "; ".join(map(str, problems)) + tail,
        problems,
    )


def refuse_doubles(names: Sequence[str], required: Iterable[str]) -> None:
    """Raise RequestError if a required column occurs more than once."""
    counts = Counter(names)
    problems = tuple(
        Problem((name,), "is given more than once; give it once")
        for name in required
        if counts[name] > 1
    )[:SHOWN]
    if problems:
        raise RequestError(
            "the rows have columns of one name: " + "; ".join(map(str, problems)),
            problems,
        )


# -- rows in -------------------------------------------------------------------------------------------------


def from_table(table: pa.Table, required: Types, shape: RecordShape = FLAT) -> Intake:
    """Read an Arrow table; a column `a.b` may be the field `b` of a struct `a`.

    Raises:
        RequestError: a required column is absent.
    """
    # A table may have two columns of one name, which no later step could tell apart.
    present = set(table.column_names)
    if absent := [name for name in required if name not in present]:
        # Which of two columns of one name holds a field is not to be guessed.
        holders = (source for name in absent for source in shape.sources(name))
        refuse_doubles(table.column_names, dict.fromkeys(holders))
        table = shape.unnested(table, required)
        if shape.sparse:
            _refuse_barred(table, required, shape)
        table = shape.filled(table, required)
        present = set(table.column_names)
    absent = [name for name in required if name not in present]
    if absent:
        raise absent_columns(absent, table.column_names)
    if len(present) < table.num_columns:
        refuse_doubles(table.column_names, required)
        table = table.select(
            # Doubles of columns that nobody asks for: the first is kept.
            [table.column_names.index(name) for name in dict.fromkeys(table.column_names)]
        )
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if (plain := _plain(column, required.get(name, pa.null()))) is not column:
            table = table.set_column(place, name, plain)
    return Intake(table, {}, None, table.num_rows, {})


def _refuse_barred(table: pa.Table, required: Types, shape: RecordShape) -> None:
    """Refuse a table whose columns should hold others, and cannot.

    Raises:
        RequestError: one has values that are no objects.
    """
    problems = tuple(
        Problem((name,), _NO_OBJECT.format(holder=holder, value=f"values of type {kind}"))
        for name, (holder, kind) in shape.barred(table, required).items()
    )[:SHOWN]
    if problems:
        text = "; ".join(map(str, problems))
        raise RequestError(f"the rows lack inputs of the model: {text}", problems)


def _plain(
    column: pa.Array | pa.ChunkedArray, declared: pa.DataType
) -> pa.Array | pa.ChunkedArray:
    """Return a column in a plain layout (`formats.typed.unpacked`), itself if it has
    one; NaN becomes missing where moments, lists or bytes are declared.
    """
    if isinstance(column, pa.Array):
        column = unpacked(column)
    else:
        parts = [unpacked(part) for part in column.chunks]
        if any(part.type != column.type for part in parts):
            column = pa.chunked_array(parts)
    t = pa.types
    is_other = t.is_temporal(declared) or t.is_nested(declared) or t.is_binary(declared)
    # A frame writes a missing moment or list as NaN, which would make its column one of
    # floats.
    if not (is_other and t.is_floating(column.type)):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def from_records(
    records: Sequence[Any],
    required: Types,
    optional: Iterable[str] = (),
    shape: RecordShape = FLAT,
) -> Intake:
    """Read a list of mappings, field → value; a field `a.b` may be the field `b` of an object `a`.

    A missing field refuses its row; a field that is not asked for is ignored.

    Args:
        records: JSON-like mappings.
        required: fields that every record must have (null is a value), with the Arrow types of the training
            data.
        optional: fields that are carried along where at least one record has them; the other records have
            null.
        shape: how the source of the training data calls its fields.
    """
    refused: dict[int, list[Problem]] = {}
    optional = list(optional)
    if dotted := [name for name in optional if "." in name]:
        records = [shape.flat(record, dotted) for record in records]
    whole = list(records)
    places: np.ndarray | None = None
    columns: dict[str, list[Any] | pa.Array]
    try:
        # The usual case: every record has every field, and no record is asked twice.
        columns = {name: [record[name] for record in records] for name in required}
    except (KeyError, TypeError, IndexError):
        # Each record is asked only once one is known to lack a field: the usual case costs no second pass.
        flat = [shape.flat(record, required) for record in records]
        for i, record in enumerate(flat):
            # Hints compare names pairwise, so only the rows that are shown get
            # them.
            near = len(refused) < SHOWN
            if problems := _problems(record, required, shape, near=near):
                refused[i] = problems
        places = np.array([i for i in range(len(records)) if i not in refused], np.int64)
        whole = [flat[i] for i in places]
        # What a row leaves out is missing.
        columns = {name: [record.get(name) for record in whole] for name in required}
    for name in optional:
        if name not in columns and any(name in record for record in whole):
            columns[name] = carried([record.get(name) for record in whole])
    intake = intake_of(columns, len(whole), required)
    if places is None:
        return intake
    refused.update(
        {int(places[row]): problems for row, problems in intake.refused.items()}
    )
    return Intake(
        intake.table,
        intake.mixed,
        # Two layers of places: rows of `whole` among the records, and rows of the
        # intake among `whole`.
        places if intake.places is None else places[intake.places],
        len(records),
        refused,
    )


def _problems(
    record: Any, required: Types, shape: RecordShape, *, near: bool
) -> list[Problem]:
    """Return why a record cannot be read; nothing where it only leaves out fields, and
    its source may.
    """
    if not shape.sparse or not isinstance(record, Mapping):
        return _missing_fields(record, required, near=near)
    if unusable := shape.unusable(record, required):
        return [
            Problem((name,), _NO_OBJECT.format(holder=holder, value=shown(value)))
            for name, (holder, value) in unusable.items()
        ]
    if not any(name in record for name in required):
        return _missing_fields(record, required, near=near)
    spelt = shape.hints(record, required)
    return [
        Problem((name,), f"is not among the fields. There is {spelt[name]!r} instead.")
        for name in (required if spelt else ())
        if name in spelt
    ]


def _missing_fields(record: Any, required: Types, *, near: bool) -> list[Problem]:
    """Return a problem for each required field that a record lacks.

    Args:
        near: say which field may have been meant; for the rows that are shown, since comparing names costs as
            much as answering.
    """
    if not isinstance(record, Mapping):
        return [
            Problem(
                (),
                f"expected an object with the fields {', '.join(required)}; found {shown(record)}",
            )
        ]
    unknown = [
        str(name)[:_NAMES]
        for name in islice(
            # A record may have any number of unknown fields; only some are compared.
            (name for name in record if name not in required),
            _NAMES if near else 0,
        )
    ]
    absent = [name for name in required if name not in record]
    if not near:
        return list(map(_missing, absent))
    hint = Hints(unknown, text=WRITTEN)
    return [Problem((name,), f"{_missing(name).text}{hint(name)}") for name in absent]


@lru_cache(maxsize=4096)
def _missing(name: str) -> Problem:
    # One for all rows: many rows may each lack many fields.
    return Problem((name,), "is required but missing (null is allowed).")


def from_columns(
    columns: Mapping[str, Any],
    required: Types,
    optional: Iterable[str] = (),
    shape: RecordShape = FLAT,
) -> Intake:
    """Read a mapping of column → list (or array) of values, all of one length; a column
    `a.b` may be the field `b` of the objects in a column `a`.

    Raises:
        RequestError: a required column is absent, or lengths differ.
    """
    optional = list(optional)
    absent = [name for name in required if name not in columns]
    if absent:
        return _from_objects(columns, absent, required, optional, shape)
    values = {name: _values(columns[name], name) for name in required}
    for name in optional:
        if name in columns and name not in required:
            values[name] = carried(_values(columns[name], name))
    return intake_of(values, _length(values), required)


def _from_objects(
    columns: Mapping[str, Any],
    absent: Sequence[str],
    required: Types,
    optional: Sequence[str],
    shape: RecordShape,
) -> Intake:
    """Read columns that lack some by their names, but have objects with these fields.

    Raises:
        RequestError: no column may hold a field of that name, or lengths differ.
    """
    # Each absent column may be within several others: `a.b.c` in `a` or in `a.b`.
    holders = {name: [s for s in shape.sources(name) if s in columns] for name in absent}
    without = [name for name, sources in holders.items() if not sources]
    near = shape.hints(columns, required) if shape.sparse and without else {}
    may_lack = shape.sparse and len(without) < len(required)
    if lacking := [name for name in without if name in near or not may_lack]:
        raise absent_columns(lacking, list(columns))
    names = [name for name in (*required, *optional) if name in columns]
    names += [source for sources in holders.values() for source in sources]
    values = {name: _values(columns[name], name) for name in dict.fromkeys(names)}
    count = _length(values)
    if without:
        # What the source may leave out is missing in every row.
        nulls = {name: pa.nulls(count, required[name]) for name in without}
        return from_columns({**values, **nulls}, required, optional, shape)
    rows = zip(*(_listed(column) for column in values.values()), strict=True)
    records = [dict(zip(values, row, strict=True)) for row in rows]
    return from_records(records, required, optional, shape)


def _listed(values: list[Any] | pa.Array) -> list[Any]:
    return values if isinstance(values, list) else values.to_pylist()


def _length(values: Mapping[str, list[Any] | pa.Array]) -> int:
    """Return the one length of all columns.

    Raises:
        RequestError: they have several.
    """
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError(
            f"the columns have different lengths: {', '.join(f'{n} has {k}' for n, k in lengths.items())}."
            " Give one value a row in each."
        )
    return next(iter(lengths.values()), 0)


def _values(column: Any, name: str) -> list[Any] | pa.Array:
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column
    if isinstance(column, np.ndarray):
        if column.ndim > 1:
            # Each row's own array or list, as a vector.
            return list(column)
        return column.tolist() if column.dtype == object else pa.array(column)
    # A text has a length, too, but is one value.
    if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
        raise RequestError(
            f"the column {name!r} must be a list of values, one a row; found {shown(column)}"
        )
    return list(column)


def intake_of(
    columns: Mapping[str, list[Any] | pa.Array], rows: int, types: Types
) -> Intake:
    """Convert each column to one array if its values are of one kind, otherwise to
    pieces.

    A row with a value that no column can hold (an object) is refused here.

    Args:
        columns: the values of each, one a row.
        rows: how many.
        types: by column, the Arrow type of the training data.
    """
    arrays: dict[str, pa.Array] = {}
    kinds: dict[str, list[str]] = {}
    # numpy's and pandas' own scalars become Python's, so that types alone decide below.
    columns = {
        name: values
        if isinstance(values, (pa.Array, pa.ChunkedArray))
        else as_python(values)
        for name, values in columns.items()
    }
    for name, values in columns.items():
        is_array = isinstance(values, (pa.Array, pa.ChunkedArray))
        array = values if is_array else array_of_one_kind(values, types[name])
        if array is None:
            kinds[name] = [kind_of(value, types[name]) for value in values]
        else:
            arrays[name] = _plain(array, types.get(name, pa.null()))
    # A table without columns has no rows: one of nulls keeps their number.
    table = pa.table(arrays) if arrays else pa.table({"": pa.nulls(rows)})
    if not kinds:
        return Intake(table, {}, None, rows, {})
    refused: dict[int, list[Problem]] = {}
    for name, words in kinds.items():
        for i in [i for i, word in enumerate(words) if word == ODD]:
            refused.setdefault(i, []).append(
                Problem(
                    (name,),
                    f"expected {expected(types[name])}; found {shown(columns[name][i])}",
                )
            )
    # One set of rows for all mixed columns, so that pieces of different columns stay
    # aligned.
    accepted = np.setdiff1d(np.arange(rows), np.fromiter(refused, np.int64, len(refused)))
    mixed = {
        name: _pieces(columns[name], words, accepted, types[name])
        for name, words in kinds.items()
    }
    if not refused:
        return Intake(table, mixed, None, rows, {})
    return Intake(table.take(pa.array(accepted)), mixed, accepted, rows, refused)


def _pieces(
    values: list[Any] | pa.Array,
    kinds: list[str],
    accepted: np.ndarray,
    declared: pa.DataType,
) -> Mixed:
    """Collect the values of the accepted rows, those of one kind in one piece."""
    # Sorted, so that the pieces' order does not depend on which row comes first.
    words = sorted({kinds[i] for i in accepted})
    labels = np.array([words.index(kinds[i]) for i in accepted], np.int64)
    pieces = [
        array_of_kind([values[i] for i in accepted[labels == label]], word, declared)
        for label, word in enumerate(words)
    ]
    return Mixed(labels, pieces)
