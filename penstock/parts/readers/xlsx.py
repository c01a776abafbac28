"""Excel: one sheet of a workbook. The work is `penstock.formats.workbook`'s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from penstock.contracts.reading import Row, RowReader, TableFile
from penstock.formats.workbook import opened, rows, sheet_of


class Xlsx(RowReader):
    """A sheet of a workbook, from its header on; needs `penstock[excel]`."""

    endings: ClassVar[tuple[str, ...]] = (".xlsx", ".xlsm")
    typed: ClassVar[bool] = True

    sheet: str | int | None = None
    """The sheet, by its name or its number from 1; the first that has a table unless given."""

    def read(self, file: TableFile) -> Iterator[Row]:
        with opened(file) as book:
            yield from rows(file, sheet_of(file, book, self.sheet))
