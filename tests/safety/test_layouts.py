"""A value is the same value in whatever layout of Arrow's, and as whatever object of Python's, it comes."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from penstock import api
from penstock.core.errors import RequestError
from tests.bundle import made

ROWS = range(120)
BIG = 2**53 + 1
DECLARED = {
    "name": "layouts",
    "seed": 3,
    "source": {"type": "files", "path": "lake"},
    "keep": [],
    "inputs": {
        "whole": "category",
        "big": "category",
        "part": "number",
        "day": "timestamp",
        "clock": "category",
        "span": "category",
        "word": "category",
        "pair": {"type": "vector", "length": 2},
        "bag": "set",
        "steps": "sequence",
    },
    "targets": {"y": "binary"},
    "model": {"combiner": {"type": "mlp", "width": 16, "depth": 1}},
}
TABLE = pa.table(
    {
        "whole": [(1, 2, 7)[row % 3] for row in ROWS],
        "big": [(BIG - 1, BIG, 2**63 - 1)[row // 2 % 3] for row in ROWS],
        "part": [row / 7 for row in ROWS],
        "day": [datetime(2024, 1, 1 + row % 20) for row in ROWS],
        "clock": [time((1, 3, 2)[row % 3], 30) for row in ROWS],
        "span": [(60.0, 180.0, 120.0)[row % 3] for row in ROWS],
        "word": [("a", "b", "ä")[row % 3] for row in ROWS],
        "pair": [[float(row % 5), 1.0] for row in ROWS],
        "bag": [["a", "b", "7"][: 1 + row % 3] for row in ROWS],
        "steps": [[1, 2, 3][: 1 + row % 3] for row in ROWS],
        "y": [("yes", "no")[row % 2] for row in ROWS],
        "id": list(ROWS),
    }
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made.make(tmp_path_factory.mktemp("layouts"), DECLARED, TABLE)[0]


def base() -> pa.Table:
    return TABLE.select(list(DECLARED["inputs"])).slice(2, 1)  # type: ignore[call-overload]


def coded(array: pa.Array) -> pa.Array:
    return array.cast(pa.dictionary(pa.uint8(), pa.large_string()))


LAYOUTS: dict[str, list[pa.Array]] = {
    "whole": [
        pc.run_end_encode(pa.array([7])),
        pa.array([Decimal(7)], pa.decimal256(60, 3)),
        pa.array([b"7"], pa.binary(1)),
        pa.array([timedelta(seconds=7)], pa.duration("ms")),
    ],
    "big": [
        pa.array([BIG], pa.uint64()),
        pa.array([Decimal(BIG)], pa.decimal128(20, 0)),
        pa.array([Decimal(BIG)], pa.decimal128(22, 2)),
        pa.array([BIG]).dictionary_encode(),
    ],
    "day": [
        pa.array([date(2024, 1, 3)], pa.date64()),
        pc.run_end_encode(pa.array(["2024-01-03"])),
    ],
    "clock": [
        pa.array([time(2, 30)], kind)
        for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))
    ]
    + [pa.array(["02:30:00"])],
    "span": [
        pa.array([timedelta(minutes=2)], pa.duration(unit))
        for unit in ("s", "ms", "us", "ns")
    ],
    "word": [
        pa.array(["ä"], pa.string_view()),
        pa.array(["ä".encode()], pa.binary_view()),
        coded(pa.array(["ä"])),
        pc.run_end_encode(pa.array(["ä"])),
    ],
    "pair": [
        # a slice, since a view's cast forgets where it begins
        pa.array([[0.0, 0.0], [2.0, 1.0]], pa.list_view(pa.float64())).slice(1),
        pa.array([[2, 1]], pa.large_list_view(pa.int64())),
        pa.array([[Decimal(2), Decimal(1)]], pa.list_(pa.decimal128(9, 2))),
        pa.array([["2", "1"]]),
    ],
    "bag": [
        pa.array([["a", "b"], ["a", "b", "7"]], pa.list_view(pa.string())).slice(1),
        pa.array([[b"a", b"b", b"7"]], pa.list_(pa.binary())),
        pa.array([["b", "7", "a"]], pa.large_list(pa.string_view())),
    ],
    "steps": [
        pa.array([[1, 2, 3]], kind)
        for kind in (
            pa.list_(pa.int8()),
            pa.list_(pa.float64()),
            pa.list_view(pa.uint64()),
        )
    ]
    + [pa.array([[Decimal(1), Decimal(2), Decimal(3)]]), pa.array([["1", "2", "3"]])],
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_every_layout_is_answered_like_the_plain_one(
    bundle: Any, name: str, tmp_path: Any
) -> None:
    """From a table, rows of Python's values, a frame, and a file."""
    place = base().column_names.index(name)
    answers: dict[float, list[str]] = {}
    for array in [base()[name].chunk(0), *LAYOUTS[name]]:
        table = base().set_column(place, name, array)
        shares = {
            "table": bundle.predict(table).to_pylist(),
            "rows": bundle.predict(table.to_pylist()),
            "columns": bundle.predict({each: table[each] for each in table.column_names})[
                "y_probabilities"
            ],
        }
        if "string_view" not in str(array.type) or not pa.types.is_nested(array.type):
            shares["frame"] = bundle.predict(table.to_pandas()).to_dict("records")
        with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
        api.predict(
            bundle,
            source={"path": str(tmp_path / "a.arrow")},
            output=tmp_path / "o.jsonl",
        )
        shares["file"] = [json.loads((tmp_path / "o.jsonl").read_text("utf-8"))]
        for way, (found,) in shares.items():
            share = found.get("y_probabilities", found)["yes"]
            answers.setdefault(round(share, 5), []).append(f"{way}: {array.type}")
    assert len(answers) == 1, answers
    missing = base().set_column(place, name, pa.nulls(1, base()[name].type))
    share = bundle.predict(missing).to_pylist()[0]["y_probabilities"]["yes"]
    assert abs(share - next(iter(answers))) > 1e-5  # what is asked is told apart at all


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_whatever_says_that_there_is_no_value_says_it(bundle: Any, name: str) -> None:
    one = base().to_pylist()[0]
    nothing = [
        None,
        pd.NA,
        pd.NaT,
        float("nan"),
        np.float32("nan"),
        Decimal("NaN"),
        Decimal("sNaN"),
    ]
    answers = {
        str(bundle.predict([{**one, name: value}])[0]["y_probabilities"]["yes"])[:7]
        for value in nothing
    }
    place = base().column_names.index(name)
    nan = base().set_column(place, name, pa.array([float("nan")]))
    answers.add(str(bundle.predict(nan).to_pylist()[0]["y_probabilities"]["yes"])[:7])
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("day", [datetime(2024, 1, 3, tzinfo=UTC), np.datetime64("2024-01-03", "ns")]),
        (
            "day",
            [
                date(2024, 1, 3),
                pd.Timestamp("2024-01-03"),
                pd.Timestamp("2024-01-03", tz="UTC"),
            ],
        ),
        (
            "span",
            [
                timedelta(minutes=2),
                np.timedelta64(120, "s"),
                np.timedelta64(120 * 10**9, "ns"),
            ],
        ),
        (
            "pair",
            [
                (2, 1),
                np.array([2, 1], "int8"),
                [Decimal(2), 1.0],
                [np.float32(2), np.uint8(1)],
            ],
        ),
        (
            "bag",
            [("a", "b", "7"), ["a", "b", 7], ["a", "b", Decimal(7)], [b"a", b"b", b"7"]],
        ),
        ("big", [Decimal(BIG), Decimal(f"{BIG}.00"), np.uint64(BIG), str(BIG)]),
        ("word", ["ä", "ä".encode(), np.str_("ä")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_objects_of_python_that_are_one_value(
    bundle: Any, name: str, values: list[Any]
) -> None:
    one = base().to_pylist()[0]
    answers = [
        bundle.predict([{**one, name: value}])[0]["y_probabilities"]["yes"]
        for value in values
    ]
    usual = bundle.predict([one])[0]["y_probabilities"]["yes"]
    assert answers == pytest.approx([usual] * len(values), abs=1e-6)


def test_a_column_that_is_there_twice_is_told(bundle: Any) -> None:
    twice = base().append_column("part", pa.array([1.0]))
    frame = pd.concat([base().to_pandas(), pd.DataFrame({"part": [1.0]})], axis=1)
    for rows in (twice, frame):
        with pytest.raises(RequestError, match="part: is given more than once"):
            bundle.predict(rows)
    beside = (
        base().append_column("other", pa.array([1])).append_column("other", pa.array([2]))
    )
    for rows in (beside, beside.to_pandas()):
        assert len(bundle.predict(rows)) == 1
