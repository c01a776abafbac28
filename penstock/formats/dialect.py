"""CSV's grammar, read with care: every record, the line it begins on, and why it cannot be read.

What is asked of a file, in the words of RFC 4180: a cell that begins with a quote ends with one, and what
follows is a delimiter or the line's end; a quote within is doubled (or escaped). A quote elsewhere is a
character like any other. A record that breaks this is rejected as one line, and reading goes on at the next,
so that a stray quote costs one row and not the rest of the file. Lines end with LF or CRLF.

This is the slow and certain reader. `plain_cut` tells where the fast one may be trusted: it looks at every
quote in a block and is content only if each opens or closes a cell as it should, in which case both readers
agree by construction.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from penstock.formats.texts import LONGEST_LINE, undecodable

LONGEST_RECORD = LONGEST_LINE
"""Bytes. A quoted cell that is longer is taken for one whose closing quote is missing."""

LONGEST_NAME = 64
"""Characters. A first cell that is longer is no name."""
BLANKS = "\ufeff \t\r\n"
"""What is no part of a name: a mark of byte order stands where a file was joined to another."""
_MISSING = frozenset(
    ("na", "n/a", "nan", "null", "none", "nil", "?", "-", "--", ".", "missing", "unknown")
)
"""Words for a missing value, in lower case: a line of them that comes twice is no header."""
_LIKE_A_VALUE = re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|true|false|\d{4}-\d\d-\d\d.*", re.IGNORECASE
)


@dataclass(frozen=True)
class Dialect:
    """How one file is written. One ASCII byte each."""

    delimiter: bytes = b","
    quote: bytes | None = b'"'
    escape: bytes | None = None
    comment: bytes | None = None
    strip: bool = True


@dataclass(frozen=True)
class Record:
    """One record of a delimited file: its cells, or the reason why it cannot be read."""

    line: int
    """From 1."""
    raw: bytes
    cells: list[bytes]
    reason: str = ""
    """Why it cannot be read; then `cells` is empty."""


class Careful:
    """Reads records out of a buffer. After the iteration, `consumed` is how many bytes
    were read, and `line` the number of the line that follows.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.consumed = 0
        self.line = 1

    def records(
        self,
        buffer: bytes,
        line: int,
        *,
        final: bool,
        width: int = 0,
        most_bytes: int | None = None,
    ) -> Iterator[Record]:
        """Every whole record of `buffer`, which begins on `line`; with `final`, its end is the file's.

        Args:
            width: the number of cells where it is known: a line of white space is a row only where there is
                one column.
            most_bytes: stop behind the record that reaches so far.
        """
        d = self.dialect
        # A line without any of these bytes needs no walk through its characters.
        special = (d.quote or b"") + (d.escape or b"")
        position = self.consumed = 0
        self.line = line
        while position < (
            len(buffer) if most_bytes is None else min(len(buffer), most_bytes)
        ):
            end = buffer.find(b"\n", position)
            if end < 0:
                # Half a record: the caller gives it again, with more bytes behind it.
                if not final:
                    return
                end = len(buffer)
            raw = buffer[position:end].removesuffix(b"\r")
            after, lines = end + 1, 1
            blank = not raw or (d.strip and width != 1 and not raw.strip())
            if blank or (d.comment and raw.startswith(d.comment)):
                pass
            elif not any(c in raw for c in special):
                yield self._decodable(Record(self.line, raw, raw.split(d.delimiter)))
            else:
                cells, stop, reason = self._quoted(buffer, position)
                # The closing quote may come with the next bytes.
                if (
                    reason == "open"
                    and not final
                    and len(buffer) - position < LONGEST_RECORD
                ):
                    return
                # Rejected as one line: reading goes on at the next, so that a stray
                # quote costs one row.
                if reason:
                    reason = (
                        "a quoted cell is never closed" if reason == "open" else reason
                    )
                    yield self._decodable(Record(self.line, raw, [], reason))
                else:
                    # The record may go on: nobody knows yet what follows its last byte.
                    if stop >= len(buffer) and not final:
                        return
                    raw = buffer[position:stop].removesuffix(b"\r")
                    # A quoted cell may hold line ends, and these count as lines of the
                    # file.
                    after, lines = stop + 1, 1 + raw.count(b"\n")
                    yield self._decodable(Record(self.line, raw, cells))
            # A last line without its end would lead one byte beyond the buffer.
            position = self.consumed = min(after, len(buffer))
            self.line += lines

    @staticmethod
    def _decodable(record: Record) -> Record:
        # The record as a whole, so that the reason can tell the byte's place in the
        # line.
        try:
            record.raw.decode()
        except UnicodeDecodeError as error:
            return replace(record, cells=[], reason=undecodable(record.raw, error.start))
        return record

    def _quoted(self, buffer: bytes, position: int) -> tuple[list[bytes], int, str]:
        """The cells of the record at `position`, where its line ends, and what is wrong with it."""
        d = self.dialect
        cells: list[bytes] = []
        size = len(buffer)
        while True:
            start = position
            if d.strip:
                # Blanks before a quote are no part of a cell; but a tab may be the
                # delimiter itself.
                while (
                    start < size
                    and buffer[start] in b" \t"
                    and buffer[start : start + 1] != d.delimiter
                ):
                    start += 1
            if d.quote and buffer[start : start + 1] == d.quote:
                cell, position, reason = self._cell(buffer, start + 1)
                if reason:
                    return [], 0, reason
                if d.strip:
                    while (
                        position < size
                        and buffer[position] in b" \t"
                        and buffer[position : position + 1] != d.delimiter
                    ):
                        position += 1
                # Of CRLF the LF ends the record, below.
                if buffer[position : position + 2] == b"\r\n" or (
                    position == size - 1 and buffer[position:] == b"\r"
                ):
                    position += 1
            else:
                cell, position = self._bare(buffer, position)
            cells.append(cell)
            if position >= size or buffer[position : position + 1] == b"\n":
                return cells, position, ""
            if buffer[position : position + 1] != d.delimiter:
                return (
                    [],
                    0,
                    (
                        f"cell {len(cells)} goes on after its closing quote with"
                        f" {buffer[position : position + 12].decode('utf-8', 'replace')!r}; a quote within a"
                        " cell is doubled"
                    ),
                )
            position += 1

    def _cell(self, buffer: bytes, start: int) -> tuple[bytes, int, str]:
        d, cell, position, end = self.dialect, bytearray(), start, -2
        quote = d.quote or b""
        while True:
            # what was found is looked for once, however many escapes stand before it
            if -1 != end < position:
                end = buffer.find(quote, position)
            # Only up to the quote that was found: an escape behind it belongs to
            # another cell.
            escaped = (
                buffer.find(d.escape, position, end if end >= 0 else len(buffer))
                if d.escape
                else -1
            )
            if escaped >= 0:
                # The escaped byte may come with the next bytes; or the cell is too long
                # to be one.
                if escaped + 1 >= len(buffer) or escaped - start > LONGEST_RECORD:
                    return b"", 0, "open"
                cell += buffer[position:escaped] + buffer[escaped + 1 : escaped + 2]
                position = escaped + 2
            elif end < 0:
                return b"", 0, "open"
            else:
                if end - start > LONGEST_RECORD:
                    return b"", 0, "open"
                cell += buffer[position:end]
                position = end + 1
                # A quote right behind the quote is one within the cell, written twice.
                if buffer[position : position + 1] != quote:
                    return bytes(cell), position, ""
                cell += quote
                position += 1

    def _bare(self, buffer: bytes, position: int) -> tuple[bytes, int]:
        d, unescaped, stop = self.dialect, bytearray(), -1
        end = buffer.find(b"\n", position)
        end = len(buffer) if end < 0 else end
        while True:
            # Looked for anew only where an escape took the delimiter that was found.
            if stop < position:
                stop = buffer.find(d.delimiter, position, end)
                stop = end if stop < 0 else stop
            escaped = buffer.find(d.escape, position, stop) if d.escape else -1
            if escaped < 0:
                break
            unescaped += buffer[position:escaped]
            if escaped + 1 >= end:  # an escaped line end: the escape stands for itself
                return bytes(unescaped) + buffer[escaped:end].removesuffix(b"\r"), end
            unescaped += buffer[escaped + 1 : escaped + 2]
            position = escaped + 2
        cell = bytes(unescaped) + buffer[position:stop]
        return (cell.removesuffix(b"\r") if stop == end else cell), stop


def plain_cut(buffer: bytes, dialect: Dialect, *, final: bool) -> int | None:
    """How many bytes of `buffer` are whole records that the fast reader reads as `Careful` does; None if any
    is doubtful.
    """
    d = dialect
    # Without a quote every line end ends a record.
    if d.quote is None or d.quote not in buffer:
        cut = len(buffer) if final else buffer.rfind(b"\n") + 1
    else:
        data = np.frombuffer(buffer, np.uint8)
        quotes = np.flatnonzero(data == d.quote[0])
        ends = np.flatnonzero(data == 10)
        # With an even number of quotes before it, a line end is outside of all cells.
        outside = ends[(np.searchsorted(quotes, ends) & 1) == 0]
        if final and len(quotes) % 2 == 0:
            cut = len(buffer)
        # An odd number of quotes in all of the file: one of them is never closed.
        elif final:
            return None
        else:
            # Behind the last line end outside of quotes a record may still go on.
            cut = int(outside[-1]) + 1 if len(outside) else 0
        quotes = quotes[: int(np.searchsorted(quotes, cut))]
        if len(quotes):
            # By byte: whether a quote may open right behind it, or close right before
            # it.
            edge = np.zeros(256, bool)
            edge[[d.delimiter[0], 10]] = True
            around = np.array(
                [10], np.uint8
            )  # of one byte, or all would be copied as eight
            # The file's ends count as line ends. Padded by one, the byte before quote q
            # is at q, and the one behind it at q + 2.
            padded = np.concatenate([around, data[:cut], around])
            before, behind = padded[quotes[0::2]], padded[quotes[1::2] + 2]
            # A closing quote right before the next opening one: a quote within a cell,
            # written twice.
            doubled = quotes[1:-1:2] + 1 == quotes[2::2]
            opens = edge[before]
            opens[1:] |= doubled
            # A CR may stand between a cell and its line end, but not before a cell.
            edge[13] = True
            closes = edge[behind]
            closes[:-1] |= doubled
            if not (opens.all() and closes.all()):
                return None
    plain = buffer[:cut] if cut < len(buffer) else buffer
    # Arrow takes a lone CR for a line end; escapes are left to the careful parser.
    if plain.count(b"\r") != plain.count(b"\r\n") or (d.escape and d.escape in plain):
        return None
    # Arrow knows no comments.
    if d.comment and (plain.startswith(d.comment) or b"\n" + d.comment in plain):
        return None
    return cut


# -- looks ---------------------------------------------------------------------------------------------------


def sniff_delimiter(text: bytes, dialect: Dialect, *, final: bool) -> bytes | None:
    """The delimiter that cuts the first records into equally many cells, or None if there is one column."""
    best: tuple[float, bool, int] = (0.0, False, 1)
    winner = None
    # The order decides between equal scores.
    for candidate in (b",", b"\t", b";", b"|"):
        if candidate in (dialect.quote, dialect.escape) or candidate not in text:
            continue
        widths = widths_of(
            head_records(text, replace(dialect, delimiter=candidate), final=final)
        )
        if not widths:
            continue
        # The width that most records have; of two as common, the larger.
        width, count = max(
            ((w, c) for w, c in Counter(widths).items() if w > 1),
            key=lambda x: (x[1], x[0]),
            default=(1, 0),
        )
        # names are cut as their rows are: 1,5;2,5 below a;b
        score = (round(count / len(widths), 1), widths[0] == width, width)
        if width > 1 and score[0] >= 0.5 and score > best:
            best, winner = score, candidate
    return winner


def beginning(buffer: bytes, least: int) -> bytes:
    """The bytes by which the delimiter is judged: the first `least` of a file, and its
    first line in any case.
    """
    return buffer[: max(least, buffer.find(b"\n") + 1)]


def behind_first(
    careful: Careful, buffer: bytes, line: int, final: bool
) -> tuple[int, int]:
    """The byte at which the first record of `buffer` ends, and the number of the line
    that follows it.
    """
    rest = careful.records(buffer, line, final=final)
    next(rest)
    # `consumed` moves behind the first record only when the second is asked for.
    next(rest, None)
    return careful.consumed, careful.line


def head_records(
    text: bytes, dialect: Dialect, *, final: bool, most: int = 200
) -> list[Record]:
    """The first records of `text`, at most `most`, read by the careful parser.

    `final`: whether the file ends where `text` does; otherwise a last record without its end is left out.
    """
    records = []
    for record in Careful(dialect).records(text, 1, final=final):
        records.append(record)
        if len(records) == most:
            break
    return records


def widths_of(records: list[Record]) -> list[int]:
    """The number of cells of each record that could be read."""
    return [len(r.cells) for r in records if not r.reason]


def is_like_a_value(cell: str) -> bool:
    """Whether a cell is a number, a truth value or a date."""
    return bool(_LIKE_A_VALUE.fullmatch(cell))


def could_be_names(cells: Sequence[str]) -> bool:
    """Whether these may be names: some text, none of it like a value, none twice, none long."""
    full = [cell for cell in cells if cell]
    short = all(len(cell) <= LONGEST_NAME for cell in cells)
    return (
        bool(full)
        and short
        and len(set(full)) == len(full)
        and not any(_LIKE_A_VALUE.fullmatch(cell) for cell in cells)
    )


def seems_header(records: list[Record]) -> Literal["yes", "perhaps", "no"]:
    """Whether the first record has names: unlike values, and not found again below, but in a line that
    repeats all of them (of files that were joined). `perhaps` where all below is text too, so that nothing
    sets the names apart but that they differ from each other. How many cells the lines below have is no
    evidence: a ragged row, or a short header, makes no names data.
    """
    if not records or records[0].reason:
        return "no"
    names = cells_of(records[0])
    if (
        not any(names)
        or any(_LIKE_A_VALUE.fullmatch(n) for n in names)
        or max(map(len, names)) > LONGEST_NAME
    ):
        return "no"
    full = [n for n in names if n]
    is_named = could_be_names(names) and not any(n.lower() in _MISSING for n in full)
    all_below = [cells_of(r) for r in records[1:] if not r.reason]
    # A line that repeats the names is no data, and so no evidence against them.
    rest = [cells for cells in all_below if not (is_named and cells == names)]
    repeats = len(all_below) - len(rest)
    below = [{cells[i] for cells in rest if i < len(cells)} for i in range(len(names))]
    # What comes again among the values of its own column is a value.
    if any(n and n in cells for n, cells in zip(names, below, strict=True)):
        return "no"
    # Values of another kind below set the names apart.
    if any(any(_LIKE_A_VALUE.fullmatch(v) for v in cells) for cells in below):
        return "yes"
    if repeats and not _alone_repeats(names, rest):
        return "no"
    return "perhaps" if len(set(full)) == len(full) else "no"


def _alone_repeats(names: list[str], rest: list[list[str]]) -> bool:
    """Among nothing but texts: whether the first line alone comes again, so that it is none of them."""
    return (
        len(names) > 1
        and len(rest) > 1
        and len({tuple(cells) for cells in rest}) == len(rest)
    )


def cells_of(record: Record) -> list[str]:
    """A readable record's cells as they are compared with names."""
    return [cell.decode().strip(BLANKS) for cell in record.cells]
