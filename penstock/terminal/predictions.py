"""The screen that ends `penstock predict`: how many rows were answered, and the first of them."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

_WIDEST = 110
_LEAST = 8
"""Characters of a column, about, where columns compete for room."""
_LONGEST = 40
"""Characters of a cell."""


def predictions_screen(facts: Mapping[str, Any], *, command: Sequence[str]) -> str:
    """The first rows as a table, how many more there are, and how to write them all.

    Args:
        facts: what `predict` returns where no output is asked for.
        command: the arguments of the command, to be shown with an output.
    """
    rows = facts["first"]
    again = shlex.join(["penstock", *command, "-o", "answers.csv"])
    if not rows:
        return f"There is not one row to answer.\nTo write a file all the same:  {again}"
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = names[: max((_width() // (_LEAST + 2)), 2)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        is_number = all(
            isinstance(row.get(name), (int, float, type(None))) for row in rows
        )
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in shown))
    lines = [_rendered(table)]
    if hidden := names[len(shown) :]:
        lines.append(f"Columns not shown: {', '.join(hidden[:20])}.")
    lines.append(f"{_more(facts, len(rows))}  {again}")
    return "\n".join(lines)


def _more(facts: Mapping[str, Any], shown: int) -> str:
    left = facts["rows"] - facts["unreadable"] - shown
    if left <= 0:
        return "To write them to a file:"
    return f"… and {left:,} more {'row' if left == 1 else 'rows'}. To write all of them:"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _width() -> int:
    if not sys.stdout.isatty():
        return _WIDEST
    return max(40, min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST))


def _rendered(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=_width(), highlight=False, no_color=True).print(table)
    return "\n".join(
        line.rstrip() for line in out.getvalue().splitlines() if line.strip()
    )
