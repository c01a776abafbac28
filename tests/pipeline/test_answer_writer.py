"""Answers in plain cells: where each row stood, one column a figure, and no formulas."""

from __future__ import annotations

import csv
import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.core.errors import UserError
from penstock.pipeline.answer_writer import (
    FIRST_ROWS,
    AnswerFile,
    FirstRows,
    Layout,
    figure_names,
    refuse_spreadsheet,
)

SHARES = pa.array([{"a.b": 0.25, "=c": 0.75}, None])


def answers(**columns: object) -> pa.Table:
    place = {ROW_FILE: pa.array([0, 1], pa.int32()), ROW_NUMBER: pa.array([4, 0])}
    return pa.table({**columns, **place})


def cells(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def test_a_row_has_its_number_and_of_several_files_its_file(tmp_path):
    table = answers(pay=["x", "y"], pay_probabilities=SHARES)
    with AnswerFile(str(tmp_path / "a.csv"), Layout(["one", "two"])) as sink:
        sink.write(table)
    assert cells(tmp_path / "a.csv") == [
        {
            "file": "one",
            "row": "5",
            "pay": "x",
            "pay_probabilities.a.b": "0.25",
            "pay_probabilities.=c": "0.75",
        },
        {
            "file": "two",
            "row": "1",
            "pay": "y",
            "pay_probabilities.a.b": "",
            "pay_probabilities.=c": "",
        },
    ]


def test_a_column_called_row_stays_and_the_number_has_another_name():
    table = answers(row=[7, 8])
    found = Layout(["one"]).plain(table)
    assert found.column_names == ["input_row", "row"]
    assert Layout(["one"], numbered=False).plain(table).column_names == ["row"]


def test_other_formats_have_the_answers_as_they_are(tmp_path):
    table = answers(pay_probabilities=SHARES)
    with AnswerFile(str(tmp_path / "a.parquet"), Layout(["one"])) as sink:
        sink.write(table)
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["pay_probabilities"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-x", "'-x"),
        ("@y", "'@y"),
        ("\tz", "'\tz"),
        ("\rz", "'\rz"),
        *((f"{sign}1", f"'{sign}1") for sign in "\uff1d\uff0b\uff0d\uff20"),
        ("a=1", "a=1"),
        ("", ""),
        (None, None),
    ],
)
def test_a_text_that_begins_like_a_formula_is_made_harmless(text, written):
    layout = Layout(numbered=False, spreadsheet=True)
    table = pa.table({"=note": pa.array([text], pa.string()), "n": [-5]})
    assert layout.plain(table).to_pylist() == [{"'=note": written, "n": -5}]
    # Only where it is asked for.
    assert Layout(numbered=False).plain(table)["=note"].to_pylist() == [text]


@pytest.mark.parametrize("output", [None, "a.parquet", "a.jsonl"])
def test_what_no_spreadsheet_opens_is_refused(output):
    with pytest.raises(UserError, match="spreadsheet"):
        refuse_spreadsheet(output)


def test_the_first_rows_are_json():
    first = FirstRows(Layout(["one"]))
    moment = dt.datetime(2024, 1, 2, 3)
    table = pa.table(
        {
            "at": [moment] * 8,
            "picture": [b"\x00"] * 8,
            "x": [float("nan")] * 8,
            ROW_NUMBER: range(8),
            ROW_FILE: pa.array([0] * 8, pa.int32()),
        }
    )
    first.write(table)
    assert not first.is_full
    first.write(table)
    assert first.is_full and len(first.rows) == FIRST_ROWS
    assert first.rows[0] == {
        "row": 1,
        "at": "2024-01-02T03:00:00",
        "picture": "AA==",
        "x": None,
    }


def test_a_kept_column_stays_beside_a_figure_of_its_name():
    table = answers(**{"p.a.b": ["x", "y"], "p.a.b_kept": [1, 2]}, p=SHARES)
    found = Layout(numbered=False).plain(table)
    assert found["p.a.b_kept_2"].to_pylist() == ["x", "y"]
    assert found["p.a.b_kept"].to_pylist() == [1, 2]
    assert found["p.a.b"].to_pylist() == [0.25, None]
    assert figure_names(table.schema) == ["p.a.b", "p.=c"]


def test_names_that_become_alike_when_they_are_made_harmless_stay_two():
    table = answers(**{"=x": [1, 2], "'=x": [3, 4]})
    found = Layout(numbered=False, spreadsheet=True).plain(table)
    assert found.to_pydict() == {"'=x_kept": [1, 2], "'=x": [3, 4]}
