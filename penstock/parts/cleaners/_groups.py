"""Groups of rows that are nearly the same: candidates by equal keys, and the row of a group that stays.

A row is known by its place in the order in which rows stay, `__p_order`. All is done by the engine, on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.contracts.data import PLACE, ROW_FILE, ROW_ID, ROW_NUMBER, EngineSession
from penstock.contracts.judge import COLUMN, GIVEN, REASON

if TYPE_CHECKING:
    import ibis.expr.types as ir

_SMALL, _LEADERS = 32, 4
"""In a bucket of so many rows all are compared; in a larger one each with the first few."""
_OURS = 1 << 62
"""Rows of a given split come before this one, in the order in which rows stay."""


def ordered(table: ir.Table, columns: Sequence[str]) -> ir.Table:
    """The columns by number (`__p_t0`, …), with each row's place in the order in which rows stay."""
    import ibis

    if set(PLACE) <= set(table.columns):
        # Files and rows of a file are numbered far below these bounds.
        order = table[ROW_FILE].cast("int64") * (1 << 40) + table[ROW_NUMBER].cast(
            "int64"
        )
    else:
        order = ibis.row_number().over(ibis.window(order_by=table[ROW_ID])).cast("int64")
    if GIVEN in table.columns:
        order = order + (~table[GIVEN]).ifelse(ibis.literal(_OURS), ibis.literal(0))
    else:
        order = order + _OURS
    return table.select(
        table[ROW_ID],
        order.cast("int64").name("__p_order"),
        *(table[name].name(f"__p_t{i}") for i, name in enumerate(columns)),
    )


def candidates(keys: ir.Table) -> ir.Table:
    """Pairs of rows with an equal key: `__p_of` may leave, `__p_to` comes before it."""
    import ibis

    of_key = ibis.window(group_by=keys["__p_key"])
    ranked = keys.mutate(
        __p_rows=keys.count().over(of_key),
        __p_rank=ibis.row_number().over(
            ibis.window(group_by=keys["__p_key"], order_by=keys["__p_order"])
        ),
    )
    ranked = ranked.filter(ranked["__p_rows"] > 1)
    few = (ranked["__p_rows"] <= _SMALL) | (ranked["__p_rank"] < _LEADERS)
    leaders = ranked.filter(few).select("__p_key", __p_to="__p_order")
    paired = ranked.select("__p_key", __p_of="__p_order").inner_join(leaders, "__p_key")
    paired = paired.filter(
        (paired["__p_to"] < paired["__p_of"]) & (paired["__p_of"] >= _OURS)
    )
    return paired.select("__p_of", "__p_to").distinct()


def rooted(alike: ir.Table, session: EngineSession) -> ir.Table:
    """Each row that leaves, `__p_of`, with the row of its group that stays, `__p_to`."""
    links = session.keep(alike.group_by("__p_of").aggregate(__p_to=alike["__p_to"].min()))
    while True:
        # Whom a row points at may point further: each turn doubles how far it sees.
        onward = links.rename(__p_to="__p_of", __p_on="__p_to")
        longer = session.keep(links.left_join(onward, "__p_to"))
        if not session.count(longer.filter(longer["__p_on"].notnull())):
            return links
        links = session.keep(
            longer.select("__p_of", __p_to=longer["__p_on"].coalesce(longer["__p_to"]))
        )


def named(
    alike: ir.Table, rows: ir.Table, session: EngineSession, columns: Sequence[str]
) -> ir.Table:
    """The rows that leave, as violations that name the row which stays.

    Args:
        alike: pairs, `__p_of` nearly the same as `__p_to`, which comes before it.
        rows: has `__p_order` and `ROW_ID`.
        columns: that were compared.
    """
    import ibis

    roots = rooted(alike, session)
    ours = rows.select("__p_order", ROW_ID)
    theirs = ours.rename(__p_to="__p_order", __p_first=ROW_ID)
    both = roots.inner_join(ours, roots["__p_of"] == ours["__p_order"])
    both = both.inner_join(theirs, "__p_to")
    return both.select(
        both[ROW_ID],
        ibis.literal(columns[0] if len(columns) == 1 else None, "string").name(COLUMN),
        (
            ibis.literal("is nearly the same as the row '")
            + both["__p_first"]
            + ibis.literal("', which comes before it")
        ).name(REASON),
    )
