"""Missing values filled with a constant, for columns where missing has a meaning ("no children" is 0).

Where missing means "unknown", leave it to the feature: it fills and tells the model that it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.contracts.data import Cleaner, EngineSession
from penstock.core.errors import ContractError
from penstock.parts.cleaners._words import present, replaced

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Fill(Cleaner):
    """Puts a constant where a value is missing."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"values": {"number": 0, "text": "none", "flag": False}},
        {"values": {"whole": 7}},
    )

    values: dict[str, str | int | float | bool] = Field(min_length=1)
    """Column → what a missing value becomes."""

    def needs(self) -> tuple[str, ...]:
        return tuple(self.values)

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        import ibis

        mended = {}
        for name in present(table, list(self.values)):
            found, value = table[name].type(), self.values[name]
            # A constant of another type would change the column's type, or be cast in
            # silence.
            fits = (
                (found.is_string() and isinstance(value, str))
                or (found.is_boolean() and isinstance(value, bool))
                or (
                    found.is_integer()
                    and isinstance(value, int)
                    # Python counts a bool as an int.
                    and not isinstance(value, bool)
                )
                or (
                    (found.is_floating() or found.is_decimal())
                    and isinstance(value, (int, float))
                    and not isinstance(value, bool)
                )
                or (found.is_temporal() and isinstance(value, str))
            )
            if not fits:
                raise ContractError(
                    f"fill: the column {name!r} holds {found}, which {value!r} is not. Give a value of that"
                    " type."
                )
            column = table[name]
            if found.is_floating():
                # NaN is missing, as everywhere in the house
                column = column.isnan().ifelse(ibis.null(found), column)
            # Of the column's type, so that the column keeps it.
            mended[name] = column.fill_null(ibis.literal(value, type=found))
        return replaced(table, mended)
