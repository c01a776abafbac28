"""PostgreSQL, through ADBC: rows come as Arrow, by the binary COPY protocol.

Everything is asked in one transaction that is read-only and repeatable, and so of one state. Parts are read
by connections of their own that take the same state up (`pg_export_snapshot`), each into a file of Arrow
batches; parts are ranges of the first column of the order, so that one behind another they are the whole in
order, however many there are.

Types that files do not have are cast by the server: exact decimals to whole numbers, doubles or text by their
digits (as a decimal of Parquet is read), intervals to seconds, uuid, json and enumerations to text. A type
with no such meaning (points, ranges, search vectors, rows) is refused with its column.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.errors import SourceError
from penstock.core.near import did_you_mean
from penstock.core.optional import require
from penstock.core.wanted import is_wanted
from penstock.formats.database import (
    Database,
    Relation,
    Selection,
    SqlColumn,
    from_clause,
    host_of,
    quoted,
    table_name,
)

_TEXTS = frozenset({"text", "varchar", "bpchar", "name", "citext"})
_AS_TEXT = frozenset(
    "uuid json jsonb inet cidr macaddr macaddr8 xml timetz bpchar citext bit varbit ltree".split()
)
_AS_IT_IS = frozenset(
    "bool int2 int4 int8 float4 float8 text varchar name char bytea date timestamp timestamptz time".split()
)
_DIVISIBLE = frozenset({"int2", "int4", "int8", "date", "timestamp", "timestamptz"})
_DIMENSIONS = "__p_dims"
"""Before the name of a column of lists: how deep its lists are."""
_SAMPLED_BYTES = 256 << 20
"""Of a larger table a look reads pages from all over it."""
_LOOKED_AT_BYTES = 64 << 20
_SPOOL_CODEC = "lz4"
_SENTENCES = {
    "42501": "the user may not read it. Ask for SELECT on it: GRANT SELECT ON … TO …",
    "57014": "the statement took longer than `timeout` allows. Raise it, or read less",
    "28P01": "the password is wrong. Set PGPASSWORD to the right one",
}


class Postgres(Database):
    """A connection to PostgreSQL, or to what speaks as it does.

    Where the URL has no password libpq takes PGPASSWORD and ~/.pgpass.
    """

    dialect: ClassVar[str] = "postgres"

    def __init__(self, url: str, *, base: Path, timeout_seconds: int) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._connection = _connected(url)
        with self._told(""):
            self._begin(self._connection, "")

    def close(self) -> None:
        self._connection.close()

    def _begin(self, connection: Any, snapshot: str) -> None:
        statements = ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"]
        if snapshot:
            statements.append(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        statements.append(f"SET LOCAL statement_timeout = {self._timeout_seconds * 1000}")
        for statement in statements:
            with connection.cursor() as cursor:
                cursor.execute(statement)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of the server as sentences.

        Args:
            what: the table or query that was asked for.
        """
        try:
            yield
        except _errors() as error:
            if isinstance(error, OSError) and "[libpq]" not in str(error):
                raise
            raise _sentence(error, self._url, what) from None

    def _asked(self, statement: str, what: str = "") -> list[dict[str, Any]]:
        with self._told(what), self._connection.cursor() as cursor:
            cursor.execute(statement)
            rows: list[dict[str, Any]] = cursor.fetch_arrow_table().to_pylist()
            return rows

    def position(self) -> str:
        standby = self._asked("SELECT pg_is_in_recovery() AS s")[0]["s"]
        log = "pg_last_wal_replay_lsn()" if standby else "pg_current_wal_lsn()"
        row = self._asked(
            f"SELECT {log}::text AS lsn, pg_current_snapshot()::text AS txid"
        )
        return f"lsn {row[0]['lsn']}, txid {row[0]['txid']}"

    def state(self, relation: Relation) -> str:
        if relation.table is None:
            # It may ask for the time, or another server.
            return ""
        self._check_table(relation.table)
        kind = self._asked(
            "SELECT relkind::text AS kind, relrowsecurity AS guarded FROM pg_class"
            f" WHERE oid = {_literal(table_name(relation.table))}::regclass"
        )[0]
        # Rows of a view or a foreign table may change without a transaction of this
        # server, and a policy may ask for the time.
        if kind["kind"] not in ("r", "p", "m") or kind["guarded"]:
            return ""
        row = self._asked(
            "SELECT pg_current_snapshot()::text AS txid, current_user::text AS me,"
            " pg_postmaster_start_time()::text AS begun, current_database()::text AS name"
        )[0]
        return f"{row['txid']} {row['begun']} {row['name']} {row['me']}"

    def columns(self, relation: Relation) -> list[SqlColumn]:
        if relation.table is not None:
            self._check_table(relation.table)
        with self._told(relation.name), self._connection.cursor() as cursor:
            schema = cursor.adbc_execute_schema(f"SELECT * FROM {from_clause(relation)}")
        names = schema.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SourceError(
                f"source.query: gives more than one column {twice!r}. Give each a name of its own: … AS …"
            )
        return [_column(field, relation) for field in schema]

    def _check_table(self, table: str) -> None:
        """Refuse a table that is not there, before anything is asked of it."""
        where = f"to_regclass({_literal(table_name(table))})"
        if self._asked(f"SELECT {where}::text AS t")[0]["t"] is not None:
            return
        rows = self._asked(
            "SELECT CASE WHEN schemaname = 'public' THEN tablename ELSE schemaname || '.' || tablename END"
            "::text AS t FROM (SELECT schemaname, tablename FROM pg_tables UNION ALL"
            " SELECT schemaname, viewname FROM pg_views) a"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1 LIMIT 500"
        )
        names = [row["t"] for row in rows]
        some = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
        raise SourceError(
            f"source.table: the database at {host_of(self._url)} has no table {table!r}."
            f"{did_you_mean(table, names)} It has: {some or 'none that this user may see'}."
        )

    def primary_key(self, table: str) -> tuple[str, ...]:
        rows = self._asked(
            "SELECT a.attname::text AS n FROM pg_index i CROSS JOIN LATERAL"
            " unnest(i.indkey) WITH ORDINALITY AS k(col, place)"
            " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.col"
            f" WHERE i.indisprimary AND i.indrelid = {_literal(table_name(table))}::regclass"
            " ORDER BY k.place"
        )
        return tuple(row["n"] for row in rows)

    def schema(self, selection: Selection) -> pa.Schema:
        with self._told(selection.relation.name), self._connection.cursor() as cursor:
            schema = cursor.adbc_execute_schema(self._select(selection))
        return _plain(schema, selection)

    def batches(self, selection: Selection) -> Generator[pa.RecordBatch, None, None]:
        if selection.parts == 1:
            yield from self._read(self._connection, self._select(selection), selection)
            return
        ranges = self._ranges(selection)
        snapshot = self._asked("SELECT pg_export_snapshot() AS s")[0]["s"]
        with tempfile.TemporaryDirectory(prefix="penstock-sql-") as folder:
            files = [Path(folder) / f"{i}.arrow" for i in range(len(ranges))]
            with ThreadPoolExecutor(len(ranges)) as pool:
                jobs = [
                    pool.submit(self._spool, selection, where, snapshot, file)
                    for where, file in zip(ranges, files, strict=True)
                ]
                # In order; the others are read meanwhile.
                for job, file in zip(jobs, files, strict=True):
                    job.result()
                    with pa.OSFile(str(file)) as raw, pa.ipc.open_stream(raw) as stream:
                        yield from stream
                    file.unlink()

    def _spool(self, selection: Selection, where: str, snapshot: str, file: Path) -> None:
        """Read one part, by a connection of its own, into a file."""
        connection = _connected(self._url)
        options = pa.ipc.IpcWriteOptions(compression=_SPOOL_CODEC)
        try:
            with self._told(selection.relation.name):
                self._begin(connection, snapshot)
            rows = self._read(connection, self._select(selection, where), selection)
            schema = self.schema_of(connection, selection)
            with pa.ipc.new_stream(str(file), schema, options=options) as out:
                for batch in rows:
                    out.write_batch(batch)
        finally:
            connection.close()

    def schema_of(self, connection: Any, selection: Selection) -> pa.Schema:
        """`schema`, asked of another connection than the first."""
        with self._told(selection.relation.name), connection.cursor() as cursor:
            return _plain(cursor.adbc_execute_schema(self._select(selection)), selection)

    def _read(
        self, connection: Any, statement: str, selection: Selection
    ) -> Iterator[pa.RecordBatch]:
        lists = [column.name for column in selection.columns if column.is_list]
        with self._told(selection.relation.name), connection.cursor() as cursor:
            cursor.execute(statement)
            with cursor.fetch_record_batch() as reader:
                schema = _plain(reader.schema, selection)
                for batch in reader:
                    if not is_wanted():
                        return
                    _check_depth(batch, lists)
                    some = [batch.column(i) for i in range(len(schema))]
                    yield pa.RecordBatch.from_arrays(some, schema=schema)

    def _ranges(self, selection: Selection) -> list[str]:
        """A condition for each part, in order; missing values are in the last one."""
        column = selection.order[0]
        name, kind = quoted(column.name), column.kind
        # Of moments and dates the seconds are divided, of whole numbers these.
        is_whole = kind.startswith("int")
        number = name if is_whole else f"extract(epoch from {name})"
        finite = "true" if is_whole else f"isfinite({name})"
        row = self._asked(
            f"SELECT min({number})::float8 AS low, max({number})::float8 AS high"
            f" FROM {from_clause(selection.relation)} WHERE {finite}",
            selection.relation.name,
        )[0]
        if row["low"] is None or not row["low"] < row["high"]:
            return ["true"]
        step = (row["high"] - row["low"]) / selection.parts
        edges = [
            _literal_of(kind, row["low"] + step * i) for i in range(1, selection.parts)
        ]
        first = [f"{name} < {edges[0]}"]
        between = [
            f"{name} >= {low} AND {name} < {high}" for low, high in pairwise(edges)
        ]
        return [*first, *between, f"({name} >= {edges[-1]} OR {name} IS NULL)"]

    def _select(self, selection: Selection, where: str = "true") -> str:
        listed = [f"{c.expression} AS {quoted(c.name)}" for c in selection.columns]
        listed += [
            f"array_ndims(q.{quoted(c.name)}) AS {quoted(_DIMENSIONS + c.name)}"
            for c in selection.columns
            if c.is_list
        ]
        # By bytes, so that the order is the same in every database.
        order = [
            f"q.{quoted(c.name)}" + ('::text COLLATE "C"' if c.is_text else "")
            for c in selection.order
        ]
        rest = f" ORDER BY {', '.join(order)}" if order else ""
        return f"SELECT {', '.join(listed)} FROM {self._sampled(selection)} WHERE {where}{rest}"

    def _sampled(self, selection: Selection) -> str:
        """What is read, or pages from all over a large table for a look."""
        whole, table = from_clause(selection.relation), selection.relation.table
        if not selection.some or table is None:
            return whole
        row = self._asked(
            "SELECT pg_total_relation_size(oid)::int8 AS bytes, relkind::text AS kind FROM pg_class"
            f" WHERE oid = {_literal(table_name(table))}::regclass"
        )[0]
        if row["kind"] not in ("r", "p", "m") or row["bytes"] <= _SAMPLED_BYTES:
            return whole
        share = 100 * _LOOKED_AT_BYTES / row["bytes"]
        return f"{table_name(table)} AS q TABLESAMPLE SYSTEM ({share:.4f}) REPEATABLE (7)"


def _connected(url: str) -> Any:
    driver = require(
        "adbc_driver_postgresql.dbapi", extra="postgres", why="reading from PostgreSQL"
    )
    try:
        return driver.connect(url)
    except _errors() as error:
        raise _sentence(error, url, "") from None


def _errors() -> tuple[type[Exception], ...]:
    module = require(
        "adbc_driver_manager", extra="postgres", why="reading from PostgreSQL"
    )
    # Rows that fail while they stream are an error of Arrow's reader.
    return (module.Error, OSError)


def _sentence(error: Exception, url: str, what: str) -> SourceError:
    """What a driver's error means, without what it quotes of the statement."""
    text, host = str(error), host_of(url)
    state = str(getattr(error, "sqlstate", "") or "")
    if "Failed to connect" in text or "could not translate" in text:
        return SourceError(_not_connected(text, host))
    if "statement timeout" in text:
        state = "57014"
    if state in _SENTENCES:
        return SourceError(f"{what or 'the database'} at {host}: {_SENTENCES[state]}.")
    # The server's own line, which names the mistake; others quote the statement.
    line = next((t for t in text.splitlines() if "ERROR:" in t), text.splitlines()[0])
    reason = line.split("ERROR:")[-1].strip().rstrip(".")
    where = "source.query" if what == "query" else f"source.table {what!r}"
    return SourceError(
        f"{where}: the database at {host} refuses: {reason[:300]}."
        " Correct the source, or cast the column in a `query`."
    )


def _not_connected(text: str, host: str) -> str:
    if "no password supplied" in text:
        return (
            f"the database at {host} asks for a password. Set PGPASSWORD, or write ${{NAME}} for it in the"
            " URL and set that variable."
        )
    if "password authentication failed" in text:
        return (
            f"the database at {host} refuses the user or the password. Check the user in the URL, and"
            " PGPASSWORD (or the variable that the URL names)."
        )
    fatal = text.rsplit("FATAL:", 1)
    if len(fatal) == 2:
        return f"the database at {host} refuses the connection: {fatal[1].strip()[:200]}."
    reason = text.split("failed:")[-1].strip().splitlines()[0][:200].rstrip(".")
    return (
        f"no database answers at {host} ({reason}). Check host and port of the URL, and that the server runs"
        " and may be reached from here."
    )


def _column(field: pa.Field, relation: Relation) -> SqlColumn:
    """How a column is selected, by the type that the server gives it."""
    metadata = field.metadata or {}
    kind = metadata.get(b"POSTGRESQL:type", b"").decode()
    typmod = int(metadata.get(b"POSTGRESQL:typmod", b"-1"))
    is_list = kind.startswith("_")
    element = kind.removeprefix("_")
    name = f"q.{quoted(field.name)}"
    brackets = "[]" if is_list else ""
    expression, refused = name, ""
    is_enum = not is_list and pa.types.is_string(field.type) and element not in _AS_TEXT
    if element in _AS_IT_IS and element not in _AS_TEXT:
        pass
    elif element == "numeric":
        expression = f"{name}::{_number(typmod)}{brackets}"
    elif element == "money" and not is_list:
        expression = f"{name}::numeric::float8"
    elif element == "interval" and not is_list:
        expression = f"extract(epoch from {name})::float8"
    elif element == "oid":
        expression = f"{name}::int8{brackets}"
    elif element in _AS_TEXT or is_enum:
        expression = f"{name}::text{brackets}"
    elif is_list and pa.types.is_string(getattr(field.type, "value_type", pa.null())):
        expression = f"{name}::text[]"
    else:
        shown = f" {kind!r}" if kind and "unnamed" not in kind else ""
        refused = (
            f"source: the column {field.name!r} of {relation.name} has a type{shown} whose values have no"
            " meaning for a table. Leave it out with `columns`, or cast it in a `query`, for example"
            f" {quoted(field.name)}::text."
        )
    return SqlColumn(
        field.name,
        kind,
        expression,
        is_text=element in _TEXTS and not is_list,
        is_divisible=kind in _DIVISIBLE,
        is_list=is_list,
        refused=refused,
    )


def _number(typmod: int) -> str:
    """The type in which an exact decimal is read, as a file's is: by its digits."""
    precision, scale = (typmod - 4) >> 16 & 0xFFFF, (typmod - 4) & 0x7FF
    if typmod < 0 or scale:
        return "float8"
    return "int8" if precision <= 18 else "text"


def _plain(schema: pa.Schema, selection: Selection) -> pa.Schema:
    """The selected columns with their types alone, without what a driver notes beside them."""
    fields = [schema.field(i) for i in range(len(selection.columns))]
    return pa.schema([pa.field(field.name, _bare(field.type)) for field in fields])


def _bare(kind: pa.DataType) -> pa.DataType:
    return pa.list_(_bare(kind.value_type)) if pa.types.is_list(kind) else kind


def _check_depth(batch: pa.RecordBatch, lists: Sequence[str]) -> None:
    for name in lists:
        deepest = pc.max(batch.column(_DIMENSIONS + name)).as_py()
        if deepest is not None and deepest > 1:
            raise SourceError(
                f"source: the column {name!r} has arrays of {deepest} dimensions, and a list has one. Cast it"
                f" in a `query` (to_json({quoted(name)})::text), or leave it out with `columns`."
            )


def _literal(text: str) -> str:
    doubled = text.replace("'", "''")
    # Whatever the server's setting for backslashes is.
    return f"E'{doubled.replace(chr(92), chr(92) * 2)}'"


def _literal_of(kind: str, number: float) -> str:
    if kind.startswith("int"):
        return str(int(number))
    cast = {"date": "date", "timestamp": "timestamp"}.get(kind, "timestamptz")
    moment = f"to_timestamp({number!r})"
    # A moment without a zone was counted as if in UTC.
    return moment if cast == "timestamptz" else f"({moment} AT TIME ZONE 'UTC')::{cast}"
