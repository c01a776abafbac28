"""How a shard lies on disk, and what is mapped of it: an uncompressed Arrow IPC file with one record batch.

Dense arrays of one dtype lie side by side in one matrix, a fixed-size-list column: a shuffled batch is then
one gather a dtype, whatever the number of features (forty separate columns are seven times slower to gather
from). The schema's metadata holds the layout: which array is at which columns of which matrix. Ragged arrays
and bytes are list and binary columns of their own. Anything that reads Arrow reads a shard.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.core.errors import StoreError
from penstock.core.sound import sound
from penstock.shards.mmap_concat import PAGE_BYTES, Piece

LAYOUT = b"penstock.layout"
"""The key of the layout in the schema's metadata."""
_PADDING = b"penstock.padding"
FORMAT = 1
"""Of shards; newer ones are refused."""

Arrays = dict[str, np.ndarray]
Held = dict[str, Any]
"""An open shard: a matrix by dtype, and object columns by name."""


@dataclass(frozen=True)
class Place:
    """Where an array lies in a shard: `width` columns of the matrix of `dtype` from `start`, or an
    object column of its own.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    ragged: str | None = None
    """None: dense. Otherwise the dtype of the elements of each row's array, or `bytes`."""

    @property
    def width(self) -> int:
        """Columns of the matrix that it takes."""
        return math.prod(self.shape)


def rows_in(file: Path) -> int:
    """The number of rows of a shard."""
    return int(open_shard(str(file), None)[0].num_rows)


def _offsets_and_values(column: pa.Array, ragged: str | None) -> Any:
    """A column of bytes as it is; of arrays as where each row starts and all values, so that a row is a slice
    and not an object of Arrow's.
    """
    if ragged == "bytes":
        return column
    # Arrow packs booleans into bits, which numpy cannot look at in place: only they are
    # copied.
    return np.asarray(column.offsets), np.asarray(
        column.values.to_numpy(zero_copy_only=ragged != "bool"), dtype=ragged
    )


def held_dtype(dtype: str) -> np.dtype:
    """The dtype in which values of `dtype` lie in a matrix: booleans, which Arrow packs into bits,
    lie as bytes.
    """
    return np.dtype("uint8" if dtype == "bool" else dtype)


def layout_of(arrays: Arrays) -> list[Place]:
    """Assign a place to each array, in the order of `arrays`."""
    places: list[Place] = []
    filled: dict[str, int] = {}
    for name, values in arrays.items():
        if values.dtype == object:
            # A row without a value says nothing of the dtype, so the first one that has
            # any decides.
            first = next((v for v in values if v is not None), None)
            ragged = "bytes" if isinstance(first, bytes) else str(np.asarray(first).dtype)
            places.append(Place(name, "object", (), 0, ragged))
            continue
        dtype = values.dtype.name
        place = Place(name, dtype, tuple(values.shape[1:]), filled.get(dtype, 0))
        # Arrays of one dtype lie next to each other, in the order in which they are
        # named.
        filled[dtype] = place.start + place.width
        places.append(place)
    return places


def object_column(values: np.ndarray, ragged: str) -> pa.Array:
    """The Arrow column of bytes, or of arrays of one dtype, with one value for each row."""
    if ragged == "bytes":
        # Offsets of 64 bits: the bytes of one shard may pass 2 GiB.
        return pa.array(list(values), pa.large_binary())
    lengths = np.fromiter((len(v) for v in values), np.int64, len(values))
    flat = (
        np.concatenate([np.asarray(v, ragged) for v in values])
        if len(values)
        else np.empty(0, ragged)
    )
    return pa.LargeListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)),
        pa.array(flat),
    )


def bytes_of(arrays: Arrays) -> int:
    """About how many bytes these rows take on disk."""
    return sum(
        (
            values.nbytes
            if values.dtype != object
            # Eight bytes a row for its offset.
            else sum(len(v) * getattr(v, "itemsize", 1) + 8 for v in values)
        )
        for values in arrays.values()
    )


def matrices_of(batch: pa.RecordBatch, places: list[Place]) -> Held:
    """A shard's matrices by dtype and its object columns by name, as views without a copy."""
    matrices: Held = {}
    # Each dtype once, in the order of its first array, which is the order of the
    # columns in the file.
    for name in dict.fromkeys(p.dtype for p in places if p.ragged is None):
        column = batch.column(name)
        matrices[name] = np.frombuffer(
            # The values' own buffer, so the array is a view of the mapped file.
            column.flatten().buffers()[1],
            held_dtype(name),
            count=len(column) * column.type.list_size,
        ).reshape(len(column), column.type.list_size)
    matrices.update(
        {
            place.name: _offsets_and_values(batch.column(place.name), place.ragged)
            for place in places
            if place.ragged is not None
        }
    )
    return matrices


def pieces_of(file: str, dtypes: list[str]) -> dict[str, Piece]:
    """For each dtype, where its matrix lies in a shard's file: offset and size in bytes."""
    with pa.memory_map(file, "r") as source:
        # Where the mapping begins; a buffer's distance from it is its place in the
        # file.
        beginning = source.read_buffer(1).address
        source.seek(0)
        batch = pa.ipc.open_file(source).get_batch(0)
        buffers = {name: batch.column(name).flatten().buffers()[1] for name in dtypes}
        width = {
            name: batch.schema.field(name).type.list_size * held_dtype(name).itemsize
            for name in dtypes
        }
        return {
            name: Piece(file, buffer.address - beginning, batch.num_rows * width[name])
            for name, buffer in buffers.items()
        }


def paged(schema: pa.Schema, row: list[pa.Array]) -> pa.Schema:
    """The schema, padded so that the first buffer of a file begins at a page; `row` is one row with
    that schema.
    """
    padding = 0
    # once if padding made the message just as much longer; it is rounded to eights, so twice
    for _ in range(4):
        padded = schema.with_metadata({**schema.metadata, _PADDING: b" " * padding})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, padded) as writer:
            writer.write_batch(pa.record_batch(row, schema=padded))
        # after the magic word: two messages, each a mark, a length and so many bytes
        # The file begins with ARROW1 and two bytes more.
        content, at = memoryview(sink.getvalue()), 8
        for _ in range(2):
            at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        if at % PAGE_BYTES == 0:
            return padded
        padding += -at % PAGE_BYTES
    # It does not come out even: the schema stays as it is, and shards are gathered one
    # by one.
    return schema


def open_shard(
    file: str, content: pa.Buffer | None
) -> tuple[pa.RecordBatch, list[Place]]:
    """Open a shard from a local file, or from `content` that came from `file`. Its offsets are
    checked, so a damaged or hostile file cannot make a gather read outside it.
    """
    with sound(f"the shard {file}", advice="Delete the feed, and it is made again"):
        reader = pa.ipc.open_file(
            pa.memory_map(file, "r") if content is None else content
        )
        layout = json.loads((reader.schema.metadata or {})[LAYOUT])
        # Before anything else of the layout is read, since a newer one may have other
        # words.
        if layout["format"] > FORMAT:
            raise StoreError(
                f"{file} has format {str(layout['format'])[:40]}; this Penstock reads formats up to {FORMAT}."
                " Upgrade Penstock."
            )
        places = [
            Place(
                entry["name"],
                entry["dtype"],
                tuple(entry["shape"]),
                entry["start"],
                entry["ragged"],
            )
            for entry in layout["arrays"]
        ]
        batch = reader.get_batch(0)
        # Lengths of columns and buffers, so that a dense matrix ends within its buffer.
        batch.validate()
        for place in places:
            # Offsets of lists as well, each of them: a wrong one would make a gather
            # read foreign memory.
            if place.ragged is not None:
                batch.column(place.name).validate(full=True)
        # For its refusals: matrices that are shorter than the layout says fail here,
        # and not at some batch.
        matrices_of(batch, places)
        return batch, places
