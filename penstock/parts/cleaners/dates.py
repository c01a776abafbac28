"""Dates written in several ways become one way: `31/01/2024` and `Jan 31, 2024` → `2024-01-31`.

The formats are tried in the order of the recipe, so it says whether `03/04/2024` is in March or in April. A
text that none of them reads is left as it is. Names of months are English, whatever the machine's language.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import Field, model_validator

from penstock.contracts.data import BatchCleaner, EngineSession
from penstock.contracts.part import mistakes
from penstock.core.errors import Problem
from penstock.parts.cleaners._words import Names, each_text, texts_alone

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MONTHS = "january february march april may june july august september october november december".split()
_PIECES = {
    "%Y": r"(?P<year>[0-9]{4})",
    "%y": r"(?P<short>[0-9]{2})",
    "%m": r"(?P<month>[0-9]{1,2})",
    "%d": r"(?P<day>[0-9]{1,2})",
    "%b": "(?P<name>" + "|".join(month[:3] for month in _MONTHS) + ")",
    "%B": "(?P<name>" + "|".join(_MONTHS) + ")",
}
_PIVOT = 69
"""Two digits from here on are of the 20th century, as POSIX has it."""


class Dates(BatchCleaner):
    """Writes dates of mixed formats as `YYYY-MM-DD`."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text", "formats": ["%d/%m/%Y", "%b %d, %Y"]},
    )

    columns: Names = Field(min_length=1)
    formats: tuple[str, ...] = Field(min_length=1)
    """Tried in this order: `%Y`, `%y` (year of four or two digits), `%m`, `%b`, `%B` (month as number, three
    letters, word), `%d` (day), and what stands between them.
    """

    @model_validator(mode="after")
    def _readable(self) -> Dates:
        problems = []
        for i, text in enumerate(self.formats):
            pieces = re.findall("%.?", text)
            kinds = sorted(
                {"y": "Y", "b": "m", "B": "m"}.get(p[1:], p[1:]) for p in pieces
            )
            if kinds != ["Y", "d", "m"]:
                problems.append(
                    Problem(
                        ("formats", i),
                        "needs a year (%Y or %y), a month (%m, %b or %B) and a day (%d), each once; found"
                        f" {text!r}",
                    )
                )
        if problems:
            raise mistakes(*problems)
        return self

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        texts_alone(
            "dates", table, [name for name in self.columns if name in table.columns]
        )
        return super().mend(table, facts, session)

    def repair(
        self, columns: Mapping[str, pa.Array], facts: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        patterns = [_pattern(text) for text in self.formats]

        def written(text: str) -> str:
            days = (_day(pattern.fullmatch(text.strip())) for pattern in patterns)
            return next((day.isoformat() for day in days if day), text)

        return {name: each_text(column, written) for name, column in columns.items()}


def _pattern(text: str) -> re.Pattern[str]:
    pieces = re.split("(%.)", text)
    return re.compile(
        "".join(_PIECES.get(piece) or re.escape(piece) for piece in pieces),
        re.IGNORECASE | re.ASCII,
    )


def _day(match: re.Match[str] | None) -> datetime.date | None:
    """The date, or None where there is no match, or no such day."""
    if match is None:
        return None
    parts = match.groupdict()
    if parts.get("year"):
        year = int(parts["year"])
    else:
        year = int(parts["short"])
        year += 1900 if year >= _PIVOT else 2000
    month = (
        int(parts["month"])
        if parts.get("month")
        else next(
            i for i, m in enumerate(_MONTHS, 1) if m[:3] == parts["name"][:3].lower()
        )
    )
    try:
        return datetime.date(year, month, int(parts["day"]))
    except ValueError:
        return None
