"""SQLite: one table of a database. The work is `penstock.formats.sqlite_rows`'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from penstock.contracts.reading import Reject, Row, RowReader, TableFile
from penstock.formats.sqlite_rows import opened


class Sqlite(RowReader):
    """A table of a database: values as they are stored, and dates where a column is declared to hold them."""

    endings: ClassVar[tuple[str, ...]] = (".sqlite", ".sqlite3", ".db3")
    magic: ClassVar[tuple[bytes, ...]] = (b"SQLite format 3\0",)
    typed: ClassVar[bool] = True

    table: str | None = None
    """The table that has the rows; the only one unless given."""

    def read(self, file: TableFile) -> Iterator[Row | Reject]:
        with opened(file) as database:
            table = database.table(self.table)
            database.check(table)
            yield from database.rows(table)

    def declared_rows(self, file: TableFile) -> int:
        with opened(file) as database:
            return database.count(database.table(self.table))
