"""A header is found by evidence, said, and never a row; a row is never taken for a header, nor lost beside
one.
"""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import SourceError
from penstock.formats.headers import REPEATED
from tests.formats.conftest import Read

LINES = [f"{i},{i / 2}\n" for i in range(20)]
ROWS = "".join(LINES)


@pytest.fixture
def parts(tmp_path):
    """Reads files of one source, by the texts that they have."""

    def go(*texts: str | bytes, **reading) -> Read:
        files = []
        for i, text in enumerate(texts):
            files.append(tmp_path / f"{i}.csv")
            files[-1].write_bytes(text.encode() if isinstance(text, str) else text)
        return Read(tmp_path, *files, reading=reading)

    return go


@pytest.mark.parametrize(
    "again", ["a,b\n", '"a","b"\n', "A,B\r\n", "\ufeffa,b\n", " a ,\tb\n", "a,b\na,b\n"]
)
@pytest.mark.parametrize("far", [1, 500])
def test_a_header_that_comes_again_is_no_row(read, again: str, far: int) -> None:
    """Two files joined: within the lines by which the header is judged, and far behind them."""
    result = read("a,b\n" + ROWS * far + again + ROWS)
    assert result.types == {"a": "int64", "b": "double"} and result.rows == 20 * far + 20
    assert result.bad_lines == [20 * far + 2 + i for i in range(again.count("\n"))]
    assert {r["reason"] for r in result.rejects} == {
        REPEATED
    } and "has its header again in line" in result.said


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ('"say ""a""",b', {}),
        ("'it''s',b", {"quote": "'"}),
        ("xnaxxmex,b", {"quote": "x"}),
        ("größe,ÖL", {}),
        ('"two\nlines",b', {}),
        (",b", {}),
        ("a\\,b,c", {"escape": "\\"}),
    ],
)
def test_a_header_in_whatever_letters(read, head: str, words) -> None:
    result = read(f"{head}\n{ROWS}{head}\n{ROWS}", **words)
    assert (
        result.rows == 40
        and len(result.rejects) == 1
        and set(result.types.values()) == {"int64", "double"}
    )


def test_a_header_twice_at_the_beginning(read) -> None:
    result = read("a,b\na,b\n" + ROWS)
    assert (
        result.rows == 20
        and result.bad_lines == [2]
        and result.types == {"a": "int64", "b": "double"}
    )


@pytest.mark.parametrize(
    "words",
    [
        {"header": True},
        {"columns": ["b"]},
        {"rename": {"a": "x"}},
        {"names": ["a", "b"]},
        {"strip": False},
        {"types": {"b": "text"}},
        {"quote": None},
    ],
)
def test_whatever_is_said_of_the_file(read, words) -> None:
    result = read("a,b\n" + ROWS + "a,b\n" + ROWS, **words)
    assert result.rows == 40 and result.bad_lines == [22]


def test_what_is_said_to_have_no_header_has_none(read) -> None:
    result = read("a,b\n1,2\na,b\n", header=False)
    assert result.rows == 3 and not result.rejects


def test_a_bad_row_that_ends_the_run_may_be_a_header(read) -> None:
    with pytest.raises(SourceError, match=r"line 22: it is the header again"):
        read("a,b\n" + ROWS + "a,b\n", on_bad_row="fail")


def test_names_in_another_order_are_told(read) -> None:
    """The rows behind them have their cells in other places."""
    with pytest.raises(
        SourceError,
        match=r"line 10002: the column names appear again in another order: 'b,a'",
    ):
        read("a,b\n" + ROWS * 500 + "b,a\n" + ROWS)


def test_text_alone(read) -> None:
    """Where nothing is like a value: a line that repeats the first one is a header where no other comes
    twice.
    """
    result = read("name,city\nAnn,Oslo\nname,city\nBob,Bergen\n")
    assert result.records == [
        {"name": "Ann", "city": "Oslo"},
        {"name": "Bob", "city": "Bergen"},
    ] and result.bad_lines == [3]
    assert "looks like column names" in result.said
    for text in (
        "sunny,yes\nrainy,no\nsunny,yes\n",
        "sunny,yes\nrainy,no\nrainy,no\nsunny,yes\n",
        "red,big\nred,small\nblue,small\nred,big\n",
    ):
        result = read(text)
        assert (
            result.rows == text.count("\n")
            and not result.rejects
            and "no header" in result.said
        )


def test_one_column(read) -> None:
    result = read("x\n1\n2\nx\n3\n")
    assert [r["x"] for r in result.records] == [1, 2, 3] and result.bad_lines == [4]
    for text in ("word\nfoo\nword\nbar\n", "NA\n1\nNA\n2\n", "?\n1\n?\n"):
        result = read(text)
        assert result.rows == text.count("\n") and not result.rejects
    result = read("word\nfoo\nword\nbar\n", header=True)
    assert [r["word"] for r in result.records] == ["foo", "word", "bar"]


def test_missing_values_that_come_again_are_rows(read) -> None:
    result = read("NA,?\n1,2\nNA,?\n3,4\n")
    assert result.rows == 4 and not result.rejects


# -- headers and rows of unlike widths -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows", "bad"),
    [
        ("a,b,c\n1,2,3\n4,5\n6,7\n", 1, [3, 4]),
        ("a,b\n1,2\n3\n", 1, [3]),
        ("a,b\n1\n2,3\n4\n", 1, [2, 4]),
        ("a,b\n1,2,3\n4,5\n", 1, [2]),
        ("a,b,c\n1,2\n3,4\n5,6,7\n8,9\n", 1, [2, 3, 5]),
    ],
)
def test_a_short_ragged_file_keeps_its_header(
    read, text: str, rows: int, bad: list[int]
) -> None:
    result = read(text)
    assert list(result.types) == text.split("\n")[0].split(",")
    assert (
        result.rows == rows
        and result.bad_lines == bad
        and all("expected" in r["reason"] for r in result.rejects)
    )


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2,3\n4,5,6\n",
        "a,b,c\n1,2\n3,4\n",
        "a,b\n1,2,3\n",
        "Report of May\na,b,c\n1,2,3\n",
        "a,b\n1,2\n" + "1,2,3\n" * 9,
    ],
)
def test_a_first_line_that_fits_no_row_is_neither_header_nor_row_in_silence(
    read, text: str
) -> None:
    with pytest.raises(
        SourceError,
        match=(
            r"cells that look like names, but \d+ of \d+ lines below have \d cells.*`skip_rows`.*`header:"
            r" false`.*`header: true`"
        ),
    ):
        read(text)
    assert read(text, header=True).rejected >= text.count("\n") - 2
    assert read(text, header=False).rows + read(
        text, header=False
    ).rejected == text.count("\n")


def test_a_delimiter_at_the_end_of_lines(read) -> None:
    result = read("a,b\n1,2,\n3,4,\n")
    assert (
        result.records
        == [{"a": 1, "b": 2, "column_3": None}, {"a": 3, "b": 4, "column_3": None}]
        and "without a name" in result.said
    )
    result = read("a,b,\n1,2\n3,4\n")
    assert result.records == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


# -- several files -------------------------------------------------------------------------------------------


def test_parts_that_were_joined_beside_parts_that_were_not(parts) -> None:
    result = parts("a,b\n" + ROWS + "a,b\n" + ROWS, "a,b\n" + ROWS, "b,a\n" + ROWS)
    assert (
        result.rows == 80
        and result.rejected == 1
        and result.types == {"a": "double", "b": "double"}
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([",", ";", "\t", "|"]),
    st.booleans(),
)
def test_files_joined_give_the_rows_of_all(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    end: str,
    delimiter: str,
    quoted: bool,
) -> None:
    """cat a.csv b.csv …: as many rows as there are, a reject for each header behind the first, and the same
    types.
    """
    sizes[0] += 1
    tmp_path = tmp_path_factory.mktemp("joined")
    head = '"first name"' if quoted else "first name"
    files = [
        end.join(
            [f"{head}{delimiter}n", *(f"p{i}{delimiter}{i}" for i in range(size)), ""]
        )
        for size in sizes
    ]
    (tmp_path / "a.csv").write_text("".join(files), newline="")
    result = Read(tmp_path, tmp_path / "a.csv")
    assert result.rows == sum(sizes) and result.rejected == len(sizes) - 1
    assert result.types == {"first name": "string", "n": "int64"}


HEADED = "a,b,c\n" + "".join(f"{i},{i + 0.5},é{i}\n" for i in range(6))


@pytest.mark.parametrize(
    "other",
    [
        HEADED.replace(",", ";"),
        HEADED.replace(",", "|"),
        HEADED.replace("a,b,c", "A,B,C"),
        b"\xef\xbb\xbf" + HEADED.replace("\n", "\r\n").encode(),
        HEADED.encode("latin-1"),
        HEADED.encode("utf-16"),
        gzip.compress(HEADED.encode(), mtime=0),
        HEADED.replace("a,b,c", '"a","b","c"').rstrip("\n"),
        "c,a,b\n" + "".join(f"é{i},{i},{i + 0.5}\n" for i in range(6)),
        "c;b;a\n" + "".join(f"é{i};{i + 0.5};{i}\n" for i in range(6)),
    ],
    ids=[
        "semicolons",
        "bars",
        "capitals",
        "mark",
        "latin",
        "utf16",
        "gzip",
        "quotes",
        "order",
        "both",
    ],
)
def test_parts_that_are_written_otherwise_are_the_same_rows(
    parts, other: str | bytes
) -> None:
    """Another delimiter, encoding, order of columns, case of names, mark, line ends, quotes, packing."""
    result = parts(HEADED, other, encoding="auto")
    assert (
        result.records[:6] == result.records[6:]
        and result.rows == 12
        and not result.rejects
    )
    assert result.types == {"a": "int64", "b": "double", "c": "string"}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (HEADED.replace("a,b,c\n", ""), "shares too few names"),
        (HEADED.replace("a,b,c\n", "a,b\n"), "cells that look like names"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        (HEADED.encode("utf-16"), "begins with the mark of UTF-16"),
    ],
)
def test_parts_that_fit_nothing_are_told(parts, other: str | bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        parts(HEADED, other)


def test_a_part_in_another_encoding_costs_the_lines_that_show_it(parts) -> None:
    result = parts(HEADED, HEADED.encode("latin-1"))
    assert (
        result.rows == 6
        and result.bad_lines == [2, 3, 4, 5, 6, 7]
        and {r["file"] for r in result.rejects} == {"1.csv"}
    )
