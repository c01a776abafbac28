"""The profile of a dataset version: each column of the training split, summarised in one pass and one sample.

Counts, least, greatest, mean and deviation are of all rows. Distinct values are HyperLogLog's estimate (an
estimate that does not depend on the order of rows); quantiles and the commonest values come from the rows
with the smallest row ids (a uniform sample, and the first rows of the file), all of them where there are no
more.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.summary import interpolated
from penstock.prepare.budget import batch_rows
from penstock.prepare.ledger import plain

if TYPE_CHECKING:
    import ibis.expr.types as ir

SAMPLE = 20_000
_TOP = 20
_AT = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_SHOWN = 200
_DIGITS = 12
"""A mean is given to so many significant digits: beyond them the order of summation shows."""
_BATCH_BYTES = 32 * 2**20
_AT_ONCE = 128
"""Columns of one query."""
_LARGEST = 1e150
"""Mean and deviation are of numbers up to so large: the square of a larger one is no double."""


def profile(
    session: EngineSession, files: list[Path], *, sampled: list[Path]
) -> dict[str, Any]:
    """Rows, the size of the sample, and by column: type, missing, distinct, min, max, mean, std, quantiles,
    top.

    Args:
        sampled: files that begin with the rows of the smallest ids: the same, in the order of ids.
    """
    # The same for every file of a split.
    schema = pq.read_schema(files[0])
    columns = [name for name in schema.names if name != ROW_ID]
    measured: dict[str, Any] = {"rows": 0}
    # Without any column one query still counts the rows.
    for start in range(0, len(columns) or 1, _AT_ONCE):
        # Only these columns are read: a query costs as much as the table that it names is wide.
        batch = dict(itertools.islice(enumerate(columns), start, start + _AT_ONCE))
        table = session.read(files, list(batch.values()) or [ROW_ID])
        measured |= session.measure(
            table, {"rows": table.count(), **_measures(table, batch)}
        )
    looked_at, sample = _sample(sampled, columns)
    rows = int(measured["rows"])
    return {
        "split": "train",
        "rows": rows,
        "sampled": looked_at,
        "columns": {
            name: {
                "type": str(schema.field(name).type),
                **_column(i, name, measured, rows),
                **sample[name],
            }
            for i, name in enumerate(columns)
        },
    }


def _measures(table: ir.Table, columns: Mapping[int, str]) -> dict[str, Any]:
    """The aggregates of some columns; each name ends with its column's number."""
    import ibis

    # By number: a column's name may hold anything.
    measures: dict[str, Any] = {}
    for i, name in columns.items():
        column, kind = table[name], table[name].type()
        if kind.is_floating():
            # One NaN or infinity would make mean and deviation say nothing, so they
            # count as missing.
            column = (column.isnan() | column.isinf()).ifelse(ibis.null(kind), column)
        measures[f"present{i}"] = column.count()
        if kind.is_nested() or kind.is_binary():
            # Such values have no order, and counting them costs their whole size.
            continue
        measures[f"distinct{i}"] = column.approx_nunique()
        if not kind.is_boolean():
            # cut afterwards: the beginning of the least text is the least beginning
            ends = column.min(), column.max()
            measures[f"min{i}"], measures[f"max{i}"] = (
                # A profile shows texts; long ones would make it as large as the data.
                (end.substr(0, _SHOWN) for end in ends) if kind.is_string() else ends
            )
        if kind.is_numeric() and not kind.is_boolean():
            number = column.cast("float64")
            # Not `where=`: each filtered aggregate of DuckDB's holds a copy of every column of the query.
            usual = number.between(-_LARGEST, _LARGEST).ifelse(
                number, ibis.null("float64")
            )
            measures[f"mean{i}"], measures[f"std{i}"] = usual.mean(), usual.std(how="pop")
    return measures


def _column(i: int, name: str, measured: dict[str, Any], rows: int) -> dict[str, Any]:
    present = int(measured[f"present{i}"])
    facts: dict[str, Any] = {"missing": rows - present}
    if f"distinct{i}" in measured:
        # An estimate may come out above the number of values.
        facts["distinct"] = min(int(measured[f"distinct{i}"] or 0), present)
    for word in ("min", "max"):
        if f"{word}{i}" in measured:
            facts[word] = plain(measured[f"{word}{i}"])
    for word in ("mean", "std"):
        if f"{word}{i}" in measured:
            value = measured[f"{word}{i}"]
            facts[word] = None if value is None else float(f"{value:.{_DIGITS}g}")
    return facts


def _sample(
    files: list[Path], columns: list[str]
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Read the sample; returns its number of rows, and by column the quantiles and commonest
    values.

    Memory: a batch; numbers and times as they are; of texts, words with their counts, long ones cut.
    """
    schema = pq.read_schema(files[0])
    texts: dict[str, dict[Any, list[Any]]] = {
        name: {} for name in columns if pa.types.is_string(schema.field(name).type)
    }
    others: dict[str, list[pa.Array]] = {
        name: []
        for name in columns
        if name not in texts and not _opaque(schema.field(name).type)
    }
    # The files begin with the smallest ids, so their first rows are the sample.
    taken = 0
    for path in files:
        # Words come as codes: a text that repeats is held once.
        # Only of texts: codes of numbers would save nothing.
        with pq.ParquetFile(path, read_dictionary=list(texts)) as file:
            for batch in file.iter_batches(
                # Within a bound of bytes, but wide rows do not come one by one.
                batch_rows(file, _BATCH_BYTES, least=64, most=4_096),
                columns=[ROW_ID, *texts, *others],
            ):
                # The last batch is cut, so that the sample has the same rows whatever a
                # batch has.
                batch = batch.slice(0, SAMPLE - taken)
                taken += len(batch)
                for name, counted in texts.items():
                    _count(batch.column(name), counted)
                for name, pieces in others.items():
                    pieces.append(batch.column(name))
                if taken == SAMPLE:
                    break
        if taken == SAMPLE:
            break
    by_column: dict[str, dict[str, Any]] = {name: {} for name in columns}
    for name, counted in texts.items():
        by_column[name] = {
            "top": _top([(shown, count) for shown, count in counted.values()])
        }
    for name, pieces in others.items():
        by_column[name] = _from_sample(
            # The type is given, since there may be no chunk.
            pa.chunked_array(pieces, schema.field(name).type).combine_chunks()
        )
    return taken, by_column


def _opaque(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _count(column: pa.DictionaryArray, counted: dict[Any, list[Any]]) -> None:
    """Add a batch's words to `counted`: by word (a long one by its digest), as it is shown, and how often."""
    # Each batch has a dictionary of its own, so words are counted, not codes.
    codes = column.indices.drop_null().to_numpy(zero_copy_only=False)
    counts = np.bincount(codes, minlength=len(column.dictionary))
    present = np.flatnonzero(counts)
    for word, count in zip(
        column.dictionary.take(pa.array(present)).to_pylist(),
        counts[present].tolist(),
        strict=True,
    ):
        # By its digest: a few thousand long texts would fill the memory.
        key = word if len(word) <= _SHOWN else hashlib.sha256(word.encode()).digest()
        counted.setdefault(key, [word[:_SHOWN], 0])[1] += count


def _from_sample(column: pa.Array) -> dict[str, Any]:
    """Quantiles and commonest values of a column that is no text."""
    kind = column.type
    facts: dict[str, Any] = {}
    present = column.drop_null()
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        # Whole numbers beyond 2**53 are rounded, which no quantile shows.
        numbers = np.asarray(pc.cast(present, pa.float64(), safe=False))
        # As in `_measures`.
        numbers = numbers[np.isfinite(numbers)]
        facts["quantiles"] = (
            {
                f"{at:g}": float(v)
                for at, v in zip(_AT, interpolated(numbers, np.array(_AT)), strict=True)
            }
            if len(numbers)
            else {}
        )
    counts = pc.value_counts(present)
    facts["top"] = _top(
        [(entry["values"], entry["counts"]) for entry in counts.to_pylist()]
    )
    return facts


def _top(pairs: list[tuple[Any, int]]) -> list[list[Any]]:
    # Ties in the order of their texts, so that profiles of the same rows are equal.
    pairs.sort(key=lambda pair: (-pair[1], str(pair[0])))
    return [[plain(value), count] for value, count in pairs[:_TOP]]
