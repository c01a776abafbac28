"""SQLite, through the standard library: a query of a database, or a table of one that is in use.

A database that lies still is read by `format: sqlite` as well; here it is opened as any reader opens it, with
its locks, read-only, without extensions. A column's type follows from all of its values: whole numbers,
numbers, text or bytes; where texts and numbers are mixed, all are text. SQLite has no moments: they are the
texts or numbers that they are stored as.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pyarrow as pa

from penstock.core.errors import SourceError
from penstock.core.near import did_you_mean
from penstock.core.wanted import is_wanted
from penstock.formats.database import (
    Database,
    Relation,
    Selection,
    SqlColumn,
    path_of,
    quoted,
)

_FETCHED_ROWS = 10_000
_STEPS = 100_000
_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    33,  # SQLITE_RECURSIVE
    sqlite3.SQLITE_TRANSACTION,
}
_DENIED = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})


class SqliteDatabase(Database):
    """A database file, `sqlite:///relative.db` or `sqlite:////absolute.db`, read in one transaction.

    What is waited for is a writer's lock.
    """

    dialect: ClassVar[str] = "sqlite"

    def __init__(self, url: str, *, base: Path, timeout_seconds: int) -> None:
        self._path = str(base / path_of(url)[1:])
        if not os.path.isfile(self._path):
            raise SourceError(
                f"source.url: there is no database {self._path}. Write sqlite:///name.db for a path from the"
                " recipe, sqlite:////folder/name.db for a whole one."
            )
        uri = f"file:{quote(os.path.abspath(self._path))}?mode=ro"
        with self._told():
            self._connection = sqlite3.connect(
                uri,
                uri=True,
                timeout=timeout_seconds,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.set_progress_handler(lambda: not is_wanted(), _STEPS)
            self._keys = self._primary_keys()
            self._connection.set_authorizer(_allow)
            # One state for all that follows: readers of SQLite see none that is newer.
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SourceError(
                f"{self._path}: SQLite refuses: {str(error)[:300]}. Correct the source's `query` or `table`,"
                " or mend the file."
            ) from None

    def _primary_keys(self) -> dict[str, tuple[str, ...]]:
        """By table; asked before the authorizer refuses to describe tables."""
        names = self._connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
        )
        keys = {}
        for (name,) in names.fetchall():
            rows = self._connection.execute(f"PRAGMA table_info({quoted(name)})")
            # The sixth says a column's place in the key, from 1.
            key = sorted((row[5], row[1]) for row in rows.fetchall() if row[5])
            keys[name] = tuple(column for _, column in key)
        return keys

    def columns(self, relation: Relation) -> list[SqlColumn]:
        if relation.table is not None and relation.table not in self._keys:
            names = list(self._keys)
            raise SourceError(
                f"source.table: {self._path} has no table {relation.table!r}."
                f"{did_you_mean(relation.table, names)} It has: {', '.join(names[:12])}."
            )
        with (
            self._told(),
            closing(
                self._connection.execute(f"SELECT * FROM {_from(relation)} LIMIT 0")
            ) as cursor,
        ):
            names = [column[0] for column in cursor.description]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SourceError(
                f"source.query: gives more than one column {twice!r}. Give each a name of its own: … AS …"
            )
        return [SqlColumn(name, "", f"q.{quoted(name)}") for name in names]

    def primary_key(self, table: str) -> tuple[str, ...]:
        return self._keys[table]

    def schema(self, selection: Selection) -> pa.Schema:
        kinds = ("integer", "real", "text", "blob")
        listed = [
            f"max(typeof({column.expression}) = '{kind}')"
            for column in selection.columns
            for kind in kinds
        ]
        with (
            self._told(),
            closing(
                self._connection.execute(
                    f"SELECT {', '.join(listed)} FROM {_from(selection.relation)}"
                )
            ) as cursor,
        ):
            counts = cursor.fetchone()
        fields = []
        for i, column in enumerate(selection.columns):
            there = {kind for j, kind in enumerate(kinds) if counts[4 * i + j]}
            fields.append(pa.field(column.name, _type(column.name, there)))
        return pa.schema(fields)

    def batches(self, selection: Selection) -> Generator[pa.RecordBatch, None, None]:
        if selection.parts > 1:
            raise SourceError(
                "source.partition: SQLite is a file on this machine, and is read in one part. Leave it out."
            )
        schema = self.schema(selection)
        listed = ", ".join(column.expression for column in selection.columns)
        order = ", ".join(f"q.{quoted(column.name)}" for column in selection.order)
        statement = f"SELECT {listed} FROM {_from(selection.relation)}"
        if order:
            statement += f" ORDER BY {order}"
        with self._told(), closing(self._connection.execute(statement)) as cursor:
            while rows := cursor.fetchmany(_FETCHED_ROWS):
                columns = zip(*rows, strict=True)
                arrays = [
                    _array(values, field.type)
                    for values, field in zip(columns, schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _allow(action: int, first: str | None, second: str | None, *_: Any) -> int:
    denied = action == sqlite3.SQLITE_FUNCTION and str(second).lower() in _DENIED
    return sqlite3.SQLITE_OK if action in _ALLOWED and not denied else sqlite3.SQLITE_DENY


def _from(relation: Relation) -> str:
    whole = quoted(relation.table) if relation.table else f"({relation.query})"
    return f"{whole} AS q"


def _type(name: str, kinds: set[str]) -> pa.DataType:
    if "blob" in kinds:
        if kinds != {"blob"}:
            raise SourceError(
                f"source: the column {name!r} has bytes in some rows and {' and '.join(kinds - {'blob'})} in"
                " others. Cast it in a `query`, or leave it out with `columns`."
            )
        return pa.binary()
    if "text" in kinds or not kinds:
        return pa.string()
    return pa.float64() if "real" in kinds else pa.int64()


def _array(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array([None if v is None else str(v) for v in values], kind)
    if pa.types.is_floating(kind):
        return pa.array([None if v is None else float(v) for v in values], kind)
    return pa.array(values, kind)
