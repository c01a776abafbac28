"""Excel: one sheet of a workbook. The work is `penstock.formats.workbook`'s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import model_validator

from penstock.contracts.part import mistakes
from penstock.contracts.reading import Row, RowReader, TableFile
from penstock.core.errors import Problem
from penstock.formats.workbook import Area, area_of, opened, rows, sheet_of


class Xlsx(RowReader):
    """A sheet of a workbook, from its header on; needs `penstock[excel]`."""

    endings: ClassVar[tuple[str, ...]] = (".xlsx", ".xlsm")
    typed: ClassVar[bool] = True

    sheet: str | int | None = None
    """The sheet, by its name or its number from 1; the first that has a table unless given."""

    range: str | None = None
    """Its cells that are the table, as Excel writes them: `B3:F200`, or `B:F` for whole columns; all unless
    given.
    """

    @model_validator(mode="after")
    def _is_range(self) -> Xlsx:
        if self.range is not None:
            try:
                area_of(self.range)
            except ValueError as error:
                raise mistakes(Problem(("range",), str(error))) from None
        return self

    def read(self, file: TableFile) -> Iterator[Row]:
        area = Area() if self.range is None else area_of(self.range)
        with opened(file) as book:
            yield from rows(file, sheet_of(file, book, self.sheet, area), area)
