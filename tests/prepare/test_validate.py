"""The data contract: every promise, on columns of every type, and the three ways of a broken one."""

from __future__ import annotations

import datetime
import json

import pyarrow as pa
import pytest

from penstock.core.errors import ContractError, RecipeError
from tests.data.lake import Lake, adds_up, quarantine, rows

ALL = {"train": 1, "validation": 0, "test": 0}


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path)


def kept(lake, values, promise, type=None):
    """The values that keep the promise, and the reasons of the others."""
    lake.put(
        "rows.parquet", pa.table({"v": pa.array(values, type), "i": range(len(values))})
    )
    try:
        dataset = lake.prepare(expect={"v": promise}, split=ALL)
    except ContractError as error:
        if "no row is left" in str(error):
            return [], None
        raise
    assert adds_up(dataset)
    return [r["v"] for r in sorted(rows(dataset), key=lambda r: r["i"])], [
        r["reason"] for r in sorted(quarantine(dataset), key=lambda r: r["line"])
    ]


DAY = datetime.datetime(2024, 1, 1)


@pytest.mark.parametrize(
    ("values", "promise", "good", "reasons"),
    [
        ([1, 20, None], {"min": 5}, [20, None], ["found 1, expected at least 5"]),
        (
            [1.5, 20.0, float("nan"), None],
            {"max": 10},
            [1.5, float("nan"), None],
            ["found 20.0, expected at most 10"],
        ),
        (
            ["3", " 40 ", "x", None],
            {"min": 5, "type": "number"},
            [" 40 ", None],
            ["found '3', expected at least 5", "found 'x', expected a number"],
        ),
        (["3", "40"], {"max": "5"}, ["3"], ["found '40', expected at most 5"]),
        (
            [DAY, DAY.replace(year=2020)],
            {"min": "2023-06-01"},
            [DAY],
            ["found 2020-01-01 00:00:00, expected at least 2023-06-01"],
        ),
        (
            ["2024-01-01", "2020-01-01", "soon"],
            {"min": "2023-06-01", "type": "timestamp"},
            ["2024-01-01"],
            [
                "found '2020-01-01', expected at least 2023-06-01",
                "found 'soon', expected a timestamp",
            ],
        ),
        (
            ["a", "b", "c", None],
            {"allowed": ["a", "b"]},
            ["a", "b", None],
            ["found 'c', expected one of a, b"],
        ),
        ([1, 2, 3], {"allowed": [1, "2"]}, [1, 2], ["found 3, expected one of 1, 2"]),
        (
            ["1", "7", "true"],
            {"allowed": [1, True]},
            ["1", "true"],
            ["found '7', expected one of 1, True"],
        ),
        (
            [True, False],
            {"allowed": [True]},
            [True],
            ["found false, expected one of True"],
        ),
        (
            ["ab1", "xab1", "ab", "ab1\n"],
            {"pattern": "[a-z]+[0-9]|zz"},
            ["ab1", "xab1"],
            [
                "found 'ab', expected text that matches [a-z]+[0-9]|zz",
                "found 'ab1\n', expected text that matches [a-z]+[0-9]|zz",
            ],
        ),
        (
            [12, 345],
            {"pattern": "[0-9]{2}"},
            [12],
            ["found 345, expected text that matches [0-9]{2}"],
        ),
        (
            [1.0, None, float("nan")],
            {"not_null": True},
            [1.0],
            ["is missing, expected a value", "is missing, expected a value"],
        ),
        (
            ["1", "1.5", " -7 ", "x", "+3", ""],
            {"type": "integer"},
            ["1", " -7 ", "+3"],
            None,
        ),
        (
            ["1", "1.5", ".5", "1e3", "5.", "nan", "1,5"],
            {"type": "number"},
            ["1", "1.5", ".5", "1e3", "5."],
            None,
        ),
        (["yes", "No", "2"], {"type": "boolean"}, ["yes", "No"], None),
        ([1.0, 1.5], {"type": "integer"}, [1.0], ["found 1.5, expected an integer"]),
        ([0, 1, 2], {"type": "boolean"}, [0, 1], ["found 2, expected a boolean"]),
        ([1, 2], {"type": "number"}, [1, 2], []),
        (["x"], {"type": "text"}, ["x"], []),
        ([1, 2], {"type": "text"}, [], None),
        ([DAY], {"type": "timestamp"}, [DAY], []),
        ([2**62 + 1, 2**62], {"min": float(2**62)}, [2**62 + 1, 2**62], []),
    ],
)
def test_promises(lake, values, promise, good, reasons):
    found, said = kept(lake, values, promise)
    assert str(found) == str(good)
    if reasons is not None:
        assert said == reasons


def test_unique_keeps_the_smallest_row_id(lake):
    lake.put(
        "rows.parquet",
        [{"v": v, "i": i} for i, v in enumerate(["a", "b", "a", None, None, "a"])],
    )
    dataset = lake.prepare(expect={"v": {"unique": True}}, key="i", split=ALL)
    import hashlib

    first = min((hashlib.md5(str(i).encode()).hexdigest(), i) for i in (0, 2, 5))[1]
    assert {r["i"] for r in rows(dataset)} == {1, 3, 4, first} and {
        r["reason"] for r in quarantine(dataset)
    } == {"found 'a', expected a value that no other row has"}


def test_the_first_broken_promise_is_the_reason_and_the_row_is_kept_as_it_was(lake):
    lake.put(
        "rows.parquet",
        pa.table(
            {
                "a": [1, 9],
                "b": ["x", None],
                "t": pa.array([0, None], pa.timestamp("us")),
                "l": [[1, None], []],
                "s": [{"k": 1.5}, None],
                "y": pa.array([b"\x00\xff", None]),
                "z": [float("nan"), 0.5],
            }
        ),
    )
    dataset = lake.prepare(
        expect={"b": {"allowed": ["q"]}, "a": {"min": 5}, "z": {"max": 9}}, split=ALL
    )
    (aside,) = quarantine(dataset)
    assert (aside["column"], aside["stage"], aside["file"], aside["line"]) == (
        "b",
        "expect",
        "rows.parquet",
        1,
    )
    assert json.loads(aside["row"]) == {
        "a": 1,
        "b": "x",
        "t": "1970-01-01T00:00:00",
        "l": [1, None],
        "s.k": 1.5,
        "y": "AP8=",
        "z": "nan",
    }
    assert dataset.manifest["quarantine"] == [
        {
            "stage": "expect",
            "column": "b",
            "rows": 1,
            "example": "found 'x', expected one of q",
        }
    ]


def test_fail_ends_the_run_and_tells_all_with_examples(lake):
    lake.put("rows.parquet", [{"a": i, "b": "x" if i % 2 else None} for i in range(10)])
    with pytest.raises(ContractError) as broken:
        lake.prepare(
            expect={
                "a": {"min": 3, "max": 8, "on_violation": "fail"},
                "b": {"not_null": True, "max_missing": 0.2, "on_violation": "fail"},
            }
        )
    text = str(broken.value)
    for part in (
        "a: 3 of 10 rows break `min: 3`",
        "rows.parquet, row 1: found 0, expected at least 3",
        "a: 1 of 10 rows break `max: 8`",
        "b: 5 of 10 rows (50.0%) are missing; at most 20.0% may be",
        "b: 5 of 10 rows break `not_null`",
    ):
        assert part in text
    assert broken.value.exit_code == 3


def test_max_missing_fails_whatever_the_policy(lake):
    lake.put("rows.parquet", [{"a": None if i < 6 else i} for i in range(10)])
    with pytest.raises(ContractError, match=r"a: 6 of 10 rows \(60.0%\) are missing"):
        lake.prepare(expect={"a": {"max_missing": 0.5, "on_violation": "warn"}})
    assert lake.prepare(expect={"a": {"max_missing": 0.6}}).counts["quarantined"] == 0


def test_warn_keeps_the_rows(lake):
    lake.put("rows.parquet", [{"a": i} for i in range(10)])
    dataset = lake.prepare(
        expect={"a": {"max": 7, "unique": True, "on_violation": "warn"}}
    )
    assert (
        dataset.counts["quarantined"] == 0
        and "a: 2 rows break `max: 7`" in lake.said("warned")
        and dataset.schema.names == ["row_id", "a"]
    )


@pytest.mark.parametrize(
    ("promise", "part"),
    [
        (
            {"min": "old"},
            "expect.a.min: expected a number, since the column holds int64; found 'old'",
        ),
        ({"allowed": ["x"]}, "expect.a.allowed: has 'x', but the column holds int64"),
        ({"pattern": "(a"}, "expect.a.pattern: is not a regular expression"),
    ],
)
def test_a_promise_that_cannot_be_judged_is_the_recipes_mistake(lake, promise, part):
    lake.put("rows.parquet", [{"a": 1}])
    with pytest.raises(RecipeError) as refused:
        lake.prepare(expect={"a": promise})
    assert part in str(refused.value)


def test_promises_see_joined_and_derived_columns(lake):
    lake.put("rows.parquet", [{"a": i, "k": i % 3} for i in range(9)])
    lake.put("more.parquet", [{"k": 0, "w": 5}, {"k": 1, "w": 50}])
    dataset = lake.prepare(
        join=[{"source": {"type": "files", "path": "more.parquet"}, "on": "k"}],
        derive={"d": "a * w"},
        expect={"w": {"not_null": True, "max": 10}, "d": {"max": 15}},
        split=ALL,
    )
    assert sorted(r["a"] for r in rows(dataset)) == [0, 3] and adds_up(dataset)
