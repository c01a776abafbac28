"""What every kind of database gives the source `sql`: one state of it, read as Arrow in a definite order.

    opened → columns of a table or query → a selection with an order → batches

`Relation` is what is read, `Selection` how; a kind of database (`postgres.py`, `sqlite_database.py`,
`mysql.py`) says the rest in its own SQL.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from penstock.core.errors import SourceError
from penstock.core.near import did_you_mean
from penstock.core.redact import redacted_url

_MOST_SHOWN = 20


@dataclass(frozen=True)
class Relation:
    """What is read: exactly one of a table and a query."""

    table: str | None
    query: str | None
    """As it is sent: checked."""

    @property
    def name(self) -> str:
        """What lineage and sentences call it."""
        return self.table or "query"


@dataclass(frozen=True)
class SqlColumn:
    """A column of a relation."""

    name: str
    kind: str
    """Its type, as the database calls it."""
    expression: str
    """What is selected so that it comes in a type that files have, too."""
    is_text: bool = False
    """Whether an order by it depends on how the database compares texts."""
    is_divisible: bool = False
    """Whether its range can be divided: whole numbers, dates and moments."""
    is_list: bool = False
    refused: str = ""
    """Why it cannot be read, where its type has no meaning for a table."""


@dataclass(frozen=True)
class Selection:
    """Columns of a relation in an order, perhaps divided by ranges of the first of the order."""

    relation: Relation
    columns: tuple[SqlColumn, ...]
    order: tuple[SqlColumn, ...]
    parts: int = 1
    some: bool = False
    """For a look: rows from all over a large table, where the database can give these at once."""


class Database(ABC):
    """A connection in one read-only transaction: all that is asked of it is of one state.

    Args:
        url: with its credentials, where it has them.
        base: the folder that relative paths start from.
        timeout_seconds: the longest that one statement may take.

    Raises:
        SourceError: the database cannot be reached, or refuses.
        MissingPackage: its driver is not installed.
    """

    dialect: ClassVar[str]
    """sqlglot's name."""

    @abstractmethod
    def __init__(self, url: str, *, base: Path, timeout_seconds: int) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End it; nothing was changed."""

    @abstractmethod
    def columns(self, relation: Relation) -> list[SqlColumn]:
        """The columns of a table or query.

        Raises:
            SourceError: there is no such table, or it may not be read.
        """

    @abstractmethod
    def primary_key(self, table: str) -> tuple[str, ...]:
        """Its columns, in order; none where the table has no primary key."""

    @abstractmethod
    def schema(self, selection: Selection) -> pa.Schema:
        """Of the batches."""

    @abstractmethod
    def batches(self, selection: Selection) -> Generator[pa.RecordBatch, None, None]:
        """The rows, streamed.

        Raises:
            SourceError: the database refuses, or ends the statement for its time.
        """

    def position(self) -> str:
        """Where the server says it stands, for lineage alone; empty where it says nothing."""
        return ""

    def state(self, relation: Relation) -> str:
        """A text that is the same only while every row of the relation is the same; empty where the server
        has none.
        """
        return ""


def scheme_of(url: str) -> str:
    """`postgresql`, `sqlite`, `mysql`: the kind of database of a URL, or what stands in its place."""
    scheme = url.split("://", 1)[0].lower() if "://" in url else ""
    return {"postgres": "postgresql", "mariadb": "mysql"}.get(scheme, scheme)


def host_of(url: str) -> str:
    """Host and port of a URL, for sentences."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return redacted_url(url)
    return f"{parts.hostname or 'localhost'}{port}"


def path_of(url: str) -> str:
    """What stands behind the host: a database's name, or a file's path."""
    return unquote(urlsplit(url).path)


def chosen(columns: Sequence[SqlColumn], names: Sequence[str]) -> list[SqlColumn]:
    """The columns of these names, in the order of the names; all where none are given.

    Raises:
        SourceError: one is not there, or cannot be read; says it of all of them.
    """
    by_name = {column.name: column for column in columns}
    for name in names:
        if name not in by_name:
            raise SourceError(
                f"source: there is no column {name!r}.{did_you_mean(name, list(by_name))} There are:"
                f" {', '.join(list(by_name)[:20])}."
            )
    some = [by_name[name] for name in names] if names else list(columns)
    if refused := [column.refused for column in some if column.refused]:
        raise SourceError("\n".join(refused[:_MOST_SHOWN]))
    return some


def quoted(name: str) -> str:
    """A name in double quotes, as standard SQL has it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def table_name(table: str, quote: Callable[[str], str] = quoted) -> str:
    """`schema.table` with each step in quotes: capitals and reserved words are names like others."""
    return ".".join(quote(step) for step in table.split("."))


def from_clause(relation: Relation, quote: Callable[[str], str] = quoted) -> str:
    """What stands behind FROM: a table or a query, called `q`."""
    if relation.table is not None:
        return f"{table_name(relation.table, quote)} AS q"
    return f"({relation.query}) AS q"
