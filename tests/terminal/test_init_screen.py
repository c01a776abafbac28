"""The screen of `init` fits the terminal, breaks no word, and names what matters first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.terminal.init_screen import init_screen

WORDS = st.text("abcdefghij ,.:-", min_size=1, max_size=60)


def _entry(column: str, why: str, *, loud: bool = False) -> dict[str, Any]:
    return {"column": column, "type": "number", "why": why, "loud": loud, "role": ""}


def _draft(**changes: Any) -> dict[str, Any]:
    return {
        "source": "people.csv",
        "recipe": "recipe.yaml",
        "rows": 20_000,
        "rows_in_source": 48_842,
        "columns": 15,
        "reading": {"encoding": "cp1252"},
        "unread": 1,
        "duplicates": 2,
        "target": _entry("income", "numbers, 1 to 9"),
        "inputs": [_entry("age", "numbers")],
        "left_out": [_entry("id", "an identifier"), _entry("gone", "a leak", loud=True)],
        "split": "by: time, on: day: rows are in time order",
        "problems": [],
        "warnings": ["few rows"],
        **changes,
    }


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_whole_screen(width: int) -> None:
    screen = init_screen(_draft(), width=width)
    words = " ".join(screen.split())
    assert "20,000 of 48,842 rows, 15 columns" in words
    assert "1 row could not be read" in words
    assert "2 rows repeat another (not removed)" in words
    assert "1 column: 1 number" in words
    # What gives the target away is named before an identifier.
    assert words.index("gone: a leak") < words.index("id: an identifier")
    assert "! few rows" in words
    assert words.endswith("next penstock run recipe.yaml")
    assert all(len(line) <= width for line in screen.splitlines())


def test_what_does_not_run_is_to_be_changed() -> None:
    screen = init_screen(_draft(problems=["inputs.age: wrong"]), width=80)
    assert "change recipe.yaml, then: penstock check recipe.yaml" in screen
    screen = init_screen(_draft(target=None), width=80)
    assert "--target" in screen and "penstock check" in screen


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    WORDS, st.lists(st.tuples(WORDS, WORDS), max_size=4), st.sampled_from([60, 80, 120])
)
def test_no_line_is_too_wide_and_no_word_broken(
    why: str, left_out: list[tuple[str, str]], width: int
) -> None:
    entries = [_entry(column, reason) for column, reason in left_out]
    draft = _draft(target=_entry("y", why), left_out=entries)
    screen = init_screen(draft, width=width)
    for line in screen.splitlines():
        assert len(line) <= width or len(line.split()) <= 3
    assert set(why.split()) <= set(screen.split())


def test_escapes_of_a_name_are_shown_not_obeyed() -> None:
    screen = init_screen(_draft(source="\x1b[31mred"), width=80)
    assert "\x1b" not in screen
