"""Events on a terminal: one live line for the stage at work, and lines that stay for what should be
remembered.

On a terminal the live line moves; into a file or a pipe, each stage gets a line when it ends, and one now and
then while it lasts, so that a log stays short and never looks dead.
"""

from __future__ import annotations

import time
from typing import IO, Any

from rich.console import Console as Rich
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from penstock.core.events import Event
from penstock.core.visible import visible
from penstock.core.wording import duration
from penstock.terminal.layout import paragraph

_LINE_SECONDS = 30.0
"""How often a stage at work gets a line in a file or a pipe."""
_SMOOTHED_SECONDS = 15.0
"""Over how long a rate is taken."""


class Console:
    """A sink of events that writes to `stream` (standard error, so that results stay alone on standard
    output).
    """

    def __init__(self, stream: IO[str], *, results: bool = True) -> None:
        """
        Args:
            results: also show what the screen that ends the command will show again (events with the field
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
        self._pace = _Pace()
        self._last_line = 0.0

    def __call__(self, event: Event) -> None:
        # Events without a method are for other sinks: the diary, a tracker.
        handler = getattr(self, f"_on_{event.name}", None)
        if handler is not None:
            handler(event.fields)

    def _on_stage_started(self, fields: dict[str, Any]) -> None:
        self._stage = fields["stage"]
        self._pace = _Pace()
        self._last_line = time.monotonic()
        # Into a file a moving line would be a thousand lines.
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
                # It moves even where a stage has nothing to count.
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=self._rich,
                # The bar goes when the stage ends; the line with its seconds stays.
                transient=True,
                expand=True,
            )
            self._task = self._progress.add_task(
                self._stage, total=None, detail="", left=""
            )
            self._progress.start()

    def _on_stage_ended(self, fields: dict[str, Any]) -> None:
        # Stopped before the line is printed, or the bar would be drawn over it.
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None
        mark = ("✓", "green") if fields["ok"] else ("✗", "red")
        self._line(mark, f"{fields['stage']:9} {duration(fields['seconds'])}")

    def _on_stage_skipped(self, fields: dict[str, Any]) -> None:
        self._line(("·", "cyan"), f"{fields['stage']:9} nothing to do: {fields['why']}")

    def _on_said(self, fields: dict[str, Any]) -> None:
        if self._results or not fields.get("result"):
            self._line((" ", "dim"), fields["text"], style="dim")

    def _on_warned(self, fields: dict[str, Any]) -> None:
        self._line(("!", "yellow"), fields["text"], style="yellow")

    def _on_progress(self, fields: dict[str, Any]) -> None:
        rate = self._pace.rate(str(fields.get("unit", "")), float(fields["done"]))
        # Beside the mark, the stage, the bar and the times; what does not fit is left out.
        room = max(self._rich.width - (66 if self._rich.width >= 100 else 50), 16)
        text = detail(fields, rate=rate, most=room if self._live else None)
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task,
                completed=fields["done"],
                total=fields.get("total"),
                detail=visible(text),
                left=self._left(fields) if self._rich.width >= 80 else "",
            )
        elif self._stage and self._is_line_due():
            self._last_line = time.monotonic()
            self._line(
                ("·", "cyan"), f"{self._stage:9} {text}  {self._left(fields)}".rstrip()
            )

    def _left(self, fields: dict[str, Any]) -> str:
        left = self._pace.left(fields.get("total"))
        return "" if left is None else f"{duration(left)} left"

    def _is_line_due(self) -> bool:
        """Whether a stage that takes long gets a line in a file or a pipe."""
        return not self._live and time.monotonic() - self._last_line >= _LINE_SECONDS

    def _line(self, mark: tuple[str, str], text: str, *, style: str = "") -> None:
        # Before it is wrapped: once spelt out, control characters take columns.
        text = visible(text)
        # by words, and under the text rather than under the mark; a file keeps a line a message
        if self._live:
            # Two columns for the mark and its space; a very narrow terminal still gets words.
            width = max(20, self._rich.width - 1)
            text = "\n".join(paragraph(text, width, first="  ", rest="  ")).lstrip()
        self._rich.print(Text.assemble((mark[0], mark[1]), " ", (text, style)))


class _Pace:
    """How fast a stage goes, over the last seconds."""

    def __init__(self) -> None:
        self._unit = ""
        self._seen: list[tuple[float, float]] = []

    def rate(self, unit: str, done: float) -> float | None:
        """Return how many `unit` are done a second; None before there is anything to measure.

        Args:
            done: how many there are by now.
        """
        now = time.monotonic()
        # Another unit, or a count that begins again, is another piece of the stage's work.
        if unit != self._unit or (self._seen and done < self._seen[-1][1]):
            self._unit, self._seen = unit, []
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _SMOOTHED_SECONDS:
            del self._seen[0]
        return self._rate()

    def left(self, total: float | None) -> float | None:
        """Return the seconds that are left of `total`; None where that cannot be known."""
        rate = self._rate()
        return None if not total or not rate else max(total - self._seen[-1][1], 0) / rate

    def _rate(self) -> float | None:
        if len(self._seen) < 2:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin) if end - begin > 0.5 else None


_UNMEASURED = ("stage", "done", "total", "unit")


def detail(
    fields: dict[str, Any], *, rate: float | None = None, most: int | None = None
) -> str:
    """The figures of a `progress` event in words: `1,200/5,000 rows  800/s  loss 0.41`.

    Args:
        rate: units a second.
        most: columns of the text; the last figures are left out where there are more.
    """
    total, unit = fields.get("total"), str(fields.get("unit", ""))
    done = f"{fields['done']:,.0f}" + (f"/{total:,.0f}" if total else "") + f" {unit}"
    # Whatever else a stage measures is shown by its name, without the console knowing it.
    measured = {
        word: value
        for word, value in fields.items()
        if word not in _UNMEASURED and value is not None
    }
    # Training says its own rate, in examples.
    pace = (
        [f"{_short(rate)}/s"]
        if rate and rate >= 0.05 and "examples_per_second" not in measured
        else []
    )
    rest = [_measured(word, value) for word, value in measured.items()]
    parts = [done, *pace, *rest]
    while most is not None and len(parts) > 1 and len("  ".join(parts)) > most:
        parts.pop()
    return "  ".join(parts)


_SHARES = {"model": "computing", "waiting": "waiting for data"}


def _measured(word: str, value: Any) -> str:
    if word in _SHARES:
        return f"{_SHARES[word]} {value:.0%}"
    return (
        f"{_short(value)} examples/s"
        if word == "examples_per_second"
        else f"{word.replace('_', ' ')} {_short(value)}"
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
