"""Which files of one source have a header: decided over all of them, since one alone may mislead.

    part-0  x,c,y     part-1  x,c,y     the same first line in all: names,
            1.5,k,u           2.5,c,v   though part-1 has the value `c` in its column `c`

A file that shares names with the others is mapped by name, whatever their order. A file whose first line has
nothing in common with the names of the others is refused: its rows would otherwise stand in other columns, or
its names among the rows. Only where every file says so itself has none a header.

And what a header is to its own file: how its names fit the lines below, and where it comes again, as it does
where files were joined. Such a line is no row: it is put aside. Pure: what files look like in, decisions out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.errors import SourceError
from penstock.formats.dialect import (
    BLANKS,
    Record,
    cells_of,
    could_be_names,
    is_like_a_value,
    seems_header,
    widths_of,
)
from penstock.formats.options import Reading

REPEATED = "it is the header again, so it is no row"
_SHARED = 0.5
"""The share of a first line's cells that must be known names for it to be a header."""
_OUTVOTED = 4
"""A first line is no header of a table whose rows have another number of cells so many times as often as its
own.
"""


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
        """The cells that are not empty, in lower case."""
        return frozenset(cell.lower() for cell in self.cells if cell)


def look(path: str, records: Sequence[Record]) -> Look:
    """Judge a file by its first records."""
    readable = records and not records[0].reason
    cells = tuple(cells_of(records[0])) if readable else ()
    return Look(path, cells, seems_header(list(records)))


def decide(looks: Sequence[Look]) -> list[bool]:
    """Decide which of the files have a header.

    Raises:
        SourceError: some have one, and another has none, or one that shares no name with it.
    """
    # One first line in all files, whatever the case of its letters, and fit to be
    # names: nothing else needs to be asked.
    if len(
        {tuple(cell.lower() for cell in one.cells) for one in looks}
    ) == 1 and could_be_names(looks[0].cells):
        return [True] * len(looks)
    # Those that are sure decide; only where none is, those that may be.
    sure = [one for one in looks if one.verdict == "yes"] or [
        one for one in looks if one.verdict == "perhaps"
    ]
    if not sure:
        return [False] * len(looks)
    # The commonest first line is held against the others.
    common = Counter(one.cells for one in sure).most_common(1)[0][0]
    reference = next(one for one in sure if one.cells == common)
    for one in looks:
        if not _belongs(one, reference, certain=one.verdict == reference.verdict):
            raise SourceError(_differs(one, reference))
    return [True] * len(looks)


def _belongs(one: Look, reference: Look, *, certain: bool) -> bool:
    """Whether a file's first line is a header beside that of another."""
    shared = len(one.names & reference.names)
    # What is as sure as the reference needs one name in common; what is less, half of
    # its cells.
    return shared > 0 if certain else shared >= _SHARED * len(one.cells) and shared > 0


def _differs(one: Look, reference: Look) -> str:
    here, there = ",".join(one.cells)[:80], ",".join(reference.cells)[:80]
    return (
        f"{one.path} begins with {here!r}, which shares too few names with the first line of"
        f" {reference.path}, {there!r}: is it data, or a header of its own? Files of one source are united by"
        " their columns' names. Give it the header of the others; or set `header: false` (with `names`) if"
        " no file has one, `header: true` if each has."
    )


# -- one header and its rows ---------------------------------------------------------------------------------


def fitted_names(names: list[str], rest: Sequence[Record]) -> list[str] | None:
    """A header's names as the lines below need them: more, without a name, where these end in a delimiter
    that the header lacks, or less where the header does; None where nearly all lines have another number of
    cells.
    """
    widths = Counter(widths_of(list(rest)))
    if not widths:
        return names
    here = len(names)
    common, times = widths.most_common(1)[0]
    # A few ragged lines prove nothing against a header.
    if common == here or widths[here] * _OUTVOTED > times:
        return names
    beyond = [r.cells[here:] for r in rest if len(r.cells) == common]
    # Each line ends in delimiters that the header lacks: columns without a name, and
    # empty.
    if common > here and not any(cell.strip() for cells in beyond for cell in cells):
        return names + [""] * (common - here)
    if common == here + 1 and _named_rows([r for r in rest if len(r.cells) == common]):
        return ["", *names]
    # The header ends in delimiters that the lines lack.
    if common < here and not any(name.strip(BLANKS) for name in names[common:]):
        return names[:common]
    return None


def _named_rows(rows: Sequence[Record]) -> bool:
    """Whether each line begins with a name or number of its own in quotes, as where R writes a table: the
    header has none for these. Without quotes a name may as well be missing at the header's end.
    """
    first = [row.cells[0].decode().strip(BLANKS) for row in rows]
    if len(rows) < 2 or len(set(first)) < len(first):
        return False
    if not all(row.raw.lstrip(b" \t").startswith(b'"') for row in rows):
        return False
    numbers = [str(i) for i in range(1, len(first) + 1)]
    return first == numbers or not any(is_like_a_value(name) for name in first)


_SPELT_OUT = 12
"""Names that an error repeats."""


def does_not_fit(path: str, names: Sequence[str], rest: Sequence[Record]) -> SourceError:
    """The error for a first line that has names, and not as many as the lines below
    have cells.
    """
    widths = Counter(widths_of(list(rest)))
    common, times = widths.most_common(1)[0]
    hint = _one_apart(names, common)
    return SourceError(
        f"{path} begins with {','.join(names)[:80]!r}, {len(names)} cells that look like names, but {times}"
        f" of {widths.total()} lines below have {common} cells. If it is a title, set `skip_rows`; if it"
        " lacks names, give all `names` as well; if it is data, set `header: false`; if it is right and"
        f" those lines are wrong, set `header: true`.{hint}"
    )


def _one_apart(names: Sequence[str], width: int) -> str:
    """What to write where one name is missing, as tables of R and pandas have it, or one is too many."""
    if abs(len(names) - width) != 1 or len(names) < 2 or not all(names):
        return ""
    plain = all(name.replace("_", "").replace(" ", "").isalnum() for name in names)
    if len(names) > _SPELT_OUT or not plain:
        return ""
    few = len(names) < width
    whole = ", ".join(["row", *names] if few else names[:width])
    which = "the first column has no name" if few else f"{names[-1]!r} has no column"
    return f" If {which}: --set 'names=[{whole}]' --set header=false --set skip_rows=1"


class Again:
    """Recognises a file's header where it comes again.

    Args:
        names: the header's cells, at least one of them not empty.
        quote: what is written twice within a cell.
    """

    def __init__(self, path: str, names: Sequence[str], quote: str | None) -> None:
        self._path = path
        self._names = [_folded(name) for name in names]
        self._sorted = sorted(self._names)
        # The longest first, since it is the rarest in a block.
        plain = sorted(
            (
                n
                for n in map(_trimmed, names)
                if n and n.isprintable() and not (quote and quote in n)
            ),
            key=len,
            reverse=True,
        )
        self._needles = [
            [spelt.encode() for spelt in dict.fromkeys(_spellings(name))]
            for name in plain
        ]
        spellings = {spelt for name in names for spelt in _spellings(_trimmed(name))}
        self._spellings = pa.array(
            # The first column's name may stand behind a mark of byte order.
            sorted({mark + spelt for spelt in spellings for mark in ("", "\ufeff")}),
            pa.string(),
        )

    @classmethod
    def of(
        cls,
        path: str,
        records: Sequence[Record],
        reading: Reading,
        *,
        header: bool,
        width: int,
    ) -> Again | None:
        """What knows a file's header where it comes again; None where there is none, or it may be a value as
        well: all is text in one column.

        Args:
            header: whether the first of `records` is one.
            width: how many columns the file has.
        """
        if not header:
            is_told = len(reading.names) > 1 and reading.header == "auto"
            return cls(path, reading.names, reading.quote) if is_told else None
        cells = (
            [c.decode() for c in records[0].cells]
            if records and not records[0].reason
            else []
        )
        if not any(c.strip() for c in cells) or (
            len(cells) == 1 and seems_header(list(records)) != "yes"
        ):
            return None
        return cls(path, cells[:width] + [""] * (width - len(cells)), reading.quote)

    def suspected(self, block: bytes, columns: Sequence[pa.Array]) -> bool:
        """Whether a row of a block may be the header, so that each must be looked at.

        Nearly every block lacks a name, which is seen at the speed of memory.

        Args:
            columns: what was read of it, of some or all of the file's columns.
        """
        # Each name must be somewhere in the block, in one of its spellings.
        if any(not any(spelt in block for spelt in name) for name in self._needles):
            return False
        rows = np.arange(len(columns[0]) if columns else 0)
        for column in columns:
            # Only rows that matched all columns so far are looked at in the next.
            some = column if len(rows) == len(column) else column.take(pa.array(rows))
            here = pc.is_in(pc.utf8_trim_whitespace(some), self._spellings).to_numpy(
                zero_copy_only=False
            )
            rows = rows[here]
            if not len(rows):
                return False
        return True

    def reason(self, cells: Sequence[bytes], line: int) -> str:
        """Why a record is no row; empty where it is one.

        Raises:
            SourceError: it has the names in another order, so that all rows behind it have other columns.
        """
        here = [_folded(cell.decode()) for cell in cells]
        if here == self._names:
            return REPEATED
        if sorted(here) == self._sorted:
            raise SourceError(
                f"{self._path}, line {line}: the column names appear again in another order:"
                f" {','.join(here)[:80]!r}. The file seems to be several files joined, with"
                " columns in different orders. Give them as separate files; or, if that line"
                " is data, set `header: false`, `names` and `skip_rows: 1`."
            )
        return ""


def _trimmed(name: str) -> str:
    return name.strip(BLANKS)


def _folded(name: str) -> str:
    return _trimmed(name).lower()


def _spellings(name: str) -> tuple[str, ...]:
    return (name, name.lower(), name.upper(), name.capitalize(), name.title())
