"""The SHA-256 of a table's content: its columns' names and types, and its values in the order of its rows.

It depends on nothing else: not on how rows come in batches, on how a library lays out what is missing, on
compression, or on the version of a file format. Each column has hashes of its own (of values, of lengths, of
what is missing), which run on from batch to batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ContentDigest:
    """Adds up a table, batch after batch.

    Args:
        schema: of all batches: numbers, truth values, texts, bytes, moments, and lists of these.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = [_Column(field.type) for field in schema]
        self._head = [f"{field.name}\0{field.type}" for field in schema]
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the rows of a batch of the schema."""
        self._rows += batch.num_rows
        for column, array in zip(self._columns, batch.columns, strict=True):
            column.add(array)

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        whole = hashlib.sha256(str(self._rows).encode())
        for head, column in zip(self._head, self._columns, strict=True):
            whole.update(hashlib.sha256(head.encode()).digest())
            for part in column.digests():
                whole.update(part)
        return whole.hexdigest()


class _Column:
    def __init__(self, kind: pa.DataType) -> None:
        self._missing = hashlib.sha256()
        self._lengths = hashlib.sha256()
        self._values = hashlib.sha256()
        self._inner = _Column(kind.value_type) if pa.types.is_list(kind) else None

    def add(self, array: pa.Array) -> None:
        self._missing.update(_bytes_of(array.is_null().cast(pa.uint8())))
        # What a library leaves in the place of a missing value is no content.
        present = array.drop_null() if array.null_count else array
        kind = array.type
        if self._inner is not None:
            self._lengths.update(_bytes_of(pc.list_value_length(present)))
            self._inner.add(present.flatten())
        elif pa.types.is_string(kind) or pa.types.is_binary(kind):
            self._lengths.update(_bytes_of(pc.binary_length(present)))
            self._values.update(_text_bytes(present))
        elif pa.types.is_boolean(kind):
            self._values.update(_bytes_of(present.cast(pa.uint8())))
        else:
            self._values.update(_bytes_of(present))

    def digests(self) -> Iterator[bytes]:
        yield self._missing.digest()
        yield self._lengths.digest()
        yield self._values.digest()
        if self._inner is not None:
            yield from self._inner.digests()


def _bytes_of(array: pa.Array) -> memoryview:
    """The values of an array without missing ones, as bytes `[rows × width]`."""
    width = array.type.bit_width
    plain = array if pa.types.is_floating(array.type) else array.view(_whole(width))
    values = np.ascontiguousarray(plain.to_numpy(zero_copy_only=False))
    if pa.types.is_floating(array.type):
        # Of all bits that mean no number, and of the two zeros, one each.
        values = np.where(np.isnan(values), np.nan, values + 0.0)
    return memoryview(values.tobytes())


def _whole(bits: int) -> pa.DataType:
    return {8: pa.uint8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[bits]


def _text_bytes(array: pa.Array) -> memoryview:
    if not len(array):
        return memoryview(b"")
    offsets = np.frombuffer(array.buffers()[1], np.int32)
    first, last = offsets[array.offset], offsets[array.offset + len(array)]
    data = array.buffers()[2]
    return memoryview(b"") if data is None else memoryview(data)[first:last]
