"""Frames and tables that a Python program has in hand, as files: a snapshot of them by their content.

    penstock.run({"source": df, …})  →  ~/.cache/penstock/frames/<hash of the content>.parquet

A file is what can be hashed, read again by a resumed run, and read by other processes. Its name is its
content's hash, so equal frames are one file, and a dataset's id follows from the content alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from functools import lru_cache, partial
from numbers import Number
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from penstock.core.errors import SourceError
from penstock.formats.frame_cache import stored

_PLAIN = (str, Number, date, time, type, type(None), BaseModel)
"""What words of a source may be, besides mappings and lists of them."""
_LIBRARIES = frozenset({"pandas", "polars", "numpy", "pyarrow"})
_REMEDIES = {
    "LazyFrame": "Give the frame that it makes: `.collect()`.",
    "Series": "Make it a frame: `.to_frame()`.",
    "ndarray": "Make it a frame with names, or save it with numpy.save and give the path.",
    "RecordBatchReader": "Read it as a table: `.read_all()`.",
}
_OTHER_REMEDY = "Make it a frame, or write it to a file and give the path."
_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)
_MOST_SHOWN = 200


@dataclass(frozen=True)
class _Column:
    """A column of a frame of any library."""

    name: str
    kind: str
    """Its type, as its library calls it."""
    values: Callable[[], pa.Array | pa.ChunkedArray]
    remedy: str
    """How a user of its library changes a type."""


def is_in_hand(value: Any) -> bool:
    """Whether a value is a pandas or Polars frame, or a table or batch of Arrow."""
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        return True
    # By module name, so that neither library is imported for a caller who does not use it.
    library = type(value).__module__.split(".")[0]
    return (
        library == "pandas" and hasattr(value, "iloc") and hasattr(value, "columns")
    ) or (
        library == "polars" and hasattr(value, "to_arrow") and hasattr(value, "columns")
    )


def is_of_data_library(value: Any) -> bool:
    """Whether a value is one of pandas, Polars, NumPy or Arrow that no recipe holds: to print it would print
    data.
    """
    library = type(value).__module__.split(".")[0]
    return library in _LIBRARIES and not isinstance(value, _PLAIN)


def with_files(value: Any) -> Any:
    """Plain data with the path of a file in place of each frame in it.

    Raises:
        SourceError: a frame cannot be written as a table; a value is neither a frame nor one that a recipe
            may have.
    """
    if is_in_hand(value):
        return str(as_file(value))
    if isinstance(value, Mapping):
        return {word: with_files(below) for word, below in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return _list_checked(value)
    if isinstance(value, os.PathLike):
        return str(value)
    if not isinstance(value, _PLAIN):
        kind = type(value)
        raise SourceError(
            f"a source is a path or a frame, not a value of the type"
            f" {kind.__module__.split('.')[0]}.{kind.__qualname__}."
            f" {_REMEDIES.get(kind.__name__, _OTHER_REMEDY)}"
        )
    return value


def _list_checked(values: Any) -> list[Any]:
    for value in values:
        if is_in_hand(value):
            raise SourceError(
                f"a source is one frame, not a list of values of the type {type(value).__name__}. Join them"
                " first, for example with pandas.concat or polars.concat."
            )
    return [with_files(value) for value in values]


def as_file(frame: Any) -> Path:
    """The Parquet file with a frame's rows and columns; its index is left out.

    Raises:
        SourceError: it has no columns, two of one name, or values that no table holds.
        StoreError: the disk is full.
    """
    table = _as_table(frame)
    if not table.num_columns or not table.num_rows:
        raise SourceError(
            f"the frame has {table.num_rows:,} rows and {table.num_columns:,} columns; there is nothing to"
            " read in it."
        )
    return stored(table)


def _as_table(frame: Any) -> pa.Table:
    """The frame in one piece and without what its library wrote beside it, so that equal rows are equal
    bytes, whichever library holds them.
    """
    columns = list(_columns(frame))
    arrays = [_plain(column) for column in columns]
    return pa.table(arrays, names=[column.name for column in columns]).combine_chunks()


def _columns(frame: Any) -> Iterator[_Column]:
    if isinstance(frame, (pa.Table, pa.RecordBatch)):
        for field, values in zip(frame.schema, frame.columns, strict=True):
            yield _Column(
                field.name,
                str(field.type),
                partial(_same, values),
                "column.cast(pyarrow.string())",
            )
        return
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceError(f"the frame has more than one column {twice!r}. Rename one.")
    is_polars = type(frame).__module__.split(".")[0] == "polars"
    values_of = _polars_values if is_polars else _pandas_values
    kinds = frame.dtypes if is_polars else frame.dtypes.tolist()
    remedy = (
        "polars.col(name).cast(polars.String)" if is_polars else "df[name].astype(str)"
    )
    for place, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        yield _Column(name, str(kind), partial(values_of, frame, place), remedy)


def _same(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values


def _polars_values(frame: Any, place: int) -> pa.ChunkedArray:
    one = frame[:, [place]]
    if str(one.dtypes[0]) == "Object":
        # It would be the addresses of its values.
        raise TypeError("values of Python")
    return one.to_arrow().column(0)


def _pandas_values(frame: Any, place: int) -> pa.Array | pa.ChunkedArray:
    series = frame.iloc[:, place]
    categories: Any = getattr(series.dtype, "categories", None)
    if type(getattr(categories, "dtype", None)).__name__ == "IntervalDtype":
        series = series.cat.rename_categories(list(map(str, categories)))
    return pa.Array.from_pandas(series)


def _plain(column: _Column) -> pa.ChunkedArray:
    if not column.name.isascii():
        _check_name(column)
    try:
        values = column.values()
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        plain = pa.chunked_array(chunks, values.type).cast(_plain_type(values.type))
        _check_written(plain.type)
    except _MISFITS:
        # The error's own words may hold values.
        raise SourceError(
            f"the frame's column {column.name!r}, of the type {column.kind[:_MOST_SHOWN]}, has values of"
            " several kinds, or of a kind that no table holds. Leave it out, or make them one kind, for"
            f" example text:  {column.remedy}"
        ) from None
    return plain


def _check_name(column: _Column) -> None:
    try:
        column.name.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"the frame's column {column.name!a}, of the type {column.kind[:_MOST_SHOWN]}, has half a"
            " character (a lone surrogate) in its name. Rename it."
        ) from None


@lru_cache(maxsize=256)
def _check_written(kind: pa.DataType) -> None:
    """Find out whether Parquet holds a type.

    Raises:
        ArrowException: it does not.
    """
    empty = pa.schema([pa.field("x", kind)]).empty_table()
    pq.write_table(empty, pa.BufferOutputStream())


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind
