"""Lists of a fixed size in Parquet, of which some are missing.

Parquet has no such lists: the size stands in Arrow's own schema, a text of the footer. Arrow (25) writes a
missing list as one of no elements, and then refuses what it has written, since that has not the size. Read
without that schema they are lists, missing or not, and all else is what Parquet itself says of it; only
durations are mere numbers then.
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_SCHEMA = b"ARROW:schema"
_MARK = b"PAR1"


def missing_vectors(file: pq.ParquetFile) -> bool:
    """Whether a list of a fixed size may be missing somewhere."""
    fixed = {
        f.name for f in file.schema_arrow if _has(f.type, pa.types.is_fixed_size_list)
    }
    if not fixed:
        return False
    groups = [file.metadata.row_group(g) for g in range(file.num_row_groups)]
    chunks = [
        c
        for g in groups
        for c in map(g.column, range(g.num_columns))
        if c.path_in_schema.split(".")[0] in fixed
    ]
    # Without statistics nobody knows, so there may be some.
    return any(
        c.statistics is None or not c.statistics.has_null_count or c.statistics.null_count
        for c in chunks
    )


def without_sizes(file: BinaryIO) -> pq.FileMetaData:
    """A Parquet file's footer, whose lists have no fixed size.

    Raises:
        ValueError: there is none.
    """
    end = file.seek(0, 2)
    # The last eight bytes: how long the footer is, and the mark.
    file.seek(max(0, end - 8))
    tail = file.read(8)
    size = struct.unpack("<I", tail[:4])[0] if len(tail) == 8 else end
    if size + 12 > end:
        raise ValueError("its footer is longer than the file")
    file.seek(end - 8 - size)
    footer = file.read(size)
    place = footer.rfind(_SCHEMA)  # it follows all names of columns
    # Another key of the same length, which Arrow does not look for: all lengths in the
    # footer stay right.
    if place >= 0:
        footer = footer[:place] + _SCHEMA.lower() + footer[place + len(_SCHEMA) :]
    return pq.read_metadata(io.BytesIO(_MARK + footer + tail))


def with_units(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Restore the durations of an array that was read without Arrow's schema; lists
    keep any length.
    """
    return array.cast(_unsized(kind)) if _has(kind, pa.types.is_duration) else array


def _has(kind: pa.DataType, is_such: Any) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has(kind.storage_type, is_such)
    return is_such(kind) or any(
        _has(kind.field(i).type, is_such) for i in range(kind.num_fields)
    )


def _unsized(kind: pa.DataType) -> pa.DataType:
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _unsized(kind.storage_type)
    if t.is_fixed_size_list(kind) or t.is_list(kind) or t.is_large_list(kind):
        return pa.list_(_unsized(kind.value_type))
    if t.is_struct(kind):
        return pa.struct([field.with_type(_unsized(field.type)) for field in kind])
    return kind
