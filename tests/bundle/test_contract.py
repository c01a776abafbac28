"""The contract at serving breaks on the rows on which `prepare` breaks it, and on no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.bundle.contract import RowContract
from penstock.bundle.mixed import Mixed
from penstock.bundle.steps import Steps
from penstock.contracts.data import ROW_ID, Engine
from penstock.prepare.checks import checks_of
from penstock.recipe.schema import Expect, load_recipe

NUMBERS = pa.array([-1, 0, 16, 100, 101, None], pa.int64())
DOUBLES = pa.array([-0.5, 0.0, 3.0, 100.5, float("nan"), None], pa.float64())
TEXTS = pa.array(["7", " 8 ", "7.5", "x", "", "true", None, "2024-02-30", "2024-02-03"])
DAYS = pa.array(
    [None, 0, 1_700_000_000_000_000, 1_800_000_000_000_000], pa.timestamp("us")
)
WRITTEN = pa.array(
    """2024-02-02|2024/2/2|2024-1-5|2024/01/05|2024-01-05 10:00:00 UTC|24:00:00|0000-01-01|12024-01-01
epoch
infinity|20240105|2024-W01-1|2024-01-05T10|2024-01-05T10:00:00 +02:00|2024-01-05T10:00:00+02:00
2024-01-05T24:00
\xa02024-01-05| 2024-01-05\x0b|2024-01-05 10:00:00.1234567|2024-01-05T10:00:00Z|\x1f7|nan|-nan|NaN|inf
１２|\xa012
12|1e2|1_000|0x10|1.|+5|1,5|true""".replace("\n", "|").split("|")
)
FAR = pa.array([0, (12024 - 1970) * 366 * 86_400_000_000], pa.timestamp("us"))

RULES: list[tuple[pa.Array, dict[str, Any]]] = [
    (NUMBERS, {"min": 0, "max": 100}),
    (NUMBERS, {"min": 0.5}),
    (NUMBERS, {"allowed": [0, 16, "100"]}),
    (NUMBERS, {"not_null": True, "type": "text"}),
    (NUMBERS, {"type": "boolean"}),
    (NUMBERS, {"pattern": "1.*"}),
    (DOUBLES, {"type": "integer", "min": 0, "max": 100}),
    (DOUBLES, {"not_null": True}),
    (TEXTS, {"type": "integer"}),
    (TEXTS, {"type": "number", "min": 7.2}),
    (TEXTS, {"type": "boolean"}),
    (TEXTS, {"type": "timestamp"}),
    (TEXTS, {"pattern": "7|x"}),
    (TEXTS, {"allowed": ["7", "x", True]}),
    (DAYS, {"min": "2023-01-01", "max": "2025-01-01T00:00:00Z"}),
    *[(WRITTEN, {"type": kind}) for kind in ("timestamp", "integer", "number")],
    *[(WRITTEN, {"type": "timestamp", word: "2024-01-05"}) for word in ("min", "max")],
    *[(WRITTEN, {word: 6}) for word in ("min", "max")],
    (WRITTEN, {"type": "timestamp", "min": "2025"}),
    (FAR, {"max": "2024-01-05"}),
    (FAR, {"pattern": r"1970-01-01 00:00:00"}),
    (FAR.cast(pa.timestamp("us", "Asia/Tokyo")), {"min": "1980-01-01"}),
    (DOUBLES, {"pattern": r"\d+\.\d"}),
    (pa.array([1e16, 1e-7, 0.1, -0.0]), {"pattern": r"\d+\.\d|1e\+?16"}),
    (pa.array([1e16, 0.1], pa.float32()), {"pattern": r"\d+\.\d"}),
    (pa.array([True, False, None]), {"allowed": ["true", 1]}),
    (pa.array([True, False, None]), {"type": "boolean", "allowed": [1]}),
]


def declared(expect: dict[str, Any]) -> Any:
    return load_recipe(
        {"source": {"type": "files", "path": "x.csv"}, "name": "x", "expect": expect}
    )


def contract_of(rule: dict[str, Any], column: pa.Array) -> RowContract:
    found = RowContract.of(
        declared({"a": rule}), columns=["a"], steps=Steps(), schema={"a": column.type}
    )
    assert found is not None
    return RowContract.load(found.to_dict())


@pytest.mark.parametrize(("column", "rule"), RULES)
def test_prepare_and_serving_break_the_same_rows(column, rule, tmp_path):
    table = pa.table(
        {"a": column, ROW_ID: pa.array([str(i) for i in range(len(column))])}
    )
    engine = Engine.load("embedded")
    with engine.open(tmp_path, memory_bytes=1 << 28, threads=1) as session:
        given, checks = checks_of(
            session.table(table), {"a": Expect.model_validate(rule)}, session
        )
        expected = {
            int(row[ROW_ID])
            for check in checks
            for row in session.rows(given.filter(check.bad).select(ROW_ID))
        }
    assert set(contract_of(rule, column).problems(table, {})) == expected


def test_a_value_of_another_type_is_judged_alone():
    contract = contract_of({"max": 100}, NUMBERS)
    mixed = Mixed(np.array([0, 1, 0]), [pa.array([5, 500]), pa.array(["many"])])
    table = pa.table({"": pa.nulls(3)})
    problems = contract.problems(table, {"a": mixed})
    assert {row: str(p[0]) for row, p in problems.items()} == {
        1: "a: breaks the rule `max: 100`: found 'many', expected at most 100",
        2: "a: breaks the rule `max: 100`: found 500, expected at most 100",
    }
    left, pieces, _ = contract.filtered(table, {"a": mixed})
    assert left.num_rows == 1 and pieces["a"].take(np.array([0])).to_pylist() == [5]


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_a_truth_value_is_no_number_though_its_learnt_type_makes_it_one(kind):
    contract = contract_of({"type": kind}, NUMBERS)
    column = Mixed(np.array([0, 1, 0]), [pa.array([5, None]), pa.array([True])])
    alone = pa.table({"a": pa.array([True, None])})
    nothing = pa.table({"": pa.nulls(3)})
    assert set(contract.truths(alone, {})) == {0}
    assert set(contract.truths(pa.table({"a": NUMBERS}), {})) == set()
    broken = contract.truths(nothing, {"a": column})
    assert "found True" in str(broken[1][0]) and len(broken) == 1
    typed = pa.table({"a": pa.array([5, 1, None])})
    left, _, problems = contract.filtered(typed, {}, broken=broken)
    assert left["a"].to_pylist() == [5, None] and problems == broken


def test_what_takes_all_rows_or_only_warns_is_not_carried():
    recipe = declared(
        {
            "a": {"unique": True, "max_missing": 0.1},
            "b": {"max": 1, "on_violation": "warn"},
            "c": {"min": 0, "unique": True},
            "target": {"allowed": ["x"]},
        }
    )
    found = RowContract.of(recipe, columns=["a", "b", "c"], steps=Steps(), schema={})
    assert found is not None
    assert found.to_dict()["rules"] == {"c": {"min": 0.0}}


def test_each_step_of_a_window_is_judged():
    recipe = load_recipe(
        {
            "source": {"type": "files", "path": "x.csv"},
            "expect": {"load": {"max": 10}, "heat": {"min": 0}},
            "samples": {"time": "at"},
            "split": {"by": "time", "on": "at"},
            "inputs": {
                "past": {"type": "series", "columns": ["load", "heat"], "window": 2},
                "one": {"type": "series", "columns": ["heat"], "window": 2},
            },
        }
    )
    found = RowContract.of(recipe, columns=["past", "one"], steps=Steps(), schema={})
    assert found is not None
    contract = RowContract.load(found.to_dict())
    assert contract.to_dict() == found.to_dict()
    past = [[[1.0, 2.0], [3.0, 4.0]], [[30.0, 1.0], [40.0, -1.0]]]
    table = pa.table({"past": past, "one": [[1.0, 1.0], [1.0, -1.0]]})
    problems = contract.problems(table, {})
    # Of many steps of one window the first is enough.
    assert {row: [p.path[0] for p in some] for row, some in problems.items()} == {
        1: ["load", "heat"]
    }


def test_a_recipe_that_does_not_say_what_serving_expects_is_what_it_was():
    plain = declared({})
    assert "expect" not in plain.to_dict()["serve"]
    ignoring = load_recipe({**plain.to_dict(), "serve": {"expect": "ignore"}})
    assert ignoring.to_dict()["serve"]["expect"] == "ignore"
    assert ignoring.fingerprint() != plain.fingerprint()
