"""What the cleaners changed: rows dropped and cells mended, by cleaner and column, exact, with examples.

While a cleaner mends a table, the values before and after travel along as columns beside it. They are
compared in one pass for all cleaners since the last one that needs every row, and then left out; so the rows
that are written are those of the cleaners alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import OWN_PREFIX, PLACE, ROW_ID, Cleaner, EngineSession
from penstock.core.errors import PenstockError
from penstock.prepare.ledger import Ledger, plain

if TYPE_CHECKING:
    import ibis.expr.types as ir

_SHOWN = 80
"""Characters of a text in an example."""


@dataclass
class Entry:
    """What one cleaner did."""

    place: int
    """In the recipe's `clean`, from 0."""
    type: str
    rows_in: int | None = None
    """Of a cleaner that needs all rows: how many it saw."""
    dropped: int = 0
    quarantined: int | None = None
    """Of a cleaner that judges rows: how many it put aside."""
    cells: dict[str, int] = field(default_factory=dict)
    """Changed values by column; a column without any is left out."""
    examples: dict[str, list[list[Any]]] = field(default_factory=dict)
    """By column: [before, after] of the changed rows with the least and the greatest row id."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the cleaner itself says of what it learnt."""

    def to_dict(self, *, examples: bool) -> dict[str, Any]:
        """As JSON.

        Args:
            examples: with values of rows.
        """
        facts: dict[str, Any] = {
            "cleaner": self.type,
            "place": self.place,
            "rows_dropped": self.dropped,
            "cells": self.cells,
        }
        if self.quarantined is not None:
            facts["rows_quarantined"] = self.quarantined
        if examples:
            facts |= {"examples": self.examples, "notes": self.notes}
        return facts


class Changes:
    """Counts what cleaners change, as they mend."""

    def __init__(self, session: EngineSession, *, ledger: Ledger) -> None:
        """
        Args:
            ledger: it knows of which columns no value may be shown yet.
        """
        self._session = session
        self.ledger = ledger
        self._entries: list[Entry] = []
        self._open: list[tuple[Entry, list[str]]] = []
        """Entries whose values travel along, with the columns that are compared."""

    def mended(
        self,
        place: int,
        cleaner: Cleaner,
        table: ir.Table,
        facts: Mapping[str, Any],
        *,
        mend: Callable[[ir.Table], ir.Table] | None = None,
        columns: Sequence[str] | None = None,
    ) -> ir.Table:
        """Apply a cleaner that keeps every row. The table has the values of before and after beside it,
        until `settle`.

        Args:
            mend: what is done, where it is not the cleaner's own `mend`.
            columns: that it may change; those it needs unless given.
        """
        work = mend or (lambda rows: cleaner.mend(rows, facts, self._session))
        entry = Entry(place, cleaner.type, notes=cleaner.notes(facts))
        self._entries.append(entry)
        compared = _comparable(columns or cleaner.needs(), table)
        if not compared:
            return same_columns(cleaner, table, work(table))
        number = len(self._open)
        before = table.mutate(
            *(table[c].name(_was(number, i)) for i, c in enumerate(compared))
        )
        after = same_columns(cleaner, before, work(before))
        self._open.append((entry, compared))
        return after.mutate(
            *(after[c].name(_now(number, i)) for i, c in enumerate(compared))
        )

    def drop(self, place: int, cleaner: Cleaner, *, rows_in: int, left: int) -> None:
        """Write down that a cleaner of all rows has left so many of them."""
        self._entries.append(
            Entry(place, cleaner.type, rows_in=rows_in, dropped=rows_in - left)
        )

    def leave(
        self,
        place: int,
        cleaner: Cleaner,
        facts: Mapping[str, Any],
        *,
        rows: int,
        quarantines: bool,
    ) -> None:
        """Write down that a cleaner that judges rows sent so many away.

        Args:
            quarantines: whether they go to the quarantine.
        """
        entry = Entry(place, cleaner.type, notes=cleaner.notes(facts))
        entry.quarantined, entry.dropped = (rows, 0) if quarantines else (0, rows)
        self._entries.append(entry)

    def settle(self, table: ir.Table) -> ir.Table:
        """Count what was changed since the last time; returns the table without the copies."""
        if not self._open:
            return table
        counts: dict[str, Any] = {}
        for number, (_, columns) in enumerate(self._open):
            for i in range(len(columns)):
                is_changed = _changed(table, number, i)
                key = f"{number}_{i}"
                counts[f"n_{key}"] = is_changed.cast("int64").sum()
                counts[f"a_{key}"] = table[ROW_ID].min(where=is_changed)
                counts[f"z_{key}"] = table[ROW_ID].max(where=is_changed)
        measured = self._session.measure(table, counts)
        rows = self._examples(table, measured)
        for number, (entry, columns) in enumerate(self._open):
            for i, column in enumerate(columns):
                key = f"{number}_{i}"
                # Without rows the sum is null.
                if not (cells := int(measured[f"n_{key}"] or 0)):
                    continue
                entry.cells[column] = cells
                if column in self.ledger.withheld:
                    continue
                ids = dict.fromkeys((measured[f"a_{key}"], measured[f"z_{key}"]))
                entry.examples[column] = [
                    [_short(rows[id][_was(number, i)]), _short(rows[id][_now(number, i)])]
                    for id in ids
                ]
        copies = self._copies()
        self._open = []
        return table.drop(*copies)

    def _examples(
        self, table: ir.Table, measured: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """By row id, the copies of the rows that are shown."""
        ids = sorted(
            {id for name, id in measured.items() if name[0] in "az" and id is not None}
        )
        if not ids:
            return {}
        shown = table.filter(table[ROW_ID].isin(ids)).select(ROW_ID, *self._copies())
        return {row[ROW_ID]: row for row in self._session.rows(shown)}

    def _copies(self) -> list[str]:
        return [
            name(number, i)
            for number, (_, columns) in enumerate(self._open)
            for i in range(len(columns))
            for name in (_was, _now)
        ]

    def to_dict(self, *, examples: bool) -> list[dict[str, Any]]:
        """What each cleaner did, in the order of the recipe.

        Args:
            examples: with values of rows.
        """
        ordered = sorted(self._entries, key=lambda entry: entry.place)
        return [entry.to_dict(examples=examples) for entry in ordered]

    def sentences(self) -> list[str]:
        """One for each cleaner that changed something."""
        lines = []
        for entry in self._entries:
            what = [f"{count:,} in {name!r}" for name, count in entry.cells.items()]
            if entry.dropped:
                lines.append(
                    f"clean[{entry.place}] {entry.type}: rows dropped: {entry.dropped:,}"
                )
            if entry.quarantined:
                lines.append(
                    f"clean[{entry.place}] {entry.type}: rows quarantined:"
                    f" {entry.quarantined:,}"
                )
            if what:
                lines.append(
                    f"clean[{entry.place}] {entry.type}: values changed: {', '.join(what)}"
                )
        return lines


def same_columns(cleaner: Cleaner, before: ir.Table, after: ir.Table) -> ir.Table:
    """Check that a cleaner kept the set of columns, and return them in the order before it."""
    if set(after.columns) != set(before.columns):
        raise PenstockError(
            f"the cleaner {cleaner.type!r} changed the columns:"
            f" {sorted(set(after.columns) ^ set(before.columns))}. It may only change"
            " values."
        )
    # In the order before, too: a dataset's columns do not move with a cleaner.
    return after.select(*before.columns)


def _was(number: int, column: int) -> str:
    # By numbers: a column's name may hold anything.
    return f"{OWN_PREFIX}was_{number}_{column}"


def _now(number: int, column: int) -> str:
    return f"{OWN_PREFIX}now_{number}_{column}"


def _changed(table: ir.Table, number: int, column: int) -> Any:
    # A null equals a null here, and NaN equals NaN.
    return ~table[_was(number, column)].identical_to(table[_now(number, column)])


def _comparable(columns: Sequence[str], table: ir.Table) -> list[str]:
    """The columns that a cleaner may change (all without any) and whose values every engine compares."""
    own = {ROW_ID, *PLACE}
    return [
        name
        for name in columns or table.columns
        if name in table.columns
        and name not in own
        and not name.startswith(OWN_PREFIX)
        and not table[name].type().is_nested()
    ]


def _short(value: Any) -> Any:
    shown = plain(value)
    if isinstance(shown, str) and len(shown) > _SHOWN:
        return f"{shown[:_SHOWN]} …"
    return shown
