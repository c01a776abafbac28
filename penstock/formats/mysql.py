"""MySQL and MariaDB, through PyMySQL: rows are streamed and become Arrow by the types that the server names.

Everything is asked in one transaction that is read-only and has one snapshot (`START TRANSACTION WITH
CONSISTENT SNAPSHOT`), which tables of InnoDB keep to; tables without transactions (MyISAM, Aria) are read as
they are at that moment. There is no snapshot that several connections could share, so there are no parts.

The session is set, so that rows do not depend on the server's settings: UTC, utf8mb4, no SQL modes but the
one that refuses groups of chance. Texts are ordered by their bytes. Types that files do not have are cast:
exact decimals to whole numbers, doubles or text by their digits, times of day to text, enumerations and JSON
to text. A type with no meaning for a table (points, polygons) is refused with its column.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa

from penstock.core.errors import SourceError
from penstock.core.near import did_you_mean
from penstock.core.optional import require
from penstock.core.redact import register
from penstock.core.wanted import is_wanted
from penstock.formats.database import (
    Database,
    Relation,
    Selection,
    SqlColumn,
    from_clause,
    host_of,
    path_of,
    table_name,
)

_PORT = 3306
_CONNECT_SECONDS = 10
_BATCH_ROWS = 10_000
_BATCH_BYTES = 32 << 20
"""Of texts and bytes in one batch; a row may be larger than that."""
_SAMPLED_BYTES = 256 << 20
"""Of a larger table a look reads rows from all over it."""
_LOOKED_AT_BYTES = 64 << 20
_BYTES = 63
"""The number of the character set of bytes that are no text."""
_NO_TLS = 2026
"""The number of the error that says that a server has no TLS."""
_NOT_NULL, _UNSIGNED = 1, 32
"""Flags of a column."""
_TYPES: dict[str, pa.DataType] = {
    "whole": pa.int64(),
    "unsigned": pa.uint64(),
    "single": pa.float32(),
    "double": pa.float64(),
    "text": pa.string(),
    "bytes": pa.binary(),
    "bits": pa.int64(),
    "date": pa.date32(),
    "moment": pa.timestamp("us"),
    "zoned": pa.timestamp("us", tz="UTC"),
}
_KINDS = {
    **dict.fromkeys(("TINY", "SHORT", "INT24", "LONG", "LONGLONG", "YEAR"), "whole"),
    **dict.fromkeys(("VARCHAR", "VAR_STRING", "STRING", "ENUM", "SET"), "text"),
    **dict.fromkeys(("TINY_BLOB", "MEDIUM_BLOB", "LONG_BLOB", "BLOB"), "text"),
    "FLOAT": "single",
    "DOUBLE": "double",
    "JSON": "text",
    "TIME": "text",
    "DATE": "date",
    "NEWDATE": "date",
    "DATETIME": "moment",
    "TIMESTAMP": "zoned",
    "BIT": "bits",
    "NULL": "text",
}
"""By the protocol's name of a type; decimals are decided by their digits."""
_DIVISIBLE = frozenset({"whole", "date", "moment", "zoned"})
_SENTENCES = {
    1044: "the user may not use it. Ask for SELECT on it: GRANT SELECT ON … TO …",
    1142: "the user may not read it. Ask for SELECT on it: GRANT SELECT ON … TO …",
    1143: "the user may not read one of its columns. Name those that are needed in `columns`",
    1969: "the statement took longer than `timeout` allows. Raise it, or read less",
    3024: "the statement took longer than `timeout` allows. Raise it, or read less",
}


class MySql(Database):
    """A connection to MySQL or MariaDB: `mysql://user@host:port/database`, `mariadb://…` likewise.

    Without a password in the URL MYSQL_PWD is taken. `?unix_socket=PATH` connects by a socket, `?ssl_ca=PATH`
    requires TLS and a certificate that this authority signed; without it TLS is used where the server has it.
    """

    dialect: ClassVar[str] = "mysql"

    def __init__(self, url: str, *, base: Path, timeout_seconds: int) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._driver = require("pymysql", extra="mysql", why="reading from MySQL")
        self._required: set[str] = set()
        """Columns that are never missing."""
        self._connection = self._connected(base)
        try:
            with self._refusals(""):
                self._begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with suppress(self._driver.err.Error):
            self._connection.close()

    def _connected(self, base: Path) -> Any:
        parts = urlsplit(self._url)
        options = {word: values[-1] for word, values in parse_qs(parts.query).items()}
        authority = options.pop("ssl_ca", None)
        socket = options.pop("unix_socket", None)
        if options:
            raise SourceError(
                f"source.url: {', '.join(sorted(options))} is no option of a MySQL URL. Known: ssl_ca,"
                " unix_socket."
            )
        password = unquote(parts.password or "") or os.environ.get("MYSQL_PWD", "")
        register(password)
        ca = str(base / authority) if authority else None
        if ca is not None and not os.path.isfile(ca):
            raise SourceError(f"source.url: there is no file {ca}, which ssl_ca names.")
        words = {
            "host": parts.hostname or "localhost",
            "port": parts.port or _PORT,
            "user": unquote(parts.username or "") or None,
            "password": password,
            "database": path_of(self._url).strip("/") or None,
            "unix_socket": socket,
            "charset": "utf8mb4",
            # What a query means must not depend on the server's own modes.
            "sql_mode": "ONLY_FULL_GROUP_BY",
            "init_command": "SET time_zone = '+00:00'",
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": self._timeout_seconds + _CONNECT_SECONDS,
            "local_infile": False,
        }
        with self._refusals(""):
            if ca is not None:
                return self._driver.connect(**words, ssl={"ca": ca})
            try:
                return self._driver.connect(**words, ssl={"verify_mode": "none"})
            except self._driver.err.OperationalError as error:
                if error.args[:1] != (_NO_TLS,):
                    raise
                return self._driver.connect(**words, ssl_disabled=True)

    def _begin(self) -> None:
        is_maria = "mariadb" in str(self._connection.get_server_info()).lower()
        limit = (
            f"SET SESSION max_statement_time = {self._timeout_seconds}"
            if is_maria
            else f"SET SESSION max_execution_time = {self._timeout_seconds * 1000}"
        )
        for statement in (
            limit,
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET SESSION TRANSACTION READ ONLY",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        ):
            self._asked(statement)

    @contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        """Errors of the server as sentences.

        Args:
            what: the table or query that was asked for.
        """
        try:
            yield
        # The driver raises the first for names and hosts that cannot be encoded.
        except (self._driver.err.Error, UnicodeError, OSError) as error:
            raise _sentence(error, self._url, what) from None

    def _asked(
        self, statement: str, values: Sequence[str] = (), what: str = ""
    ) -> list[tuple[Any, ...]]:
        with self._refusals(what), self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def position(self) -> str:
        for name in ("gtid_current_pos", "gtid_executed"):
            with suppress(SourceError):
                position = str(self._asked(f"SELECT @@GLOBAL.{name}")[0][0] or "")
                return f"gtid {position}" if position else ""
        return ""

    def columns(self, relation: Relation) -> list[SqlColumn]:
        if relation.table is not None:
            self._check_table(relation.table)
        with self._refusals(relation.name), self._connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {from_clause(relation, _quoted)} LIMIT 0")
            # The description of the standard has neither signs nor character sets.
            fields = list(cursor._result.fields)
        self._required = {f.name for f in fields if f.flags & _NOT_NULL}
        codes = self._driver.constants.FIELD_TYPE
        protocol = {getattr(codes, name): name for name in dir(codes) if name.isupper()}
        # Some types have two names there.
        protocol |= {getattr(codes, name): name for name in _KINDS}
        return [_column(f, str(protocol.get(f.type_code)), relation) for f in fields]

    def _check_table(self, table: str) -> None:
        """Refuse a table that is not there, before anything is asked of it."""
        rows = self._asked(
            "SELECT IF(table_schema = DATABASE(), table_name, CONCAT(table_schema, '.', table_name))"
            " FROM information_schema.tables WHERE table_schema NOT IN"
            " ('information_schema', 'performance_schema', 'mysql', 'sys') ORDER BY 1 LIMIT 5000"
        )
        names = [str(row[0]) for row in rows]
        if table in names:
            return
        # A name with its own database in front, or in the case that the server does not mind.
        with suppress(SourceError):
            self._asked(f"SELECT 1 FROM {table_name(table, _quoted)} LIMIT 0")
            return
        some = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
        raise SourceError(
            f"source.table: the database at {host_of(self._url)} has no table {table!r}."
            f"{did_you_mean(table, names)} It has: {some or 'none that this user may see'}."
        )

    def primary_key(self, table: str) -> tuple[str, ...]:
        schema, _, name = table.rpartition(".")
        rows = self._asked(
            "SELECT column_name FROM information_schema.key_column_usage WHERE constraint_name = 'PRIMARY'"
            " AND table_schema = IF(%s = '', DATABASE(), %s) AND table_name = %s ORDER BY ordinal_position",
            (schema, schema, name),
        )
        return tuple(str(row[0]) for row in rows)

    def schema(self, selection: Selection) -> pa.Schema:
        return pa.schema([(c.name, _TYPES[c.kind]) for c in selection.columns])

    def batches(self, selection: Selection) -> Generator[pa.RecordBatch, None, None]:
        if selection.parts > 1:
            raise SourceError(
                "source.partition: MySQL has no state that several connections can read. Leave it out."
            )
        schema = self.schema(selection)
        statement = self._select(selection)
        with (
            self._refusals(selection.relation.name),
            closing(self._connection.cursor(self._driver.cursors.SSCursor)) as cursor,
        ):
            cursor.execute(statement)
            for rows in _chunks(cursor):
                columns = zip(*rows, strict=True)
                arrays = [
                    _array(values, column)
                    for values, column in zip(columns, selection.columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _select(self, selection: Selection) -> str:
        listed = [f"{c.expression} AS {_quoted(c.name)}" for c in selection.columns]
        order: list[str] = []
        for column in selection.order:
            name = f"q.{_quoted(column.name)}"
            # The last, as in other databases; of a required column nothing is asked, so
            # that its index serves.
            order += [] if column.name in self._required else [f"{name} IS NULL"]
            # By bytes, so that the order is the same in every database.
            order.append(
                f"CAST(CONVERT({name} USING utf8mb4) AS BINARY)"
                if column.is_text
                else name
            )
        rest = f" ORDER BY {', '.join(order)}" if order else ""
        some = self._sampled(selection)
        return f"SELECT {', '.join(listed)} FROM {from_clause(selection.relation, _quoted)}{some}{rest}"

    def _sampled(self, selection: Selection) -> str:
        """The condition that chooses rows from all over a large table, for a look."""
        table = selection.relation.table
        if not selection.some or table is None:
            return ""
        schema, _, name = table.rpartition(".")
        rows = self._asked(
            "SELECT data_length FROM information_schema.tables"
            " WHERE table_schema = IF(%s = '', DATABASE(), %s) AND table_name = %s",
            (schema, schema, name),
        )
        size = int(rows[0][0] or 0) if rows else 0
        if size <= _SAMPLED_BYTES:
            return ""
        return f" WHERE RAND(7) < {_LOOKED_AT_BYTES / size:.6f}"


def _chunks(cursor: Any) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a cursor, so many at once as are small together."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    while (row := cursor.fetchone()) is not None:
        rows.append(row)
        size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            if not is_wanted():
                return
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _column(field: Any, protocol: str, relation: Relation) -> SqlColumn:
    """How a column is selected, by the type that the server gives it."""
    name = f"q.{_quoted(field.name)}"
    kind, expression, refused = _KINDS.get(protocol, ""), name, ""
    is_unsigned = bool(field.flags & _UNSIGNED)
    if protocol in ("DECIMAL", "NEWDECIMAL"):
        kind = _number(field.length, field.scale, is_unsigned=is_unsigned)
        expression = f"CAST({name} AS CHAR)" if kind == "text" else name
    elif protocol == "LONGLONG" and is_unsigned:
        kind = "unsigned"
    elif protocol == "FLOAT":
        # As text it would come with six digits: as a double it is what it is.
        expression = f"({name} + 0E0)"
    elif protocol == "TIME":
        expression = f"CAST({name} AS CHAR)"
    elif kind == "text" and field.charsetnr == _BYTES and protocol != "JSON":
        kind = "bytes"
    if not kind:
        refused = (
            f"source: the column {field.name!r} of {relation.name} has a type ({protocol.lower()}) whose"
            " values have no meaning for a table. Leave it out with `columns`, or cast it in a `query`, for"
            f" example ST_AsText({_quoted(field.name)})."
        )
    return SqlColumn(
        field.name,
        kind,
        expression,
        is_text=kind == "text",
        is_divisible=kind in _DIVISIBLE,
        refused=refused,
    )


def _number(length: int, scale: int, *, is_unsigned: bool) -> str:
    """The type in which an exact decimal is read, as a file's is: by its digits."""
    if scale:
        return "double"
    # The length counts the sign.
    precision = length if is_unsigned else length - 1
    return "whole" if precision <= 18 else "text"


def _array(values: tuple[Any, ...], column: SqlColumn) -> pa.Array:
    kind = _TYPES[column.kind]
    if column.kind in ("date", "moment", "zoned"):
        odd = next((v for v in values if isinstance(v, str)), None)
        if odd is not None:
            raise SourceError(
                f"source: the column {column.name!r} holds {odd!r}, which is no day. Say in a `query` what it"
                f" means, for example NULLIF({_quoted(column.name)}, 0) for a missing one."
            )
    if column.kind == "zoned":
        values = tuple(v if v is None else _in_utc(v) for v in values)
    elif column.kind == "bits":
        values = tuple(v if v is None else int.from_bytes(v, "big") for v in values)
    elif column.kind == "whole":
        values = tuple(v if v is None else int(v) for v in values)
    elif column.kind in ("double", "single"):
        values = tuple(v if v is None else float(v) for v in values)
    return pa.array(values, kind)


def _in_utc(moment: datetime) -> datetime:
    # The session's zone is UTC.
    return moment.replace(tzinfo=UTC)


def _sentence(error: Exception, url: str, what: str) -> SourceError:
    """What a driver's error means, without what it quotes of the statement."""
    host = host_of(url)
    numbers = [value for value in error.args if isinstance(value, int)]
    number = numbers[0] if numbers else 0
    texts = [value for value in error.args if isinstance(value, str)]
    reason = (texts[0] if texts else str(error)).strip().rstrip(".")[:300]
    if number in (1045, 1698):
        return SourceError(
            f"the database at {host} refuses the user or the password. Check the user in the URL, and"
            " MYSQL_PWD (or the variable that the URL names)."
        )
    if number == 1049:
        return SourceError(
            f"the server at {host} has no database {path_of(url).strip('/')!r}. Check the end of the URL."
        )
    if number == _NO_TLS or "SSL" in reason:
        return SourceError(
            f"the database at {host} has no TLS that ssl_ca in the URL accepts ({reason[:200]}). Mend the"
            " server's certificate, or leave ssl_ca out."
        )
    if number in (2002, 2003, 2005):
        return SourceError(
            f"no database answers at {host} ({reason[:200]}). Check host and port of the URL, and that the"
            " server runs and may be reached from here."
        )
    if number == 1060:
        return SourceError(
            f"source.query: gives more than one column of a name ({reason}). Give each a name of its own:"
            " … AS …"
        )
    if number in _SENTENCES:
        return SourceError(f"{what or 'the database'} at {host}: {_SENTENCES[number]}.")
    where = f"source.table {what!r}" if what not in ("", "query") else "source.query"
    return SourceError(
        f"{where}: the database at {host} refuses: {reason}."
        " Correct the source, or cast the column in a `query`."
    )


def _quoted(name: str) -> str:
    doubled = name.replace("`", "``")
    return f"`{doubled}`"
