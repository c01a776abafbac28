"""What a row is called: the md5 of its declared key, or of its file's path and content and its number there.

Either is stable across engines and versions, as long as the key or the file is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.contracts.data import (
    PLACE,
    ROW_FILE,
    ROW_ID,
    ROW_NUMBER,
    EngineSession,
    Extract,
    SourceFile,
    is_wide,
)
from penstock.contracts.digest import key_text, md5
from penstock.contracts.judge import COLUMN, REASON
from penstock.contracts.privacy import Anonymiser
from penstock.prepare.ledger import Ledger

if TYPE_CHECKING:
    import ibis.expr.types as ir

_LISTED_FILES = 4_096
"""Up to so many files of a wide table are named in the expression itself, which spares a join."""


def column_names(extract: Extract) -> list[str]:
    """A source's columns as they are called here: `row_id` is our own word."""
    return [
        f"source_{ROW_ID}" if name == ROW_ID else name for name in extract.schema.names
    ]


def read_extract(session: EngineSession, extract: Extract) -> ir.Table:
    """A source's rows as a table; a column `row_id` of its own is renamed."""
    table = (
        # A source that had only rejects has no file, but its columns are known.
        session.read(extract.parquet)
        if extract.parquet
        else session.table(extract.schema.empty_table())
    )
    return (
        table.rename({f"source_{ROW_ID}": ROW_ID}) if ROW_ID in table.columns else table
    )


def by_place(
    session: EngineSession, table: ir.Table, files: Sequence[SourceFile]
) -> ir.Table:
    """The table with row ids made of file and row number: md5 of `path|sha256|number`."""
    import ibis

    # The content is in the id: a file that was changed under its name has other rows.
    prefixes = [f"{file.path}|{file.sha256}|" for file in files]
    if len(prefixes) == 1:
        # A literal in the expression costs nothing; a join costs a pass.
        return table.mutate(
            **{ROW_ID: md5(ibis.literal(prefixes[0]) + table[ROW_NUMBER].cast("string"))}
        )
    # A join of wide rows is what must not happen; a list of names is held once.
    if is_wide(table) and len(prefixes) <= _LISTED_FILES:
        listed = ibis.array(prefixes)
        return table.mutate(
            **{ROW_ID: md5(listed[table[ROW_FILE]] + table[ROW_NUMBER].cast("string"))}
        )
    names = session.table(
        pa.table(
            {
                "__p_index": pa.array(range(len(prefixes)), pa.int32()),
                "__p_prefix": prefixes,
            }
        )
    )
    # Each file has one row there, so no row is lost or doubled.
    paired = table.inner_join(names, table[ROW_FILE] == names["__p_index"])
    return paired.mutate(
        **{ROW_ID: md5(paired["__p_prefix"] + paired[ROW_NUMBER].cast("string"))}
    ).drop("__p_index", "__p_prefix")


_MOST_TRIED = 4_000_000
"""Places that are tried for the rows that are looked for: some seconds."""


def places_of(
    ids: Iterable[str], files: Iterable[tuple[str, str]], rows: int
) -> dict[str, str]:
    """Where rows stand whose ids are made of their places, as far as that can be found out.

    Args:
        files: path and SHA-256 of each file of the source.
        rows: that the source has; a row's number is below that.

    Returns:
        By id, `7 of people.csv`, numbers from 1. Rows of very large sources, and of other ids, are not in it.
    """
    places: dict[str, str] = {}
    wanted, tried = set(ids), 0
    for path, digest in files:
        for number in range(rows):
            if not wanted or tried >= _MOST_TRIED:
                return places
            tried += 1
            text = f"{path}|{digest}|{number}"
            # As the engine makes them; it protects nothing.
            id = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
            if id in wanted:
                places[id] = f"{number + 1:,} of {path}"
                wanted.remove(id)
    return places


def by_key(
    session: EngineSession,
    table: ir.Table,
    key: Sequence[str],
    ledger: Ledger,
    *,
    private: Mapping[str, Anonymiser] | None = None,
    select: Callable[[ir.Table], ir.Table] = lambda table: table,
) -> ir.Table:
    """The table with row ids made of the declared key.

    A row without one, or with one that an earlier row of the source has, is quarantined.

    Args:
        private: how private columns are hidden: who knew a row's id could try all values of its key, so of
            a private one the id is made of its pseudonym.
        select: chooses among the rows with their ids, before any is quarantined.
    """
    import ibis

    # Hidden for the id alone: the rows still have the values, for the steps that need them.
    no_id = ibis.literal("")
    parts = {
        name: private[name].protect(table[name], no_id)
        if private and name in private
        else table[name]
        for name in key
    }
    # Null where a part of the key is missing, and then the id is null, too.
    text = key_text(parts, key)
    table = select(table.mutate(**{ROW_ID: md5(text), "__p_key": text}))
    # A row's place in the source, as text that sorts as places do: an int32 has up to
    # 10 digits, an int64 up to 19.
    spot = (
        table[ROW_FILE].cast("string").lpad(10, "0")
        + ":"
        + table[ROW_NUMBER].cast("string").lpad(20, "0")
    )
    # Rows without a key are quarantined for that reason, not for being alike.
    spots = table.select(ROW_ID, __p_spot=spot).filter(lambda t: t[ROW_ID].notnull())
    groups = spots.group_by(ROW_ID).aggregate(
        __p_rows=spots.count(), __p_first=spots["__p_spot"].min()
    )
    # Kept: it is counted here and joined below, and it is empty as a rule.
    repeated = session.keep(
        groups.filter(groups["__p_rows"] > 1).select(__p_of=ROW_ID, __p_first="__p_first")
    )
    lost = session.rows(table.aggregate(n=table[ROW_ID].isnull().cast("int64").sum()))[0][
        "n"
    ]
    # The usual case: no join, and no second pass over the rows.
    if not lost and not session.count(repeated):
        return table.drop("__p_key")
    paired = table.mutate(__p_spot=spot).left_join(
        repeated, table[ROW_ID] == repeated["__p_of"]
    )
    # The first of equal keys stays, by its place, so that it does not depend on the
    # engine.
    later = paired["__p_first"].notnull() & (paired["__p_first"] != paired["__p_spot"])
    reason = ibis.cases(
        (paired["__p_key"].isnull(), "the key is missing"),
        (later, ibis.literal("an earlier row has the same key: ") + paired["__p_key"]),
        else_=ibis.null("string"),
    )
    # The column is named in every row; only those with a reason are put aside.
    marked = paired.mutate(**{COLUMN: ibis.literal(", ".join(key)), REASON: reason})
    if is_wide(table):
        # The key and its marks are worked out on narrow rows and put beside the wide
        # ones.
        marked = session.beside(
            table.drop("__p_key"), session.keep(marked.select(*PLACE, COLUMN, REASON))
        )
    else:
        marked = marked.drop("__p_key", "__p_spot", "__p_of", "__p_first")
    return ledger.sift(session, marked, "key")


_MOST_ROWS = 2**40
"""Of a file; further apart than any two rows of it."""


def row_order(table: ir.Table) -> ir.IntegerValue:
    """Each row's place in its source: rows of one file are one apart, those of different files far."""
    place: ir.IntegerValue = table[ROW_FILE].cast("int64") * _MOST_ROWS + table[
        ROW_NUMBER
    ].cast("int64")
    return place
