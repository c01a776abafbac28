"""Amounts written with a unit ("12.0 oz", "16 OZ.") become plain numbers of one unit.

The column stays one of texts, as the source has it; a feature of numbers reads them. A text that begins with
no number, or whose unit is not declared, is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from penstock.contracts.data import BatchCleaner, EngineSession
from penstock.parts.cleaners._words import Names, each_text, texts_alone

if TYPE_CHECKING:
    import ibis.expr.types as ir

_AMOUNT = re.compile(
    r"\s*([-+]?[0-9]+(?:\.[0-9]+)?)\s*([^\s0-9]*)(?:\s.*)?\s*", re.DOTALL
)


class Units(BatchCleaner):
    """Turns amounts with units into numbers of one unit."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text", "units": {"oz": 1, "ml": 0.033814}},
    )

    columns: Names = Field(min_length=1)
    units: dict[str, float] = Field(min_length=1)
    """Unit → what one of it is in the unit wanted, such as `{kg: 1, g: 0.001}`. Capitals and full stops do
    not matter; a number without a unit is taken as it is.
    """

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        texts_alone(
            "units", table, [name for name in self.columns if name in table.columns]
        )
        return super().mend(table, facts, session)

    def repair(
        self, columns: Mapping[str, pa.Array], facts: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        factors = {_plain(unit): factor for unit, factor in self.units.items()} | {
            "": 1.0
        }

        def amount(text: str) -> str:
            match = _AMOUNT.fullmatch(text)
            factor = factors.get(_plain(match[2])) if match else None
            if match is None or factor is None:
                return text
            return f"{float(match[1]) * factor:.12g}"

        return {name: each_text(column, amount) for name, column in columns.items()}


def _plain(unit: str) -> str:
    return unit.lower().replace(".", "")
