"""Converts frames, tables and lists of rows to `Intake`, and answers back to the same
kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.bundle.record_shape import RecordShape
from penstock.bundle.rows import (
    FLAT,
    Intake,
    Types,
    absent_columns,
    from_columns,
    from_records,
    from_table,
    refuse_doubles,
)
from penstock.core.errors import RequestError

_LOOKED_AT = 8
"""Values of a list that tell what it holds."""


def read(
    rows: Any,
    required: Types,
    optional: Iterable[str],
    shape: RecordShape = FLAT,
) -> tuple[Intake, Callable[[pa.Table], Any]]:
    """Read the user's rows; return them with a function that converts answers to the
    same kind.

    Args:
        rows: a pandas or Polars frame, `pa.Table`, `pa.RecordBatch`, dict of lists, or list of records; or
            one record, whose answer is then one record: a dict, a pandas Series or a named tuple.
        required: the columns that rows must have, with their types in training.
        optional: columns that are carried along where they are there.
        shape: how the source of the training data calls its fields.

    Raises:
        RequestError: it is none of these, or lacks a required column.
    """
    if isinstance(rows, pa.Table):
        return from_table(rows, required, shape), lambda table: table
    if isinstance(rows, pa.RecordBatch):
        whole = pa.Table.from_batches([rows])
        return from_table(whole, required, shape), one_batch
    if isinstance(rows, Mapping) and not is_record(rows, required):
        columns = from_columns(rows, required, optional, shape)
        return columns, lambda table: table.to_pydict()
    library = type(rows).__module__.split(".")[0]
    if (record := as_record(rows)) is not None:
        intake = from_records([record], required, optional, shape)
        if library == "pandas":
            return intake, lambda table: _as_series(table, rows)
        return intake, lambda table: table.to_pylist()[0]
    if isinstance(rows, (list, tuple)):
        # One pass of `type`: a list of dicts, the usual case, is taken as it is.
        if set(map(type, rows)) - {dict}:
            rows = [row if (r := as_record(row)) is None else r for row in rows]
        intake = from_records(rows, required, optional, shape)
        return intake, lambda table: table.to_pylist()
    # By module name, so that neither library is imported for a caller who does not use
    # it.
    if library == "pandas" and hasattr(rows, "columns"):
        # Answers come back under the same row labels.
        index = rows.index
        return _from_pandas(
            rows, required, optional, shape
        ), lambda table: table.to_pandas().set_axis(index, axis=0)
    if library == "polars" and hasattr(rows, "to_arrow") and hasattr(rows, "columns"):
        return from_table(rows.to_arrow(), required, shape), _to_polars
    raise RequestError(
        "rows must be a pandas or Polars frame, an Arrow table, a dict of lists, a list of records, or one"
        f" record (a dict, a pandas Series or a named tuple); found {type(rows).__name__}"
    )


def as_record(row: Any) -> Mapping[str, Any] | None:
    """Return one row as a mapping, field → value; None for what is no row.

    A row is a mapping, a row of a pandas frame (a Series, or what `itertuples` gives), or an Arrow struct.
    """
    if isinstance(row, Mapping):
        return row
    if isinstance(row, pa.StructScalar):
        record: Mapping[str, Any] | None = row.as_py()
        return record
    if isinstance(row, tuple) and hasattr(row, "_asdict"):
        return dict(row._asdict())
    is_pandas = type(row).__module__.split(".")[0] == "pandas"
    if is_pandas and hasattr(row, "index") and not hasattr(row, "columns"):
        values = _from_series(row)
        listed = values if isinstance(values, list) else values.to_pylist()
        return dict(zip(row.index, listed, strict=True))
    return None


def is_record(rows: Mapping[str, Any], required: Types) -> bool:
    """Tell one record, field → value, from columns, name → list of values.

    A value in a column of single values, or an object, is a record's; a list there is a column. In a column
    of lists it is what the list holds that tells.

    Raises:
        RequestError: some are values and some are lists.
    """
    values: list[str] = []
    columns: list[str] = []
    for name in rows:
        if (levels := _levels_of(str(name), required)) is None:
            continue
        if (depth := _depth(rows[name])) is not None:
            (columns if depth > levels else values).append(str(name))
    if values and columns:
        raise RequestError(
            f"{_first(columns)} {'is a list' if len(columns) == 1 else 'are lists'} and {_first(values)}"
            f" {'is one value' if len(values) == 1 else 'are single values'}. Give one record,"
            " {field: value}, or columns, {name: [one value a row]}."
        )
    return bool(values)


def _first(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (" …" if len(names) > 3 else "")


def _levels_of(name: str, required: Types) -> int | None:
    """Return in how many lists a record has the values of a field, or of what an object
    of that name holds; None where nobody asks for it.
    """
    if name in required:
        return _levels(required[name])
    within = (kind for each, kind in required.items() if each.startswith(f"{name}."))
    return next(map(_levels, within), None)


def _levels(kind: pa.DataType) -> int:
    """Return how many lists the values of a type are in."""
    return 1 + _levels(kind.value_type) if _is_list(kind) else 0


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _depth(value: Any) -> int | None:
    """Return in how many lists a value lies; None where it does not tell (null, or a
    list of lists without values).
    """
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return value.ndim
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__"):
        return 0
    if not len(value):
        return 1
    if not isinstance(value, (list, tuple)):
        # A Series or an Arrow array: its first values tell what it holds.
        value = list(value[:_LOOKED_AT])
        value = [v.as_py() if isinstance(v, pa.Scalar) else v for v in value]
    inner = [d for v in value[:_LOOKED_AT] if (d := _depth(v)) is not None]
    return 1 + max(inner, default=0)


def _as_series(table: pa.Table, row: Any) -> Any:
    """Return the answer to one row of a frame, under the row's own label."""
    answer = table.to_pandas().iloc[0]
    answer.name = row.name
    return answer


def _from_pandas(
    frame: Any, required: Types, optional: Iterable[str], shape: RecordShape
) -> Intake:
    names = list(frame.columns)
    absent = [name for name in required if name not in frame.columns]
    holders = {source for name in absent for source in shape.sources(name)}
    if not frame.columns.is_unique:
        # Refuses doubles of a column that is asked for; of any other the first is kept.
        refuse_doubles(names, dict.fromkeys([*required, *holders]))
        frame = frame.loc[:, ~frame.columns.duplicated()]
    wanted = dict.fromkeys([*required, *optional, *holders])
    columns = {
        name: _from_series(frame[name]) for name in wanted if name in frame.columns
    }
    present = dict.fromkeys(map(str, names))
    near = shape.hints(present, required) if shape.sparse and absent else {}
    lacking = [n for n in absent if n in near] if columns else absent
    if lacking or (absent and not shape.sparse and not holders & columns.keys()):
        raise absent_columns(lacking or absent, list(present))
    return from_columns(columns, required, optional, shape)


def _from_series(series: Any) -> list[Any] | pa.Array:
    # Objects may be anything, and pandas writes a missing one as NaN, NaT or None.
    if series.dtype == object:
        return [
            None if missing else value
            for value, missing in zip(
                series.tolist(), series.isna().tolist(), strict=True
            )
        ]
    return pa.Array.from_pandas(series)


def _to_polars(table: pa.Table) -> Any:
    import polars

    return polars.from_arrow(table)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one record batch, also when it has no rows."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def slices(tables: Iterable[pa.Table | pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Cut tables into tables of at most `rows` rows each."""
    for table in tables:
        whole = (
            pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        )
        for start in range(0, whole.num_rows, rows):
            yield whole.slice(start, rows)
