"""What a terminal shows: nothing is cut off in silence, and everything fits its columns."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys

import pytest

from penstock.core.events import Events
from penstock.terminal import screens
from penstock.terminal.console import Console


def slices(target: str, declared: int, found: int) -> list[dict]:
    def made(i: int, asked: bool) -> dict:
        return {
            "target": target,
            "column": "city" if asked else "age",
            "value": f"{i}",
            "rows": 10 + i,
            "metric": "accuracy",
            "value_of_metric": 0.5,
            "whole": 0.8,
            "declared": asked,
        }

    return [
        *(made(i, True) for i in range(declared)),
        *(made(i, False) for i in range(found)),
    ]


def report(**more) -> dict:
    return {
        "metrics": {"test": {"pay": {"accuracy": 0.8, "f1_per_class": [1, 2]}}},
        "rows": 100,
        "verdict": "pay: well.",
        "intervals": {"pay": {"accuracy": [0.7, 0.9]}},
        **more,
    }


def test_the_worst_slices_are_shown_however_many_were_asked_for():
    text = screens.report_screen(report(slices=slices("pay", 30, 3)))
    assert "The worst slices found" in text
    assert "age = 0" in text and "age = 2" in text
    assert "and 22 more in the report" in text


def test_every_target_has_its_slices():
    text = screens.report_screen(
        report(slices=slices("pay", 12, 7) + slices("rank", 12, 7))
    )
    assert (
        "pay: city = 0" in text and "rank: city = 0" in text and "rank: age = 0" in text
    )


def test_no_slice_found_is_said():
    assert "No subgroup was found" in screens.report_screen(
        report(slices=slices("pay", 2, 0))
    )
    assert "No subgroup was found" not in screens.report_screen(
        report(slices=slices("pay", 2, 1))
    )


def test_overlap_and_notes_are_shown():
    text = screens.report_screen(
        report(
            slices=[],
            overlap={"test": 1234, "validation": 0},
            notes=["the test split has no rows"],
        )
    )
    assert "1,234 rows of the given test split are also in train" in text
    assert "the test split has no rows" in text


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_screens_fit_the_terminal(columns, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(
        shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((columns, 24))
    )
    counts = {
        "in": 123_456_789,
        "train": 100_000_000,
        "validation": 11_456_789,
        "test": 12_000_000,
        "quarantined": 0,
        "duplicates": 0,
        "filtered": 0,
    }
    text = (
        screens.rows_screen(counts)
        + "\n"
        + screens.report_screen(
            report(slices=slices("pay", 3, 3), verdict="a word " * 60)
        )
    )
    assert max(map(len, text.splitlines())) <= columns


def test_facts_within_facts_are_told():
    text = screens.facts_screen(
        {"run": "run-1", "validation": {"pay": {"accuracy": 0.5}, "loss": 1.5}}
    )
    assert "validation pay" in text and "accuracy 0.5000" in text and "loss 1.5" in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_messages_break_between_words_on_a_terminal_and_not_at_all_in_a_file(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    long = "something that is said at length, and longer than any line of this narrow terminal"
    for stream, lines in ((Terminal(), 2), (io.StringIO(), 1)):
        Events(Console(stream)).say(long)
        told = stream.getvalue().rstrip("\n").split("\n")
        assert len(told) == lines
        plain = re.sub(r"\x1b\[\d*m", "", " ".join(told))
        assert " ".join(plain.split()) == long
        assert not re.search(r"\x1b\[3\d", stream.getvalue()), "NO_COLOR is heeded"


def test_what_the_last_screen_tells_is_not_told_before_it():
    stream = io.StringIO()
    events = Events(Console(stream, results=False))
    events.say("the verdict", result=True)
    events.say("a choice")
    assert "verdict" not in stream.getvalue() and "a choice" in stream.getvalue()
