"""White space and case in texts, so that `" Male"` and `"male "` are one value.

White space is what RE2 calls `\\s` (space, tab, line ends), and the no-break space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from penstock.contracts.data import OWN_PREFIX, ROW_ID, Cleaner, EngineSession
from penstock.parts.cleaners._words import Names, present, replaced

if TYPE_CHECKING:
    import ibis.expr.types as ir

_SPACE = "[\\s\u00a0]"


class Trim(Cleaner):
    """Strips texts; may collapse the space within and change case."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"columns": "text", "collapse": True, "case": "lower"},
        {"case": "upper"},
    )

    columns: Names | None = None
    """All columns of texts unless given; a column of another type is left as it is."""
    collapse: bool = False
    """Also make each run of white space within a text one space."""
    case: Literal["keep", "lower", "upper"] = "keep"

    def needs(self) -> tuple[str, ...]:
        return self.columns or ()

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        mended = {}
        for name in present(table, self.columns or table.columns):
            # The id is a text as well, and must stay as it is; so must helpers.
            if (
                name == ROW_ID
                or name.startswith(OWN_PREFIX)
                or not table[name].type().is_string()
            ):
                continue
            text = table[name]
            if self.collapse:
                text = text.re_replace(f"{_SPACE}+", " ")
            text = text.re_replace(f"^{_SPACE}+|{_SPACE}+$", "")
            mended[name] = {"keep": text, "lower": text.lower(), "upper": text.upper()}[
                self.case
            ]
        return replaced(table, mended)
