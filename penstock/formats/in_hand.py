"""Frames and tables that a Python program has in hand, as files: a snapshot of them by their content.

    penstock.run({"source": df, …})  →  ~/.cache/penstock/frames/<hash of the content>.parquet

A file is what can be hashed, read again by a resumed run, and read by other processes. Its name is its
content's hash, so equal frames are one file, and a dataset's id follows from the content alone.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.core.caches import cache_folder
from penstock.core.errors import SourceError
from penstock.core.store import as_store_error

_GROUP_ROWS = 122_880


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


def with_files(value: Any) -> Any:
    """Plain data with the path of a file in place of each frame in it.

    Raises:
        SourceError: a frame cannot be written as a table.
    """
    if is_in_hand(value):
        return str(as_file(value))
    if isinstance(value, Mapping):
        return {word: with_files(below) for word, below in value.items()}
    return value


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
    folder = cache_folder() / "frames"
    with as_store_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".new-", suffix=".parquet")
        os.close(handle)
        try:
            pq.write_table(table, name, row_group_size=_GROUP_ROWS, compression="zstd")
            with open(name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            path = folder / f"{digest[:32]}.parquet"
            # Equal content is there already, perhaps being read: it stays what it is.
            if not path.exists():
                os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    return path


def _as_table(frame: Any) -> pa.Table:
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    if isinstance(frame, pa.Table):
        return _plain(frame)
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceError(f"the frame has more than one column {twice!r}. Rename one.")
    if type(frame).__module__.split(".")[0] == "polars":
        return _plain(frame.to_arrow())
    columns = []
    for place, name in enumerate(names):
        try:
            columns.append(pa.Array.from_pandas(frame.iloc[:, place]))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            # The error's own words may hold values.
            raise SourceError(
                f"the frame's column {name!r} has values of several kinds, or of a kind that no table holds."
                " Make them one kind, for example text:  df[name].astype(str)"
            ) from None
    return _plain(pa.table(columns, names=names))


def _plain(table: pa.Table) -> pa.Table:
    """The table in one piece and without what its library wrote beside it, so that equal rows are equal
    bytes, whichever library holds them.
    """
    fields = [pa.field(field.name, _plain_type(field.type)) for field in table.schema]
    return table.replace_schema_metadata(None).cast(pa.schema(fields)).combine_chunks()


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind
