"""NumPy's array in a file of its own. The work is `penstock.formats.arrays`'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa

from penstock.contracts.reading import RowReader, TableFile
from penstock.formats.arrays import ArrayStream, batches


class Npy(RowReader):
    """One array, whose first axis counts the rows: a column `value`, or one for each of up to 256 columns of
    a matrix (`value_1`, …), or for each field of a structured array; pictures as PNG.
    """

    endings: ClassVar[tuple[str, ...]] = (".npy",)
    magic: ClassVar[tuple[bytes, ...]] = (b"\x93NUMPY",)
    typed: ClassVar[bool] = True

    def read(self, file: TableFile) -> Iterator[pa.RecordBatch]:
        with file.open() as stream:
            array = ArrayStream(
                "value", stream, file.path, size=None, most_bytes=file.most_bytes
            )
            yield from batches([array], array.rows)

    def declared_rows(self, file: TableFile) -> int:
        with file.open() as stream:
            array = ArrayStream(
                "value", stream, file.path, size=None, most_bytes=file.most_bytes
            )
            return array.rows
