"""Rules that compare a row with others: `unique`, `monotonic` and `refers_to`.

Each is worked out on a narrow table, once, on disk; what it found is joined back as one column, so that the
table is as wide as before and hardly longer to read. Where nothing is broken there is no join.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.contracts.data import PLACE, ROW_ID, EngineSession
from penstock.contracts.digest import key_text

if TYPE_CHECKING:
    import ibis.expr.types as ir

MARK = "__p_rule_"
"""What the columns that rules join to the table begin with."""


def mark_repeated(
    table: ir.Table, value: ir.Value, session: EngineSession, *, mark: str
) -> ir.Table:
    """The table with the row id at which a repeated value stands first; null where it is not repeated."""
    # A missing value is not a repeated one.
    groups = table.select(__p_value=value, **{ROW_ID: table[ROW_ID]}).filter(
        lambda t: t["__p_value"].notnull()
    )
    # The smallest row id keeps the value: a choice that every engine makes alike.
    groups = groups.group_by("__p_value").aggregate(
        __p_rows=groups.count(), __p_first=groups[ROW_ID].min()
    )
    # Kept, since the checks read it in every query.
    repeated = session.keep(
        groups.filter(groups["__p_rows"] > 1).select("__p_value", **{mark: "__p_first"})
    )
    # Missing values find nothing here: null equals nothing in a join.
    return table.left_join(repeated, value == repeated["__p_value"]).drop("__p_value")


def combined(table: ir.Table, columns: Sequence[str]) -> ir.StringValue:
    """The values of several columns as one text; null where one is missing."""
    return key_text(table, columns)


def mark_unordered(
    table: ir.Table,
    value: ir.Value,
    session: EngineSession,
    *,
    order: str,
    by: Sequence[str],
    mark: str,
) -> ir.Table:
    """The table with the value before it that a row should not be less than (or more than), as text; null in
    rows that are in order.

    Args:
        order: `increasing` or `decreasing`.
        by: columns that tell one series from another.
    """
    import ibis

    narrow = table.select(
        __p_of=table[ROW_ID],
        __p_value=value,
        **{f"__p_at{i}": table[name] for i, name in enumerate(PLACE)},
        **{f"__p_by{i}": table[name] for i, name in enumerate(by)},
    ).filter(lambda t: t["__p_value"].notnull())
    window = ibis.cumulative_window(
        group_by=[narrow[f"__p_by{i}"] for i in range(len(by))] or None,
        order_by=[narrow[f"__p_at{i}"] for i in range(len(PLACE))],
    )
    extreme = (
        narrow["__p_value"].max() if order == "increasing" else narrow["__p_value"].min()
    )
    narrow = narrow.mutate(__p_seen=extreme.over(window))
    # The extreme so far holds the row itself, so a row in order equals it.
    out = narrow.filter(narrow["__p_value"] != narrow["__p_seen"])
    broken = session.keep(out.select("__p_of", **{mark: out["__p_seen"].cast("string")}))
    if not session.count(broken):
        return table.mutate(**{mark: ibis.null("string")})
    return table.left_join(broken, table[ROW_ID] == broken["__p_of"]).drop("__p_of")


def mark_strangers(
    table: ir.Table,
    value: ir.Value,
    session: EngineSession,
    *,
    known: ir.Value,
    mark: str,
) -> ir.Table:
    """The table with whether a value does not stand in the other source; null where it does, or is missing.

    Args:
        known: the other source's column.
    """
    import ibis

    ours, theirs = value.type(), known.type()
    # Numbers of any width compare as they are; other types have nothing in common but their texts.
    if type(ours) is not type(theirs) and not (ours.is_numeric() and theirs.is_numeric()):
        value, known = value.cast("string"), known.cast("string")
    others = known.name("__p_known").as_table().distinct()
    others = session.keep(others.filter(others["__p_known"].notnull()))
    values = table.select(__p_value=value).distinct()
    values = values.filter(values["__p_value"].notnull())
    strangers = session.keep(
        values.anti_join(others, values["__p_value"] == others["__p_known"]).mutate(
            **{mark: ibis.literal(True)}
        )
    )
    if not session.count(strangers):
        return table.mutate(**{mark: ibis.null("boolean")})
    return table.left_join(strangers, value == strangers["__p_value"]).drop("__p_value")
