"""Events for who calls the verbs from Python: on a terminal as the command line shows them, in a notebook as
a bar, and nowhere else.
"""

from __future__ import annotations

import html
import importlib
import sys
import time
from typing import Any, Protocol

from penstock.core.events import Event, Events
from penstock.core.redact import redacted
from penstock.core.visible import visible
from penstock.core.wording import duration
from penstock.terminal.console import Console, detail

_DRAW_SECONDS = 0.2
_LINES = 200
"""The last lines that are kept on the page: a notebook stores its outputs."""


def python_events(events: Events | None, *, quiet: bool) -> Events:
    """Return the events of a verb that is called from Python.

    Args:
        events: what the caller wants to hear; it is taken as it is.
        quiet: hear nothing.
    """
    if events is not None:
        return events
    if quiet:
        return Events()
    if (display := _notebook()) is not None:
        return Events(NotebookBar(display))
    # A program whose errors go into a file or a pipe is no place for bars.
    is_shown = sys.stderr is not None and sys.stderr.isatty()
    return Events(Console(sys.stderr)) if is_shown else Events()


class Page(Protocol):
    """A place in a notebook that can be drawn anew."""

    def update(self, shown: Shown) -> None:
        """Draw `shown` in place of what was there."""


class Shown:
    """What a notebook shows of the events so far: as HTML where it can, else as text."""

    def __init__(self, markup: str, text: str) -> None:
        self._markup, self._text = markup, text

    def _repr_html_(self) -> str:
        return self._markup

    def __repr__(self) -> str:
        return self._text


class NotebookBar:
    """A sink of events that draws one bar for the stage at work, and a line for each that is over.

    Args:
        display: shows something in the notebook, and returns the place where it stands.
    """

    def __init__(self, display: Any) -> None:
        self._display = display
        self._page: Page | None = None
        self._lines: list[str] = []
        self._bar: tuple[str, float | None, str] | None = None
        self._drawn = self._started = 0.0

    def __call__(self, event: Event) -> None:
        fields = event.fields
        if event.name == "stage_started":
            self._started = time.monotonic()
            self._bar = (fields["stage"], None, "")
        elif event.name == "stage_ended":
            self._bar = None
            mark = "✓" if fields["ok"] else "✗"
            self._lines.append(f"{mark} {fields['stage']}  {duration(fields['seconds'])}")
        elif event.name == "stage_skipped":
            self._lines.append(f"· {fields['stage']}  nothing to do: {fields['why']}")
        elif event.name in ("said", "warned"):
            self._lines.append(
                f"{'!' if event.name == 'warned' else ' '} {fields['text']}"
            )
        elif event.name == "progress" and self._bar is not None:
            total = fields.get("total")
            share = fields["done"] / total if total else None
            self._bar = (self._bar[0], share, detail(fields))
            # A browser needs no more pictures a second than an eye sees.
            if time.monotonic() - self._drawn < _DRAW_SECONDS:
                return
        else:
            return
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        del self._lines[:-_LINES]
        lines = [visible(redacted(line)) for line in self._lines]
        markup = "<br>".join(html.escape(line) for line in lines)
        if self._bar is not None:
            stage, share, text = self._bar
            took = duration(time.monotonic() - self._started)
            sentence = visible(redacted(f"{stage}  {text}  {took}"))
            lines.append(sentence)
            value = "" if share is None else f' value="{share:.4f}"'
            markup += f"<br><progress{value} max='1'></progress> {html.escape(sentence)}"
        shown = Shown(
            f"<div style='font-family:monospace'>{markup}</div>", "\n".join(lines)
        )
        if self._page is None:
            self._page = self._display(shown)
        else:
            self._page.update(shown)


def _notebook() -> Any:
    """Return what displays in the notebook that this process is the kernel of; None elsewhere."""
    # Only what is loaded is asked: outside of a notebook IPython is not imported.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not getattr(shell, "kernel", None):
        return None
    display = importlib.import_module("IPython.display").display
    return lambda shown: display(shown, display_id=True)
