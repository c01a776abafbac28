"""Rows that were forgotten, so that no later preparation brings them back.

    index/forgotten-rows/<dataset>/<digest>.txt      a line a row: `row` or `text`, and 32 hexadecimal digits

The source may still have the rows, and versions are made of more files than the one that was forgotten from.
A row is known again by its id (`row`), and one in quarantine by its text as well (`text`). Both are kept as
md5 alone. Who can guess a row can find out that it was forgotten, as with every list of this kind: without
the list, nobody could keep the row out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.digest import md5
from penstock.core.errors import StoreError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.core.wording import counted

if TYPE_CHECKING:
    import ibis.expr.types as ir

_FOLDER = "index/forgotten-rows"
_LINE = re.compile(r"(row|text) ([0-9a-f]{32})")
_PREFIX = "forgotten|"
"""Before a row's id: the list has no id that stands in a file of rows, or in an answer."""
_LITERALS = 1_000
"""Up to so many ids are named in the expression itself, which spares a join."""


@dataclass(frozen=True)
class ForgottenRows:
    """What is known of the forgotten rows of a dataset, over all its versions."""

    rows: frozenset[str]
    """md5 of their ids."""
    texts: frozenset[str]
    """md5 of the texts of those that were in quarantine."""
    digest: str
    """Of both: 64 hexadecimal digits. It enters the id of every version that is made without these rows."""

    def without(self, session: EngineSession, table: ir.Table) -> tuple[ir.Table, int]:
        """The table without these rows, and how many it had of them. Rows without an id stay."""
        import ibis

        hashed = table.select(ROW_ID, __p_hash=md5(ibis.literal(_PREFIX) + table[ROW_ID]))
        listed = session.table(pa.table({"__p_gone": sorted(self.rows)}))
        met = hashed.inner_join(listed, hashed["__p_hash"] == listed["__p_gone"])
        ids = [str(row[ROW_ID]) for row in session.rows(met.select(ROW_ID))]
        if not ids:
            return table, 0
        if len(ids) <= _LITERALS:
            # A missing id is in no list, where SQL would say that nobody knows.
            return table.filter(~table[ROW_ID].isin(ids).fill_null(False)), len(ids)
        gone = session.table(pa.table({"__p_gone": sorted(set(ids))}))
        return table.anti_join(gone, table[ROW_ID] == gone["__p_gone"]), len(ids)

    def has_text(self, text: str | None) -> bool:
        """Whether a row of a quarantine, by its text there, is one of them."""
        return text is not None and _hash(text) in self.texts


def left_out(
    table: ir.Table,
    forgotten: ForgottenRows | None,
    session: EngineSession,
    counts: dict[str, int],
    events: Events,
) -> ir.Table:
    """The rows of a preparation that were not forgotten; the others are counted as filtered."""
    if forgotten is None:
        return table
    table, rows = forgotten.without(session, table)
    counts["filtered"] += rows
    if rows:
        verb = "was" if rows == 1 else "were"
        events.say(
            f"{counted(rows, 'row')} of the source {verb} forgotten in this store, and left out"
        )
    return table


def _hash(text: str) -> str:
    # It protects nothing; it has the same length and form as a row id.
    return hashlib.md5(
        f"{_PREFIX}{text}".encode("utf-8", "surrogatepass"), usedforsecurity=False
    ).hexdigest()


def remember_rows(
    store: Store, name: str, *, row_ids: Iterable[str], texts: Iterable[str]
) -> None:
    """Note that rows of the dataset `name` were forgotten. Done twice, it is as done once.

    Args:
        row_ids: of the rows.
        texts: of those in quarantine, as they stand there.

    Raises:
        StoreError: the store cannot be written.
    """
    lines = {f"row {_hash(id)}" for id in row_ids} | {f"text {_hash(t)}" for t in texts}
    if not lines:
        return
    text = "\n".join(sorted(lines)) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    store.write_text(f"{_FOLDER}/{name}/{digest}.txt", text=text)


def forgotten_rows(store: Store, name: str) -> ForgottenRows | None:
    """The rows of the dataset `name` that were forgotten; None where none were.

    Raises:
        StoreError: a list cannot be read, or is none.
    """
    entries: set[tuple[str, str]] = set()
    for file in sorted(store.texts(f"{_FOLDER}/{name}")):
        if not file.endswith(".txt"):
            continue
        for line in (store.read_text(f"{_FOLDER}/{name}/{file}") or "").splitlines():
            entry = _LINE.fullmatch(line)
            if entry is None:
                raise StoreError(
                    f"{store.url}/{_FOLDER}/{name}/{file} lists rows that were forgotten, and was changed"
                    " since. Without it they could come back, so nothing was prepared. Restore the file, or"
                    " take the rows out of the source and remove it."
                )
            entries.add((entry[1], entry[2]))
    if not entries:
        return None
    whole = "\n".join(f"{kind} {digest}" for kind, digest in sorted(entries))
    rows, texts = (
        frozenset(digest for kind, digest in entries if kind == word)
        for word in ("row", "text")
    )
    return ForgottenRows(rows, texts, hashlib.sha256(whole.encode()).hexdigest())


__all__ = ["ForgottenRows", "forgotten_rows", "left_out", "remember_rows"]
