"""Lines that stand in many texts are no part of what any one of them says: menus, signatures, notices.

Which lines those are is learnt from the training split: a line is boilerplate when at least `share` of the
rows, and at least `times` of them, have it. Facts are digests of lines, so no value of a row is in a
manifest or a bundle; the same lines are taken out of a request. A text of which nothing else is left becomes
missing.

Memory: a batch of texts. Lines are counted by the engine, on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from penstock.contracts.data import BatchCleaner, EngineSession
from penstock.contracts.judge import written
from penstock.parts.cleaners._words import Names, each_text, texts_alone

if TYPE_CHECKING:
    import ibis.expr.types as ir

_ROWS = 2_048
_MOST_LINES = 20_000
"""Lines that are learnt of a column, the commonest first."""


class Boilerplate(BatchCleaner):
    """Takes lines out of texts that many texts of the training split have."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text", "times": 3, "characters": 1},
    )

    columns: Names = Field(min_length=1)
    """Columns of texts."""
    share: float = Field(0.01, gt=0, le=1)
    """A line that so many of the training rows have is boilerplate."""
    times: int = Field(10, ge=2)
    """It must stand in so many rows at least, however few there are."""
    characters: int = Field(12, ge=1)
    """Shorter lines are left: many texts say "Yes"."""

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, table: ir.Table, session: EngineSession) -> dict[str, Any]:
        texts_alone("boilerplate", table, self.columns)
        rows = session.count(table)
        least = max(self.times, -int(-self.share * rows // 1))
        facts: dict[str, list[str]] = {}
        for name in self.columns:
            lines = written(session, self._lines(table.select(__p_text=name), session))
            if "__p_line" not in lines.columns:
                facts[name] = []
                continue
            counts = lines.group_by("__p_line").aggregate(n=lines.count())
            often = counts.filter(counts["n"] >= least)
            # The commonest, and of equal ones the same on every engine.
            often = often.order_by([often["n"].desc(), often["__p_line"]])
            facts[name] = sorted(
                row["__p_line"] for row in session.rows(often.limit(_MOST_LINES))
            )
        return {"lines": facts}

    def _lines(self, texts: ir.Table, session: EngineSession) -> Iterator[pa.Table]:
        """The digests of each text's lines, each once a text."""
        for batch in session.batches(texts, _ROWS):
            digests = [
                digest
                for text in batch.column(0).to_pylist()
                if text
                for digest in sorted({_digest(line) for line in self._judged(text)})
            ]
            yield pa.table({"__p_line": pa.array(digests, pa.string())})

    def _judged(self, text: str) -> Iterator[str]:
        for line in text.splitlines():
            if len(_plain(line)) >= self.characters:
                yield line

    def notes(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {f"lines of {name}": len(lines) for name, lines in facts["lines"].items()}

    def repair(
        self, columns: Mapping[str, pa.Array], facts: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        repaired = {}
        for name, column in columns.items():
            known = frozenset(facts["lines"][name])

            def cut(text: str, known: frozenset[str] = known) -> str | None:
                lines = text.splitlines()
                left = [line for line in lines if not self._is_known(line, known)]
                # A text without any such line stays as it is, to the last character.
                if len(left) == len(lines):
                    return text
                return "\n".join(left) if any(map(_plain, left)) else None

            repaired[name] = each_text(column, cut) if known else column
        return repaired

    def _is_known(self, line: str, known: frozenset[str]) -> bool:
        return len(_plain(line)) >= self.characters and _digest(line) in known


def _plain(line: str) -> str:
    return " ".join(line.split())


def _digest(line: str) -> str:
    return hashlib.blake2b(_plain(line).encode(), digest_size=8).hexdigest()
