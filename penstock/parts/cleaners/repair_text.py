"""Texts brought to one Unicode form, and texts that were read in the wrong encoding read rightly.

Mojibake is UTF-8 that was read as Windows-1252 or Latin-1 ("cafÃ©" for "café"). A text is mended only if all
of it can be written in that encoding and the bytes are UTF-8, which a text that was read rightly hardly ever
is.
Unicode Standard Annex 15 (normalisation forms).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from penstock.contracts.data import BatchCleaner, EngineSession
from penstock.parts.cleaners._words import Names, each_text, texts_alone

if TYPE_CHECKING:
    import ibis.expr.types as ir


class RepairText(BatchCleaner):
    """One Unicode form, and no mojibake."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text"},
        {"columns": ["text"], "unicode": "NFKC", "mojibake": False},
    )

    columns: Names = Field(min_length=1)
    unicode: Literal["NFC", "NFKC", "keep"] = "NFC"
    """`NFC`: letters with accents are one character. `NFKC`: also ligatures, full-width letters and the like
    become plain ones. `keep`: as they are.
    """
    mojibake: bool = True
    """Also mend texts of UTF-8 that were read as Windows-1252 or Latin-1."""

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        texts_alone(
            "repair_text", table, [name for name in self.columns if name in table.columns]
        )
        return super().mend(table, facts, session)

    def repair(
        self, columns: Mapping[str, pa.Array], facts: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        return {name: each_text(column, self._one) for name, column in columns.items()}

    def _one(self, text: str) -> str:
        if self.mojibake:
            text = _reread(text)
        return (
            text if self.unicode == "keep" else unicodedata.normalize(self.unicode, text)
        )


def _reread(text: str) -> str:
    if text.isascii():
        return text
    for encoding in ("cp1252", "latin-1"):
        try:
            return text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return text
