"""Events of verbs that are called from Python: silent where nobody looks, a bar in a notebook."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.core.events import Events
from penstock.terminal.notebook import NotebookBar, python_events


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_shown_in_a_pipe_or_when_told_to_be_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        python_events(None, quiet=quiet).say("a choice")
        assert not stream.getvalue()


def test_a_terminal_sees_what_the_command_line_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    python_events(None, quiet=False).say("a choice")
    assert "a choice" in stream.getvalue()


def test_events_of_the_callers_own_are_taken_as_they_are() -> None:
    mine = Events()
    assert python_events(mine, quiet=False) is mine


def test_a_notebook_gets_one_place_that_is_drawn_anew() -> None:
    drawn: list[Any] = []

    def display(shown: Any) -> Any:
        drawn.append(shown)
        return SimpleNamespace(update=drawn.append)

    events = Events(NotebookBar(display))
    with events.stage("train"):
        events.progress("train", 5, 10, "steps", loss=0.25)
        events.warn("<script>alert(1)</script>")
    assert drawn[-1]._repr_html_().count("✓ train") == 1
    assert any('value="0.5000"' in each._repr_html_() for each in drawn)
    assert "<script>" not in drawn[-1]._repr_html_()
    assert "5/10 steps  loss 0.25" in repr(drawn[-2])
