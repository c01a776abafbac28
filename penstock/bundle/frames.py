"""Converts frames, tables and lists of rows to `Intake`, and answers back to the same
kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from penstock.bundle.rows import (
    Intake,
    Types,
    absent_columns,
    from_columns,
    from_records,
    from_table,
    intake_of,
    refuse_doubles,
)
from penstock.bundle.value_kinds import carried
from penstock.core.errors import RequestError


def read(
    rows: Any, required: Types, optional: Iterable[str]
) -> tuple[Intake, Callable[[pa.Table], Any]]:
    """Read the user's rows; return them with a function that converts answers to the
    same kind.

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
    # By module name, so that neither library is imported for a caller who does not use
    # it.
    library = type(rows).__module__.split(".")[0]
    if library == "pandas" and hasattr(rows, "columns"):
        # Answers come back under the same row labels.
        index = rows.index
        return _from_pandas(
            rows, required, optional
        ), lambda table: table.to_pandas().set_axis(index, axis=0)
    if library == "polars" and hasattr(rows, "to_arrow"):
        return from_table(rows.to_arrow(), required), _to_polars
    raise RequestError(
        "rows must be a pandas or Polars frame, an Arrow table, a dict of lists or a list of dicts; found"
        f" {type(rows).__name__}"
    )


def _from_pandas(frame: Any, required: Types, optional: Iterable[str]) -> Intake:
    if absent := [name for name in required if name not in frame.columns]:
        raise absent_columns(absent, [str(c) for c in frame.columns])
    if not frame.columns.is_unique:
        # Refuses doubles of a column that is asked for; of any other the first is kept.
        refuse_doubles(list(frame.columns), required)
        frame = frame.loc[:, ~frame.columns.duplicated()]
    columns = {name: _from_series(frame[name]) for name in required}
    for name in optional:
        if name in frame.columns and name not in columns:
            columns[name] = carried(_from_series(frame[name]))
    return intake_of(columns, len(frame), required)


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
