"""Text in a given width: no line is wider, no word is broken, no word is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from penstock.terminal.layout import bars, paragraph, table

WORD = st.text("abc-_/.@漢é,", min_size=1, max_size=18)
TEXT = st.lists(WORD, max_size=12).map(" ".join)
WIDTH = st.integers(40, 120)


@given(TEXT, WIDTH)
def test_a_paragraph_keeps_its_words_and_its_width(text: str, width: int) -> None:
    lines = paragraph(text, width, first="- ", rest="  ")
    assert " ".join(lines).split()[1:] == text.split()
    assert all(cell_len(line) <= width for line in lines)


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(*[st.lists(TEXT, min_size=n, max_size=n)] * 3)
    ),
    WIDTH,
)
def test_a_table_keeps_its_words_and_its_width(
    rows: tuple[list[str], ...], width: int
) -> None:
    head, *body = rows
    text = table(head, body, width=width, right=(0,), title="a title")
    assert all(cell_len(line) <= width for line in text.splitlines())
    words = text.replace(":", " ").split()
    assert all(word in words for row in body for cell in row for word in cell.split())


def test_what_does_not_fit_beside_each_other_stands_below_each_other() -> None:
    long = "a" * 30
    text = table(["name", "path"], [[long, long]], width=40)
    assert text == f"name: {long}\n  path: {long}"


def test_a_word_wider_than_the_screen_is_left_whole() -> None:
    assert paragraph("see " + "x" * 60, 40) == ["see", "x" * 60]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 80))
def test_a_curve_fits_and_its_lowest_value_shows(values: list[float], width: int) -> None:
    lines = bars(values, width=width, height=5)
    assert len(lines) == 5 and all(len(line) <= width for line in lines)
    assert lines[-1].strip()
