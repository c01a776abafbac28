"""One row in a hundred of clean data is broken in each way that a rule can tell for certain: the rule finds
those rows and no other, and every row is accounted for.
"""

from __future__ import annotations

import datetime
import random
from typing import Any

import pyarrow as pa
import pytest

from tests.data.lake import Lake, adds_up, quarantine, rows
from tests.parts.sparks import ENGINE

ROWS, PLANTED = 1_000, 10
START = datetime.datetime(2024, 1, 1)


def clean() -> dict[str, list[Any]]:
    """Rows that keep every rule."""
    return {
        "id": [f"id{i:05d}" for i in range(ROWS)],
        "age": [20 + i % 50 for i in range(ROWS)],
        "size": [str(1.5 + i % 9) for i in range(ROWS)],
        "town": [["Bern", "Basel", "Chur"][i % 3] for i in range(ROWS)],
        "code": [f"{i % 900 + 100}-x" for i in range(ROWS)],
        "note": ["n" * (3 + i % 5) for i in range(ROWS)],
        "count": list(range(0, 2 * ROWS, 2)),
        "began": [START + datetime.timedelta(hours=i) for i in range(ROWS)],
        "ended": [START + datetime.timedelta(hours=i + 1) for i in range(ROWS)],
        "shop": [i % 20 for i in range(ROWS)],
        "day": [i // 20 for i in range(ROWS)],
    }


EXPECT = {
    "id": {"unique": True, "not_null": True},
    "age": {"min": 0, "max": 120},
    "size": {"type": "number"},
    "town": {"refers_to": {"source": "towns.csv", "column": "name"}},
    "code": {"pattern": "[0-9]{3}-[xy]"},
    "note": {"min_length": 2, "max_length": 9},
    "count": {"monotonic": {"order": "increasing"}},
    "began": {"min": "2023-12-31"},
    "shop": {"allowed": list(range(20))},
}
TABLE = {
    "rules": {
        "ends_later": "ended > began",
        "once_a_day": {"unique": ["shop", "day"]},
    }
}
FAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("id", "not_null"): {"id": None},
    ("id", "unique"): {"id": "id00000"},
    ("age", "min: 0"): {"age": -1},
    ("age", "max: 120"): {"age": 121},
    ("size", "type: number"): {"size": "large"},
    ("town", "refers_to"): {"town": "Paris"},
    ("code", "pattern"): {"code": "12-x"},
    ("note", "min_length: 2"): {"note": "n"},
    ("note", "max_length: 9"): {"note": "n" * 10},
    ("count", "monotonic: increasing"): {"count": -5},
    ("began", "min: 2023-12-31"): {"began": datetime.datetime(2020, 1, 1)},
    ("shop", "allowed"): {"shop": 77},
    ("ends_later", "rule: ends_later"): {"ended": datetime.datetime(2019, 1, 1)},
    ("once_a_day", "rule: once_a_day"): {"shop": 0, "day": 0},
}


def planted(table: dict[str, list[Any]]) -> dict[tuple[str, str], set[int]]:
    """Break rows of their own for each rule; returns them, by the rule."""
    # The first row keeps what others repeat.
    free = list(range(1, ROWS))
    random.Random(7).shuffle(free)
    broken: dict[tuple[str, str], set[int]] = {}
    for rule, values in FAULTS.items():
        broken[rule], free = set(free[:PLANTED]), free[PLANTED:]
        for row in broken[rule]:
            for column, value in values.items():
                table[column][row] = value
    return broken


@pytest.mark.parametrize(
    "engine", ["embedded", pytest.param("spark", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("way", ["quarantine", "drop"])
def test_every_planted_fault_is_found_and_nothing_else(engine, way, tmp_path):
    lake, table = Lake(tmp_path), clean()
    broken = planted(table)
    lake.put("rows.parquet", pa.table(table))
    lake.put("towns.csv", "name\nBern\nBasel\nChur\n")
    rules = {name: {"on_violation": way, **rule} for name, rule in EXPECT.items()}
    several = {
        name: {**({"sql": rule} if isinstance(rule, str) else rule), "on_violation": way}
        for name, rule in TABLE["rules"].items()
    }
    dataset = lake.prepare(
        expect=rules,
        expect_table={"rules": several},
        engine=ENGINE if engine == "spark" else engine,
    )
    assert adds_up(dataset)
    counts = {
        (r["column"], r["rule"]): r["rows"] for r in dataset.manifest["contract"]["rules"]
    }
    assert counts == dict.fromkeys(broken, PLANTED)
    everyone = set().union(*broken.values())
    if way == "drop":
        assert dataset.counts["filtered"] == len(everyone)
        return
    found: dict[tuple[str, str], set[int]] = {rule: set() for rule in broken}
    for row in quarantine(dataset):
        for rule in row["rules"]:
            found[rule["column"], rule["rule"]].add(row["line"] - 1)
    for rule in ("id", "unique"), ("once_a_day", "rule: once_a_day"):
        # Of equal rows the one with the least row id stays, be it the first or one that was planted.
        equals = broken[rule] | {0}
        assert found.pop(rule) < equals
        broken.pop(rule)
    assert found == broken
    assert len(rows(dataset)) == ROWS - len(everyone)
