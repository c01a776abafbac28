"""Rows that do not fit a condition are left out of the data, and counted as filtered.

Unlike `where` it sees what was derived and what the cleaners above it mended. A request is never filtered:
whoever asks gets an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from penstock.contracts.data import Cleaner, EngineSession

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Filter(Cleaner):
    """Keeps the rows for which an SQL condition is true."""

    form: ClassVar[str] = "global"
    at_serving: ClassVar[str] = "skip"
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"keep": "number > 0"},
        {"keep": "text IS NOT NULL AND NOT flag"},
    )

    keep: str
    """The condition, in SQL; a row for which it is false or unknown is left out."""

    def expressions(self) -> dict[str, str]:
        return {"keep": self.keep}

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        # A null is no yes: the row goes, as in `where`.
        return table.filter(session.sql(table, self.keep).cast("boolean"))
