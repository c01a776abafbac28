"""NumPy's arrays in one file. The work is `penstock.formats.array_sets`'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import pyarrow as pa
from pydantic import BeforeValidator

from penstock.contracts.reading import RowReader, TableFile
from penstock.formats.array_sets import opened, parts, rows
from penstock.formats.options import one_or_many


class Npz(RowReader):
    """Arrays of one length are columns: of values, of vectors, or of pictures as PNG. Arrays called `x_train`
    and `x_test` are the column `x`, with `split` beside it.
    """

    endings: ClassVar[tuple[str, ...]] = (".npz",)
    typed: ClassVar[bool] = True

    arrays: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] = ()
    """The arrays to read; all unless given."""

    def read(self, file: TableFile) -> Iterator[pa.RecordBatch]:
        with opened(file) as packed:
            for part in parts(file, packed, self.arrays):
                yield from rows(file, packed, part)

    def declared_rows(self, file: TableFile) -> int:
        with opened(file) as packed:
            return sum(part.rows for part in parts(file, packed, self.arrays))
