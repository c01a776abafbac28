"""`decimal`, `thousands`, `date_format` say what cells spell: of a source, by column, of later files and of
requests alike.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.bundle.typing import Typing
from penstock.contracts.learnt import Learnt
from penstock.core.errors import RecipeError, SourceError
from penstock.core.events import Events
from penstock.parts.sources.files import Files
from penstock.recipe.schema import load_recipe

GERMAN = "price;when;code;n;share\n1.234,50;25-Sep-21;1,5 kg;12;0,5\n80;01-Jan-95;x;7;\n"
WORDS = {"decimal": ",", "thousands": ".", "date_format": "%d-%b-%y"}


def test_columns_that_are_wholly_written_so_become_what_they_are(read):
    got = read(GERMAN, **WORDS)
    assert got.types == {
        "price": "double",
        "when": "timestamp[us]",
        "code": "string",
        "n": "int64",
        "share": "double",
    }
    assert got.records[0] == {
        "price": 1234.5,
        "when": datetime(2021, 9, 25),
        "code": "1,5 kg",
        "n": 12,
        "share": 0.5,
    }
    assert got.records[1]["share"] is None


def test_by_column_and_others_are_as_they_stand(read):
    got = read(
        "a;b;c\n1.234;1.234;1,5\n2.500;2.5;2,5\n",
        thousands={"a": "."},
        decimal={"c": ","},
    )
    assert got.types == {"a": "int64", "b": "double", "c": "double"}
    assert got.records[0] == {"a": 1234, "b": 1.234, "c": 1.5}


def test_a_column_that_could_be_either_is_refused(read):
    with pytest.raises(SourceError, match=r"'a' has texts that are not written as"):
        read("a;b\n1.5;1,5\n2.25;2\n", decimal=",")


def test_what_does_not_fit_keeps_a_named_column_text_aloud_or_is_quarantined(read):
    text = "a;b\n1,5;x\nn/k;x\n2,5;x\n"
    got = read(text, decimal={"a": ","})
    assert got.types["a"] == "string" and "stays text" in got.said
    forced = read(text, decimal={"a": ","}, types={"a": "number"})
    assert [r["a"] for r in forced.records] == [1.5, 2.5] and forced.bad_lines == [3]


def test_codes_and_words_are_no_numbers(read):
    got = read("a;b;c\n007;1.2.3;true\n012;4;false\n", decimal=",", thousands=".")
    assert got.types == {"a": "string", "b": "string", "c": "bool"}


def source(path: Path, **words) -> Files:
    return load_recipe({"source": {"type": "files", "path": str(path), **words}}).source


def extracted(files: Files, scratch: Path) -> list[dict]:
    snapshot = files.snapshot(scratch)
    made = files.extract(snapshot, scratch / "x", memory_bytes=1 << 28, events=Events())
    names = list(made.schema.names)
    return pa.concat_tables(
        [pa.parquet.read_table(p, columns=names) for p in made.parquet]
    ).to_pylist()


def test_a_later_file_and_a_request_are_read_alike(tmp_path):
    (tmp_path / "a.csv").write_text(GERMAN, "utf-8")
    first = source(tmp_path / "a.csv", **WORDS)
    schema = pa.schema(
        [
            ("price", pa.float64()),
            ("when", pa.timestamp("us")),
            ("code", pa.string()),
            ("n", pa.int64()),
            ("share", pa.float64()),
        ]
    )
    learnt = Learnt(schema, {k: v for k, v in first.to_dict().items() if k in WORDS})
    # Alone, `1.234` would be a number with decimals.
    (tmp_path / "b.csv").write_text(
        "price;when;code;n;share\n1.234;02-Feb-22;1,5;3;0,25\n", "utf-8"
    )
    later = extracted(source(tmp_path / "b.csv").like(learnt), tmp_path)[0]
    assert (later["price"], later["share"]) == (1234, 0.25)
    assert later["when"] == datetime(2022, 2, 2) and later["code"] == "1,5"
    typed, mixed = Typing({}, learnt).typed(
        pa.table(
            {"price": ["1.234", "7,5"], "share": [0.25, 1.234], "code": ["1,5", "x"]}
        ),
        {},
    )
    assert not mixed
    assert typed.to_pydict() == {
        "price": [1234.0, 7.5],
        "share": [0.25, 1.234],
        "code": ["1,5", "x"],
    }


def test_a_source_without_these_words_is_what_it_was(tmp_path):
    words = set(source(tmp_path / "a.csv").to_dict())
    assert not words & set(WORDS)
    declared = source(tmp_path / "a.csv", **WORDS).to_dict()
    assert WORDS.items() <= declared.items()
    assert load_recipe({"source": declared}).source.to_dict() == declared


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"decimal": ",", "thousands": ","}, "and so is `decimal`"),
        ({"date_format": "%Q"}, "is not understood"),
        ({"date_format": "yesterday"}, "names no part of a date"),
        ({"decimal": "x"}, "source.decimal: expected"),
    ],
)
def test_mistakes_are_told_with_the_recipe(words, text):
    with pytest.raises(RecipeError, match=text):
        load_recipe({"source": {"type": "files", "path": "x.csv", **words}})


def test_a_column_that_is_not_there_and_a_format_that_has_types(read):
    with pytest.raises(SourceError, match=r"source\.decimal: .* has no column 'prize'"):
        read(GERMAN, decimal={"prize": ","})
    with pytest.raises(SourceError, match=r"decimal is for csv"):
        read('{"a": "1,5"}\n', name="a.jsonl", decimal=",")
