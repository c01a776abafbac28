"""Events on a terminal: one live line for the stage at work, and lines that stay for what should be
remembered.

On a terminal the live line moves; into a file or a pipe, each stage gets a line when it ends, so that a log
stays short.
"""

from __future__ import annotations

import textwrap
from typing import IO, Any

from rich.console import Console as Rich
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from penstock.core.events import Event
from penstock.core.visible import visible


class Console:
    """A sink of events that writes to `stream` (standard error, so that results stay alone on standard
    output).
    """

    def __init__(self, stream: IO[str], *, results: bool = True) -> None:
        """
        Args:
            results: also tell what the screen that ends the command will tell again (events with the field
                `result`).
        """
        self._results = results
        self._rich = Rich(
            # `drawn` lets the escapes of rich through, and still blanks credentials.
            file=getattr(stream, "drawn", stream),
            highlight=False,
            soft_wrap=True,
        )
        self._live = self._rich.is_terminal
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""

    def __call__(self, event: Event) -> None:
        # Events without a method are for other sinks: the diary, a tracker.
        handler = getattr(self, f"_on_{event.name}", None)
        if handler is not None:
            handler(event.fields)

    def _on_stage_started(self, fields: dict[str, Any]) -> None:
        self._stage = fields["stage"]
        # Into a file the stage's end is enough; a moving line would be a thousand
        # lines.
        if self._live:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description:9}"),
                # Narrow terminals need the room for the figures.
                BarColumn(bar_width=28 if self._rich.width >= 100 else 12),
                TextColumn(
                    "{task.fields[detail]}",
                    table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
                ),
                TimeRemainingColumn(compact=True),
                console=self._rich,
                # The bar goes when the stage ends; the line with its seconds stays.
                transient=True,
                expand=True,
            )
            self._task = self._progress.add_task(self._stage, total=None, detail="")
            self._progress.start()

    def _on_stage_ended(self, fields: dict[str, Any]) -> None:
        # Stopped before the line is printed, or the bar would be drawn over it.
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None
        mark = ("✓", "green") if fields["ok"] else ("✗", "red")
        self._line(mark, f"{fields['stage']:9} {_seconds(fields['seconds'])}")

    def _on_stage_skipped(self, fields: dict[str, Any]) -> None:
        self._line(("·", "cyan"), f"{fields['stage']:9} nothing to do: {fields['why']}")

    def _on_said(self, fields: dict[str, Any]) -> None:
        if self._results or not fields.get("result"):
            self._line((" ", "dim"), fields["text"], style="dim")

    def _on_warned(self, fields: dict[str, Any]) -> None:
        self._line(("!", "yellow"), fields["text"], style="yellow")

    def _on_progress(self, fields: dict[str, Any]) -> None:
        # Progress outside of a stage, or not on a terminal.
        if self._progress is None or self._task is None:
            return
        total = fields.get("total")
        done = (
            f"{fields['done']:,.0f}"
            + (f"/{total:,.0f}" if total else "")
            + f" {fields.get('unit', '')}"
        )
        # Whatever else a stage measures is shown by its name, without the console
        # knowing it.
        rest = [
            _told(word, value)
            for word, value in fields.items()
            if word not in ("stage", "done", "total", "unit") and value is not None
        ]
        self._progress.update(
            self._task,
            completed=fields["done"],
            total=total,
            detail=visible("  ".join([done, *rest])),
        )

    def _line(self, mark: tuple[str, str], text: str, *, style: str = "") -> None:
        # Before it is wrapped: once spelt out, control characters take columns.
        text = visible(text)
        # by words, and under the text rather than under the mark; a file keeps a line a message
        if self._live:
            # Three columns for the mark and its space; a very narrow terminal still
            # gets words.
            width = max(20, self._rich.width - 3)
            text = "\n  ".join(
                piece
                for line in text.splitlines()
                for piece in textwrap.wrap(line, width, break_on_hyphens=False) or [""]
            )
        self._rich.print(Text.assemble((mark[0], mark[1]), " ", (text, style)))


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


_SHARES = {"model": "model", "waiting": "waiting for data"}


def _told(word: str, value: Any) -> str:
    if word in _SHARES:
        return f"{_SHARES[word]} {value:.0%}"
    return (
        f"{_short(value)} ex/s"
        if word == "examples_per_second"
        else f"{word.replace('_', ' ')} {_short(value)}"
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
