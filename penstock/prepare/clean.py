"""Derived columns and cleaners, in their order.

The order. Derived columns come first, one after another. Then the cleaners, each group as declared, with the
split between them:

    before the split    what learns nothing: row by row, or over all rows (deduplication, filters)
    after the split     what is fitted on the training split, row by row; judges of that split

So a fitted cleaner never sees validation or test rows, and no row is dropped after the shares were dealt out.
A bundle applies the same steps to requests in the same order (penstock.bundle.steps).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from penstock.contracts.data import BatchCleaner, Cleaner, EngineSession

if TYPE_CHECKING:
    import ibis.expr.types as ir

Steps = list[tuple[int, Cleaner]]
"""Cleaners with their places in the recipe."""


def around_split(cleaners: Sequence[Cleaner]) -> tuple[Steps, Steps]:
    """The cleaners before and after the split, in the order in which they run."""
    numbered = list(enumerate(cleaners))
    # The place in the recipe travels along: facts are kept by it, and errors name it.
    return [(i, c) for i, c in numbered if not c.runs_after_split()], [
        (i, c) for i, c in numbered if c.runs_after_split()
    ]


def moved(cleaners: Sequence[Cleaner]) -> str:
    """A sentence that says in which order cleaners run; empty where it is the order of the recipe."""
    before, after = around_split(cleaners)
    # Nothing is said where the order is as declared.
    if [i for i, _ in before + after] == list(range(len(cleaners))):
        return ""
    names = " → ".join(c.type for _, c in before + after)
    return f"clean runs {names}: what learns from the training split runs after what does not"


def derive(
    table: ir.Table, expressions: Mapping[str, str], session: EngineSession
) -> ir.Table:
    """The table with new columns; an expression may use those above it."""
    import ibis

    for name, text in expressions.items():
        value = session.sql(table, text)
        if value.type().is_floating():
            # there is one zero, as in what is read (EngineSession.read)
            value = value + ibis.literal(0, type=value.type())
        # No keyword argument: a column may be called `self`.
        table = table.mutate(value.name(name))
    return table


class Mender(Protocol):
    """What mends a table: a cleaner, or what hides private columns."""

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        """The mended table."""


def applied(
    cleaners: Sequence[tuple[Mender, Mapping[str, Any]]],
    schema: pa.Schema,
    session: EngineSession,
    *,
    derived: Mapping[str, str] | None = None,
    seconds: Callable[[int], float] | None = None,
) -> Callable[[pa.Table], pa.Table]:
    """Derived columns and cleaners with their facts, made ready once for many small tables.

    Expressions that follow one another are one query; a `batch` cleaner runs between two of them.

    Args:
        schema: of the tables.
        derived: columns that come before all cleaners.
        seconds: of so many rows: how long expressions may take (`EngineSession.compiled`).
    """
    steps: list[Callable[[pa.Table], pa.Table]] = []
    pending = list(cleaners)
    first = True
    while pending or first:
        run: list[tuple[Mender, Mapping[str, Any]]] = []
        while pending and not isinstance(pending[0][0], BatchCleaner):
            run.append(pending.pop(0))
        if run or (first and (derived or not pending)):
            steps.append(
                session.compiled(
                    schema,
                    _chain(run, (derived or {}) if first else {}, session),
                    seconds=seconds,
                )
            )
            schema = steps[-1](schema.empty_table()).schema
        if pending:
            cleaner, facts = pending.pop(0)
            if isinstance(cleaner, BatchCleaner):
                steps.append(_repairing(cleaner, facts))
        first = False

    def apply(table: pa.Table) -> pa.Table:
        for step in steps:
            table = step(table)
        return table

    return apply


def _chain(
    cleaners: Sequence[tuple[Mender, Mapping[str, Any]]],
    derived: Mapping[str, str],
    session: EngineSession,
) -> Callable[[ir.Table], ir.Table]:
    def build(table: ir.Table) -> ir.Table:
        table = derive(table, derived, session)
        for cleaner, facts in cleaners:
            table = cleaner.mend(table, facts, session)
        return table

    return build


def _repairing(
    cleaner: BatchCleaner, facts: Mapping[str, Any]
) -> Callable[[pa.Table], pa.Table]:
    return lambda table: cleaner.repaired(table, facts)
