"""Derived columns and cleaners, in their order.

The order. Derived columns come first, one after another. Then the cleaners, each group as declared, with the
split between them:

    before the split    what learns nothing: row by row, or over all rows (deduplication, filters)
    after the split     what is fitted on the training split, row by row

So a fitted cleaner never sees validation or test rows, and no row is dropped after the shares were dealt out.
A bundle applies the same steps to requests in the same order (penstock.bundle.steps).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.contracts.data import Cleaner, EngineSession

if TYPE_CHECKING:
    import ibis.expr.types as ir

Steps = list[tuple[int, Cleaner]]
"""Cleaners with their places in the recipe."""


def around_split(cleaners: Sequence[Cleaner]) -> tuple[Steps, Steps]:
    """The cleaners before and after the split, in the order in which they run."""
    numbered = list(enumerate(cleaners))
    # The place in the recipe travels along: facts are kept by it, and errors name it.
    return [(i, c) for i, c in numbered if not c.is_fitted()], [
        (i, c) for i, c in numbered if c.is_fitted()
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
