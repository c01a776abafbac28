"""The types that a caller would give to the columns of a request.

A column of numbers with `?` among them is text where it was read, and its numbers are what a caller has. So a
column of texts that features read as numbers alone is described as numbers: whole ones, where those of all
golden rows are. Both are accepted, numbers and their texts.
"""

from __future__ import annotations

import base64
import datetime
import decimal
from typing import Any

import pyarrow as pa

from penstock.bundle.bundle import Bundle

_MOST_EXAMPLE_BYTES = 4_096


def natural_columns(bundle: Bundle) -> dict[str, pa.DataType]:
    """Return the columns that a request must have, each with its natural type."""
    columns = dict(bundle.columns)
    texts = [
        name
        for name, kind in columns.items()
        if pa.types.is_string(kind) and _is_number(bundle, name)
    ]
    if texts:
        rows, _ = bundle.golden()
        for name in texts:
            values = rows[name].to_pylist() if name in rows.column_names else []
            numbers = [n for v in values if (n := _read(bundle, name, v)) is not None]
            is_whole = numbers and all(isinstance(n, int) for n in numbers)
            columns[name] = pa.int64() if is_whole else pa.float64()
    return columns


def number_of(value: Any) -> int | float | None:
    """The number that a text says; None if it says none."""
    for kind in (int, float):
        try:
            number = kind(str(value).strip())
        except ValueError:
            continue
        # Neither `nan` nor `inf`, which JSON has no words for.
        if isinstance(number, int) or abs(number) < float("inf"):
            return number
    return None


def _read(bundle: Bundle, column: str, value: Any) -> int | float | None:
    """The number that a text says, as its feature reads it: `1.234` may be more than a thousand."""
    if value is None:
        return None
    plain = number_of(value)
    for name, feature in bundle.encoding.inputs.items():
        if list(feature.columns(name)) == [column]:
            number = feature.accept([pa.array([value], pa.string())])[0][0].as_py()
            # A whole number is shown as one.
            return plain if number is None or number == plain else float(number)
    return plain


def _is_number(bundle: Bundle, column: str) -> bool:
    """Whether all features that read a column read it as a number."""
    canonical = [
        feature.canonical
        for name, feature in bundle.encoding.inputs.items()
        if column in feature.columns(name)
    ]
    # A column that serving steps read is theirs to read.
    return bool(canonical) and all(pa.types.is_floating(kind) for kind in canonical)


def example_of(bundle: Bundle) -> dict[str, Any] | None:
    """Return a golden row as plain JSON values; None where there is none."""
    rows, _ = bundle.golden()
    if not rows.num_rows:
        return None
    natural = natural_columns(bundle)
    return {
        name: _read(bundle, name, value)
        if natural.get(name) != bundle.columns.get(name)
        else _plain(value)
        for name, value in rows.slice(0, 1).to_pylist()[0].items()
    }


def _plain(value: Any) -> Any:
    """Convert a value of an Arrow column to plain JSON."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        # A photo would swell the page.
        return (
            base64.b64encode(value).decode()
            if len(value) <= _MOST_EXAMPLE_BYTES
            else None
        )
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value
