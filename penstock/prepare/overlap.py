"""Rows of given splits that are in the training split as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.digest import row_digests
from penstock.contracts.judge import SPLIT
from penstock.core.events import Events

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MEANS = "rows whose values all equal those of a training row"


def overlap(
    session: EngineSession,
    table: ir.Table,
    columns: Sequence[str],
    test_rows: int,
    events: Events,
) -> dict[str, Any]:
    """How many rows of the given splits have an equal in train; nothing is removed.

    Args:
        columns: those that are compared; the id is different in every row.
        test_rows: of the test split.
    """
    digested = row_digests(session, table, columns, [ROW_ID, SPLIT]).drop(ROW_ID)
    # Each digest once, so that the join holds no more than it must.
    train = digested.filter(digested[SPLIT] == "train").select("__p_digest").distinct()
    given = digested.filter(digested[SPLIT] != "train").semi_join(train, "__p_digest")
    counts = {
        row[SPLIT]: int(row["n"])
        for row in session.rows(given.group_by(SPLIT).aggregate(n=given.count()))
    }
    shared = {name: counts.get(name, 0) for name in ("validation", "test")}
    if shared["test"]:
        events.say(
            f"{shared['test']:,} of {test_rows:,} rows of the given test split are also"
            " in train; the test split is left as it was given",
            overlap=shared,
        )
    return {**shared, "means": _MEANS}
