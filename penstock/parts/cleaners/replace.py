"""Values that stand for other values, or for nothing: `{"<=50K.": "<=50K", "N/A": null}`.

A value is compared as what its column holds: as text in a column of texts, as a number in a column of
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.contracts.data import Cleaner, EngineSession
from penstock.core.errors import ContractError
from penstock.parts.cleaners._words import Names, present, replaced

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Replace(Cleaner):
    """Puts values in the place of values."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text", "values": {"a": "b", "": None}},
        {"columns": ["number"], "values": {"-1": None, "2": 2.5}},
        {"columns": "flag", "values": {"true": False}},
    )

    columns: Names = Field(min_length=1)
    values: dict[str, str | int | float | bool | None] = Field(min_length=1)
    """What is found → what is put there; null for a missing value."""

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        return replaced(
            table,
            {name: self._mended(table, name) for name in present(table, self.columns)},
        )

    def _mended(self, table: ir.Table, name: str) -> ir.Value:
        import ibis

        column = table[name]
        kind = column.type()
        # One CASE over the column as it came, so that a value which was put in is not
        # replaced again.
        branches = []
        for before, after in self.values.items():
            now = (
                # Of the column's own type, or the CASE would widen it.
                ibis.null(kind)
                if after is None
                else ibis.literal(_as(kind, after, name), type=kind)
            )
            branches.append(
                # Both sides have one type: compared as text, 1.0 would not be 1.
                (column == ibis.literal(_as(kind, before, name), type=kind), now)
            )
        return ibis.cases(*branches, else_=column)


def _as(kind: Any, value: Any, name: str) -> Any:
    """`value` as the column's type has it."""
    try:
        if kind.is_string():
            return (
                value
                # A boolean of the recipe is compared as YAML writes it: true, false.
                if isinstance(value, str)
                else str(value).lower()
                if isinstance(value, bool)
                else str(value)
            )
        if kind.is_boolean():
            return {"true": True, "false": False}[str(value).lower()]
        if kind.is_integer():
            return int(value)
        if kind.is_floating() or kind.is_decimal():
            return float(value)
        if kind.is_temporal():
            return str(value)
    # One sentence for all of them, below.
    except (ValueError, KeyError):
        pass
    raise ContractError(
        f"replace: the column {name!r} holds {kind}, which {value!r} is not. Declare the column's type, or"
        " give a value that fits."
    )
