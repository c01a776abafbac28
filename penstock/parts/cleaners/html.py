"""HTML becomes the text that a reader sees: no tags, no scripts, entities as letters, a line for each block.

Read in one pass over the text, however broken it is: a `<` that begins no tag stays, and what a tag or
comment that never ends would hide is left out to the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from penstock.contracts.data import BatchCleaner, EngineSession
from penstock.parts.cleaners._words import Names, each_text, texts_alone

if TYPE_CHECKING:
    import ibis.expr.types as ir

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)|<[!?]")
_HIDDEN = {
    name: re.compile(f"</{name}", re.IGNORECASE)
    for name in ("script", "style", "template")
}
_BLOCKS = frozenset(
    """p div br li ul ol tr table h1 h2 h3 h4 h5 h6 section article header footer blockquote pre hr dd
    dt""".split()
)
_CELLS = frozenset({"td", "th"})


class Html(BatchCleaner):
    """Leaves of HTML the text that a reader sees."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = ({"columns": "text"},)

    columns: Names = Field(min_length=1)
    """Columns of texts. A text without a tag or an entity is left as it is."""

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        texts_alone(
            "html", table, [name for name in self.columns if name in table.columns]
        )
        return super().mend(table, facts, session)

    def repair(
        self, columns: Mapping[str, pa.Array], facts: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        return {name: each_text(column, _seen_text) for name, column in columns.items()}


def _seen_text(text: str) -> str:
    if "&" not in text and not _TAG.search(text):
        return text
    lines = unescape("".join(_pieces(text))).split("\n")
    plain = (" ".join(line.split()) for line in lines)
    return "\n".join(line for line in plain if line)


def _pieces(text: str) -> list[str]:
    """What stands between tags, with a line's end for each tag of a block."""
    pieces, at = [], 0
    while match := _TAG.search(text, at):
        # A line's end in HTML is a space.
        pieces.append(text[at : match.start()].replace("\n", " "))
        name = (match[2] or "").lower()
        stop = ">"
        if text.startswith("<!--", match.start()):
            stop = "-->"
        elif name in _HIDDEN and not match[1]:
            closing = _HIDDEN[name].search(text, match.end())
            if closing is None:
                return pieces
            match = closing
        end = text.find(stop, match.end())
        if end < 0:
            return pieces
        at = end + len(stop)
        pieces.append("\n" if name in _BLOCKS else " " if name in _CELLS else "")
    pieces.append(text[at:].replace("\n", " "))
    return pieces
