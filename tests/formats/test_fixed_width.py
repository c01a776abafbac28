"""Fixed width: columns by places that are blank or given; a line that does not fit is a reject."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import SourceError

ROWS = [(1, "Ann", "New York", 1.5), (22, "Bob Lee", "Oslo", 2.25), (333, "Cé", "", 4.0)]
TEXT = "id   name       town      x\n" + "".join(
    f"{id:<5}{name:<11}{town:<9}{x:>5}\n" for id, name, town, x in ROWS
)


def test_columns_are_found_by_their_blanks(read):
    for text in (TEXT, TEXT.replace("\n", "\n---- ---------- -------- -----\n", 1)):
        got = read(text, name="a.fwf")
        assert [tuple(r.values()) for r in got.records] == [
            (id, name, town or None, x) for id, name, town, x in ROWS
        ]
        assert list(got.types) == ["id", "name", "town", "x"]


def test_lines_that_do_not_fit_are_rejects_with_their_place(read):
    text = (
        TEXT
        + "4    Dan        Rome      7.0\n" * 200
        + "5\n12345678901234567890 and more x\n"
    )
    got = read(text, name="a.fwf")
    assert got.rows == 204 and got.bad_lines == [206]
    assert got.records[203] == {"id": 5, "name": None, "town": None, "x": None}
    assert "where two columns part, behind character" in got.rejects[0]["reason"]
    assert got.records[0]["town"] == "New York"
    got = read(
        "001AnnNew\n002BobOsl\n4\n005BobOslX\n",
        name="a.txt",
        format={
            "type": "fixed_width",
            "widths": [3, 3, 3],
            "names": ["id", "name", "town"],
        },
    )
    assert got.records[1] == {"id": "002", "name": "Bob", "town": "Osl"}
    assert got.bad_lines == [3, 4] and "too long: 'X'" in got.rejects[1]["reason"]
    assert "ends at character 1, within the column 'id'" in got.rejects[0]["reason"]


@pytest.mark.parametrize(
    "header",
    [
        "name      age note  y",
        "name     age  note  y",
        "identifier years remark sign",
    ],
)
def test_names_may_be_longer_than_values(read, header):
    rows = [f"{'ab'[i % 2]}b         {i % 90 + 10:>2} no    {i % 2}" for i in range(300)]
    got = read("\n".join([header, *rows]), name="a.fwf")
    assert list(got.types) == header.split() and got.rows == 300


def test_cells_behind_the_end_of_a_line_are_missing(read):
    lines = [
        f"{i:>4} {'Ann' if i % 2 else 'Bernhard':<9}{i:>5} {'xy' * (i % 3)}"
        for i in range(90)
    ]
    text = "\n".join(["  id name       qty note", *(line.rstrip() for line in lines)])
    got = read(text + "\n  77 Ann\n  78 Ann         1", name="a.fwf")
    assert got.rows == 91 and got.bad_lines == [93]
    assert [row["note"] for row in got.records[:3]] == [None, "xy", "xyxy"]
    assert got.records[90] == {"id": 77, "name": "Ann", "qty": None, "note": None}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("001AnnNew\n002BobOsl\n", {}, r"widths: \[8, 12"),
        ("a\tb\n1\t2\n", {}, "has tabs"),
        ("a b\n1 2\n", {"names": ["x"]}, r"1 names, and a.fwf has 2 columns \(1-1, 3-\)"),
        ("a a\n1 2\n", {"header": True}, "two columns of one name"),
    ],
)
def test_what_is_refused(read, text, options, said):
    with pytest.raises(SourceError, match=said):
        read(text, name="a.fwf", format={"type": "fixed_width", **options})


cells = st.text(
    st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=4
)


@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=8))
def test_what_is_written_is_read(read, rows):
    text = "".join(f"x{a:<4} {b:<4}\n" for a, b in rows)
    format = {"type": "fixed_width", "widths": [5, 5], "names": ["a", "b"]}
    got = read(text, name="a.fwf", format=format, types={"a": "text", "b": "text"})
    assert [(r["a"], r["b"]) for r in got.records] == [(f"x{a}", b) for a, b in rows]
