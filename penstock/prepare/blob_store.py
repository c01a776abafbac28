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
from penstock.contracts.judge import Judge
from penstock.core.errors import PenstockError
from penstock.formats.groups import RowGroups
from penstock.recipe.schema import Expect, Recipe

_DIGEST = 16
_TAKEN_ROWS = 64
_GIVEN_ROWS = 8_192
_GROUP_BYTES = 64 << 20
_GROUP_ROWS = 65_536


class BlobStore:
    """The large values of one preparation, in one file, each known by 16 bytes of its SHA-256."""

    def __init__(self, folder: Path, *, memory_bytes: int) -> None:
        self._folder = folder
        # A block follows the memory, but small ones would make row groups of a few
        # pictures.
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
        """Put the values of `columns` into the file; returns the extract with stand-ins in their
        place.

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
                # A stand-in has 16 bytes, so offsets of 32 bits do, whatever the column
                # has.
                pa.field(f.name, pa.binary()) if f.name in columns else f
                for f in extract.schema
            ]
        )
        # An extract's schema names the source's columns only.
        schema = schema.append(pa.field(ROW_FILE, pa.int32())).append(
            pa.field(ROW_NUMBER, pa.int64())
        )
        groups = RowGroups(folder, schema, self._block)
        # One file for all extracts; `_end` knows how far it is.
        with open(self._file, "ab") as store:
            for path in extract.parquet:
                # A few rows at a time, since each may weigh a megabyte.
                for batch in _batches(path):
                    groups.add(self._stand_in(batch, columns, schema, store))
                # What was taken goes at once, or the disk would hold all values twice.
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
            # A file of the source may lack a column that others have.
            if field.name not in batch.schema.names:
                arrays.append(pa.nulls(len(batch), field.type))
            elif field.name in columns:
                arrays.append(self._put(batch.column(field.name), store))
            else:
                # All files come to the types that the extract as a whole has.
                arrays.append(batch.column(field.name).cast(field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _put(self, column: pa.Array, store: BinaryIO) -> pa.Array:
        values = column.to_pylist()
        digests = [
            # 128 bits of SHA-256: two values that share them are not to be expected in
            # any data.
            None if value is None else hashlib.sha256(value).digest()[:_DIGEST]
            for value in values
        ]
        present = [value for value in values if value is not None]
        lengths = np.array([len(value) for value in present], np.int64)
        # Two big-endian halves, so that numbers sort as digests do.
        keys = (
            np.frombuffer(b"".join(d for d in digests if d is not None), ">u8")
            .reshape(-1, 2)
            .astype(np.uint64)
        )
        # Begins of these values in the file: the running end less each one's own
        # length. Equal values are written again, since finding them would need an index
        # now.
        self._found.append((keys, self._end + np.cumsum(lengths) - lengths, lengths))
        self._end += int(lengths.sum())
        store.writelines(present)
        return pa.array(digests, pa.binary())

    def _places(self, digests: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of stand-ins begin in the file, and their lengths: int64 `[k]` both, in
        bytes.
        """
        # Built with the first question: by then every extract has been taken.
        if self._index is None:
            keys = np.concatenate([f[0] for f in self._found])
            # By the first half, then by the second: `lexsort` takes its last key first.
            order = np.lexsort((keys[:, 1], keys[:, 0]))
            starts, lengths = (
                np.concatenate([f[i] for f in self._found])[order] for i in (1, 2)
            )
            self._index = keys[order, 0], keys[order, 1], starts, lengths
            self._found.clear()
        first, second, starts, lengths = self._index
        wanted = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype(np.uint64)
        # The first entry with this first half is the right one, but for two digests
        # that share 64 bits.
        at = np.minimum(np.searchsorted(first, wanted[:, 0]), len(first) - 1)
        # A walk through those that share the first half, and a digest that is not
        # there.
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
                    "a large value cannot be found again, because a step changed a column of"
                    " bytes. This is a defect of Penstock; nothing was written."
                )
            at[i] = run.start + same[0]
        return starts[at], lengths[at]

    def whole(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row as a mapping in which each stand-in is replaced by its value."""
        return {
            name: self._value(value)
            if name in self.columns and value is not None
            else value
            for name, value in row.items()
        }

    def whole_column(self, name: str, column: pa.Array) -> pa.Array:
        """A column's values, where it has stand-ins; else the column itself."""
        if name not in self.columns:
            return column
        values = [None if d is None else self._value(d) for d in column.to_pylist()]
        return pa.array(values, pa.large_binary())

    def _value(self, digest: bytes) -> bytes:
        starts, lengths = self._places([digest])
        with open(self._file, "rb") as source:
            source.seek(int(starts[0]))
            return source.read(int(lengths[0]))

    def give_back(self, light: Iterable[Path], target: Path) -> int:
        """Write rows with stand-ins, in order, to one Parquet file with the values; returns the
        number of rows.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = 0
        writer: pq.ParquetWriter | None = None
        source = os.open(self._file, os.O_RDONLY)
        try:
            for path in light:
                # Read ahead, a whole row group of values would be in memory.
                with pq.ParquetFile(path, pre_buffer=False) as file:
                    # Names and types only: metadata of the scratch files is no part of
                    # a dataset.
                    schema = file.schema_arrow.remove_metadata()
                    if writer is None:
                        ours = [n for n in schema.names if n in self.columns]
                        writer = pq.ParquetWriter(
                            target,
                            schema,
                            # Pictures are compressed already, and no two are alike, so
                            # they get neither a codec nor a dictionary.
                            compression={
                                n: "NONE" if n in ours else "ZSTD" for n in schema.names
                            },
                            use_dictionary=[n for n in schema.names if n not in ours],
                        )
                    batches: list[pa.RecordBatch] = []
                    for piece in self._whole(file, schema, source):
                        batches.append(piece)
                        if (
                            # By bytes for pictures, by rows for columns that are mostly
                            # missing.
                            sum(b.nbytes for b in batches)
                            >= min(_GROUP_BYTES, self._block * 8)
                            or sum(map(len, batches)) >= _GROUP_ROWS
                        ):
                            writer.write_table(
                                pa.Table.from_batches(batches, schema),
                                row_group_size=_GROUP_ROWS,
                            )
                            batches = []
                        rows += len(piece)
                    # What is left of this file, before `batches` begins anew with the
                    # next.
                    writer.write_table(
                        pa.Table.from_batches(batches, schema), row_group_size=_GROUP_ROWS
                    )
        finally:
            # Also after a failure, since the folder is removed then.
            os.close(source)
            if writer is not None:
                writer.close()
        return rows

    def _whole(
        self, file: pq.ParquetFile, schema: pa.Schema, source: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows with their values, in pieces of about a block of bytes."""
        # Rows with stand-ins are light, so many are looked up at once.
        for batch in file.iter_batches(_GIVEN_ROWS):
            starts: dict[str, np.ndarray] = {}
            sizes: dict[str, np.ndarray] = {}
            for name in self.columns & set(schema.names):
                digests = batch.column(name).to_pylist()
                present = np.array([d is not None for d in digests], bool)
                starts[name], sizes[name] = (
                    np.zeros(len(batch), np.int64),
                    # -1 stands for a missing value; an empty one has length 0.
                    np.full(len(batch), -1, np.int64),
                )
                if present.any():
                    starts[name][present], sizes[name][present] = self._places(
                        [d for d in digests if d is not None]
                    )
            # All large columns of a row together, since they are in memory together.
            weight = np.sum([np.maximum(s, 0) for s in sizes.values()], axis=0)
            # Which block of bytes a row ends in: rows of one number make one piece.
            pieces = np.cumsum(weight) // self._block
            # The numbers grow along the rows, so a piece is one slice.
            for piece in np.unique(pieces):
                some = np.flatnonzero(pieces == piece)
                part = batch.slice(int(some[0]), len(some))
                arrays = [
                    (
                        pa.array(
                            [
                                # At a place, so that no position in the file is shared.
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
    """The columns of bytes whose values neither an expression nor a rule of the recipe needs."""
    large = [
        f.name
        for f in extract.schema
        if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)
    ]
    # Extracts that lie in a bucket are not rewritten.
    if not large or any("://" in str(path) for path in extract.parquet):
        return []
    # Columns whose values decide where a row goes must reach the engine themselves.
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
        # Duplicates are found by equality, which stand-ins have; any other cleaner
        # looks at values, those of large ones given whole.
        if isinstance(cleaner, Judge) and cleaner.large:
            continue
        if cleaner.drops != "duplicates" or isinstance(cleaner, Judge):
            named |= set(cleaner.needs())
    for column, promise in recipe.expect.items():
        if any(_looks_at_values(rule) for _, rule in promise.rules()):
            named.add(column)
    if recipe.expect_table is not None:
        texts += [rule.sql or "" for rule in recipe.expect_table.rules.values()]
    return [
        name
        for name in large
        if name not in named and not any(_looks_into(text, name) for text in texts)
    ]


_PRESENCE = frozenset(
    {"not_null", "unique", "max_missing", "on_violation", "budget", "also"}
)
"""Words of `expect` about presence and equality, which stand-ins have as well."""


def _looks_at_values(rule: Expect) -> bool:
    fields = type(rule).model_fields.items()
    return any(
        getattr(rule, word) != field.default
        for word, field in fields
        if word not in _PRESENCE
    )


def _looks_into(text: str, column: str) -> bool:
    """Whether an expression may need a column's value, and not only whether there is one."""
    # `photo IS NULL` is right about a stand-in, too.
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
