"""A table of an SQLite database as rows.

The database is a stranger's: it is opened for reading alone, as it lies there (`immutable`: no lock, no file
beside it), without extensions, and an authorizer lets a statement do nothing but read. Its structure is
checked before the first row is believed.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from penstock.contracts.reading import Reject, Row, TableFile
from penstock.core.errors import SourceError
from penstock.core.near import did_you_mean
from penstock.core.wanted import is_wanted

_LONGEST_VALUE = 64 << 20
"""Bytes of a text or blob."""
_FETCHED_ROWS = 1_000
_STEPS = 100_000
"""Instructions of SQLite's machine, after which it asks whether somebody still waits."""
_LOOKED_AT_ROWS = 10_000
"""Of a sample, that decide whether a column holds moments."""
_MOST_SHOWN = 12
_MOMENT = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
_ZONED = f"{'?' * 11}*[-+]*"
# As databases declare them: date, datetime, timestamp, "timestamp with time zone".
_MOMENTS = re.compile(r"date|timestamp", re.IGNORECASE)
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: _LONGEST_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1 << 20,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
}
_PRAGMAS = {"table_xinfo", "quick_check", "trusted_schema", "cell_size_check"}
_FUNCTIONS = {"count", "typeof", "glob"}


class _NoText(bytes):
    """A text of the database that is not UTF-8."""


@dataclass(frozen=True)
class _Column:
    name: str
    declared: str
    """The type that the table was made with; it binds no value."""


def _text(value: bytes) -> str | _NoText:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _NoText(value)


def _allow(action: int, first: str | None, second: str | None, *_: Any) -> int:
    if action == sqlite3.SQLITE_PRAGMA:
        allowed = first in _PRAGMAS
    elif action == sqlite3.SQLITE_FUNCTION:
        allowed = second in _FUNCTIONS
    else:
        allowed = action in _ALLOWED
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


class Database:
    """An open database, to be read alone."""

    def __init__(self, file: TableFile, path: Path) -> None:
        self._file = file
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        # Batches are made by another thread than the one that opens.
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)
        self._connection.text_factory = _text
        self._connection.set_progress_handler(lambda: not is_wanted(), _STEPS)
        self._connection.set_authorizer(_allow)
        self._run("PRAGMA trusted_schema = OFF")
        self._run("PRAGMA cell_size_check = ON")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(self._connection.execute(statement, values)) as cursor:
            return cursor.fetchall()

    def table(self, wanted: str | None) -> str:
        """The name of the table to be read.

        Raises:
            SourceError: there are several, or not the one that is wanted.
        """
        statement = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid"
        names = [
            name
            for (name,) in self._run(statement)
            if isinstance(name, str) and not name.lower().startswith("sqlite_")
        ]
        if not names:
            raise SourceError(f"{self._file.path} is a database without tables.")
        some = ", ".join(names[:_MOST_SHOWN]) + (" …" if len(names) > _MOST_SHOWN else "")
        if wanted is None:
            if len(names) > 1:
                raise SourceError(
                    f"{self._file.path} has several tables: {some}. Say which one has the rows, for example:"
                    f" `format: {{type: sqlite, table: {names[0]}}}`. To join tables, write the result of a"
                    " query: sqlite3 -csv -header FILE 'SELECT …' > rows.csv."
                )
            return names[0]
        for name in names:
            if name.lower() == wanted.lower():
                return name
        raise SourceError(
            f"source.format: {self._file.path} has no table {wanted!r}.{did_you_mean(wanted, names)} Its"
            f" tables: {some}."
        )

    def check(self, table: str) -> None:
        """Refuse a database whose structure is damaged; not for a sample, since all of it is read.

        Raises:
            SourceError: it is.
        """
        if self._file.is_sample:
            return
        problems = self._run(f"PRAGMA quick_check({_quoted(table)})")
        if problems != [("ok",)]:
            raise _damaged(self._file, str(problems[0][0]) if problems else "no answer")

    def count(self, table: str) -> int:
        """How many rows a table has."""
        return int(self._run(f"SELECT count(*) FROM {_quoted(table)}")[0][0])

    def columns(self, table: str) -> list[_Column]:
        """The columns of a table that can be read."""
        columns = []
        for row in self._run(f"PRAGMA table_xinfo({_quoted(table)})"):
            name, declared, hidden = row[1], row[2], row[6]
            if not isinstance(name, str) or not isinstance(declared, str):
                raise _damaged(self._file, "a column has a name that is not UTF-8")
            # 1: hidden columns of virtual tables; generated columns have values.
            if hidden != 1:
                columns.append(_Column(name, declared))
        return columns

    def _is_moments(self, table: str, column: _Column) -> bool:
        """Whether a column that is declared as dates has no other texts; all have a zone, or none has."""
        if not _MOMENTS.search(column.declared):
            return False
        name = _quoted(column.name)
        rows = f"SELECT {name} AS v FROM {_quoted(table)}"
        if self._file.is_sample:
            rows += f" LIMIT {_LOOKED_AT_ROWS}"
        odd = self._run(
            f"SELECT 1 FROM ({rows}) WHERE v IS NOT NULL"
            f" AND (typeof(v) <> 'text' OR v NOT GLOB '{_MOMENT}') LIMIT 1"
        )
        zones = self._run(
            f"SELECT DISTINCT v GLOB '{_ZONED}' OR v GLOB '*Z' FROM ({rows}) WHERE v IS NOT NULL"
        )
        return not odd and len(zones) == 1

    def rows(self, table: str) -> Iterator[Row | Reject]:
        """The rows of a table, in its order."""
        columns = self.columns(table)
        moments = {c.name for c in columns if self._is_moments(table, c)}
        names = [column.name for column in columns]
        listed = ", ".join(map(_quoted, names))
        with closing(
            self._connection.execute(f"SELECT {listed} FROM {_quoted(table)}")
        ) as cursor:
            cursor.arraysize = _FETCHED_ROWS
            number = 0
            while rows := cursor.fetchmany():
                for row in rows:
                    number += 1
                    yield _row(number, dict(zip(names, row, strict=True)), moments)


def _row(number: int, values: dict[str, Any], moments: set[str]) -> Row | Reject:
    for name, value in values.items():
        reason = None
        if type(value) is _NoText:
            reason = "holds a text that is not UTF-8"
        elif name in moments and value is not None:
            try:
                values[name] = datetime.fromisoformat(value)
            except ValueError:
                reason = f"{value[:80]!r} is no date or moment, as its column is declared to hold"
        if reason is not None:
            shown = {
                n: v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else v
                for n, v in values.items()
            }
            return Reject(number, reason, str(shown), name)
    return Row(number, values)


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


@contextmanager
def opened(file: TableFile) -> Iterator[Database]:
    """The database of a file.

    Raises:
        SourceError: it is none, is damaged, or has changes that are not in the file yet.
    """
    with file.local() as path:
        _refuse_pending(file, path)
        try:
            database = Database(file, path)
            try:
                yield database
            finally:
                database.close()
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                raise SourceError(
                    f"{file.path} was not read to its end: nobody waits for it any more."
                ) from None
            raise _damaged(file, str(error)) from None
        except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
            raise _damaged(file, str(error)) from None


def _refuse_pending(file: TableFile, path: Path) -> None:
    """Refuse a database beside which there are changes that are not in it, or that are to be undone."""
    for ending in ("-wal", "-journal"):
        beside = f"{path}{ending}"
        if os.path.exists(beside) and os.path.getsize(beside):
            raise SourceError(
                f"{file.path} is in use, or was left in the midst of a change: {beside} holds changes that"
                f" are not in the file. Close the program that writes it, or run: sqlite3 '{path}' 'PRAGMA"
                ' wal_checkpoint(TRUNCATE)\'. A copy for reading: sqlite3 FILE ".backup copy.sqlite".'
            )


def _damaged(file: TableFile, how: str) -> SourceError:
    if "encrypted" in how or "not a database" in how:
        return SourceError(
            f"{file.path} is no SQLite database, or is encrypted ({how}). Decrypt it with the program that"
            " made it, or fetch it again."
        )
    return SourceError(
        f"{file.path} is a damaged SQLite database ({how[:200]}). Fetch it again, or save what is whole:"
        " sqlite3 FILE .recover | sqlite3 saved.sqlite."
    )
