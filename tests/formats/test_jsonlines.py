"""JSON lines: every line accounted for, nested fields flattened, types by all the data."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import SourceError
from tests.formats.conftest import Read


def lines(*values) -> str:
    return "".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values)


def test_nested_fields_become_columns(read):
    got = read(
        lines(
            {
                "_id": {"$oid": "a"},
                "x": {"y": {"z": 1}},
                "tags": ["p", "q"],
                "scores": [{"type": "exam", "score": 1}, {"type": "quiz"}],
            },
            {
                "_id": {"$oid": "b"},
                "x": None,
                "tags": [],
                "scores": [{"score": 2.5, "at": {"day": 3}}, None],
            },
            {"scores": []},
        ),
        name="a.jsonl",
    )
    assert {k: v.replace("element", "item") for k, v in got.types.items()} == {
        "_id.$oid": "string",
        "x.y.z": "int64",
        "tags": "list<item: string>",
        "scores.type": "list<item: string>",
        "scores.score": "list<item: double>",
        "scores.at.day": "list<item: int64>",
    }
    assert got.records == [
        {
            "_id.$oid": "a",
            "x.y.z": 1,
            "tags": ["p", "q"],
            "scores.type": ["exam", "quiz"],
            "scores.score": [1.0, None],
            "scores.at.day": [None, None],
        },
        {
            "_id.$oid": "b",
            "x.y.z": None,
            "tags": [],
            "scores.type": [None, None],
            "scores.score": [2.5, None],
            "scores.at.day": [3, None],
        },
        {
            "_id.$oid": None,
            "x.y.z": None,
            "tags": None,
            "scores.type": [],
            "scores.score": [],
            "scores.at.day": [],
        },
    ]


def test_bad_lines_are_rejected_with_reason_and_text(read):
    got = read(
        b'{"a": 1}\n[1, 2]\n{"a": 2\n\n"text"\n{"a": 1, "a": 2}\n{"a": "\\ud800"}\n{"a": "\xe9"}\n{"a": 3}'
        b' {"a": 4}\n{"a": {"b": 1, "b": 1}}\n  {"a": 5}  \r\nnull\n'
        + b"[" * 100_000
        + b"\n",
        name="a.jsonl",
    )
    assert [r["a"] for r in got.records] == [1, 5]
    assert got.bad_lines == [2, 3, 5, 6, 7, 8, 9, 10, 12, 13]
    reasons = [r["reason"] for r in got.rejects]
    assert (
        "found a list" in reasons[0]
        and "not JSON at character" in reasons[1]
        and "'a' is there twice" in reasons[3]
        and "surrogate" in reasons[4]
        and "0xe9" in reasons[5]
    )
    assert (
        "'b' is there twice" in reasons[7]
        and "null" in reasons[8]
        and "deep" in reasons[9]
    )
    assert got.rejects[1]["row"] == '{"a": 2'


def test_on_bad_row_fail(read):
    with pytest.raises(SourceError, match=r"a.jsonl, line 2: not JSON"):
        read('{"a": 1}\n{"a": \n', name="a.jsonl", on_bad_row="fail")


def test_changing_types_become_text(read):
    got = read(
        lines(
            {
                "r": 5,
                "n": {"a": 1},
                "l": [1],
                "m": [1, "x", {"k": 2}],
                "deep": [[1, 2], [3]],
            },
            {"r": "Not yet rated", "n": "s", "l": 7, "m": [True]},
            {"r": 5.5, "n": 2, "l": None},
            {"r": True, "n": [1]},
        ),
        name="a.jsonl",
    )
    assert [r["r"] for r in got.records] == ["5", "Not yet rated", "5.5", "true"]
    assert [r["n"] for r in got.records] == ['{"a": 1}', "s", "2", "[1]"]
    assert [r["l"] for r in got.records] == ["[1]", "7", None, None]
    assert got.records[0]["m"] == ["1", "x", '{"k": 2}'] and got.records[0]["deep"] == [
        "[1, 2]",
        "[3]",
    ]


def test_integers_stay_exact(read):
    big = 2**63 - 1
    got = read(
        lines(
            {"id": big, "over": 2**63, "mix": 2**53 + 1, "f": 1, "l": [2**53 + 1, 0.5]},
            {"id": None, "over": 1, "mix": 0.5, "f": 2.5},
            {"id": -(2**63)},
        ),
        name="a.jsonl",
    )
    assert [r["id"] for r in got.records] == [big, None, -(2**63)] and got.types[
        "id"
    ] == "int64"
    assert [r["over"] for r in got.records] == [str(2**63), "1", None]
    assert [r["mix"] for r in got.records] == [str(2**53 + 1), "0.5", None]
    assert got.types["f"] == "double" and got.records[0]["l"] == [str(2**53 + 1), "0.5"]


def test_text_stays_text_but_for_timestamps(read):
    got = read(
        lines(
            {
                "zip": "01234",
                "n": "12",
                "d": "2009-04-01T00:00:00.000-0700",
                "t": "2024-01-01",
                "x": "2024-01-01",
            },
            {"zip": "1", "n": "13", "d": None, "t": "2024-01-02 03:04:05", "x": "no"},
        ),
        name="a.jsonl",
    )
    assert got.types == {
        "zip": "string",
        "n": "string",
        "d": "timestamp[us, tz=UTC]",
        "t": "timestamp[us]",
        "x": "string",
    }
    assert got.records[0]["d"] == datetime(2009, 4, 1, 7, tzinfo=UTC)


def test_names_with_marks_and_clashes(read):
    got = read(
        lines({"\ufeffISO": 0, "a.b": 1, "a": {"b": 2}, "Name": 3, "name": 4}),
        name="a.jsonl",
    )
    assert got.records == [{"ISO": 0, "a.b_2": 1, "a.b": 2, "Name": 3, "name_2": 4}]
    assert "more than one column" in got.said


def test_na_trim_and_forced_types(read):
    got = read(
        lines({"r": "Not yet rated", "s": "x.", "n": 1.0}, {"r": 5, "s": "y", "n": 2.5}),
        name="a.jsonl",
        na="Not yet rated",
        trim_end={"s": "."},
        types={"n": "integer"},
    )
    assert (
        got.records == [{"r": None, "s": "x", "n": 1}]
        and got.rejects[0]["line"] == 2
        and got.rejects[0]["column"] == "n"
    )
    assert got.types["r"] == "int64"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"a": 1},\n{"a": 2}]', "one JSON array"),
        ('{\n "a": 1\n}\n', "several lines"),
        ("[\n", "one JSON array"),
    ],
)
def test_json_that_is_not_lines(read, content, said):
    with pytest.raises(SourceError, match=said):
        read(content, name="a.jsonl")


def test_csv_words_are_refused(read):
    with pytest.raises(SourceError, match="skip_rows, strip are for csv, tsv"):
        read('{"a": 1}\n', name="a.jsonl", skip_rows=1, strip=False)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
)
keys = st.sampled_from(["a", "b", "c", "d.e"])
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.dictionaries(keys, values, max_size=4), min_size=1, max_size=5))
def test_any_objects_are_read_and_scalars_kept(tmp_path, objects):
    file = tmp_path / "a.jsonl"
    file.write_text(lines(*objects), "utf-8")
    got = Read(tmp_path, file)
    assert (got.rows, got.rejected) == (len(objects), 0)
    for key in {k for o in objects for k in o}:
        column = [o.get(key) for o in objects]
        if (
            {type(v) for v in column if v is not None} == {int}
            and all(-(2**63) <= v < 2**63 for v in column if v is not None)
            and key != "d.e"
        ):
            assert got.table[key].to_pylist() == column


@pytest.mark.parametrize(
    ("name", "count"),
    [("books", 431), ("countries-big", 21_640), ("grades", 280), ("restaurant", 2_548)],
)
def test_every_line_of_real_files(tmp_path, shared_data, name, count):
    got = Read(tmp_path, shared_data / "nested_json" / f"{name}.json")
    assert (got.rows, got.rejected) == (count, 0)
    if name == "grades":
        first = json.loads(
            (shared_data / "nested_json" / "grades.json")
            .read_text("utf-8")
            .splitlines()[0]
        )
        assert got.records[0]["scores.score"] == [
            s["score"] for s in first["scores"]
        ] and got.records[0]["scores.type"] == [s["type"] for s in first["scores"]]
    if name == "restaurant":
        assert got.types["rating"] == "string" and {"5", "5.5", "Not yet rated"} <= {
            r["rating"] for r in got.records
        }
    if name == "countries-big":
        assert "ISO" in got.types
    assert (
        pq.ParquetFile(tmp_path / "scratch" / "rows-00000.parquet")
        .metadata.row_group(0)
        .num_rows
        <= 122_880
    )
