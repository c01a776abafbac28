"""Rows of any kind as columns: nothing is coerced across rows, and what is absent is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.bundle import frames, rows
from penstock.core.errors import RequestError

TYPES = {
    "n": pa.int64(),
    "x": pa.float64(),
    "s": pa.string(),
    "b": pa.bool_(),
    "v": pa.list_(pa.float64()),
}
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.floats(allow_nan=False), max_size=3)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
)


def by_row(intake: rows.Intake) -> dict[int, dict]:
    places = range(intake.rows) if intake.places is None else intake.places.tolist()
    found: dict[int, dict] = {place: {} for place in places}
    for i, place in enumerate(places):
        for name in TYPES:
            if name in intake.mixed:
                array = intake.mixed[name].take(np.array([i]))
            elif name in intake.table.column_names:
                array = intake.table[name].slice(i, 1)
            else:
                continue
            found[place][name] = (str(array.type), array[0].as_py())
    return found


def same(one: tuple, other: tuple) -> bool:
    (kind, a), (other_kind, b) = one, other
    return (a is None and b is None) or (
        kind == other_kind and (a == b or (a != a and b != b) or str(a) == str(b))
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(TYPES, plain)), max_size=6))
def test_a_row_is_read_alone_as_among_others(records):
    together = rows.from_records(records, TYPES)
    found = by_row(together)
    assert sorted([*found, *together.refused]) == list(range(len(records)))
    for i, record in enumerate(records):
        alone = rows.from_records([record], TYPES)
        assert bool(alone.refused) == (i in together.refused)
        if i in found:
            mine = by_row(alone)[0]
            assert all(same(mine[name], found[i][name]) for name in TYPES), (
                mine,
                found[i],
            )


def test_a_column_of_one_type_is_one_array():
    intake = rows.from_records(
        [{"n": 1, "s": "a"}, {"n": None, "s": None}, {"n": 3.0, "s": "b"}],
        {"n": pa.int64(), "s": pa.string()},
    )
    assert not intake.mixed and intake.places is None
    assert intake.table.to_pydict() == {"n": [1, None, 3], "s": ["a", None, "b"]}
    assert intake.table.schema.field("n").type == pa.int64()


def test_a_column_of_several_types_is_in_pieces():
    intake = rows.from_records(
        [{"s": v} for v in ["a", 1, None, "b", True]], {"s": pa.string()}
    )
    column = intake.mixed["s"]
    assert sorted(str(p.type) for p in column.pieces) == [
        "bool",
        "int64",
        "string",
        "string",
    ]
    assert column.joined(
        lambda p: pa.array([str(v) for v in p.to_pylist()])
    ).to_pylist() == [
        "a",
        "1",
        "None",
        "b",
        "True",
    ]
    assert column.only(np.array([1, 3])).joined(
        lambda p: pa.array([str(v) for v in p.to_pylist()], pa.string())
    ).to_pylist() == ["1", "b"]


def test_a_half_is_not_cut_to_a_whole_number():
    intake = rows.from_records([{"n": 39.5}, {"n": 39}], {"n": pa.int64()})
    values = {place: row["n"][1] for place, row in by_row(intake).items()}
    assert values == {0: 39.5, 1: 39}


def test_an_object_is_refused_by_name():
    intake = rows.from_records([{"n": 1}, {"n": {"a": 1}}, {"n": [1]}], {"n": pa.int64()})
    assert {row: str(p[0]) for row, p in intake.refused.items()} == {
        1: "n: expected a number; found {'a': 1}",
        2: "n: expected a number; found [1]",
    }


def test_a_missing_field_is_named_and_what_was_meant():
    intake = rows.from_records([{"age": 1}, {"agee": 2}, 5], {"age": pa.int64()})
    assert (
        intake.refused[1][0].text
        == "is required but missing (null is allowed). There is 'agee' instead."
    )
    assert "found 5" in intake.refused[2][0].text
    assert by_row(intake).keys() == {0}


def test_absent_columns_say_what_is_there():
    with pytest.raises(RequestError, match="age: is required") as caught:
        rows.from_table(pa.table({"agee": [1], "b": [2]}), {"age": pa.int64()})
    assert "Did you mean 'agee'?" in str(
        caught.value
    ) and "Columns found: agee, b." in str(caught.value)


def test_lengths_must_agree():
    with pytest.raises(RequestError, match="a has 2, b has 1"):
        rows.from_columns({"a": [1, 2], "b": [1]}, {"a": pa.int64(), "b": pa.int64()})
    with pytest.raises(RequestError, match="must be a list of values"):
        rows.from_columns({"a": "abc"}, {"a": pa.string()})


def test_pandas_nan_in_an_object_column_is_missing():
    frame = pd.DataFrame({"s": ["a", np.nan, None], "n": [1.0, np.nan, 3.0]})
    intake, back = frames.read(frame, {"s": pa.string(), "n": pa.int64()}, ())
    assert intake.table["s"].to_pylist() == ["a", None, None]
    assert list(back(pa.table({"y": [1, 2, 3]})).index) == [0, 1, 2]


def test_no_rows_at_all_of_no_kind():
    with pytest.raises(RequestError, match="found int"):
        frames.read(5, {}, ())


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 5))
def test_slices_keep_every_row(sizes, most):
    tables = [pa.table({"a": list(range(n))}) for n in sizes]
    pieces = list(frames.slices(tables, most))
    assert all(0 < p.num_rows <= most for p in pieces)
    assert [v for p in pieces for v in p["a"].to_pylist()] == [
        v for t in tables for v in t["a"].to_pylist()
    ]


def test_a_refusal_names_twenty_and_counts_the_rest():
    from penstock.core.errors import Problem

    error = rows.refusal(
        {row: [Problem(("age",), "is bad")] for row in range(30)}, rows=40
    )
    assert len(error.problems) == 20 and error.problems[0].path == (0, "age")
    assert str(error).startswith(
        "30 of 40 rows cannot be answered:\n  - row 0, field 'age': is bad"
    ) and str(error).endswith("… and 10 more")


def test_half_of_a_surrogate_pair_refuses_its_row_alone():
    types = {"a": pa.string(), "b": pa.list_(pa.string())}
    records = [
        {"a": "x", "b": ["y"]},
        {"a": "\ud800", "b": ["y"]},
        {"a": "x", "b": ["\udfff"]},
        {"a": "né", "b": None},
    ]
    intake = rows.from_records(records, types)
    assert sorted(intake.refused) == [1, 2] and intake.places.tolist() == [0, 3]
    assert "ud800" in intake.refused[1][0].text
    kept = rows.from_records(
        [{"a": "x", "b": ["y"], "k": "\ud800"}], types, optional=["k"]
    )
    assert kept.table["k"].to_pylist() == ["\\ud800"]
