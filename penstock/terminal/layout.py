"""Text in a given width: paragraphs and tables that break between words, never within one.

A word that is wider than the screen (a path, say) stands whole on a line, so that it can be copied.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Sequence
from itertools import pairwise

from rich.cells import cell_len

_GAP = "  "


def paragraph(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines of at most `width` columns.

    Args:
        first: stands before the first line.
        rest: stands before the others.
    """
    lines: list[str] = []
    for piece in text.splitlines() or [""]:
        line, is_empty = rest if lines else first, True
        for word in piece.split():
            joined = line + word if is_empty else f"{line} {word}"
            if is_empty or cell_len(joined) <= width:
                line, is_empty = joined, False
            else:
                lines.append(line.rstrip())
                line = rest + word
        lines.append(line.rstrip())
    return lines


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    right: Collection[int] = (),
    title: str = "",
) -> str:
    """Lay rows out in columns; where the words do not fit beside each other, one value a line.

    Args:
        right: the columns that are aligned to the right.
    """
    lines = paragraph(title, width) if title else []
    columns = list(zip(head, *rows, strict=True))
    natural = [max(map(cell_len, column)) for column in columns]
    least = [max(_longest_word(cell) for cell in column) for column in columns]
    room = width - len(_GAP) * (len(head) - 1)
    if sum(least) > room:
        return "\n".join([*lines, *_records(head, rows, width)])
    widths = _shared(natural, least, room)
    # Without a head the row of names and the rule below it are left out.
    if any(head):
        lines += _row(head, widths, right)
        lines.append(_GAP.join("─" * each for each in widths))
    for row in rows:
        lines += _row(row, widths, right)
    return "\n".join(lines)


def _longest_word(cell: str) -> int:
    return max(map(cell_len, cell.split()), default=0)


def _shared(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return the columns' widths: natural ones, the widest made narrower until all fit."""
    widths = list(natural)
    while sum(widths) > room:
        able = [i for i, each in enumerate(widths) if each > least[i]]
        widths[max(able, key=lambda i: widths[i])] -= 1
    return widths


def _row(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> list[str]:
    cells = [paragraph(cell, each) for cell, each in zip(row, widths, strict=True)]
    lines = []
    for i in range(max(map(len, cells))):
        parts = []
        for j, cell in enumerate(cells):
            text = cell[i] if i < len(cell) else ""
            # By columns of the screen, not by characters: some are two wide.
            space = " " * (widths[j] - cell_len(text))
            parts.append(space + text if j in right else text + space)
        lines.append(_GAP.join(parts).rstrip())
    return lines


def _records(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    lines: list[str] = []
    for row in rows:
        if lines:
            lines.append("")
        for i, (word, cell) in enumerate(zip(head, row, strict=True)):
            if cell:
                indent = "  " if i else ""
                text = f"{word}: {cell}" if word else cell
                lines += paragraph(text, width, first=indent, rest=f"{indent}  ")
    return lines


def bars(values: Sequence[float], *, width: int, height: int = 8) -> list[str]:
    """Draw values as columns, at most `width` of them: a curve that a terminal can show.

    Where there are more values than columns, each column is the mean of its neighbours.
    """
    columns = _thinned(values, width)
    low, high = min(columns), max(columns)
    span = (high - low) or 1.0
    # Eighths of a line; the lowest value still shows.
    tops = [1 + round((each - low) / span * (8 * height - 1)) for each in columns]
    return [
        "".join(_EIGHTHS[min(max(top - 8 * line, 0), 8)] for top in tops).rstrip()
        for line in reversed(range(height))
    ]


_EIGHTHS = " ▁▂▃▄▅▆▇█"


def _thinned(values: Sequence[float], most: int) -> list[float]:
    if len(values) <= most:
        return list(values)
    edges = [round(i * len(values) / most) for i in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def screen_width(most: int = 110) -> int:
    """Columns to write in: the terminal's, up to `most`; in a file or a pipe `most`."""
    # Into a pipe the width is fixed, so that logs of two machines compare.
    if not sys.stdout.isatty():
        return most
    return max(40, min(shutil.get_terminal_size((most, 24)).columns, most))
