"""Which files of one source have a header: decided over all of them, since one alone may mislead.

    part-0  x,c,y     part-1  x,c,y     the same first line in all: names,
            1.5,k,u           2.5,c,v   though part-1 has the value `c` in its column `c`

A file that shares names with the others is mapped by name, whatever their order. A file whose first line has nothing in
common with the names of the others is refused: its rows would otherwise stand in other columns, or its names among the
rows. Only where every file says so itself has none a header. Pure: what files look like in, decisions out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.core.errors import SourceError
from penstock.formats.dialect import Record, could_be_names, seems_header

_SHARED = 0.5
"""The share of a first line's cells that must be known names for it to be a header."""


@dataclass(frozen=True)
class Look:
    """How a file begins."""

    path: str
    cells: tuple[str, ...]
    """Of its first line, trimmed; none where it cannot be read."""
    verdict: Literal["yes", "perhaps", "no"]
    """What it says by itself."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(cell.lower() for cell in self.cells if cell)


def look(path: str, records: Sequence[Record]) -> Look:
    """A file by its first records."""
    readable = records and not records[0].reason
    cells = tuple(cell.decode().strip() for cell in records[0].cells) if readable else ()
    return Look(path, cells, seems_header(list(records)))


def decide(looks: Sequence[Look]) -> list[bool]:
    """Which of the files have a header.

    Raises:
        SourceError: some have one, and another has none, or one that shares no name with it.
    """
    if len({tuple(cell.lower() for cell in one.cells) for one in looks}) == 1 and could_be_names(looks[0].cells):
        return [True] * len(looks)
    sure = [one for one in looks if one.verdict == "yes"] or [one for one in looks if one.verdict == "perhaps"]
    if not sure:
        return [False] * len(looks)
    common = Counter(one.cells for one in sure).most_common(1)[0][0]
    reference = next(one for one in sure if one.cells == common)
    for one in looks:
        if not _belongs(one, reference, certain=one in sure):
            raise SourceError(_differs(one, reference))
    return [True] * len(looks)


def _belongs(one: Look, reference: Look, *, certain: bool) -> bool:
    """Whether a file's first line is a header beside that of another."""
    shared = len(one.names & reference.names)
    return shared > 0 if certain else shared >= _SHARED * len(one.cells) and shared > 0


def _differs(one: Look, reference: Look) -> str:
    here, there = ",".join(one.cells)[:80], ",".join(reference.cells)[:80]
    return (
        f"{one.path} begins with {here!r}, which shares too few names with the first line of {reference.path}, {there!r}: "
        f"is it data, or a header of its own? Files of one source are united by their columns' names. "
        f"Give it the header of the others; or set `header: false` (with `names`) if no file has one, `header: true` if each has."
    )
