"""To-one joins: each row finds at most one row of another source, and gets what that one brings.

More than one is refused, since it would multiply rows in silence; but only where a row of ours asks for that
key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.contracts.data import ROW_FILE, ROW_NUMBER, EngineSession, Extract
from penstock.contracts.judge import COLUMN, REASON
from penstock.core.errors import ContractError
from penstock.core.events import Events
from penstock.prepare.ledger import Ledger
from penstock.prepare.row_ids import column_names, read_extract
from penstock.prepare.validate import place
from penstock.recipe.schema import Join

if TYPE_CHECKING:
    import ibis.expr.types as ir

_EXAMPLES = 3


def other_types(join: Join, ours: pa.Schema, theirs: pa.Schema) -> pa.Schema:
    """The keys of a joined source to be read with the main source's types, because exactly one of
    the two is text.
    """
    pairs = (
        join.on.items()
        if isinstance(join.on, dict)
        else ((name, name) for name in join.on)
    )
    kinds: dict[str, pa.DataType] = {}
    for mine, other in pairs:
        if mine in ours.names and other in theirs.names:
            # Types as they were read from the files, before any cast.
            here, there = ours.field(mine).type, theirs.field(other).type
            if pa.types.is_integer(here):
                continue  # a whole number is written in one way, so that comparing texts is exact
            if pa.types.is_string(here) != pa.types.is_string(there):
                kinds[other] = here
    return pa.schema(list(kinds.items()))


class ToOne:
    """One join of the recipe over an opened extract."""

    def __init__(
        self, session: EngineSession, join: Join, extract: Extract, *, word: str
    ) -> None:
        """
        Args:
            extract: the other source's rows.
            word: the join's place in the recipe, for messages.
        """
        self._session, self._join, self._word = session, join, word
        self._pairs = (
            dict(join.on)
            if isinstance(join.on, dict)
            else {name: name for name in join.on}
        )
        self._brought = (
            list(join.columns)
            if join.columns is not None
            else [
                name for name in column_names(extract) if name not in self._pairs.values()
            ]
        )
        self._theirs = read_extract(session, extract)

    def onto(
        self, table: ir.Table, ledger: Ledger, events: Events, paths: Sequence[str]
    ) -> ir.Table:
        """Join onto `table`: returns it with the columns brought; rows without a partner are
        treated as `missing` says.

        Raises:
            ContractError: a key has more than one row, or a row finds none where `missing` is `fail`.
        """
        import ibis

        # Cast before the join, so that both sides have one type.
        ours, keys = self._keys(table, events)
        prefix = self._join.prefix
        # Under names that nobody else has: a join would rename columns that both sides
        # have.
        lookup = self._theirs.select(
            **{f"__p_key{i}": key for i, key in enumerate(keys)},
            **{f"__p_with_{prefix}{name}": self._theirs[name] for name in self._brought},
            # Tells a row that was found, and whose values are all null, from one that
            # was not.
            __p_found=ibis.literal(True),
        )
        # Before the join, which would multiply rows.
        self._refuse_many(table, ours, lookup)
        # A left join, since a row that finds nothing must be counted or kept.
        joined = table.left_join(
            lookup, [mine == lookup[f"__p_key{i}"] for i, mine in enumerate(ours)]
        ).drop(*(f"__p_key{i}" for i in range(len(keys))))
        joined = joined.rename(
            {f"{prefix}{name}": f"__p_with_{prefix}{name}" for name in self._brought}
        )
        if self._join.missing == "quarantine":
            reason = (
                joined["__p_found"]
                .isnull()
                .ifelse(
                    ibis.literal("finds no row in the joined source"), ibis.null("string")
                )
            )
            # Rows without a partner leave here, under the columns of their key.
            return ledger.sift(
                self._session,
                joined.mutate(
                    **{COLUMN: ibis.literal(", ".join(self._pairs)), REASON: reason}
                ).drop("__p_found"),
                "join",
            )
        if self._join.missing == "fail":
            self._refuse_none(joined.filter(joined["__p_found"].isnull()), paths)
        return joined.drop("__p_found")

    def _keys(
        self, table: ir.Table, events: Events
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """The keys of both sides, cast to text where their types cannot be compared."""
        ours: list[ir.Value] = []
        keys: list[ir.Value] = []
        for mine, other in self._pairs.items():
            left, right = table[mine], self._theirs[other]
            # Numbers of any width compare as they are; other types have nothing in
            # common but their texts.
            if type(left.type()) is not type(right.type()) and not (
                left.type().is_numeric() and right.type().is_numeric()
            ):
                events.say(
                    f"{self._word}: {mine!r} is {left.type()} here and {right.type()} there; they are"
                    " compared as text"
                )
                left, right = left.cast("string"), right.cast("string")
            ours.append(left)
            keys.append(right)
        return ours, keys

    def _refuse_many(
        self, table: ir.Table, ours: list[ir.Value], lookup: ir.Table
    ) -> None:
        keys = [f"__p_key{i}" for i in range(len(ours))]
        groups = lookup.group_by(keys).aggregate(__p_rows=lookup.count())
        # Only the keys that repeat, which are few or none.
        repeated = self._session.keep(groups.filter(groups["__p_rows"] > 1))
        if not self._session.count(repeated):
            return
        asked = self._session.keep(
            # A key that no row of ours has may repeat. A missing key equals none, so it
            # may, too.
            repeated.semi_join(
                table,
                [mine == repeated[key] for mine, key in zip(ours, keys, strict=True)],
            )
        )
        count = self._session.count(asked)
        if count:
            # Ordered, so that every engine shows the same keys.
            first = self._session.rows(asked.order_by(keys).limit(_EXAMPLES))
            shown = "; ".join(
                ", ".join(
                    f"{other}={row[k]!r}"
                    for k, other in zip(keys, self._pairs.values(), strict=True)
                )
                + f" ({row['__p_rows']:,} rows)"
                for row in first
            )
            raise ContractError(
                f"{self._word}: each key may have one row in the joined source, but {count:,}"
                f" keys have several: {shown}. Remove duplicates, or add columns to `on`."
            )

    def _refuse_none(self, lost: ir.Table, paths: Sequence[str]) -> None:
        count = self._session.count(lost)
        if count:
            first = self._session.rows(
                lost.order_by([ROW_FILE, ROW_NUMBER]).limit(_EXAMPLES)
            )
            shown = "; ".join(
                f"{place(row, paths)}: "
                + ", ".join(f"{name}={row[name]!r}" for name in self._pairs)
                for row in first
            )
            raise ContractError(
                f"{self._word}: {count:,} rows have no match by {', '.join(self._pairs)}"
                f" ({shown}), but `missing: fail` requires one. Use `missing: keep` or"
                " `quarantine`, or correct the joined source."
            )
