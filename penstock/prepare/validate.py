"""The data contract: does each row keep what `expect` promises?

All violations are counted in one pass over the columns concerned; only where there are some are rows marked,
and the way of each is its column's `on_violation`: quarantined, the end of the run, or a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import PLACE, ROW_FILE, ROW_NUMBER, EngineSession, is_wide
from penstock.core.errors import ContractError
from penstock.core.events import Events
from penstock.prepare.checks import Check, checks_of, present
from penstock.prepare.ledger import COLUMN, REASON
from penstock.recipe.schema import Expect

if TYPE_CHECKING:
    import ibis.expr.types as ir

_EXAMPLES = 3
"""Rows that an error shows for each broken promise."""
_MARKED_AT_ONCE = 64
"""Promises that one query over a wide table judges."""


def expect(
    table: ir.Table,
    promises: dict[str, Expect],
    *,
    session: EngineSession,
    events: Events,
    paths: Sequence[str],
) -> ir.Table:
    """The table with `COLUMN` and `REASON` for the rows to be quarantined; untouched where there are none.

    Raises:
        ContractError: a promise with `on_violation: fail`, or `max_missing`, is broken; names all of them,
            with examples.
        RecipeError: a promise cannot be judged on its column's type.
    """
    if not promises:
        return table
    # Without a broken promise this comes back, free of the joins that `unique` needs.
    given = table
    table, checks = checks_of(table, promises, session)
    counts = _count(table, checks, promises, session)
    # Failures first: a warning about data that is refused would only distract.
    _fail(
        table,
        [
            (counts[f"bad{i}"], c)
            for i, c in enumerate(checks)
            if c.policy == "fail" and counts[f"bad{i}"]
        ],
        counts,
        promises,
        session,
        paths,
    )
    broken = [(i, c) for i, c in enumerate(checks) if counts[f"bad{i}"]]
    for i, check in broken:
        if check.policy == "warn":
            events.warn(
                f"{check.column}: {counts[f'bad{i}']:,} rows break `{check.what}`; they are"
                " kept, because `on_violation` is `warn`",
                column=check.column,
                rows=counts[f"bad{i}"],
            )
    # What was not broken needs no column in the query that marks.
    marking = [c for _, c in broken if c.policy == "quarantine"]
    if not marking:
        return given
    # Only the broken rows and their places go through the query, not all the columns.
    if is_wide(given):
        return session.beside(given, _marks(table, marking, session))
    marked = _marked(table, marking)
    # The columns in which `unique` looked belong to no dataset.
    return marked.select(
        *[name for name in marked.columns if not name.startswith("__p_first_")]
    )


def _marked(table: ir.Table, checks: Sequence[Check]) -> ir.Table:
    """The table with the first promise that each row breaks."""
    import ibis

    # The first promise that is broken gives column and reason: both lists are in one
    # order.
    column = ibis.cases(*[(check.bad, check.column) for check in checks])
    reason = ibis.cases(*[(check.bad, check.reason) for check in checks])
    return table.mutate(**{COLUMN: column, REASON: reason})


def _marks(table: ir.Table, checks: Sequence[Check], session: EngineSession) -> ir.Table:
    """The places of the rows of a wide table that break a promise, with the first that each breaks.

    A few promises at a time.
    """
    marks = session.keep(_first(table, checks[:_MARKED_AT_ONCE]))
    for start in range(_MARKED_AT_ONCE, len(checks), _MARKED_AT_ONCE):
        more = session.keep(_first(table, checks[start : start + _MARKED_AT_ONCE]))
        # A row that is marked already keeps its first mark, as in one query over all
        # promises.
        marks = session.keep(marks.union(more.anti_join(marks, list(PLACE))))
    return marks


def _first(table: ir.Table, checks: Sequence[Check]) -> ir.Table:
    marked = _marked(table, checks)
    return marked.filter(marked[REASON].notnull()).select(*PLACE, COLUMN, REASON)


def _count(
    table: ir.Table,
    checks: list[Check],
    promises: dict[str, Expect],
    session: EngineSession,
) -> dict[str, int]:
    # Cast first: not every engine sums booleans.
    sums = {f"bad{i}": check.bad.cast("int64").sum() for i, check in enumerate(checks)}
    sums |= {
        f"missing_{name}": present(table[name]).isnull().cast("int64").sum()
        for name, p in promises.items()
        if p.max_missing is not None
    }
    row = session.measure(table, {"__p_rows": table.count(), **sums})
    # Without rows a sum is null.
    return {name: int(value or 0) for name, value in row.items()}


def _fail(
    table: ir.Table,
    broken: list[tuple[int, Check]],
    counts: dict[str, int],
    promises: dict[str, Expect],
    session: EngineSession,
    paths: Sequence[str],
) -> None:
    told: list[str] = []
    rows = counts["__p_rows"]
    for name, promise in promises.items():
        missing = counts.get(f"missing_{name}", 0)
        # A share of all rows, those that other promises will quarantine included.
        if promise.max_missing is not None and missing > promise.max_missing * rows:
            told.append(
                f"{name}: {missing:,} of {rows:,} rows ({missing / rows:.1%}) are missing; at most"
                f" {promise.max_missing:.1%} may be"
            )
    for bad_rows, check in broken:
        # In the order of places, so that every engine shows the same rows.
        first = (
            table.filter(check.bad)
            .select(ROW_FILE, ROW_NUMBER, reason=check.reason)
            .order_by([ROW_FILE, ROW_NUMBER])
            .limit(_EXAMPLES)
        )
        told.append(f"{check.column}: {bad_rows:,} of {rows:,} rows break `{check.what}`")
        told += [
            f"    {place(row, paths)}: {row['reason']}" for row in session.rows(first)
        ]
    if told:
        raise ContractError(
            "\n".join(
                [
                    "the data breaks what the recipe's `expect` promises:",
                    *(
                        f"  - {line}" if not line.startswith(" ") else line
                        for line in told
                    ),
                    "Mend the data, or the promise; `on_violation: quarantine` puts such rows aside instead.",
                ]
            )
        )


def place(row: dict[str, Any], paths: Sequence[str]) -> str:
    """Where a row came from, for messages: its file, and its row counted from 1."""
    return f"{paths[row[ROW_FILE]]}, row {row[ROW_NUMBER] + 1}"
