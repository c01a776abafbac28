"""Where the text cells of CSV files wait between the two passes.

Those of most files are in one of their own, as compressed Arrow; those of small files together in one, since
a file costs the system more than its few rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa


class Spool:
    """One scratch file for what many readers keep. `keep` in one thread; `take` in any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._size = 0
        self._is_flushed = True

    def keep(self, data: pa.Buffer) -> tuple[int, int]:
        """Write bytes at the end; returns where they are: offset and size. Raises OSError of the disk."""
        if self._file is None:
            self._file = open(self._path, "w+b", buffering=1 << 20)  # noqa: SIM115 - closed by `close`
        # Offset and size, both in bytes.
        place = (self._size, data.size)
        self._file.write(data)
        self._size += data.size
        self._is_flushed = False
        return place

    def take(self, place: tuple[int, int]) -> bytes:
        """The bytes that `keep` wrote there."""
        assert self._file is not None
        if not self._is_flushed:
            self._file.flush()
            self._is_flushed = True
        # By place, so that no thread moves the position of another.
        return os.pread(self._file.fileno(), place[1], place[0])

    def close(self) -> None:
        """Remove the file; all that was kept is gone."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)


class Cells:
    """The batches of one file: written in order, then read as often as need be."""

    def __init__(self, spool: Spool, path: Path, schema: pa.Schema) -> None:
        """
        Args:
            path: of the file's own, where it has more than one batch.
        """
        self._spool = spool
        self._path = path
        self._schema = schema
        self._first: pa.RecordBatch | None = None
        self._sink: pa.NativeFile | None = None
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._place: tuple[int, int] | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch of the schema. Raises OSError of the disk."""
        # Held until it is known whether there are more: a file of one batch goes to the
        # spool.
        if self._first is None and self._writer is None:
            self._first = batch
            return
        if self._writer is None:
            self._sink = pa.OSFile(str(self._path), "wb")
            # Fast rather than small: it is written once, read once or twice, and gone.
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(self._sink, self._schema, options=options)
            self._writer.write_batch(self._first)
            self._first = None
        self._writer.write_batch(batch)

    def end(self) -> None:
        """All was written. To be called once, whatever went wrong before."""
        if self._writer is not None and self._sink is not None:
            try:
                self._writer.close()
            finally:
                self._sink.close()
        elif self._first is not None:
            self._place = self._spool.keep(self._first.serialize())
            self._first = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What was written, in order."""
        if self._place is not None:
            yield pa.ipc.read_record_batch(
                pa.py_buffer(self._spool.take(self._place)), self._schema
            )
        elif self._writer is not None:
            # Mapped, so that one batch after another is in memory, and not the file.
            with pa.memory_map(str(self._path)) as source:
                reader = pa.ipc.open_file(source)
                for i in range(reader.num_record_batches):
                    yield reader.get_batch(i)

    def close(self) -> None:
        """Remove the file of its own."""
        if self._writer is not None:
            self._path.unlink(missing_ok=True)
