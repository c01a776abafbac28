"""SQL expressions of a recipe as values of Ibis, so that they compose with the rest and move between engines.

Ibis has no public node for "this SQL, over these columns" (`Table.sql` makes a table, not a value).
`SqlExpression` is one: it holds the checked template and its inputs as ordinary children, so Ibis' own
rewriting (merging selections, renaming) reaches them, and the engine's compiler puts the compiled inputs in
their places. sqlglot then writes the tree in the engine's dialect.
"""

from __future__ import annotations

from typing import Any

import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.rules as rlz
import ibis.expr.types as ir
from ibis.common.annotations import attribute
from ibis.common.typing import VarTuple

from penstock.contracts.data import ROW_ID
from penstock.contracts.sql import Expression


class SqlExpression(ops.Value):  # type: ignore[misc]
    """A checked SQL expression of a recipe over `inputs`, as a value of Ibis."""

    inputs: VarTuple[ops.Value]
    template: str
    result_type: dt.DataType

    shape = rlz.shape_like("inputs")

    @attribute  # type: ignore[untyped-decorator]
    def dtype(self) -> dt.DataType:
        return self.result_type


class WritesExpressions:
    """A mix-in for an engine's Ibis compiler that writes `SqlExpression`."""

    def visit_SqlExpression(
        self,
        op: SqlExpression,
        *,
        inputs: tuple[Any, ...],
        template: str,
        result_type: dt.DataType,
    ) -> Any:
        # The compiled inputs go where the template has `$0`, `$1`, …, so merged and
        # renamed columns are right.
        return Expression("", (), template).fill(inputs)


def value(table: ir.Table, bound: Expression, result_type: dt.DataType) -> ir.Value:
    """The expression as a value over `table`, with the type `result_type`."""
    # Only the columns that the text names: Ibis can drop all others from what is read.
    inputs: tuple[Any, ...] = tuple(table[name].op() for name in bound.columns)
    # a constant still needs a child to take its shape from, or a table could not be filtered by it
    if not inputs:
        plain = ROW_ID if ROW_ID in table.columns else table.columns[0]
        inputs = (table[plain].op(),)
    return SqlExpression(inputs, bound.template, result_type).to_expr()
