"""Any one readable thing as a table: what `penstock predict BUNDLE INPUT` reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.core.events import Events
from penstock.formats.extract import extract
from penstock.formats.files import settle
from penstock.formats.find_files import find, relative
from penstock.formats.options import Reading
from penstock.formats.reader import Input


@dataclass
class ReadTable:
    """A file, glob or folder, read whole into scratch."""

    schema: pa.Schema
    rows: int
    rejected: int
    rejects: list[Path]
    """Parquet files of `REJECT_SCHEMA`."""
    parquet: list[Path]
    files: list[str]
    """`ROW_FILE` is an index into these paths."""

    def batches(
        self, rows: int = 65_536, *, places: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """The good rows, in order, streamed; with `places`, `ROW_FILE` and `ROW_NUMBER` beside the
        columns.
        """
        columns = [*self.schema.names, *([ROW_FILE, ROW_NUMBER] if places else [])]
        for path in self.parquet:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                yield from file.iter_batches(rows, columns=columns)


def read_table(
    path: str,
    scratch: Path,
    *,
    reading: Reading | None = None,
    base: Path | None = None,
    memory_bytes: int = 1 << 30,
    events: Events | None = None,
) -> ReadTable:
    """Read any path, glob, folder or URL into typed rows, streamed from `scratch`; bad rows are in `rejects`.

    Args:
        path: what to read.
        scratch: a folder for the rows between reading and use, the caller's to delete.
        reading: how; everything is judged by looks unless given.
        base: where relative paths start; the working folder unless given.

    Raises:
        SourceError: it cannot be read.
    """
    reading = reading or Reading()
    files = find(
        path, base or Path.cwd(), any_ending=reading.format != "auto", within=True
    )
    # From here on a change of a file shows in its stamp.
    settle(files)
    names = relative(files)
    inputs = [
        Input(names[f.url], f.url, reading, f.size_bytes, f.stamp)
        for f in sorted(files, key=lambda f: names[f.url])
    ]
    extracted = extract(
        inputs, scratch, memory_bytes=memory_bytes, events=events or Events()
    )
    return ReadTable(
        extracted.schema,
        extracted.rows,
        extracted.rejected,
        extracted.rejects,
        [Path(p) for p in extracted.parquet],
        [i.path for i in inputs],
    )


def read_sound(path: Path) -> pa.Table:
    """An Arrow file from elsewhere, small enough to hold, every offset and index in it checked.

    Raises:
        ArrowException, OSError, ValueError: it is damaged.
    """
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    # Offsets that lead out of their buffers would read memory that is not the file's.
    for column in table.columns:
        for chunk in column.chunks:
            chunk.validate(full=True)
    return table.combine_chunks()
