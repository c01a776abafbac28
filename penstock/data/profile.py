"""The profile of a dataset version: each column of the training split, summarised in one pass and one sample.

Counts, least, greatest, mean and deviation are of all rows. Distinct values are HyperLogLog's estimate (an estimate that
does not depend on the order of rows); quantiles and the commonest values come from the rows with the smallest row ids
(a uniform sample, and the first rows of the file), all of them where there are no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.data.ledger import plain

if TYPE_CHECKING:
    import ibis.expr.types as ir

SAMPLE = 20_000
_TOP = 20
_AT = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_SHOWN = 200
_DIGITS = 12
"""A mean is given to so many significant digits: beyond them the order of summation shows."""
_LARGEST = 1e150
"""Mean and deviation are of numbers up to so large: the square of a larger one is no double."""


def profile(session: EngineSession, files: list[Path]) -> dict[str, Any]:
    """Rows, the size of the sample, and by column: type, missing, distinct, min, max, mean, std, quantiles, top."""
    table = session.read(files)
    columns = [name for name in table.columns if name != ROW_ID]
    measured = session.rows(table.aggregate(rows=table.count(), **_measures(table, columns)))[0]
    sample = _sample(files, columns)
    rows = int(measured["rows"])
    return {"split": "train", "rows": rows, "sampled": len(sample), "columns": {
        name: {"type": str(sample.schema.field(name).type), **_column(i, name, measured, rows), **_from_sample(sample[name].combine_chunks())} for i, name in enumerate(columns)}}


def _measures(table: ir.Table, columns: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for i, name in enumerate(columns):
        column, found = table[name], table[name].type()
        if found.is_floating():
            import ibis

            column = (column.isnan() | column.isinf()).ifelse(ibis.null(found), column)
        made[f"present{i}"] = column.count()
        if found.is_nested() or found.is_binary():
            continue
        made[f"distinct{i}"] = column.approx_nunique()
        if not found.is_boolean():
            ends = column.min(), column.max()  # cut afterwards: the beginning of the least text is the least beginning
            made[f"min{i}"], made[f"max{i}"] = (end.substr(0, _SHOWN) for end in ends) if found.is_string() else ends
        if found.is_numeric() and not found.is_boolean():
            number = column.cast("float64")
            usual = number.between(-_LARGEST, _LARGEST)
            made[f"mean{i}"], made[f"std{i}"] = number.mean(where=usual), number.std(how="pop", where=usual)
    return made


def _column(i: int, name: str, measured: dict[str, Any], rows: int) -> dict[str, Any]:
    present = int(measured[f"present{i}"])
    said: dict[str, Any] = {"missing": rows - present}
    if f"distinct{i}" in measured:
        said["distinct"] = min(int(measured[f"distinct{i}"] or 0), present)
    for word in ("min", "max"):
        if f"{word}{i}" in measured:
            said[word] = plain(measured[f"{word}{i}"])
    for word in ("mean", "std"):
        if f"{word}{i}" in measured:
            value = measured[f"{word}{i}"]
            said[word] = None if value is None else float(f"{value:.{_DIGITS}g}")
    return said


def _sample(files: list[Path], columns: list[str]) -> pa.Table:
    import pyarrow.parquet as pq

    taken: list[pa.RecordBatch] = []
    schema = pa.schema([pq.read_schema(files[0]).field(name) for name in columns]).remove_metadata()
    left = SAMPLE
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(min(SAMPLE, 4_096), columns=columns):
                taken.append(batch.select(columns).slice(0, left))
                left -= len(taken[-1])
                if not left:
                    return pa.Table.from_batches(taken, schema=schema)
    return pa.Table.from_batches(taken, schema=schema)


def _from_sample(column: pa.Array) -> dict[str, Any]:
    found = column.type
    said: dict[str, Any] = {}
    if pa.types.is_nested(found) or pa.types.is_binary(found) or pa.types.is_large_binary(found):
        return said
    present = column.drop_null()
    if pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found):
        numbers = np.asarray(pc.cast(present, pa.float64(), safe=False))
        numbers = numbers[np.isfinite(numbers)]
        said["quantiles"] = {f"{at:g}": float(v) for at, v in zip(_AT, np.quantile(numbers, _AT), strict=True)} if len(numbers) else {}
    pairs = [(entry["values"], entry["counts"]) for entry in pc.value_counts(present).to_pylist()]
    pairs.sort(key=lambda pair: (-pair[1], str(pair[0])))
    said["top"] = [[value[:_SHOWN] if isinstance(value, str) else plain(value), count] for value, count in pairs[:_TOP]]
    return said
