"""`sql`: the rows of a table, a view or a query of a database.

    source: {type: sql, url: "postgresql://reader@db.example/shop", table: orders}
    source: {type: sql, url: "postgresql://reader:${SHOP_PASSWORD}@db.example/shop", query: "SELECT …",
             order_by: [id]}
    source: {type: sql, url: …, table: orders, partition: {column: id, parts: 4}}
    source: {type: sql, url: "sqlite:///shop.db", query: "SELECT …", order_by: id}

A snapshot is the rows themselves: they are read once, in one state of the database, in a definite order, into
a file of this machine's cache (`formats.pulled`), and its identity is the SHA-256 of their content. So the
same rows are the same dataset, whatever server they come from, in however many parts; one changed value is
another dataset. It costs one reading of the rows for every look at what they are now; a table of PostgreSQL
that no transaction can have changed since the last look is not read again. What the server says of its own
position is noted beside, and identifies nothing.

A row's place is its number in the order: `order_by`, or else a table's primary key. An order that does not
tell all rows apart is refused, since places would be chance.

Credentials come from the environment: `${NAME}` in the URL, or a URL without a password and PGPASSWORD (of
MySQL MYSQL_PWD).
"""

from __future__ import annotations

import os
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

import pyarrow as pa
from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from penstock.contracts.data import Extract, Snapshot, Source, SourceFile
from penstock.contracts.learnt import Learnt
from penstock.contracts.part import Strict, mistakes
from penstock.contracts.sample import SAMPLE_FILE_BYTES, Sample
from penstock.core.credentials import restored
from penstock.core.errors import NoRows, Problem, SourceError
from penstock.core.events import Events
from penstock.core.identity import fingerprint
from penstock.core.near import did_you_mean
from penstock.core.redact import redacted_url, register
from penstock.formats.database import (
    Database,
    Relation,
    Selection,
    chosen,
    host_of,
    scheme_of,
)
from penstock.formats.files import stamp_of
from penstock.formats.mysql import MySql
from penstock.formats.options import one_or_many
from penstock.formats.postgres import Postgres
from penstock.formats.pulled import Pulled, pull, pulled_path, remember, remembered
from penstock.formats.sql_query import checked_query
from penstock.formats.sqlite_database import SqliteDatabase
from penstock.parts.sources.files import Files

_KINDS: dict[str, type[Database]] = {
    "postgresql": Postgres,
    "mysql": MySql,
    "sqlite": SqliteDatabase,
}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LOOK_BYTES = 64 << 20
"""Of rows, as columns in memory, that a look reads."""
_LOOK = "a look"
"""The stamp of a snapshot that is some of the rows."""
Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]


class Partition(Strict):
    """Ranges of a column, read at the same time."""

    column: str
    """Whole numbers, dates or moments; an index on it helps. The rows' order begins with it."""
    parts: int = Field(ge=2, le=64)
    """Connections."""


class Sql(Source):
    """Rows of a table, a view or a query of a database, at one state of it."""

    whereabouts: ClassVar[frozenset[str]] = frozenset(
        {"url", "table", "query", "columns", "order_by", "partition", "timeout"}
    )

    url: str
    """`postgresql://user@host:port/database` (needs `penstock[postgres]`), `mysql://…` likewise
    (`penstock[mysql]`; MariaDB, too), `sqlite:///file.db`.

    A password is no part of it: `${NAME}` stands for a variable of the environment; without one PGPASSWORD
    is taken, for MySQL MYSQL_PWD.
    """
    table: str | None = None
    """A table or view, `schema.table` where it is in another schema than the user's own."""
    query: str | None = None
    """One SELECT instead of a table; functions of one's own belong into a view."""
    columns: Names = ()
    """The only ones to read; all unless given."""
    order_by: Names = ()
    """Columns that tell all rows apart: a row's place, and so its id, is its number in this order.

    A table's primary key unless given.
    """
    partition: Partition | None = None
    """Read in ranges at the same time, all of one exported state: `{column: id, parts: 4}` (PostgreSQL)."""
    timeout: int = Field(3600, ge=1, le=7 * 24 * 3600)
    """Seconds that one statement may take."""

    _files: Files | None = PrivateAttr(None)
    """How the pulled rows are read, where something was learnt."""

    @model_validator(mode="after")
    def _sensible(self) -> Sql:
        problems: list[Problem] = []
        scheme = scheme_of(self.url)
        if scheme not in _KINDS:
            problems.append(
                Problem(
                    ("url",),
                    f"must begin with {', '.join(f'{kind}://' for kind in _KINDS)}; found"
                    f" {redacted_url(self.url)[:80]!r}.{did_you_mean(scheme, list(_KINDS))}",
                )
            )
        if (self.table is None) == (self.query is None):
            problems.append(
                Problem(
                    ("table",),
                    "or `query` is needed, and one of them alone: what is read",
                )
            )
        if self.query is not None and scheme in _KINDS:
            try:
                checked_query(self.query, dialect=_KINDS[scheme].dialect)
            except ValueError as error:
                problems.append(Problem(("query",), str(error)))
        if self.query is not None and not self.order_by and self.partition is None:
            problems.append(
                Problem(
                    ("order_by",),
                    "is required for a query: name the columns that tell its rows apart, since a row's place"
                    " in them is its id",
                )
            )
        if self.partition is not None and scheme == "sqlite":
            problems.append(Problem(("partition",), "is for servers; a file is one part"))
        if self.partition is not None and scheme == "mysql":
            text = (
                "is for PostgreSQL: MySQL has no state that several connections can read"
            )
            problems.append(Problem(("partition",), text))
        if problems:
            raise mistakes(*problems)
        return self

    def needs_trust(self) -> str | None:
        return f"reads {host_of(self.url)} with this user's credentials"

    def _open(self, base: Path) -> Database:
        kind = _KINDS[scheme_of(self.url)]
        return kind(self._address(), base=base, timeout_seconds=self.timeout)

    def _address(self) -> str:
        """The URL with what the environment has for it."""

        def value(match: re.Match[str]) -> str:
            setting = os.environ.get(match[1])
            if setting is None:
                raise SourceError(
                    f"source.url: the variable {match[1]} is not set. Set it to what stands for it in"
                    f" {redacted_url(self.url)}."
                )
            register(setting)
            return setting

        return restored(_VARIABLE.sub(value, self.url))

    def _relation(self) -> Relation:
        if self.query is None:
            return Relation(self.table, None)
        dialect = _KINDS[scheme_of(self.url)].dialect
        return Relation(None, checked_query(self.query, dialect=dialect))

    def _selection(self, database: Database) -> Selection:
        relation = self._relation()
        there = database.columns(relation)
        by_name = {column.name: column for column in there}
        names = list(self.order_by)
        if not names and self.table is not None:
            names = list(database.primary_key(self.table))
        if self.partition is not None:
            # Ranges one behind another are in order only if the order begins with them.
            first = self.partition.column
            names = [first, *(name for name in names if name != first)]
        if not names:
            raise SourceError(
                f"source.order_by: {relation.name} has no primary key, so its rows have no places and would"
                " have no ids. Name the columns that tell its rows apart: order_by: […]."
            )
        for name in names:
            if name not in by_name:
                raise SourceError(
                    f"source: there is no column {name!r} to order by."
                    f"{did_you_mean(name, list(by_name))}"
                )
        if self.partition is not None and not by_name[names[0]].is_divisible:
            raise SourceError(
                f"source.partition: the column {names[0]!r} is no whole number, date or moment, so its range"
                " cannot be divided. Name one that is."
            )
        columns = chosen(there, self.columns)
        # What orders is read, too, so that it can be seen to tell rows apart.
        beside = [name for name in names if by_name[name] not in columns]
        columns += chosen(there, beside) if beside else []
        parts = self.partition.parts if self.partition else 1
        order = tuple(by_name[name] for name in names)
        return Selection(relation, tuple(columns), order, parts)

    def snapshot(self, base: Path, memo: Path | None = None) -> Snapshot:
        with self._open(base) as database:
            relation = self._relation()
            state = database.state(relation) if self.table is not None else ""
            name = fingerprint("pulled", redacted_url(self.url), self._words())
            pulled = remembered(name, state) if state else None
            if pulled is None:
                selection = self._selection(database)
                pulled = _pulled(database, selection, self.columns, None)
                if state:
                    remember(name, state, pulled)
            return self._snapshot_of(pulled, database.position())

    def _words(self) -> dict[str, object]:
        whole = self.to_dict()
        return {
            word: whole[word] for word in ("table", "columns", "order_by", "partition")
        }

    def preview(self, base: Path) -> Snapshot:
        with self._open(base) as database:
            selection = replace(self._selection(database), parts=1, some=True)
            pulled = _pulled(database, selection, self.columns, _LOOK_BYTES)
            return self._snapshot_of(pulled, "")

    def _snapshot_of(self, pulled: Pulled, position: str) -> Snapshot:
        relation = self._relation()
        size = pulled.path.stat().st_size
        place = redacted_url(_VARIABLE.sub("***", self.url))
        file = SourceFile(
            relation.name,
            f"{place}#{relation.name}",
            size,
            pulled.digest,
            stamp="" if pulled.is_whole else _LOOK,
            position=position,
        )
        return Snapshot((file,))

    def like(self, learnt: Learnt) -> Self:
        copy = self.model_copy()
        copy._files = self._plain().like(learnt)
        return copy

    def typed(self, columns: pa.Schema) -> Self:
        copy = self.model_copy()
        copy._files = self._plain().typed(columns)
        return copy

    def _plain(self) -> Files:
        return self._files or Files.model_validate({"path": "pulled.parquet"})

    def _inner(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of the pulled file, as a source of files has it."""
        outer = snapshot.files[0]
        path = pulled_path(outer.sha256)
        try:
            info = path.stat()
        except FileNotFoundError:
            raise SourceError(
                f"the rows of {outer.path} that were read from the database are gone from {path.parent}."
                " Run again."
            ) from None
        return Snapshot(
            (SourceFile(outer.path, str(path), info.st_size, "", stamp=stamp_of(info)),)
        )

    def extract(
        self, snapshot: Snapshot, scratch: Path, *, memory_bytes: int, events: Events
    ) -> Extract:
        try:
            return self._plain().extract(
                self._inner(snapshot), scratch, memory_bytes=memory_bytes, events=events
            )
        except NoRows as error:
            none = NoRows(f"{snapshot.files[0].path} has no rows.")
            none.schema = error.schema
            raise none from None

    def sample(
        self, snapshot: Snapshot, rows: int, *, file_bytes: int = SAMPLE_FILE_BYTES
    ) -> Sample:
        sample = self._plain().sample(self._inner(snapshot), rows, file_bytes=file_bytes)
        sample = replace(sample, files=snapshot.files)
        if snapshot.files[0].stamp != _LOOK:
            return sample
        return replace(sample, rows=None, complete=False, duplicates=None)


def _pulled(
    database: Database,
    selection: Selection,
    columns: tuple[str, ...],
    most_bytes: int | None,
) -> Pulled:
    schema = database.schema(selection)
    # Closed: a look ends before the rows do, and the server would wait for it.
    with closing(database.batches(selection)) as batches:
        return pull(
            schema,
            batches,
            columns=columns or schema.names,
            order=[column.name for column in selection.order],
            most_bytes=most_bytes,
        )
