"""Exact duplicates: of rows whose values are all equal, the one with the smallest row id stays.

Two rows are equal when the texts of their values are (a missing value equals a missing value); no approximate
match is tried. Only digests are grouped, not rows, so memory does not grow with the width of the table; and
the rows are joined with nothing but the ids of those to drop. In a split by files it is shown the training
files only: a given test or validation file is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from penstock.contracts.data import PLACE, ROW_ID, Cleaner, EngineSession, is_wide
from penstock.contracts.digest import row_digests
from penstock.parts.cleaners._words import Names

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Deduplicate(Cleaner):
    """Removes rows that are equal to an earlier one (by row id)."""

    form: ClassVar[str] = "global"
    drops: ClassVar[str] = "duplicates"
    at_serving: ClassVar[str] = "skip"
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"columns": ["text"]},
        {"columns": ["number", "flag"]},
    )

    columns: Names | None = None
    """Rows are duplicates if these are equal; all columns unless given."""

    def needs(self) -> tuple[str, ...]:
        return self.columns or ()

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        # Ids and places are left out: they differ in every row.
        columns = self.columns or [
            name for name in table.columns if name not in (ROW_ID, *PLACE)
        ]
        # Wide rows are found again by their places, which `beside` goes by.
        keys = [ROW_ID, *PLACE] if is_wide(table) else [ROW_ID]
        digests = row_digests(session, table, columns, keys)
        # The row with the smallest id stays, so that it is the same on every engine.
        groups = digests.group_by("__p_digest").aggregate(
            __p_rows=digests.count(), __p_first=digests[ROW_ID].min()
        )
        repeated = session.keep(
            groups.filter(groups["__p_rows"] > 1).select("__p_digest", "__p_first")
        )
        # The usual case: the caller sees the very table, and no query grows.
        if not session.count(repeated):
            return table
        paired = digests.inner_join(repeated, "__p_digest")
        # Kept: wide and narrow tables read it in different ways, and the digests are
        # not needed after it.
        later = session.keep(
            paired.filter(paired[ROW_ID] != paired["__p_first"]).select(*keys)
        )
        if not is_wide(table):
            # An anti join keeps the rows whose id is not among those to go.
            return table.anti_join(later, ROW_ID)
        marked = session.beside(table, later.rename(__p_later=ROW_ID))
        # A null says that this place is not among those to go.
        return marked.filter(marked["__p_later"].isnull()).drop("__p_later")
