"""Ibis expressions as Spark SQL that means what DuckDB means.

Spark and DuckDB agree on relations (joins, groups, windows, orders) and on a small core of values:
comparisons, logic, CASE, concatenation, md5, whole numbers. On the rest they differ in a hundred small ways:
how a double is written as text, what a regular expression may be, which texts are times, upper case beyond
ASCII, division by zero, overflow. So only the core becomes Spark SQL. Whatever else is computed of one row is
lifted out of the query as it stands, as large a piece as possible, written in DuckDB's SQL, and run on the
executors by DuckDB itself over Arrow batches (`_spark_work.evaluate`). The SQL of a recipe goes the same way,
so none of it has to be translated, and none is refused for being untranslatable.

A lifted piece is a `SqlExpression`, the node that a recipe's own SQL already is: Ibis rewrites around it, and
the compiler writes a call of a function that the session registers with Spark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.pyspark import PySparkCompiler

from penstock.parts.engines._expression import SqlExpression

Register = Callable[[str, tuple[dt.DataType, ...], dt.DataType], str]
"""Template, types of the inputs and of the result → the name by which Spark knows the function."""

_NEVER = (
    ops.Reduction,
    ops.Analytic,
    ops.WindowFunction,
    ops.WindowBoundary,
    ops.Subquery,
    ops.SortKey,
    ops.Field,
    ops.Alias,
    ops.Literal,
)
"""Not of one row, or nothing to compute."""
_LOGIC = (ops.And, ops.Or, ops.Not, ops.IsNull, ops.NotNull)
_COMPARISONS = (
    ops.Equals,
    ops.NotEquals,
    ops.Less,
    ops.LessEqual,
    ops.Greater,
    ops.GreaterEqual,
)
_CHOICES = (ops.IfElse, ops.SearchedCase, ops.Coalesce, ops.NullIf)


class Compiler(PySparkCompiler):  # type: ignore[misc]
    """Spark SQL of a table.

    Args:
        duck: the compiler that writes DuckDB's SQL.
        register: makes a function of a lifted piece known to Spark.
    """

    __slots__ = ("_duck", "_register")

    def __init__(self, duck: Any, register: Register) -> None:
        super().__init__()
        self._duck, self._register = duck, register

    def translate(self, op: Any, *, params: Any) -> Any:
        # Lifted before Ibis' own steps, which would translate each piece into Spark's
        # functions.
        return super().translate(lifted(op, self._duck), params=params)

    def visit_SqlExpression(
        self,
        op: SqlExpression,
        *,
        inputs: tuple[Any, ...],
        template: str,
        result_type: dt.DataType,
    ) -> Any:
        name = self._register(
            template, tuple(each.dtype for each in op.inputs), result_type
        )
        return sge.Anonymous(this=name, expressions=list(inputs))

    def visit_Field(self, op: Any, *, rel: Any, name: str) -> Any:
        # Ibis' own asks for options that only its Spark backend sets
        return sg.column(name, table=rel.alias_or_name, quoted=True)

    def visit_NonNullLiteral(self, op: Any, *, value: Any, dtype: dt.DataType) -> Any:
        if dtype.is_floating():
            # as text: Spark reads 0.1 as a decimal first
            return self.cast(sge.Literal.string(repr(float(value))), dtype)
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)


def lifted(op: Any, duck: Any) -> Any:
    """The same tree, in which every piece that Spark may not compute is one `SqlExpression`."""

    def rewrite(node: Any, changed: dict[str, Any] | None) -> Any:
        now = node.__recreate__(changed) if changed else node
        if (
            # Reductions and windows look at many rows, so only what is beneath them is
            # lifted.
            not isinstance(now, ops.Value)
            or isinstance(now, (*_NEVER, SqlExpression))
            # A scalar reads no column: nothing of it is computed row by row.
            or now.shape.is_scalar()
            or _across_tables(now)
        ):
            return now
        # What stands upon a lifted piece is lifted with it: a second call would carry
        # the same values to Python again.
        inner = any(isinstance(child, SqlExpression) for child in _children(now))
        return _lift(now, duck) if inner or not _is_core(now) else now

    return op.replace(rewrite)


def _children(op: Any) -> list[Any]:
    """The values that a value is computed of."""
    values: list[Any] = []
    for arg in op.args:
        values += [
            each
            for each in (arg if isinstance(arg, tuple) else (arg,))
            if isinstance(each, ops.Value)
        ]
    return values


def _across_tables(op: Any) -> bool:
    """A condition of a join: Spark must see it to join by it, and each side is lifted by itself."""
    return (
        isinstance(op, (*_LOGIC, *_COMPARISONS))
        and len({field.rel for field in op.find(ops.Field)}) > 1
    )


def _is_plain(kind: dt.DataType) -> bool:
    """Types whose values Spark holds, compares and chooses as DuckDB does."""
    return bool(
        kind.is_string()
        or kind.is_boolean()
        or kind.is_signed_integer()
        or kind.is_null()
    )


def _is_core(op: Any) -> bool:
    """Whether Spark computes it exactly as DuckDB does."""
    types = [child.dtype for child in _children(op)]
    # Whether a value is null does not depend on how the engine computes with it.
    if isinstance(op, (ops.IsNull, ops.NotNull)):
        return True
    if isinstance(op, _LOGIC):
        return all(kind.is_boolean() for kind in types)
    if isinstance(op, _COMPARISONS):
        return _comparable(types)
    if isinstance(op, ops.InValues):
        return _comparable(types)
    if isinstance(op, _CHOICES):
        # A number's type may widen on the way, so only texts and booleans are chosen
        # between, or numbers of one type.
        kinds = {
            str(kind.copy(nullable=True))
            for kind in types
            if not kind.is_boolean() and not kind.is_null()
        }
        return all(map(_is_plain, types)) and len(kinds) <= 1
    if isinstance(op, ops.Cast):
        source, target = op.arg.dtype, op.to
        # A double or a moment as text is written in another way by each engine.
        if target.is_string():
            return bool(source.is_signed_integer() or source.is_string())
        # Only to the widest: a narrower cast may overflow, and the engines refuse it in
        # different words.
        return bool(
            target.is_int64() and (source.is_signed_integer() or source.is_boolean())
        )
    if isinstance(op, ops.HexDigest):
        return bool(op.how == "md5" and types[0].is_string())
    if isinstance(op, ops.StringConcat):
        return all(kind.is_string() for kind in types)
    return False


def _comparable(types: list[dt.DataType]) -> bool:
    return (
        all(kind.is_string() for kind in types)
        or all(kind.is_signed_integer() for kind in types)
        or all(kind.is_boolean() for kind in types)
        # Whole numbers of any width compare alike in both, and doubles, NaN being the
        # largest; other mixtures each engine widens by rules of its own.
        or all(kind.is_float64() for kind in types)
    )


def _lift(op: Any, duck: Any) -> Any:
    """The value as one `SqlExpression`: DuckDB's SQL over its leaves, which are fields and values
    of many rows.
    """
    # In the order in which they are met, so that the same piece gets the same template,
    # and one function of Spark's serves both.
    leaves: dict[Any, int] = {}

    def gather(node: Any) -> None:
        for child in node.inputs if isinstance(node, SqlExpression) else _children(node):
            # A literal is written into the template: it costs no column.
            if isinstance(child, ops.Literal):
                continue
            if isinstance(child, _NEVER):
                leaves.setdefault(child, len(leaves))
            else:
                gather(child)

    gather(op)
    # Nothing but literals: there is no row to compute it for.
    if not leaves:
        return op
    schema = {f"${i}": leaf.dtype for leaf, i in leaves.items()}
    table = ibis.table(schema, name="__p_rows")
    # The leaves become columns of a table that exists only here, so that DuckDB's
    # compiler can write the piece as a query.
    over = op.replace({leaf: table[f"${i}"].op() for leaf, i in leaves.items()})
    tree = duck.to_sqlglot(table.select(__p_value=over.to_expr()))
    # The executors' table has a name of its own, so columns stand without one.
    template = tree.expressions[0].this.transform(
        lambda node: (
            sg.column(node.name, quoted=True) if isinstance(node, sge.Column) else node
        )
    )
    return SqlExpression(tuple(leaves), template.sql(dialect="duckdb"), op.dtype)
