"""What is done with the rows that a judging cleaner finds: put aside, left out, or weighed; and counted.
And how the other cleaners of all rows are applied.

A judge gives ids and reasons, which are few. They are kept on disk once; the rows are then joined with
nothing but them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import (
    PLACE,
    ROW_FILE,
    ROW_ID,
    Cleaner,
    EngineSession,
    SourceFile,
    is_wide,
)
from penstock.contracts.judge import COLUMN, FACTOR, GIVEN, REASON, SPLIT, Judge
from penstock.core.errors import ContractError, PenstockError
from penstock.prepare.changes import Changes, same_columns
from penstock.prepare.checks import Check
from penstock.prepare.ledger import RULES, Ledger
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    import ibis.expr.types as ir

_NOT_OURS = ("validation", "test")
"""Splits that may be given."""
_HALF = 0.5
"""Of `on_violation: weight`, where no factor is given."""


@dataclass
class Judging:
    """Lets judges find rows, and does with them what the recipe says."""

    recipe: Recipe
    session: EngineSession
    changes: Changes
    files: Sequence[SourceFile]
    """By `ROW_FILE`."""

    @property
    def ledger(self) -> Ledger:
        """Where what leaves is written down."""
        return self.changes.ledger

    def judged(
        self, place: int, judge: Judge, table: ir.Table, facts: Mapping[str, Any]
    ) -> ir.Table:
        """The rows that are left, weighed where that is what the recipe says.

        Args:
            place: of the judge in the recipe's `clean`.
            table: with `SPLIT` after the split; the counts of splits are then kept right.

        Raises:
            ContractError: the column of weights holds no fractions.
        """
        # What cleaners before it changed is counted over the rows that they changed.
        table = self.changes.settle(table)
        judged = table.mutate(**{GIVEN: self._given(table)})
        if judge.judges == "train" and SPLIT in table.columns:
            judged = judged.filter(judged[SPLIT] == "train")
        violations = self.session.keep(judge.violations(judged, facts, self.session))
        rows = self._count(judge, violations)
        if judge.on_violation == "weight":
            return self._weigh(place, judge, table, violations, facts)
        quarantines = judge.on_violation == "quarantine"
        self.changes.leave(place, judge, facts, rows=rows, quarantines=quarantines)
        if not rows:
            return table
        bad, rest = self._parted(table, violations)
        if SPLIT in table.columns:
            counts = bad.group_by(SPLIT).aggregate(n=bad.count())
            for row in self.session.rows(counts):
                self.ledger.counts[row[SPLIT]] -= int(row["n"])
            bad = bad.drop(SPLIT)
        if not quarantines:
            self.ledger.counts[judge.drops] += rows
            return rest
        before = self.ledger.counts["quarantined"]
        self._quarantine(judge, bad)
        if (left := self.ledger.counts["quarantined"] - before) != rows:
            raise PenstockError(
                f"the cleaner {judge.type!r} found {rows:,} rows, of which the table has {left:,}. Its"
                " `violations` may only name rows that it was given."
            )
        return rest

    def mended(self, cleaner: Cleaner, table: ir.Table) -> ir.Table:
        """Apply a cleaner of all rows that is no judge. Where it removes duplicates and files give the
        splits, it sees training rows alone.
        """
        if cleaner.drops != "duplicates" or self.recipe.split.by != "files":
            mended = cleaner.mend(table, {}, self.session)
            return same_columns(cleaner, table, mended)
        # A row of the given test that equals one of train must stay: the test is not
        # ours to change.
        given = self._given(table)
        ours = table.filter(~given)
        mended = cleaner.mend(ours, {}, self.session)
        if mended is ours:
            # The cleaner found nothing to do, so the rows need no union.
            return table
        return same_columns(cleaner, table, mended).union(table.filter(given))

    def _count(self, judge: Judge, violations: ir.Table) -> int:
        measured = self.session.measure(
            violations,
            {
                "rows": violations.count(),
                "ids": violations[ROW_ID].nunique(),
                "reasons": violations[REASON].count(),
            },
        )
        rows, ids, reasons = (int(measured[n]) for n in ("rows", "ids", "reasons"))
        if rows != ids or rows != reasons:
            raise PenstockError(
                f"the cleaner {judge.type!r} found {rows:,} rows, with {ids:,} ids and {reasons:,} reasons."
                " Its `violations` must have each row once, with a reason."
            )
        return rows

    def _given(self, table: ir.Table) -> ir.BooleanValue:
        """True in rows of a given validation or test split; never null."""
        import ibis

        split, no = self.recipe.split, ibis.literal(False)
        if split.by == "files":
            given = [i for i, f in enumerate(self.files) if f.split in _NOT_OURS]
            return table[ROW_FILE].isin(given) if given else no
        if split.by == "column":
            text = table[str((split.on or ("",))[0])].cast("string")
            return text.isin(_NOT_OURS).fill_null(no)
        return no

    def _parted(self, table: ir.Table, violations: ir.Table) -> tuple[ir.Table, ir.Table]:
        """The rows that are found, with `COLUMN` and `REASON`, and the others without."""
        narrow = violations.select(ROW_ID, COLUMN, REASON)
        if not is_wide(table):
            return table.inner_join(narrow, ROW_ID), table.anti_join(narrow, ROW_ID)
        marked = self._beside(table, narrow)
        bad = marked.filter(marked[REASON].notnull())
        return bad, marked.filter(marked[REASON].isnull()).drop(COLUMN, REASON)

    def _beside(self, table: ir.Table, narrow: ir.Table) -> ir.Table:
        """`table` with what `narrow` says of its rows; wide rows are found again by their places."""
        if is_wide(table):
            placed = table.select(ROW_ID, *PLACE).inner_join(narrow, ROW_ID)
            return self.session.beside(table, self.session.keep(placed.drop(ROW_ID)))
        other = narrow.rename(__p_of_id=ROW_ID)
        return table.left_join(other, table[ROW_ID] == other["__p_of_id"]).drop(
            "__p_of_id"
        )

    def _quarantine(self, judge: Judge, bad: ir.Table) -> None:
        import ibis

        # The rule that the quarantine names is the cleaner, whatever the column.
        never, nothing = ibis.literal(False), ibis.null("string")
        columns = [
            str(row[COLUMN] or "")
            for row in self.session.rows(bad.select(COLUMN).distinct().order_by(COLUMN))
        ]
        marking = [Check(c, never, nothing, "quarantine", judge.type) for c in columns]
        numbers = ibis.cases(
            *[(bad[COLUMN].fill_null("") == c, str(i)) for i, c in enumerate(columns)]
        )
        self.ledger.sift(self.session, bad.mutate(**{RULES: numbers}), "clean", marking)

    def _weigh(
        self,
        place: int,
        judge: Judge,
        table: ir.Table,
        violations: ir.Table,
        facts: Mapping[str, Any],
    ) -> ir.Table:
        """The table with the weights of the rows that are found multiplied."""
        import ibis

        name = str(self.recipe.weight)
        if not table[name].type().is_floating():
            raise ContractError(
                f"{judge.type}: the recipe's weight {name!r} holds {table[name].type()}; expected fractions."
                f" Derive one, such as  derive: {{w: CAST({name} AS DOUBLE)}}  and say  weight: w"
            )
        usual = _HALF if judge.factor is None else judge.factor
        factor = (
            violations[FACTOR].cast("float64")
            if FACTOR in violations.columns
            else ibis.literal(usual)
        )
        narrow = violations.select(violations[ROW_ID], factor.name(FACTOR))

        def weighed(before: ir.Table) -> ir.Table:
            marked = self._beside(before, narrow)
            product = marked[name] * marked[FACTOR].fill_null(1.0)
            return marked.mutate(product.cast(before[name].type()).name(name)).drop(
                FACTOR
            )

        return self.changes.settle(
            self.changes.mended(place, judge, table, facts, mend=weighed, columns=[name])
        )
