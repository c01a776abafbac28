"""Parquet. The work is `penstock.formats.columnar`'s."""

from __future__ import annotations

from typing import ClassVar

from penstock.formats.columnar import Columnar
from penstock.formats.reader import Context, FileReader, Input, ScannedReader


class Parquet(ScannedReader):
    """Parquet, in the types it is stored in; structs become columns `a.b`."""

    endings: ClassVar[tuple[str, ...]] = (".parquet", ".pq")
    magic: ClassVar[tuple[bytes, ...]] = (b"PAR1",)

    def open(self, input: Input, context: Context) -> FileReader:
        return Columnar(input, context, "parquet")
