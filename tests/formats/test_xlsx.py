"""Excel: a sheet from its header on, with types as Excel has them, and bounded whatever it unpacks to."""

from __future__ import annotations

import io
import sys
import zipfile
from datetime import datetime

import openpyxl
import pytest

from penstock.core.errors import MissingPackage, RecipeError, SourceError
from penstock.recipe.schema import load_recipe

DATA = [
    ["id", "name", "at", "share", "ok", 2020],
    *[[i, f"n{i}", datetime(2024, 1, 1 + i), i / 4, i % 2 == 0, i * 2] for i in range(6)],
]


def book(**sheets) -> bytes:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def replaced(whole: bytes, name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, content if member == name else old.read(member))
    return out.getvalue()


def test_cells_come_in_their_types(read):
    got = read(book(A=DATA), name="a.xlsx")
    assert got.types == {
        "id": "int64",
        "name": "string",
        "at": "timestamp[us]",
        "share": "double",
        "ok": "bool",
        "2020": "int64",
    }
    assert [list(r.values()) for r in got.records] == DATA[1:] and not got.said


def test_the_header_is_found_below_titles_and_empty_rows(read):
    sheet = [["Report of 2024"], [], [None, "(in EUR)"], *DATA, [], []]
    got = read(book(A=sheet), name="a.xlsx")
    assert list(got.types)[:2] == ["id", "name"] and got.rows == 6
    assert "header in row 4" in got.said


def test_merged_cells_above_names_go_before_them(read):
    sheet = [
        ["Size", None, "Place", None],
        ["w", "h", "x", "y"],
        [1, 2, 3, 4],
        [5, 6, 7, 8],
    ]
    got = read(book(A=sheet), name="a.xlsx")
    assert list(got.types) == ["Size.w", "Size.h", "Place.x", "Place.y"] and got.rows == 2
    assert "two rows of names, 1 and 2, which are joined, as in 'Size.h'" in got.said


@pytest.mark.parametrize(
    ("header", "first"),
    [
        (["id", "name", "city", None, None], ["first", "x", "Oslo", "a", "b"]),
        (["id", None, "city", None, "n"], ["x", "y", "Oslo", "x", "b"]),
        (["id", None, "city", "m", "n"], ["x", "y", "Oslo", "a", "b"]),
    ],
)
def test_a_row_of_texts_below_the_names_is_data(read, header, first):
    rest = [[i, f"n{i}", "Oslo", i / 2, i] for i in range(100)]
    got = read(book(A=[header, first, *rest]), name="a.xlsx")
    assert got.rows == 101 and "joined" not in got.said
    assert list(got.types)[::2] == [header[0], "city", header[4] or "column_5"]
    assert [str(cell) for cell in got.records[0].values()] == first


def test_no_column_hides_another_of_its_name(read):
    sheet = [["x", "x", "column_5", "y"], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    got = read(book(A=sheet), name="a.xlsx")
    assert list(got.types) == ["x", "x_2", "column_5", "y", "column_5_2"]
    assert [list(row.values()) for row in got.records] == sheet[1:]
    assert "more than one column called 'x'; the later one is called 'x_2'" in got.said


def test_a_sheet_without_header_is_told(read):
    got = read(book(A=[[1, 2], [3, 4], ["#N/A", 5, 6]]), name="a.xlsx")
    assert got.rows == 3 and got.records[2] == {
        "column_1": None,
        "column_2": 5,
        "column_3": 6,
    }
    assert "has no header" in got.said and "1 cells with an error of Excel" in got.said


def test_the_first_sheet_with_a_table_is_read_and_the_others_told(read):
    whole = book(Cover=[["My shop"]], A=DATA, B=[["x"], [1]])
    got = read(whole, name="a.xlsx")
    assert got.rows == 6 and "'A' is read, and not 'B'" in got.said
    for sheet in ("B", 3):
        got = read(whole, name="a.xlsx", format={"type": "xlsx", "sheet": sheet})
        assert got.records == [{"x": 1}]
    with pytest.raises(SourceError, match=r"no sheet 'b'"):
        read(whole, name="a.xlsx", format={"type": "xlsx", "sheet": "b"})
    with pytest.raises(SourceError, match="no visible sheet with a table"):
        read(book(A=[]), name="a.xlsx")


def test_a_range_is_the_table_and_nothing_beside_it(read):
    beside = [["x", "note", *row, "sum"] for row in DATA]
    sheet = [["Report of 2024", "by me"], *beside, ["total", 1, 2, 3, 4, 5, 6, 7]]
    for text in ("C2:H8", "$C$2:$H$8"):
        got = read(book(A=sheet), name="a.xlsx", format={"type": "xlsx", "range": text})
        assert [list(r.values()) for r in got.records] == DATA[1:]
        assert list(got.types) == ["id", "name", "at", "share", "ok", "2020"]
    got = read(book(A=beside), name="a.xlsx", format={"type": "xlsx", "range": "C:D"})
    assert got.records == [{"id": i, "name": f"n{i}"} for i in range(6)]


@pytest.mark.parametrize("text", ["C2", "H8:C2", "C8:H2", "A1:B2:C3", "1:2", ""])
def test_what_is_no_range_is_refused_with_the_recipe(text):
    words = {"type": "files", "path": "a.xlsx", "format": {"type": "xlsx", "range": text}}
    with pytest.raises(RecipeError, match=r"source\.format\S*range"):
        load_recipe({"source": words})


def test_bombs_are_refused_before_they_are_parsed(read):
    whole = book(A=DATA)
    theme, sheet = "xl/theme/theme1.xml", "xl/worksheets/sheet1.xml"
    for name, content, said in (
        (theme, b"<a>" + b"<b/>" * (3 << 20) + b"</a>", "memory at once"),
        (sheet, b"<row><c><v>" + b"1" * (3 << 20) + b"</v></c></row>", "a text or a row"),
        (sheet, b"<row>" + b"<c/>" * (17 << 20), "a text or a row"),
        (
            sheet,
            b'<!DOCTYPE x [<!ENTITY a "b">]><worksheet/>',
            "not XML as Excel writes it",
        ),
    ):
        with pytest.raises(SourceError, match=said):
            read(replaced(whole, name, content), name="a.xlsx")


def test_what_is_no_workbook_is_told(read):
    with pytest.raises(SourceError, match="protected by a password"):
        read(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), name="a.xlsx")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("a.csv", "a\n1\n")
    with pytest.raises(SourceError, match="no workbook of Excel"):
        read(out.getvalue(), name="a.xlsx")
    with pytest.raises(SourceError, match="cannot be read as a zip"):
        read(book(A=DATA)[:-40], name="a.xlsx")


def test_a_missing_package_is_named(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        (MissingPackage, ImportError), match=r"penstock\[excel\]|openpyxl"
    ):
        read(b"PK\x03\x04", name="a.xlsx")
