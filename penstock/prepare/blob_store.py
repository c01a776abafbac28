"""Large values travel beside the engine: pictures and the like wait in a file while rows are crunched.

An engine works on some thousand rows at a time, whatever they weigh (measured: DuckDB with 2 GiB gave up on
3,000 pictures of 300 kB). So before it sees an extract, each value of a column of bytes is put into one file
on disk, and 16 bytes of its SHA-256 stand in its place: equal values have equal stand-ins, missing ones stay
missing, so joins, duplicates, `not_null` and `unique` mean what they meant. When the rows are written, in
order, the values are put back.

A column that the recipe's own expressions look into (`octet_length(photo) > 100`) goes through the engine as
it is.

Memory: 32 bytes a value, and one row group.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract
from penstock.core.errors import PenstockError
from penstock.formats.groups import RowGroups
from penstock.recipe.schema import Recipe

_DIGEST = 16
_TAKEN_ROWS = 64
_GIVEN_ROWS = 8_192
_GROUP_BYTES = 64 << 20
_GROUP_ROWS = 65_536


class BlobStore:
    """The values set aside of one preparation."""

    def __init__(self, folder: Path, *, memory_bytes: int) -> None:
        self._folder = folder
        self._block = min(8 << 20, max(256 << 10, memory_bytes // 96))
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._index: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None
        self._end = 0
        self.columns: set[str] = set()
        """Names that columns of stand-ins have in the written rows."""

    @property
    def _file(self) -> Path:
        return self._folder / "values.bin"

    def take(
        self,
        extract: Extract,
        columns: Sequence[str],
        name: str,
        *,
        prefix: str = "",
        owned: Path,
    ) -> Extract:
        """The extract with stand-ins in `columns`.

        Args:
            name: of the extract, for its new files.
            prefix: what a join puts before the columns' names.
            owned: files below this folder are ours, and removed when they are read.
        """
        if not columns:
            return extract
        self.columns |= {prefix + column for column in columns}
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        schema = pa.schema(
            [
                pa.field(f.name, pa.binary()) if f.name in columns else f
                for f in extract.schema
            ]
        )
        schema = schema.append(pa.field(ROW_FILE, pa.int32())).append(
            pa.field(ROW_NUMBER, pa.int64())
        )
        groups = RowGroups(folder, schema, self._block)
        with open(self._file, "ab") as store:
            for path in extract.parquet:
                for batch in _batches(path):
                    groups.add(self._stand_in(batch, columns, schema, store))
                if Path(path).is_relative_to(owned):
                    Path(path).unlink()
        return replace(extract, parquet=list(groups.close()))

    def _stand_in(
        self,
        batch: pa.RecordBatch,
        columns: Sequence[str],
        schema: pa.Schema,
        store: BinaryIO,
    ) -> pa.RecordBatch:
        arrays = []
        for field in schema:
            if field.name not in batch.schema.names:
                arrays.append(pa.nulls(len(batch), field.type))
            elif field.name in columns:
                arrays.append(self._put(batch.column(field.name), store))
            else:
                arrays.append(batch.column(field.name).cast(field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _put(self, column: pa.Array, store: BinaryIO) -> pa.Array:
        values = column.to_pylist()
        digests = [
            None if value is None else hashlib.sha256(value).digest()[:_DIGEST]
            for value in values
        ]
        kept = [value for value in values if value is not None]
        lengths = np.array([len(value) for value in kept], np.int64)
        keys = (
            np.frombuffer(b"".join(d for d in digests if d is not None), ">u8")
            .reshape(-1, 2)
            .astype(np.uint64)
        )
        self._found.append((keys, self._end + np.cumsum(lengths) - lengths, lengths))
        self._end += int(lengths.sum())
        store.writelines(kept)
        return pa.array(digests, pa.binary())

    def _places(self, digests: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of stand-ins begin, and their lengths."""
        if self._index is None:
            keys = np.concatenate([f[0] for f in self._found])
            order = np.lexsort((keys[:, 1], keys[:, 0]))
            starts, lengths = (
                np.concatenate([f[i] for f in self._found])[order] for i in (1, 2)
            )
            self._index = keys[order, 0], keys[order, 1], starts, lengths
            self._found.clear()
        first, second, starts, lengths = self._index
        wanted = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype(np.uint64)
        at = np.minimum(np.searchsorted(first, wanted[:, 0]), len(first) - 1)
        for i in np.flatnonzero(
            (first[at] != wanted[:, 0]) | (second[at] != wanted[:, 1])
        ):
            run = slice(
                int(np.searchsorted(first, wanted[i, 0])),
                int(np.searchsorted(first, wanted[i, 0], side="right")),
            )
            same = np.flatnonzero(second[run] == wanted[i, 1])
            if not len(same):
                raise PenstockError(
                    "a value that was set aside is asked for by a stand-in that nobody knows: a step changed"
                    " a column of bytes. This is a defect of Penstock; nothing was written."
                )
            at[i] = run.start + same[0]
        return starts[at], lengths[at]

    def whole(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with its values in the place of their stand-ins."""
        return {
            name: self._value(value)
            if name in self.columns and value is not None
            else value
            for name, value in row.items()
        }

    def _value(self, digest: bytes) -> bytes:
        starts, lengths = self._places([digest])
        with open(self._file, "rb") as source:
            source.seek(int(starts[0]))
            return source.read(int(lengths[0]))

    def give_back(self, light: Iterable[Path], target: Path) -> int:
        """Write rows with stand-ins, in order, to a Parquet file with the values; the number of rows."""
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = 0
        writer: pq.ParquetWriter | None = None
        source = os.open(self._file, os.O_RDONLY)
        try:
            for path in light:
                with pq.ParquetFile(path, pre_buffer=False) as file:
                    schema = file.schema_arrow.remove_metadata()
                    if writer is None:
                        ours = [n for n in schema.names if n in self.columns]
                        writer = pq.ParquetWriter(
                            target,
                            schema,
                            compression={
                                n: "NONE" if n in ours else "ZSTD" for n in schema.names
                            },
                            use_dictionary=[n for n in schema.names if n not in ours],
                        )
                    held: list[pa.RecordBatch] = []
                    for piece in self._whole(file, schema, source):
                        held.append(piece)
                        if (
                            sum(b.nbytes for b in held)
                            >= min(_GROUP_BYTES, self._block * 8)
                            or sum(map(len, held)) >= _GROUP_ROWS
                        ):
                            writer.write_table(
                                pa.Table.from_batches(held, schema),
                                row_group_size=_GROUP_ROWS,
                            )
                            held = []
                        rows += len(piece)
                    writer.write_table(
                        pa.Table.from_batches(held, schema), row_group_size=_GROUP_ROWS
                    )
        finally:
            os.close(source)
            if writer is not None:
                writer.close()
        return rows

    def _whole(
        self, file: pq.ParquetFile, schema: pa.Schema, source: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows with their values, in pieces of about a block of bytes."""
        for batch in file.iter_batches(_GIVEN_ROWS):
            starts: dict[str, np.ndarray] = {}
            sizes: dict[str, np.ndarray] = {}
            for name in self.columns & set(schema.names):
                digests = batch.column(name).to_pylist()
                present = np.array([d is not None for d in digests], bool)
                starts[name], sizes[name] = (
                    np.zeros(len(batch), np.int64),
                    np.full(len(batch), -1, np.int64),
                )
                if present.any():
                    starts[name][present], sizes[name][present] = self._places(
                        [d for d in digests if d is not None]
                    )
            weight = np.sum([np.maximum(s, 0) for s in sizes.values()], axis=0)
            pieces = np.cumsum(weight) // self._block
            for piece in np.unique(pieces):
                some = np.flatnonzero(pieces == piece)
                part = batch.slice(int(some[0]), len(some))
                arrays = [
                    (
                        pa.array(
                            [
                                None if size < 0 else os.pread(source, size, start)
                                for start, size in zip(
                                    starts[f.name][some].tolist(),
                                    sizes[f.name][some].tolist(),
                                    strict=True,
                                )
                            ],
                            f.type,
                        )
                        if f.name in starts
                        else part.column(f.name)
                    )
                    for f in schema
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _batches(path: Path | str) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(_TAKEN_ROWS)


def large_columns(recipe: Recipe, extract: Extract) -> list[str]:
    """The columns of bytes that no word of the recipe looks into."""
    found = [
        f.name
        for f in extract.schema
        if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)
    ]
    if not found or any("://" in str(path) for path in extract.parquet):
        return []
    named = {*recipe.key, *(recipe.split.on or ()), recipe.split.stratify, recipe.weight}
    for join in recipe.join:
        named |= (
            {*join.on.keys(), *join.on.values()}
            if isinstance(join.on, dict)
            else set(join.on)
        )
    texts = [recipe.where or "", *recipe.derive.values()]
    for cleaner in recipe.clean:
        texts += cleaner.expressions().values()
        if cleaner.drops != "duplicates":
            named |= set(cleaner.needs())
    for column, promise in recipe.expect.items():
        if (
            promise.type is not None
            or promise.min is not None
            or promise.max is not None
            or promise.allowed is not None
            or promise.pattern is not None
        ):
            named.add(column)
    return [
        name
        for name in found
        if name not in named and not any(_looks_into(text, name) for text in texts)
    ]


def _looks_into(text: str, column: str) -> bool:
    """Whether an expression may need a column's value, and not only whether there is one."""
    bare = re.sub(
        rf'"?\b{re.escape(column)}\b"?\s+is\s+(not\s+)?null\b',
        " ",
        text,
        flags=re.IGNORECASE,
    )
    return (
        re.search(rf"(?<!\w){re.escape(column)}(?!\w)", bare, flags=re.IGNORECASE)
        is not None
    )
