"""The screen that ends `penstock predict`: the first rows, and how many more there are."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.wording import counted
from penstock.terminal.layout import paragraph, screen_width, table

_LEAST = 10
"""Characters of a column, about, where columns compete for room."""
_LONGEST = 40
"""Characters of a cell."""
_NAMED = 20


def predictions_screen(facts: Mapping[str, Any], *, command: Sequence[str]) -> str:
    """The first rows as a table, how many more there are, and how to write them all.

    Args:
        facts: what `predict` returns where no output is asked for.
        command: the arguments of the command, to be shown with an output.
    """
    again = shlex.join(["penstock", *command, "-o", "answers.csv"])
    rows = facts["first"]
    if not rows:
        return f"There is not one row to answer. To write a file all the same:\n  {again}"
    width = screen_width()
    every = dict.fromkeys(name for row in rows for name in row)
    # A column without a value here, as the reasons of refusals mostly are, says nothing.
    names = [name for name in every if any(row.get(name) is not None for row in rows)]
    shown = names[: max(width // _LEAST, 2)]
    right = {i for i, name in enumerate(shown) if _is_number(rows, name)}
    cells = [[_cell(row.get(name)) for name in shown] for row in rows]
    lines = [table(shown, cells, width=width, right=right)]
    if hidden := names[len(shown) :]:
        more = " …" if len(hidden) > _NAMED else ""
        lines += paragraph(
            f"Columns not shown: {', '.join(hidden[:_NAMED])}{more}", width
        )
    return "\n".join([*lines, "", _more(facts["more"]), f"  {again}"])


def _more(left: int | None) -> str:
    if left is None:
        return "There may be more. To write all of them:"
    if not left:
        return "To write them to a file:"
    return f"… and {counted(left, 'more row')}. To write all of them:"


def _is_number(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(isinstance(row.get(name), (int, float, type(None))) for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
