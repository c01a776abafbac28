"""Rows of every sort, and what it means that two engines gave the same."""

from __future__ import annotations

import datetime
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.prepare.dataset import Dataset
from tests.data.lake import SPLITS, quarantine

ENGINE = {
    "type": "spark",
    "master": "local[2]",
    "options": {"spark.sql.codegen.wholeStage": False, "spark.sql.shuffle.partitions": 2},
}
"""As quick as Spark is over a few rows."""

TEXTS = [
    "",
    " Male",
    "male ",
    "ÜNÏ ß",
    "straße",
    "naïve\u00a0",
    "1.5",
    "1e3",
    " 7",
    "NaN",
    "true",
    "No",
    "2024-01-31 12:00",
    "31/01/2024",
    "2024-01-31T12:00:00+02:00",
    "a|b",
    "back\\slash",
    'it\'s "x"',
    "tab\tin",
    "😀 end",
    "İI",
    "x" * 300,
    "%_",
    "a,b,c",
]
NUMBERS = [
    0.0,
    -0.0,
    1.5,
    -2.5,
    1e300,
    -1e-300,
    float("nan"),
    float("inf"),
    float("-inf"),
    0.1,
    1 / 3,
    123456789.125,
    1e16,
    2.0**53 + 2,
    -7.0,
    1e-5,
]


def table(rows: int = 240) -> pa.Table:
    """Nulls, NaN, infinities, negative zero, big whole numbers, empty and strange texts, times with and
    without zones, nested values.
    """
    n = range(rows)

    def some(every: int, values: list[Any]) -> list[Any]:
        return [None if i % every == every - 1 else values[i % len(values)] for i in n]

    start = datetime.datetime(2023, 12, 31, 22, 0, 0, 123456)
    old = {
        3: datetime.datetime(1500, 2, 28, 1, 2, 3),
        4: datetime.datetime(1, 1, 1),
        5: datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
    }
    moments = [
        old.get(i) or start + datetime.timedelta(hours=7 * (i % 90), microseconds=i % 3)
        for i in n
    ]
    return pa.table(
        {
            "id": pa.array(n, pa.int64()),
            "text": pa.array(some(11, TEXTS), pa.string()),
            "number": pa.array(some(13, NUMBERS), pa.float64()),
            "single": pa.array(
                some(7, [0.1, -3.25, 1e10, float("nan"), 3.4e38]), pa.float32()
            ),
            "whole": pa.array(
                some(17, [2**62 + 1, -(2**62), 0, 5, -7, 9_007_199_254_740_993]),
                pa.int64(),
            ),
            "small": pa.array(some(19, [0, 5, -7, 120, 33, 34, 35]), pa.int8()),
            "unsigned": pa.array(some(23, [0, 200, 255]), pa.uint8()),
            "large": pa.array(some(5, [0, 2**64 - 1, 17]), pa.uint64()),
            "flag": pa.array(some(6, [True, False]), pa.bool_()),
            "moment": pa.array(
                [None if i % 10 == 9 else moments[i] for i in n], pa.timestamp("us")
            ),
            "zoned": pa.array(
                [None if i % 8 == 7 or i == 5 else moments[i] for i in n],
                pa.timestamp("us", "Europe/Paris"),
            ),
            "fine": pa.array(
                [None if i % 9 == 8 else 1_600_000_000_000_000_001 + i for i in n],
                pa.timestamp("ns"),
            ),
            "day": pa.array(
                [
                    (
                        None
                        if i % 9 == 8
                        else (
                            datetime.date(1582, 10, 1 + i)
                            if i < 20
                            else datetime.date(1969, 12, 30)
                            + datetime.timedelta(days=i % 40)
                        )
                    )
                    for i in n
                ],
                pa.date32(),
            ),
            "clock": pa.array(
                [None if i % 4 == 3 else datetime.time(i % 24, 5, 6, 7) for i in n],
                pa.time64("us"),
            ),
            "exact": pa.array(
                some(12, [Decimal("1.50"), Decimal("-0.01"), Decimal("99999.99")]),
                pa.decimal128(10, 2),
            ),
            "bytes": pa.array(some(3, [b"", b"\x00\xff", b"abc"]), pa.binary()),
            "items": pa.array(some(5, [[1, None, 3], [], [2]]), pa.list_(pa.int64())),
            "struct": pa.array(
                some(6, [{"a": 1, "b": "x"}, {"a": None, "b": ""}]),
                pa.struct([("a", pa.int32()), ("b", pa.string())]),
            ),
            "dotted.name": pa.array([i % 4 for i in n], pa.int16()),
            "odd name, (x)": pa.array([f"v{i % 5}" for i in n]),
            "group": pa.array([f"g{i % 12}" for i in n]),
            "where": pa.array(
                [
                    ["train", "test", "train", "validation", "nowhere", None][i % 6]
                    for i in n
                ]
            ),
        }
    )


def _canonical(value: Any) -> Any:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value


def _near(one: Any, other: Any, place: str) -> list[str]:
    """Where two profiles differ; means and deviations in their ninth digit do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            said
            for name in sorted({*one, *other})
            for said in _near(
                one.get(name, "absent"), other.get(name, "absent"), f"{place}.{name}"
            )
        ]
    if (
        place.endswith((".mean", ".std"))
        and isinstance(one, float)
        and isinstance(other, float)
        and (one == other or math.isclose(one, other, rel_tol=1e-9))
    ):
        return []
    return (
        []
        if json.dumps(one) == json.dumps(other)
        else [f"{place}: {one!r} and {other!r}"]
    )


def differences(one: Dataset, other: Dataset) -> list[str]:
    """What differs between two datasets in identity, schema, counts, facts, rows and their order, quarantine
    and profile.
    """
    found = [
        f"{word}: {one.manifest.get(word)!r} and {other.manifest.get(word)!r}"
        for word in ("id", "counts", "schema", "facts", "overlap", "changes")
        if one.manifest.get(word) != other.manifest.get(word)
    ]
    if str(one.schema) != str(other.schema):
        found.append(f"written schema:\n{one.schema}\nand\n{other.schema}")
    for split in SPLITS:
        mine, theirs = one.table(split), other.table(split)
        if mine.num_rows != theirs.num_rows:
            found.append(f"{split}: {mine.num_rows} and {theirs.num_rows} rows")
            continue
        for name in mine.column_names:
            pairs = [
                (i, a, b)
                for i, (a, b) in enumerate(
                    zip(
                        _canonical(mine[name].to_pylist()),
                        _canonical(theirs[name].to_pylist()),
                        strict=True,
                    )
                )
                if a != b
            ]
            found += [
                f"{split}.{name}[{i}]: {a!r} and {b!r} ({len(pairs)} such)"
                for i, a, b in pairs[:2]
            ]
    aside = [
        sorted(quarantine(d), key=lambda r: (r["stage"], r["file"] or "", r["line"] or 0))
        for d in (one, other)
    ]
    found += [
        f"quarantine: {a!r} and {b!r}" for a, b in zip(*aside, strict=False) if a != b
    ][:3]
    entries = [
        sorted(json.dumps(entry, sort_keys=True) for entry in d.manifest["quarantine"])
        for d in (one, other)
    ]
    if entries[0] != entries[1]:
        found.append(f"reasons: {entries[0]} and {entries[1]}")
    profiles = [
        json.loads((d.path / "profile.json").read_text("utf-8")) for d in (one, other)
    ]
    return found + _near(profiles[0], profiles[1], "profile")


def schema_of(dataset: Dataset) -> pa.Schema:
    return pq.read_schema(dataset.files("train")[0])
