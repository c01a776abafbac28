"""The steps of a preparation that are about whose data it is, with their counts.

`prepare.protect` says what each step does to a table; here they are performed and written down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import EngineSession
from penstock.core.events import Events
from penstock.core.wording import counted
from penstock.prepare.ledger import Ledger
from penstock.prepare.protect import (
    anonymous,
    has_consent,
    is_retained,
    private_names,
    protect,
    raw_schema,
)
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    import ibis.expr.types as ir


@dataclass
class Privacy:
    """Consent and retention, hidden columns, anonymity: in the order of its methods."""

    recipe: Recipe
    session: EngineSession
    ledger: Ledger
    events: Events
    step: Callable[[str], None]
    """Tells that a step begins."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the manifest says of it: `private`, `anonymity`."""

    def __post_init__(self) -> None:
        # Rows that could not be read come first of all, and their text may hold anything.
        self.ledger.is_private = bool(self.recipe.private)

    def withhold(self) -> None:
        """From here on no row is put aside with the values of private columns."""
        self.ledger.withheld = frozenset(self.recipe.private)

    def withhold_derived(self, table: ir.Table) -> ir.Table:
        """Likewise of columns that are derived of private ones."""
        if self.recipe.private:
            self.ledger.withheld = private_names(
                self.recipe.private, self.recipe.derive, table.columns
            )
        return table

    def govern(self, table: ir.Table) -> ir.Table:
        """Rows with consent, and young enough; the others are counted as filtered."""
        governance = self.recipe.governance
        if governance.consent is not None:
            self.step("consent")
            table = self._only(table, has_consent(table, governance.consent))
        if governance.retention is not None:
            self.step("retention")
            table = self._only(table, is_retained(table, governance.retention))
        return table

    def _only(self, table: ir.Table, stays: ir.BooleanValue) -> ir.Table:
        leaves = table.aggregate(n=(~stays).cast("int64").sum())
        # Without rows the sum is null.
        self.ledger.counts["filtered"] += int(self.session.rows(leaves)[0]["n"] or 0)
        return table.filter(stays)

    def protect(self, table: ir.Table) -> ir.Table:
        """Hide the private columns; from here on nothing sees their values."""
        private = self.recipe.private
        if not private:
            return table
        self.step("private")
        self.facts["private"] = {
            "columns": {name: how.type for name, how in private.items()},
            "raw_schema": raw_schema(table, private),
        }
        # Derived of private columns, and not declared so themselves.
        shown = sorted(self.ledger.withheld - private.keys())
        if shown:
            are = "is" if len(shown) == 1 else "are"
            self.events.warn(
                f"derive: {', '.join(shown)} {are} computed from private columns and kept as computed."
                " Declare them in `private` as well if they tell of a person"
            )
        self.ledger.withheld = frozenset()
        return protect(table, private)

    def anonymous(self, table: ir.Table) -> ir.Table:
        """Only rows whose group is large and diverse enough; the others are counted as filtered."""
        anonymity = self.recipe.governance.anonymity
        if anonymity is None:
            return table
        self.step("anonymity")
        # Groups are counted over all rows, and rows then filtered by them: two passes.
        left, facts = anonymous(table, anonymity, self.session)
        self.facts["anonymity"] = facts
        suppressed, before = facts["suppressed"], facts["before"]
        self.ledger.counts["filtered"] += suppressed
        if suppressed:
            self.events.say(
                f"anonymity: {counted(suppressed, 'row')} of {before['rows']:,} suppressed. At least"
                f" {facts['after']['smallest_group']:,} rows now share their"
                f" {', '.join(anonymity.columns)}"
            )
        return left
