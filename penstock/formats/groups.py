"""Batches → Parquet in row groups of a good size, and a thread that works ahead of its reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.core.ordered_map import ordered_map

GROUP_ROWS = 122_880
"""Rows of a row group, at most: DuckDB's unit of work."""
GROUP_BYTES = 64 << 20
_LEAST_ROWS = 1_024
_ARRAY_BYTES = 700
"""What an array of a batch takes in memory beside its values, measured."""
FILE_ROWS = 8_000_000
_FILE_CHUNKS = 1 << 16
"""Columns times row groups of a file, or so: its writer holds a kilobyte of each until it is closed."""


class RowGroups:
    """Writes batches as Parquet in row groups of a good size."""

    def __init__(
        self, folder: Path, schema: pa.Schema, block: int, *, large: Sequence[str] = ()
    ) -> None:
        """
        Args:
            block: bytes of a batch; a row group has up to eight.
            large: columns of long values that never repeat: a dictionary of them would be waste.
        """
        self._folder = folder
        # Numbers seldom repeat enough for a dictionary to be worth its making.
        self._dictionary = [
            f.name
            for f in schema
            if f.name not in large
            and (pa.types.is_string(f.type) or pa.types.is_binary(f.type))
        ] or False
        self.schema = schema
        # A row group costs some work and memory for each column, whatever its rows: of a wide table it has no
        # few of them.
        self._most_bytes = max(
            min(GROUP_BYTES, block * 8), min(len(schema) * 8 * _LEAST_ROWS, block * 24)
        )
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = self._file_rows = self._file_groups = 0
        self._writer: pq.ParquetWriter | None = None
        self.files: list[Path] = []
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch; write a row group once enough rows or bytes are held. Raises OSError of the disk."""
        self._held.append(batch)
        # A few rows of thousands of columns are small, and their arrays are not.
        if len(self._held) * len(self.schema) * _ARRAY_BYTES > self._most_bytes:
            self._held = pa.Table.from_batches(self._held).combine_chunks().to_batches()
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._held_rows >= GROUP_ROWS or self._held_bytes >= self._most_bytes:
            self._flush()

    def _flush(self) -> None:
        is_full = (
            self._file_rows >= FILE_ROWS
            or self._file_groups * len(self.schema) >= _FILE_CHUNKS
        )
        if self._writer is None or is_full:
            self._end()
            path = self._folder / f"rows-{len(self.files):05d}.parquet"
            self._writer = pq.ParquetWriter(
                path,
                self.schema,
                compression="snappy",
                write_statistics=True,
                use_dictionary=self._dictionary,
            )
            self.files.append(path)
            self._file_rows = self._file_groups = 0
        whole = pa.Table.from_batches(self._held, self.schema)
        self._writer.write_table(whole, row_group_size=GROUP_ROWS)
        self._file_rows += whole.num_rows
        self._file_groups += 1
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> list[Path]:
        """Write what is held; returns all files, at least one, in the order of rows."""
        # An extract without rows has a file all the same, with its columns.
        if self._held or not self.files:
            self._flush()
        self._end()
        return self.files

    def abandon(self) -> None:
        """Drop what is held and delete every file that was written."""
        self._held = []
        self._end()
        for file in self.files:
            file.unlink(missing_ok=True)


def pieces_of(batch: pa.RecordBatch, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """A batch in pieces of about so many bytes, or of one row."""
    if batch.num_rows < 2 or _weight(batch) <= most_bytes:
        yield batch
        return
    # In halves, each of which is weighed by itself: rows may differ much.
    half = batch.num_rows // 2
    yield from pieces_of(batch.slice(0, half), most_bytes)
    yield from pieces_of(batch.slice(half), most_bytes)


def _weight(batch: pa.RecordBatch) -> int:
    """Bytes of a batch's values, where a word of a dictionary counts as often as rows
    have it.
    """
    size = int(batch.nbytes)
    for column in batch.columns:
        kind = column.type
        if pa.types.is_dictionary(kind) and (
            pa.types.is_string(kind.value_type)
            or pa.types.is_binary(kind.value_type)
            or pa.types.is_large_string(kind.value_type)
        ):
            # Words are counted as often as they are meant: a reader of plain texts
            # would hold each.
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            size += pc.sum(lengths.cast(pa.int64())).as_py() or 0
    return size


def ahead(items: Iterable[pa.RecordBatch], depth: int) -> Iterator[pa.RecordBatch]:
    """The same items, made by another thread, `depth` ahead, from the third on.

    Many sources have one item or two (small files), which a thread would cost more than it saves.
    """
    iterator, is_long = iter(items), False
    try:
        for _ in range(2):
            item = next(iterator, None)
            if item is None:
                return
            yield item
        is_long = True
    finally:
        # With more items the thread closes it.
        if not is_long and hasattr(iterator, "close"):
            iterator.close()
    yield from _by_thread(iterator, depth)


def _by_thread(
    iterator: Iterator[pa.RecordBatch], depth: int
) -> Iterator[pa.RecordBatch]:
    try:
        yield from ordered_map(lambda batch: batch, iterator, threads=1, ahead=depth)
    finally:  # no thread asks it any more
        if hasattr(iterator, "close"):
            iterator.close()
