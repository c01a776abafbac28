"""A record in the shape of its source has the columns that the source's reader makes of it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.bundle import frames, record_shape
from penstock.bundle.record_shape import RecordShape
from penstock.bundle.rows import from_records, from_table
from penstock.contracts.learnt import Learnt
from penstock.core.errors import RequestError
from penstock.formats.fields import Tree

names = st.sampled_from(["a", "b", "c.d", "\ufeffe"])
leaves = st.integers(-5, 5) | st.none()


def objects(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.dictionaries(names, inner, max_size=3)


records = objects(leaves | objects(leaves | objects(leaves)) | st.lists(objects(leaves)))


# A busy machine draws slowly; that says nothing of the test.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, min_size=1, max_size=4))
def test_what_the_reader_of_json_lines_makes_is_what_is_found(some):
    tree = Tree()
    tree.observe(some)
    found = tree.leaves()
    paths = [".".join(step.strip("\ufeff") for step in path) for path, _, _ in found]
    if len(set(paths)) < len(paths) or any(f.form == "mixed" for _, f, _ in found):
        return  # names that clash are told apart, and mixed values become text
    for name, (_, field, _) in zip(paths, found, strict=True):
        field.name = name
    raw: set[str] = set()
    tree.settle(found, [], raw)
    columns = tree.batch(some, tree.columns)
    flat = [RecordShape().flat(record, paths) for record in some]
    for name in paths:
        expected = columns[name].to_pylist() if name in columns else [None] * len(some)
        assert [record.get(name) for record in flat] == expected


def test_a_flat_name_goes_before_an_object():
    record = {"a.b": 1, "a": {"b": 2}}
    assert RecordShape().flat(record, ["a.b"])["a.b"] == 1


def test_the_names_of_files_stand_for_those_of_the_recipe():
    schema = pa.schema([("id", pa.string()), ("age", pa.int64())])
    shape = RecordShape.of(Learnt(schema, {"rename": {"_id.$oid": "id"}}))
    assert shape.flat({"_id": {"$oid": "x"}, "age": 1}, ["id", "age"])["id"] == "x"


TYPES = {"age": pa.int64(), "place": pa.list_(pa.float64()), "c.name": pa.string()}


@pytest.mark.parametrize(
    ("rows", "is_record"),
    [
        ({"age": 39, "place": [0.1, 0.2], "c": {"name": "x"}}, True),
        ({"age": [39], "place": [[0.1, 0.2]], "c": [{"name": "x"}]}, False),
        ({"place": [0.1, 0.2]}, True),
        ({"place": [[0.1, 0.2]]}, False),
        ({"c": {"name": None}}, True),
        ({"age": [], "place": []}, False),
        ({"age": None, "place": None}, False),
        ({"other": {"x": 1}}, False),
    ],
)
def test_a_record_and_columns_are_told_apart(rows, is_record):
    if is_record or any(rows.values()):
        assert frames.is_record(rows, TYPES) == is_record


def test_a_field_that_is_left_out_is_missing_only_where_it_was_in_training():
    types = {"age": pa.int64(), "city": pa.string()}
    strict = from_records([{"age": 1}, {"city": "x", "age": 2}], types)
    assert set(strict.refused) == {0}
    shape = RecordShape(sparse=True)
    lenient = from_records([{"age": 1}, {"agee": 1}, {}, {"cty": "x", "age": 3}], types)
    assert set(lenient.refused) == {0, 1, 2, 3}
    some: list[dict[str, Any]] = [{"age": 1}, {"agee": 1}, {}, {"cty": "x", "age": 3}]
    found = from_records(some, types, (), shape)
    assert set(found.refused) == {1, 2, 3}
    assert "There is 'cty' instead." in found.refused[3][0].text
    assert found.table["city"].to_pylist() == [None]


def test_structs_and_lists_of_structs_are_columns():
    table = pa.table(
        {
            "c": pa.array([{"name": "x"}, None, {"name": None}]),
            "s": pa.array([[{"v": 1}, None], None, []]),
        }
    )
    found = RecordShape().unnested(table, ["c.name", "s.v", "c.other"])
    assert found["c.name"].to_pylist() == ["x", None, None]
    assert found["s.v"].to_pylist() == [[1, None], None, []]
    assert "c.other" not in found.column_names


def test_what_is_no_row_is_told_what_would_be():
    with pytest.raises(RequestError, match="one record"):
        frames.read(5, TYPES, ())


@pytest.mark.parametrize(
    ("field", "is_near"),
    [
        ("customer.citty", True),
        ("customer.cty", True),
        ("customer.ciyt", True),
        ("customer.cita", True),
        ("Customer.City", True),
        ("customer_city", True),
        ("customer.capacity", False),
        ("customer.county", False),
        ("customer", False),
        ("x" * 10_000, False),
    ],
)
def test_a_field_is_near_that_differs_in_a_letter(field, is_near):
    hints = RecordShape(sparse=True).hints({field: 1}, ["customer.city"])
    assert hints == ({"customer.city": field[:100]} if is_near else {})


def test_names_that_differ_in_digits_alone_are_not_near():
    shape = RecordShape(sparse=True)
    found = from_records(
        [{"q1": 1, "q2": 2}], {"q1": pa.int64(), "q3": pa.int64()}, (), shape
    )
    assert not found.refused
    assert found.table["q3"].to_pylist() == [None]
    assert shape.hints({"x_2": 1}, ["x2"]) == {"x2": "x_2"}


@given(st.lists(st.text("ab1_", max_size=5), max_size=6), st.text("ab1_", max_size=5))
def test_a_field_is_compared_with_few_columns_and_none_is_overlooked(columns, field):
    near = [
        name
        for name in dict.fromkeys(columns)
        if field not in columns and record_shape._near(record_shape._plain(name), field)
    ]
    found = RecordShape(sparse=True).hints({field: 1}, columns)
    assert found == dict.fromkeys(near, field)


def test_names_are_compared_once_a_field_and_not_once_an_absent_column(monkeypatch):
    compared: list[str] = []
    near = record_shape._near
    monkeypatch.setattr(
        record_shape,
        "_near",
        lambda name, field: compared.append(name) or near(name, field),
    )
    types = {f"customer.{a}{b}": pa.int64() for a in "pqrstu" for b in "pqrstu"}
    other = {f"customer.a{i:02}b": 1 for i in range(90)}
    records = [{"customer.pp": 1, **other}] * 20
    found = from_records(records, types, (), RecordShape(sparse=True))
    assert not found.refused
    assert not compared


SCORES = {"s.v": pa.list_(pa.float64()), "age": pa.int64()}
SPARSE = RecordShape(sparse=True)
STRUCTS = pa.list_(pa.struct([("v", pa.float64())]))


@pytest.mark.parametrize(
    "kind",
    [
        STRUCTS,
        pa.large_list(STRUCTS.value_type),
        pa.list_(STRUCTS.value_type, 2),
        pa.list_view(STRUCTS.value_type),
    ],
)
def test_lists_of_every_layout_hold_fields(kind):
    rows = [[{"v": 0.5}, None], None, [{"v": None}, {"v": 2.0}]]
    table = pa.table({"s": pa.array(rows, kind), "age": [1, 2, 3]})
    found = from_table(table, SCORES, SPARSE)
    assert found.table["s.v"].to_pylist() == [[0.5, None], None, [None, 2.0]]


@pytest.mark.parametrize(
    "value", ["oops", 5, [0.5], [{"v": 0.9}, 0], [{"v": 0.9}, "x"], {"v.w": "x"}]
)
def test_what_is_there_and_is_no_object_is_refused(value):
    types = {**SCORES, "s.v.w.x": pa.float64()}
    found = from_records(
        [{"age": 1, "s": value}, {"age": 2, "s": None}], types, (), SPARSE
    )
    assert set(found.refused) == {0}
    assert "must be an object, a list of objects, or missing" in found.refused[0][0].text


@pytest.mark.parametrize(
    "values", [["oops", None], [5, 6], [[0.5], None], [{"v": {"w": 7}}, None]]
)
def test_a_column_that_is_no_struct_is_refused(values):
    types = {"age": pa.int64(), "s.v.w.x": pa.float64()}
    with pytest.raises(RequestError, match="must be an object, a list of objects"):
        from_table(pa.table({"age": [1, 2], "s": values}), types, SPARSE)


def test_a_holder_without_values_and_a_column_of_that_name_are_no_objects_in_the_way():
    nothing = pa.table({"age": [1], "s": pa.nulls(1, pa.string())})
    assert from_table(nothing, SCORES, SPARSE).table["s.v"].to_pylist() == [None]
    known = RecordShape(known=frozenset(["s"]), sparse=True)
    assert not from_records([{"age": 1, "s": "x"}], SCORES, (), known).refused
    text = pa.table({"age": [1], "s": ["x"]})
    assert from_table(text, SCORES, known).table["s.v"].to_pylist() == [None]


def test_two_columns_of_one_name_hold_no_field():
    column = pa.array([[{"v": 0.5}]], STRUCTS)
    table = pa.Table.from_arrays([column, column, pa.array([1])], ["s", "s", "age"])
    with pytest.raises(RequestError, match="more than once"):
        from_table(table, SCORES, SPARSE)


def test_a_field_that_is_left_out_is_missing_in_rows_of_every_kind():
    types = {"age": pa.int64(), "city": pa.string(), "c.name": pa.string()}
    columns = {"age": [1, 2], "other": [3, 4]}
    holder = {"c": [{"name": "x"}, None]}
    records = [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    kinds = [columns, records, pa.table(columns), pd.DataFrame(columns)]
    for rows in kinds:
        found, _ = frames.read(rows, types, (), SPARSE)
        assert found.table["city"].to_pylist() == [None, None]
        assert found.table["c.name"].to_pylist() == [None, None]
    for rows in (columns | holder, pd.DataFrame(columns | holder)):
        found, _ = frames.read(rows, types, (), SPARSE)
        assert found.table["city"].to_pylist() == [None, None]
        assert found.table["c.name"].to_pylist() == ["x", None]


@pytest.mark.parametrize("columns", [{"age": [1], "citty": ["x"]}, {"other": [1]}])
def test_columns_spelt_nearly_alike_and_none_at_all_are_refused(columns):
    types = {"age": pa.int64(), "city": pa.string()}
    for rows in (columns, pd.DataFrame(columns), pa.table(columns)):
        with pytest.raises(RequestError, match="no such column"):
            frames.read(rows, types, (), SPARSE)
