"""Shards: encoded rows on disk, ready to become tensors.

A shard is an uncompressed Arrow IPC file with one record batch, memory-mapped when read. Dense arrays of one
dtype lie side by side in one matrix, a fixed-size-list column: a shuffled batch is then one gather a dtype,
whatever the number of features (forty separate columns are seven times slower to gather from). The schema's
metadata holds the layout: which array is at which columns of which matrix. Ragged arrays and bytes are list
and binary columns of their own.

Beside the features' arrays there are `row_id` (the two halves of the md5, int64) and, if declared, `weight`
(float32). Anything that reads Arrow reads a shard.

What this file refuses to know: features, order, tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.ragged import Ragged
from penstock.contracts.summary import id_halves
from penstock.core.errors import StoreError
from penstock.core.sound import sound
from penstock.core.store import Member, as_store_error
from penstock.shards.cache import Cache
from penstock.shards.mmap_concat import PAGE_BYTES, Piece, mmap_concat
from penstock.shards.remote_files import HELD_BYTES, RemoteFiles

SHARD_BYTES = 64 * 2**20
_LAYOUT = b"penstock.layout"
_PADDING = b"penstock.padding"
_ALIGN_ROWS = PAGE_BYTES
"""So many rows are whole pages, whatever their width; then the matrices of all shards can be laid side by
side (`contiguous`).
"""
FORMAT = 1

Arrays = dict[str, np.ndarray]
Held = dict[str, Any]
"""An open shard: a matrix by dtype, and object columns by name."""


def row_id_halves(row_ids: pa.Array) -> np.ndarray:
    """md5 row ids (32 hexadecimal digits) as two whole numbers each, int64 `[n, 2]`."""
    return id_halves(row_ids).view(np.int64)


def row_id_text(halves: np.ndarray) -> list[str]:
    """The reverse of `row_id_halves`."""
    return [f"{high:016x}{low:016x}" for high, low in np.ascontiguousarray(halves).view(np.uint64).tolist()]


@dataclass(frozen=True)
class _Place:
    """Where an array lies: `width` columns of the matrix of `dtype` from `start`, or an object column of its
    own.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    ragged: str | None = None
    """None: dense. Otherwise the dtype of the elements of each row's array, or `bytes`."""

    @property
    def width(self) -> int:
        return math.prod(self.shape)


class ShardWriter:
    """Writes the rows of one split as `<prefix>-00000.arrow`, ….  Use as a context manager.

    Every shard but the last has the same number of rows, so that a row's shard follows from its place: as
    many as make `shard_bytes`, by the bytes of the first rows (of rows whose size differs, by those of the
    first shard).

    Dense arrays are laid into the shard's matrices as they come, so there is no second copy of a shard.

    Args:
        folder: where the shards go.
        prefix: usually the split's name.
        shard_bytes: a shard is closed once it holds about so much.
        shard_rows: the rows of a shard, where somebody else decided.
    """

    def __init__(
        self, folder: Path, prefix: str, *, shard_bytes: int = SHARD_BYTES, shard_rows: int | None = None
    ) -> None:
        self.rows = 0
        self.files: list[str] = []
        self.rows_by_file: list[int] = []
        self._folder, self._prefix, self._shard_bytes = folder, prefix, shard_bytes
        self._places: list[_Place] = []
        self._matrices: Arrays = {}
        self._objects: dict[str, list[np.ndarray]] = {}
        self._full = shard_rows
        """Rows of a shard; None until the first of ragged rows is full."""
        self._filled = self._filled_bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *problem: object) -> None:
        if kind is None:
            self.close()

    def write(self, arrays: Arrays) -> None:
        """Add rows: arrays `[n, …]` by name, the same names, dtypes and inner shapes each time."""
        rows = len(next(iter(arrays.values())))
        if not rows:
            return
        if not self._places:
            self._begin(arrays, rows)
        self._check(arrays)
        per_row = max(_bytes(arrays) // rows, 1) if self._full is None else 0
        start = 0
        while start < rows:
            most = (
                self._full - self._filled
                if self._full is not None
                else max((self._shard_bytes - self._filled_bytes) // per_row, 1)
            )
            taken = min(most, rows - start)
            self._lay({name: values[start : start + taken] for name, values in arrays.items()}, taken)
            self._filled_bytes += taken * per_row
            start += taken
            if self._full is None and self._filled_bytes + per_row > self._shard_bytes:
                aligned = -(-self._filled // _ALIGN_ROWS) * _ALIGN_ROWS
                self._full = aligned if aligned - self._filled <= self._filled // 16 else self._filled
            if self._filled == self._full:
                self._flush()

    def _begin(self, arrays: Arrays, rows: int) -> None:
        self._places = _layout(arrays)
        if self._full is None and all(place.ragged is None for place in self._places):
            full = max(self._shard_bytes // max(_bytes(arrays) // rows, 1), 1)
            self._full = full // _ALIGN_ROWS * _ALIGN_ROWS or full

    def _check(self, arrays: Arrays) -> None:
        if [p.name for p in self._places] != list(arrays):
            raise ValueError(f"a shard has the arrays {[p.name for p in self._places]}; found {list(arrays)}")
        for place, values in zip(self._places, arrays.values(), strict=True):
            if values.dtype.name != place.dtype or values.shape[1:] != place.shape:
                raise ValueError(
                    f"{place.name} was {place.dtype} {list(place.shape)} in the first rows, and is"
                    f" {values.dtype.name} {list(values.shape[1:])} now"
                )

    def _lay(self, piece: Arrays, rows: int) -> None:
        """Rows into the matrices, which grow while it is not known how many a shard has."""
        stop = self._filled + rows
        for dtype in dict.fromkeys(p.dtype for p in self._places if p.ragged is None):
            dense = [p for p in self._places if p.ragged is None and p.dtype == dtype]
            matrix = self._matrices.get(dtype)
            if matrix is None or len(matrix) < stop:
                held = np.empty((self._full or 2 * stop, sum(p.width for p in dense)), _held(dtype))
                if matrix is not None:
                    held[: self._filled] = matrix[: self._filled]
                matrix = self._matrices[dtype] = held
            for place in dense:
                matrix[self._filled : stop, place.start : place.start + place.width] = piece[
                    place.name
                ].reshape(rows, place.width)
        for place in self._places:
            if place.ragged is not None:
                self._objects.setdefault(place.name, []).append(piece[place.name])
        self._filled = stop

    def close(self) -> None:
        """Write what is pending."""
        if self._filled:
            self._flush()
        self._matrices = {}

    def _flush(self) -> None:
        rows, name = self._filled, f"{self._prefix}-{len(self.files):05d}.arrow"
        columns, names = [], []
        for dtype, matrix in self._matrices.items():
            columns.append(
                pa.FixedSizeListArray.from_arrays(pa.array(matrix[:rows].reshape(-1)), matrix.shape[1])
            )
            names.append(dtype)
        for place in self._places:
            if place.ragged is not None:
                columns.append(_object_column(np.concatenate(self._objects.pop(place.name)), place.ragged))
                names.append(place.name)
        layout = {
            "format": FORMAT,
            "arrays": [
                {
                    "name": p.name,
                    "dtype": p.dtype,
                    "shape": list(p.shape),
                    "start": p.start,
                    "ragged": p.ragged,
                }
                for p in self._places
            ],
        }
        schema = pa.schema(
            [pa.field(n, c.type, nullable=False) for n, c in zip(names, columns, strict=True)],
            metadata={_LAYOUT: json.dumps(layout).encode()},
        )
        if self._full is not None and self._full % _ALIGN_ROWS == 0:
            schema = _paged(schema, [column.slice(0, 1) for column in columns])
        path = self._folder / name
        with (
            as_store_error(path),
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            writer.write_batch(pa.record_batch(columns, schema=schema))
        self.files.append(name)
        self.rows_by_file.append(rows)
        self.rows += rows
        self._filled = self._filled_bytes = 0


def rows_in(file: Path) -> int:
    """The rows of a shard."""
    return int(_open(str(file), None)[0].num_rows)


class Shards:
    """The shards of one split as one table of `rows`: memory-mapped, or fetched as they are needed
    (`Shards.far`).

    Args:
        files: the shards, in order; none for an empty split.

    Raises:
        StoreError: a file is not a shard, or is of a newer format.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._places: list[_Place] = []
        self._widths: dict[str, int] = {}
        """Columns of the matrix of each dtype."""
        self._far: RemoteFiles[Held] | None = None
        self._maps: list[Held] = []
        self._whole: Arrays = {}
        """The matrix of each dtype over all shards, where pages allow it."""
        rows = []
        for file in files:
            batch, places = _open(str(file), None)
            self._agree(places, str(file))
            self._maps.append(_held_of(batch, places))
            rows.append(batch.num_rows)
        self._set_rows(rows)
        if len(files) > 1:
            pieces = [_pieces(str(file), list(self._widths)) for file in files]
            found = {
                name: mmap_concat([piece[name] for piece in pieces], _held(name), width)
                for name, width in self._widths.items()
            }
            self._whole = {name: whole for name, whole in found.items() if whole is not None}

    @classmethod
    def far(
        cls, members: Sequence[Member], rows: Sequence[int], cache: Cache, *, memory_bytes: int = HELD_BYTES
    ) -> Shards:
        """Shards in a bucket. None is opened yet: a broken one is told of when it is needed.

        Args:
            members: the shards, in order.
            rows: of each.
            cache: the node's copies.
            memory_bytes: the most that shards take in memory where the cache keeps no copies.
        """
        shards = cls([])
        counts = dict(zip((m.url for m in members), rows, strict=True))

        def opens(member: Member, content: pa.Buffer) -> Held:
            batch, places = _open(member.url, content)
            if batch.num_rows != counts[member.url]:
                raise StoreError(
                    f"{member.url} has {batch.num_rows} rows, its feed's manifest says {counts[member.url]};"
                    " the feed was changed. Delete the feed, and it is made again."
                )
            shards._agree(places, member.url)
            return _held_of(batch, places)

        if members:
            shards._far = RemoteFiles(members, cache, opens, memory_bytes=memory_bytes)
        shards._set_rows(rows)
        return shards

    def _set_rows(self, rows: Sequence[int]) -> None:
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64)
        self.rows = int(self._starts[-1])
        self.rows_by_shard = list(rows)

    def _agree(self, places: list[_Place], file: str) -> None:
        if self._places and places != self._places:
            raise StoreError(
                f"{file} has another layout than the shards before it; the feed was changed. Delete the feed,"
                " and it is made again."
            )
        if not self._places:
            widths = {
                dtype: sum(p.width for p in places if p.ragged is None and p.dtype == dtype)
                for dtype in dict.fromkeys(p.dtype for p in places if p.ragged is None)
            }
            self._widths, self._places = widths, places

    def _shard(self, shard: int) -> Held:
        return self._maps[shard] if self._far is None else self._far.get(shard)

    def _known(self, shard: int = 0) -> list[_Place]:
        """The layout; of shards far away it is known once one of them is here: `shard`, if none is yet."""
        if not self._places and self._far is not None:
            self._far.get(shard)
        return self._places

    @property
    def is_far(self) -> bool:
        """Whether shards are fetched as they are needed."""
        return self._far is not None

    def want(self, shards: Iterable[int]) -> None:
        """These are needed soon, in this order; what was wanted before no longer is.

        Nothing to do for shards that are here.
        """
        if self._far is not None:
            self._far.want(shards)

    def at(self, slots: np.ndarray) -> np.ndarray:
        """The shard that each slot lies in, int64."""
        found: np.ndarray = np.searchsorted(self._starts, slots, side="right") - 1
        return found

    def beyond_cache(self) -> str | None:
        """Why rows from all over these shards cannot be had without fetching again and again, if it is so."""
        far = self._far
        if far is None or not far.cache.is_on or far.size_bytes <= far.cache.limit_bytes:
            return None
        return (
            f"its shards have {far.size_bytes:,} bytes, and the cache of this machine may hold"
            f" {far.cache.limit_bytes:,}"
        )

    @property
    def names(self) -> list[str]:
        """The arrays that a row has."""
        return [place.name for place in self._known()]

    def views(self, shard: int) -> Arrays:
        """The dense arrays of one shard, without a copy; they may not be written to."""
        held = self._shard(shard)
        return self._split({name: held[name] for name in self._widths})

    def gather(self, slots: np.ndarray, *, ragged: bool = False) -> dict[str, Any]:
        """The rows in `slots` (int64 `[k]`, in any order, repeats allowed), as arrays `[k, …]` that are the
        caller's own (but a row of a ragged array, which is a slice of the mapped file and may not be written
        to).

        Args:
            ragged: ragged arrays come as `Ragged`, and not as object arrays with an array a row.
        """
        slots = np.asarray(slots, np.int64)
        if not self.rows_by_shard:
            if len(slots):
                raise IndexError(f"there are no rows; found {len(slots)} slots")
            return {}
        if len(slots) and (slots.min() < 0 or slots.max() >= self.rows):
            raise IndexError(f"slots must be from 0 to {self.rows - 1}; found {slots.min()} to {slots.max()}")
        if self._far is not None and len(slots):
            needed = np.unique(self.at(slots)).tolist()
            with self._far.using(needed):
                self._known(needed[0])
                return self._gathered(slots, ragged)
        self._known()
        return self._gathered(slots, ragged)

    def _gathered(self, slots: np.ndarray, ragged: bool) -> dict[str, Any]:
        if len(self.rows_by_shard) == 1:
            held = self._shard(0)
            found = {name: held[name].take(slots, axis=0) for name in self._widths}
        elif len(self._whole) == len(self._widths):
            found = {name: whole.take(slots, axis=0) for name, whole in self._whole.items()}
        else:
            found = self._gather_across(slots)
        arrays: dict[str, Any] = dict(self._split(found))
        for place in self._places:
            if place.ragged is not None:
                arrays[place.name] = (
                    self._rows(place, slots)
                    if ragged and place.ragged != "bytes"
                    else self._objects(place, slots)
                )
        return {place.name: arrays[place.name] for place in self._places}

    def _gather_across(self, slots: np.ndarray) -> Arrays:
        """Shard by shard: slots are grouped by the shard they lie in, so that each shard is gathered from
        once.
        """
        shard = self.at(slots)
        by_shard = np.argsort(shard, kind="stable")
        edges = np.searchsorted(shard[by_shard], np.arange(len(self.rows_by_shard) + 1))
        found = {name: np.empty((len(slots), width), _held(name)) for name, width in self._widths.items()}
        for i in np.flatnonzero(np.diff(edges)).tolist():
            held = self._shard(i)
            places = by_shard[edges[i] : edges[i + 1]]
            local = slots[places] - self._starts[i]
            for name in self._widths:
                found[name][places] = held[name].take(local, axis=0)
        return found

    def _split(self, matrices: Arrays) -> Arrays:
        arrays: Arrays = {}
        for place in self._places:
            if place.ragged is None:
                matrix = matrices[place.dtype]
                if place.shape == ():
                    values = matrix[:, place.start]
                else:
                    values = matrix[:, place.start : place.start + place.width]
                    if len(place.shape) > 1:
                        values = values.reshape(len(matrix), *place.shape)
                arrays[place.name] = values.view(np.bool_) if place.dtype == "bool" else values
        return arrays

    def _objects(self, place: _Place, slots: np.ndarray) -> np.ndarray:
        found = np.empty(len(slots), object)
        shard = self.at(slots)
        for i in np.unique(shard).tolist():
            held, places = self._shard(i)[place.name], np.flatnonzero(shard == i)
            local = slots[places] - self._starts[i]
            if place.ragged == "bytes":
                for k, slot in zip(places.tolist(), local.tolist(), strict=True):
                    found[k] = held[slot].as_py()
                continue
            offsets, values = held
            for k, start, stop in zip(
                places.tolist(), offsets[local].tolist(), offsets[local + 1].tolist(), strict=True
            ):
                found[k] = values[start:stop]
        return found

    def _rows(self, place: _Place, slots: np.ndarray) -> Ragged:
        if len(self.rows_by_shard) == 1:
            offsets, values = self._shard(0)[place.name]
            found = Ragged.taken([(values, offsets, slots, None)], len(slots))
            # what came from a bucket may be let go of before it is used
            return found if self._far is None else found.compact()
        shard, sources = self.at(slots), []
        for i in np.unique(shard).tolist():
            offsets, values = self._shard(i)[place.name]
            places = np.flatnonzero(shard == i)
            sources.append((values, offsets, slots[places] - self._starts[i], places))
        return Ragged.taken(sources, len(slots))

    def lengths(self, slots: np.ndarray, name: str) -> np.ndarray:
        """How many values the ragged array `name` has in each row of `slots`, int64 `[k]`: read from the
        offsets alone.
        """
        found = np.zeros(len(slots), np.int64)
        shard = self.at(slots)
        for i in np.unique(shard).tolist():
            offsets = self._shard(i)[name][0]
            places = np.flatnonzero(shard == i)
            local = slots[places] - self._starts[i]
            found[places] = offsets[local + 1] - offsets[local]
        return found

    def ragged(self) -> list[str]:
        """The ragged arrays of numbers that a row has."""
        return [place.name for place in self._known() if place.ragged not in (None, "bytes")]


def _ragged(column: pa.Array, ragged: str | None) -> Any:
    """A column of bytes as it is; of arrays as where each row starts and all values, so that a row is a slice
    and not an object of Arrow's.
    """
    if ragged == "bytes":
        return column
    return np.asarray(column.offsets), np.asarray(
        column.values.to_numpy(zero_copy_only=ragged != "bool"), dtype=ragged
    )


def _held(dtype: str) -> np.dtype:
    """How a dtype lies in a matrix: Arrow packs booleans into bits, so they are held as bytes."""
    return np.dtype("uint8" if dtype == "bool" else dtype)


def _layout(arrays: Arrays) -> list[_Place]:
    places: list[_Place] = []
    filled: dict[str, int] = {}
    for name, values in arrays.items():
        if values.dtype == object:
            first = next((v for v in values if v is not None), None)
            ragged = "bytes" if isinstance(first, bytes) else str(np.asarray(first).dtype)
            places.append(_Place(name, "object", (), 0, ragged))
            continue
        dtype = values.dtype.name
        place = _Place(name, dtype, tuple(values.shape[1:]), filled.get(dtype, 0))
        filled[dtype] = place.start + place.width
        places.append(place)
    return places


def _object_column(values: np.ndarray, ragged: str) -> pa.Array:
    if ragged == "bytes":
        return pa.array(list(values), pa.large_binary())
    lengths = np.fromiter((len(v) for v in values), np.int64, len(values))
    flat = np.concatenate([np.asarray(v, ragged) for v in values]) if len(values) else np.empty(0, ragged)
    return pa.LargeListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)), pa.array(flat)
    )


def _bytes(arrays: Arrays) -> int:
    return sum(
        (
            values.nbytes
            if values.dtype != object
            else sum(len(v) * getattr(v, "itemsize", 1) + 8 for v in values)
        )
        for values in arrays.values()
    )


def _held_of(batch: pa.RecordBatch, places: list[_Place]) -> Held:
    """A shard's matrices and object columns, by name, without a copy."""
    held: Held = {}
    for name in dict.fromkeys(p.dtype for p in places if p.ragged is None):
        column = batch.column(name)
        held[name] = np.frombuffer(
            column.flatten().buffers()[1], _held(name), count=len(column) * column.type.list_size
        ).reshape(len(column), column.type.list_size)
    held.update(
        {
            place.name: _ragged(batch.column(place.name), place.ragged)
            for place in places
            if place.ragged is not None
        }
    )
    return held


def _pieces(file: str, dtypes: list[str]) -> dict[str, Piece]:
    """Where in a shard's file each matrix lies."""
    with pa.memory_map(file, "r") as source:
        beginning = source.read_buffer(1).address
        source.seek(0)
        batch = pa.ipc.open_file(source).get_batch(0)
        buffers = {name: batch.column(name).flatten().buffers()[1] for name in dtypes}
        width = {name: batch.schema.field(name).type.list_size * _held(name).itemsize for name in dtypes}
        return {
            name: Piece(file, buffer.address - beginning, batch.num_rows * width[name])
            for name, buffer in buffers.items()
        }


def _paged(schema: pa.Schema, row: list[pa.Array]) -> pa.Schema:
    """The schema, padded so that a file of it has its first buffer at the beginning of a page; `row` is one
    row of it.
    """
    padding = 0
    # once if padding made the message just as much longer; it is rounded to eights, so twice
    for _ in range(4):
        padded = schema.with_metadata({**schema.metadata, _PADDING: b" " * padding})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, padded) as writer:
            writer.write_batch(pa.record_batch(row, schema=padded))
        # after the magic word: two messages, each a mark, a length and so many bytes
        made, at = memoryview(sink.getvalue()), 8
        for _ in range(2):
            at += 8 + int.from_bytes(made[at + 4 : at + 8], "little")
        if at % PAGE_BYTES == 0:
            return padded
        padding += -at % PAGE_BYTES
    return schema


def _open(file: str, content: pa.Buffer | None) -> tuple[pa.RecordBatch, list[_Place]]:
    """A shard out of a local file, or of `content` that came from `file`: its lists lead nowhere out of it,
    whoever wrote it.
    """
    with sound(f"the shard {file}", advice="Delete the feed, and it is made again"):
        reader = pa.ipc.open_file(pa.memory_map(file, "r") if content is None else content)
        layout = json.loads((reader.schema.metadata or {})[_LAYOUT])
        if layout["format"] > FORMAT:
            raise StoreError(
                f"{file} has format {str(layout['format'])[:40]}; this Penstock reads formats up to {FORMAT}."
                " Upgrade Penstock."
            )
        places = [
            _Place(entry["name"], entry["dtype"], tuple(entry["shape"]), entry["start"], entry["ragged"])
            for entry in layout["arrays"]
        ]
        batch = reader.get_batch(0)
        batch.validate()
        for place in places:
            if place.ragged is not None:
                batch.column(place.name).validate(full=True)
        _held_of(batch, places)
        return batch, places
