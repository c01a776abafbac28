"""ORC, of files that are small: a stripe is unpacked as a whole, and says not how large it gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
from pyarrow import orc

from penstock.contracts.reading import RowReader, TableFile
from penstock.core.errors import SourceError

_GROWTH = 8
"""About so many bytes are held for one that is packed, and for a value."""


class Orc(RowReader):
    """ORC, in the types it is stored in; structs become columns `a.b`. Large files are to be converted."""

    endings: ClassVar[tuple[str, ...]] = (".orc",)
    magic: ClassVar[tuple[bytes, ...]] = (b"ORC",)
    typed: ClassVar[bool] = True

    def read(self, file: TableFile) -> Iterator[pa.RecordBatch]:
        with file.local() as path:
            opened = self._open(file, str(path))
            try:
                for stripe in range(opened.nstripes):
                    yield opened.read_stripe(stripe)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise _damaged(file, error) from None

    def declared_rows(self, file: TableFile) -> int:
        with file.local() as path:
            return int(self._open(file, str(path)).nrows)

    def _open(self, file: TableFile, path: str) -> orc.ORCFile:
        try:
            opened = orc.ORCFile(path)
            cells = opened.nrows * max(1, len(opened.schema))
            size = max(opened.file_length, cells) * _GROWTH
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(file, error) from None
        if size > file.most_bytes:
            raise SourceError(
                f"{file.path} is ORC with {opened.nrows:,} rows, which may take {size >> 20:,} MiB of memory"
                f" at once, more than {file.most_bytes >> 20:,} MiB. Convert it to Parquet, for example with"
                " Spark: spark.read.orc(…).write.parquet(…); or raise `resources.memory`."
            )
        return opened


def _damaged(file: TableFile, error: Exception) -> SourceError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return SourceError(
        f"{file.path} is a damaged ORC file, or is cut short ({reason}). Fetch or write it again."
    )
