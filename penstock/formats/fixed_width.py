"""Fixed width: each column has the same places in every line.

The widths are given, or follow from the places that are blank in all of the first lines. A line that has text
between two columns, or ends within a value, is a reject: to cut it anyhow would shift or shorten its values.
Where blanks at the ends of lines were taken off, the cells behind a line's end are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise

import numpy as np

from penstock.contracts.reading import Reject, Row, TableFile
from penstock.core.errors import SourceError

_LOOKED_AT_LINES = 1_000
_ODD_LINES = 100
"""One line of so many may have text where all others are blank."""
# A line that only separates the header from the rows.
_RULE = re.compile(r"[-=+_|\s]*[-=_]{2}[-=+_|\s]*")
_NUMBER = re.compile(r"[-+]?(\d[\d.,]*|\.\d+)([eE][-+]?\d+)?%?")

Line = tuple[int, str]


@dataclass(frozen=True)
class _Span:
    """The places of a column."""

    start: int
    end: int | None
    """None: up to the end of the line."""


@dataclass(frozen=True)
class Layout:
    """How a file's lines are cut."""

    spans: tuple[_Span, ...]
    names: tuple[str, ...]
    begin: int
    """The first line of data."""
    flush: tuple[bool, ...]
    """For each column, whether its values all reach its end: they stand at the right, or are of one
    length.
    """

    def cells(self, line: str) -> list[str]:
        """The texts of a line, without the blanks around them.

        Raises:
            ValueError: the line is no row.
        """
        last = self.spans[-1]
        self._check_length(line.rstrip())
        line = line.ljust(last.start)
        behind = "" if last.end is None else line[last.end :].strip()
        if behind:
            raise ValueError(
                f"is too long: {behind[:40]!r} follows the last column, which ends at {last.end:,}"
            )
        starts = [0]
        for left, right in pairwise(self.spans):
            starts.append(_border(line, left, right))
        ends = [*starts[1:], last.end]
        return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]

    def _check_length(self, line: str) -> None:
        for span, name, is_flush in zip(self.spans, self.names, self.flush, strict=True):
            if span is self.spans[-1] or span.end is None:
                return
            if is_flush and span.start < len(line) < span.end:
                raise ValueError(
                    f"is too short: it ends at character {len(line):,}, within the column {name!r}, whose"
                    f" values end at {span.end:,}"
                )


def _border(line: str, left: _Span, right: _Span) -> int:
    """Where the right one of two columns begins in a line: a value may be longer than those of the first
    lines, on that side on which it is not aligned.

    Raises:
        ValueError: one text runs from one column to the other.
    """
    between = line[left.end : right.start]
    if not between.strip():
        return right.start
    # What touches the right column is of it; all else is of the left one.
    touching = len(between) - 1 - between.rfind(" ")
    if touching == len(between) and line[: left.end][-1:].strip():
        raise ValueError(
            f"has text where two columns part, behind character {left.end:,}: {between[:40]!r}"
        )
    return right.start - touching


def read(
    file: TableFile, widths: Sequence[int], names: Sequence[str], header: bool | None
) -> Iterator[Row | Reject]:
    """The rows of a file.

    Args:
        widths: of the columns, in characters; found by their blanks where there are none.
        names: of the columns; the header's where there are none.
        header: whether the first line has the names; None: as it looks.

    Raises:
        SourceError: no columns can be found, or the names are not as many as they.
    """
    lines = ((n, line) for n, line in file.lines() if line.strip())
    beginning = list(islice(lines, _LOOKED_AT_LINES))
    if not beginning:
        return
    layout = _layout(file, beginning, widths, names, header)
    for number, line in chain(beginning, lines):
        if number < layout.begin:
            continue
        try:
            cells = layout.cells(line)
        except ValueError as error:
            yield Reject(number, str(error), line)
        else:
            yield Row(number, dict(zip(layout.names, cells, strict=True)))


def _layout(
    file: TableFile,
    beginning: list[Line],
    widths: Sequence[int],
    names: Sequence[str],
    header: bool | None,
) -> Layout:
    rules = [number for number, line in beginning[:3] if _RULE.fullmatch(line)]
    lines = [line for number, line in beginning if number not in rules]
    ruled = [line for number, line in beginning if number in rules]
    spans = _given(widths) if widths else _found(file, ruled[:1] or lines)
    if names and len(names) != len(spans):
        raise SourceError(
            f"source.format: names has {len(names)} names, and {file.path} has {len(spans)} columns"
            f" ({_places(spans)}). Give as many, or `widths`."
        )
    first, *rest = [[line[s.start : s.end].strip() for s in spans] for line in lines]
    if not widths:
        first = _header_cells(lines[0], spans) or first
    if header is None:
        header = list(names) == first if names else _is_header(first, rest)
        if not header and not names:
            file.say(
                "has no header that differs from its rows: its columns are called column_1, column_2, …"
                " (`format: {type: fixed_width, header: true}` if the first line has their names).",
                warn=True,
            )
    chosen = (
        tuple(names)
        if names
        else tuple(" ".join(cell.split()) for cell in first)
        if header
        else ("",) * len(spans)
    )
    unnamed = tuple(name or f"column_{i + 1}" for i, name in enumerate(chosen))
    if len(set(unnamed)) < len(unnamed):
        raise SourceError(
            f"{file.path} has two columns of one name in its header ({', '.join(unnamed[:12])}). Give `names`"
            " in `format`."
        )
    begin = max([beginning[0][0] + bool(header), *(number + 1 for number in rules)])
    flush = tuple(_is_flush(lines[bool(header) :], span) for span in spans)
    return Layout(spans, unnamed, begin, flush)


def _is_flush(lines: list[str], span: _Span) -> bool:
    """Whether nearly all values of a column reach its end."""
    cells = [
        line[span.start : span.end] for line in lines if len(line) >= (span.end or 0)
    ]
    filled = [cell for cell in cells if cell.strip()]
    short = sum(cell[-1] == " " for cell in filled)
    return bool(filled) and short <= len(filled) // _ODD_LINES


def _header_cells(line: str, spans: Sequence[_Span]) -> list[str] | None:
    """The names of a header, which may be longer than the values below them: its words, each for the column
    that it stands over, or else for the nearest. None where a word stands over several.
    """
    words = list(re.finditer(r"\S+", line))
    cells: list[list[str]] = [[] for _ in spans]
    is_clear = stand_over = True
    for word in words:
        distances = [_distance(word, span) for span in spans]
        is_clear = is_clear and distances.count(0) < 2
        stand_over = stand_over and 0 in distances
        cells[distances.index(min(distances))].append(word.group())
    # One word for each column leaves no doubt, wherever the words stand.
    is_order_better = not is_clear or not (all(cells) or stand_over)
    if is_order_better and len(words) == len(spans):
        return [word.group() for word in words]
    return [" ".join(cell) for cell in cells] if is_clear else None


def _distance(word: re.Match[str], span: _Span) -> int:
    """The places between a word and a column; 0 where it stands over it."""
    behind = 0 if span.end is None else word.start() - span.end + 1
    return max(span.start - word.end() + 1, behind, 0)


def _given(widths: Sequence[int]) -> tuple[_Span, ...]:
    ends = list(accumulate(widths))
    return tuple(_Span(end - width, end) for width, end in zip(widths, ends, strict=True))


def _found(file: TableFile, lines: list[str]) -> tuple[_Span, ...]:
    """The columns between places that are blank in all lines; the last one goes on to the end."""
    if any("\t" in line for line in lines):
        raise SourceError(
            f"{file.path} has tabs, which fill a place or many: it is no file of fixed widths. Set `format:"
            " tsv`, or give `widths`."
        )
    counts = np.zeros(max(map(len, lines)) + 1, np.int64)
    for line in lines:
        codes = np.frombuffer(line.encode("utf-32-le", "surrogatepass"), np.uint32)
        counts[: len(codes)] += codes != ord(" ")
    # Of many lines, a few that are bad do not join columns; they are rejects later.
    filled = counts > len(lines) // _ODD_LINES
    steps = np.diff(np.concatenate([[False], filled]).astype(np.int8))
    starts, ends = (
        np.flatnonzero(steps == 1).tolist(),
        np.flatnonzero(steps == -1).tolist(),
    )
    if len(starts) < 2:
        raise SourceError(
            f"{file.path}: no place is blank in all of its first {len(lines):,} lines, so its columns are not"
            " known. Give their widths in characters: `format: {type: fixed_width, widths: [8, 12, …]}`."
        )
    spans = [_Span(start, end) for start, end in zip(starts, ends, strict=True)]
    return (*spans[:-1], _Span(spans[-1].start, None))


def _places(spans: Sequence[_Span]) -> str:
    shown = [f"{s.start + 1}-{'' if s.end is None else s.end}" for s in spans[:12]]
    return ", ".join(shown) + (" …" if len(spans) > 12 else "")


def _is_header(first: list[str], rest: list[list[str]]) -> bool:
    """Whether the first line has names: no numbers, none twice, and a column below has numbers alone."""
    if not rest or len(set(first)) < len(first) or any(map(_NUMBER.fullmatch, first)):
        return False
    return any(
        all(_NUMBER.fullmatch(cell) for cell in column if cell) and any(column)
        for column in zip(*rest, strict=True)
    )
