"""Missing values carried forward: each takes the last value before it, in its group and in the order of time.

Only the past is looked at. It needs the rows of before, so a request, which is one row, is left as it is: a
value that it lacks stays missing, and the feature says so to the model. Rows of all splits are looked at, so
split by time or by group where a row of the test split must not see one of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.contracts.data import ROW_ID, Cleaner, EngineSession
from penstock.parts.cleaners._words import Names, replaced

if TYPE_CHECKING:
    import ibis.expr.types as ir


class ForwardFill(Cleaner):
    """Puts the last known value of a group where one is missing."""

    form: ClassVar[str] = "global"
    carries: ClassVar[bool] = True
    at_serving: ClassVar[str] = "skip"
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": ["number", "flag"], "time": "moment"},
        {"columns": "text", "time": "moment", "by": "whole"},
    )

    columns: Names = Field(min_length=1)
    """Those to fill."""
    time: str
    """The column that orders rows; equal times are ordered by row id. A row without a time is left as it
    is.
    """
    by: Names = ()
    """The columns whose values make a group, such as a sensor or a person; all rows are one unless given."""

    def needs(self) -> tuple[str, ...]:
        return (*self.columns, self.time, *self.by)

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        import ibis

        known = {}
        for name in self.columns:
            column = table[name]
            if column.type().is_floating():
                column = column.isnan().ifelse(ibis.null(column.type()), column)
            # A row without a time is nobody's past.
            known[name] = (
                table[self.time].notnull().ifelse(column, ibis.null(column.type()))
            )
        groups = [table[name] for name in self.by]
        past = ibis.window(
            group_by=groups,
            order_by=[table[self.time], table[ROW_ID]],
            preceding=None,
            following=0,
        )
        # How many values were known so far: rows with one number share the last of them.
        runs = table.mutate(
            *(value.name(f"__p_known_{i}") for i, value in enumerate(known.values())),
            *(
                value.count().over(past).name(f"__p_run_{i}")
                for i, value in enumerate(known.values())
            ),
        )
        filled = {}
        for i, name in enumerate(self.columns):
            run = ibis.window(
                group_by=[*(runs[g] for g in self.by), runs[f"__p_run_{i}"]]
            )
            # A run has one known value at most, so its greatest is that one.
            last = runs[f"__p_known_{i}"].max().over(run)
            is_missing = runs[name].isnull()
            if runs[name].type().is_floating():
                is_missing = is_missing | runs[name].isnan()
            can = is_missing & runs[self.time].notnull()
            filled[name] = can.ifelse(ibis.coalesce(last, runs[name]), runs[name])
        helpers = [
            f"__p_{word}_{i}" for i in range(len(known)) for word in ("known", "run")
        ]
        # A column that is filled may order or group another: all are written at once.
        return replaced(runs, filled).drop(*helpers)
