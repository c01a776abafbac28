"""What a derived column may come to: a value that everyone after the engine can hold, or a sentence.

Never a raw error.

DuckDB knows types and values that neither Parquet, Arrow nor Python do. A table of such expressions, and a
seeded maker of others, go through preparing and through what a bundle's steps do, in a child whose address
space is bounded (results_child.py).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.bundle.steps import Steps
from penstock.contracts.sql import FUNCTIONS

CHILD = Path(__file__).with_name("results_child.py")
HANG_SECONDS = 500
QUICK, MANY = 50, 3_000

TYPES = [  # no column has such a type: the recipe is refused, and is told what else to say
    "t - t",
    "to_days(n)",
    "INTERVAL 3 DAY",
    "age(t, t)",
    "{'a': t - t}",
    "[t - t]",
    "map([n], [t - t])",
    "CAST(NULL AS UNION(a INTEGER, b VARCHAR))",
    "CAST(NULL AS STRUCT(a INTEGER, b UNION(c INTEGER)))",
    "row(1, 2)",
    "row(n)",
    "CAST('101' AS BIT)",
    "CAST(n AS BIT)",
    "CAST(NULL AS BIT[])",
    "CAST('340282366920938463463374607431768211455' AS UHUGEINT)",
    "CAST('POINT(1 2)' AS GEOMETRY)",
    "CAST('12:00:00+05' AS TIME WITH TIME ZONE)",
    "CAST(NULL AS TIMETZ[])",
    "CAST(n AS VARIANT)",
    "CAST('1' AS BIGNUM)",
    "CAST(NULL AS MAP(INTERVAL, BIT))",
    "CAST('1:00' AS TIME_NS)",
]
VALUES = [  # such a value breaks its row
    "CAST('infinity' AS TIMESTAMP)",
    "CAST('-infinity' AS TIMESTAMP)",
    "CAST('infinity' AS DATE)",
    "CAST('-infinity' AS DATE)",
    "CAST('infinity' AS TIMESTAMPTZ)",
    "to_timestamp(1e12)",
    "to_timestamp(1e300)",
    "to_timestamp(n * 1e11)",
    "to_timestamp(CAST('nan' AS DOUBLE))",
    "make_date(-5, 1, 1)",
    "make_date(200000, 1, 1)",
    "make_date(2020, 13, 1)",
    "make_timestamp(-5, 1, 1, 0, 0, 0.0)",
    "make_timestamp(9223372036854775806)",
    "CAST('10000-01-01' AS DATE)",
    "CAST('0001-01-01 (BC)' AS DATE)",
    "t + to_years(8000)",
    "t - to_years(3000)",
    "t + to_years(300000)",
    "CAST('24:00:00' AS TIME)",
    "make_time(25, 0, 0.0)",
    "[CAST('infinity' AS DATE)]",
    "{'a': make_date(-5, 1, 1)}",
    "map(['a'], [to_timestamp(1e12)])",
    "CASE WHEN n = 5 THEN CAST('infinity' AS TIMESTAMP) ELSE t END",
    "timezone('Nowhere/Nowhere', t)",
    "timezone(s, t)",
    "time_bucket(to_microseconds(0), t)",
    "time_bucket(to_days(n - n), t)",
    "unhex('c3') || unhex(s)",
    "s LIKE 'a' ESCAPE 'ab'",
    "CAST(CAST('nan' AS DOUBLE) AS INTEGER)",
    "CAST(CAST('inf' AS DOUBLE) AS BIGINT)",
    "CAST(CAST('inf' AS DOUBLE) AS DECIMAL(10, 2))",
    "n * 9223372036854775807",
    "CAST(n AS HUGEINT) * CAST('170141183460469231731687303715884105727' AS HUGEINT)",
    "factorial(200)",
    "sqrt(-1)",
    "ln(0)",
    "CAST(s AS UUID)",
    "CAST(s AS ENUM('a', 'b'))",
    "CAST('{' AS JSON)",
    "regexp_matches(s, s || '(')",
    "map([s, s], [n, n])",
    "map([NULL], [n])",
    "[n][1:5:0]",
    "CAST([n] AS INTEGER[3])",
    "substr(s, -9223372036854775808, 9223372036854775807)",
    "chr(55296)",
    "date_part(s, t)",
    "printf('%d', s)",
    "url_decode('%ff')",
]
FINE = [
    "CAST('nan' AS DOUBLE)",
    "CAST('inf' AS DOUBLE)",
    "x / 0",
    "CAST('170141183460469231731687303715884105727' AS HUGEINT)",
    "CAST(n AS HUGEINT)",
    "CAST('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' AS UUID)",
    "CAST('a' AS ENUM('a', 'b'))",
    "map(['a'], [n])",
    "{'a': n, 'b': s}",
    "NULL",
    "[NULL]",
    "[]",
    "t + to_days(3)",
    "epoch(t - t)",
    "t - t > INTERVAL 3 DAY",
    "CAST('1500-01-01' AS TIMESTAMP)",
    "CAST('2020-01-01' AS TIMESTAMP_NS)",
    "CAST('9999-12-31 23:59:59.999999' AS TIMESTAMP)",
    "CAST('0001-01-01' AS DATE)",
    "CAST(NULL AS DECIMAL(38, 38))",
    "dec * dec * dec",
    "CAST('{\"a\": [1]}' AS JSON)",
    "raw",
    "c",
    "CAST(t AS TIME)",
    "typeof(t - t)",
    "timezone('Europe/Oslo', z)",
]


def outcomes(folder: Path, expressions: list[str]) -> list[list[list[str]]]:
    """For each, how preparing ends and how a request does."""
    done = subprocess.run(
        [sys.executable, str(CHILD), str(folder)],
        input=json.dumps(expressions),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(said) == len(expressions), (
        done.returncode,
        expressions[len(said)][:500],
        done.stderr[-2000:],
    )
    return said


def test_hostile_columns_are_values_or_sentences(tmp_path: Path) -> None:
    given = [*TYPES, *VALUES, *FINE]
    found = dict(zip(given, outcomes(tmp_path, given), strict=True))
    wrong = {
        text: found[text]
        for text in TYPES
        if not all(
            how == "refused" and "cannot be a column" in said for how, said in found[text]
        )
    }
    wrong |= {
        text: found[text]
        for text in VALUES
        if found[text][0][0] != "refused"
        or found[text][1] == ["value", "0 refused"]
        or found[text][1][0] not in ("value", "refused")
    }
    wrong |= {
        text: found[text]
        for text in FINE
        if [how for how, _ in found[text]] != ["value", "value"]
        or found[text][1][1] != "0 refused"
    }
    assert wrong == {}


def test_a_moment_that_nobody_can_hold_refuses_its_row_alone() -> None:
    steps = Steps(
        {"v": "CASE WHEN n = 2 THEN CAST('infinity' AS TIMESTAMP) ELSE t END"},
        [],
        {"n": pa.int64(), "t": pa.timestamp("us")},
    )
    answer, _, refused = steps.apply(
        pa.table({"n": [1, 2, 3], "t": pa.array([0, 0, 0], pa.timestamp("us"))})
    )
    assert answer["v"].to_pylist() == [datetime(1970, 1, 1)] * 2
    assert (
        list(refused) == [1]
        and "'v' holds a moment outside the years 1 to 9999" in refused[1][0].text
    )


# -- seeded --------------------------------------------------------------------------------------------------

COLUMNS = ["n", "x", "s", "t", "z", "d", "c", "l", "f", "q", "raw", "dec", "u"]
CONSTANTS = [
    "0",
    "-1",
    "1",
    "2",
    "1e308",
    "-1e308",
    "9223372036854775807",
    "-9223372036854775808",
    "170141183460469231731687303715884105727",
    "0.1",
    "''",
    "'a'",
    "'%'",
    "'('",
    "'$.a'",
    "'infinity'",
    "'9999-12-31'",
    "'-infinity'",
    "'nan'",
    "'UTC'",
    "'Nowhere'",
    "'\\xff'",
    "'{\"a\": 1}'",
    "'day'",
    "'é'",
    "NULL",
    "true",
    "[1, 2]",
    "[]",
    "['a']",
    "{'a': 1}",
    "INTERVAL 1 MONTH",
    "to_microseconds(0)",
    "to_years(9999)",
    "map(['a'], [1])",
    "DATE '2024-02-29'",
    "TIMESTAMP 'infinity'",
    "chr(0)",
]
KINDS = [
    "BOOLEAN",
    "TINYINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UHUGEINT",
    "UBIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL(38, 10)",
    "DECIMAL(3, 3)",
    "VARCHAR",
    "BLOB",
    "BIT",
    "DATE",
    "TIME",
    "TIMETZ",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TIMESTAMP_NS",
    "TIMESTAMP_S",
    "INTERVAL",
    "UUID",
    "JSON",
    "ENUM('a', 'b')",
    "INTEGER[]",
    "VARCHAR[]",
    "DATE[2]",
    "STRUCT(a INTEGER)",
    "MAP(VARCHAR, INTEGER)",
    "UNION(a INTEGER, b VARCHAR)",
    "BIGNUM",
    "VARIANT",
    "GEOMETRY",
]
NAMES = sorted(FUNCTIONS)
SIGNS = [
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "^",
    "||",
    "=",
    "<",
    "<>",
    "AND",
    "OR",
    "LIKE",
    "IN",
    "&",
    "|",
    "<<",
    ">>",
    "->>",
    "->",
    "^@",
    "@>",
    "SIMILAR TO",
    "ILIKE",
    "IS DISTINCT FROM",
]


def expression(chance: random.Random, depth: int = 3) -> str:
    """Any expression: most are of the wrong types for their functions, and some are not."""
    how = chance.random()
    if depth == 0 or how < 0.1:
        return chance.choice(COLUMNS if chance.random() < 0.6 else CONSTANTS)
    if how < 0.3:
        kind = chance.choice(["CAST", "CAST", "TRY_CAST"])
        return f"{kind}({expression(chance, depth - 1)} AS {chance.choice(KINDS)})"
    if how < 0.7:
        count = chance.choice([1, 1, 1, 2, 2, 2, 3])
        return f"{chance.choice(NAMES)}({', '.join(expression(chance, depth - 1) for _ in range(count))})"
    one, two = expression(chance, depth - 1), expression(chance, depth - 1)
    if how < 0.86:
        return f"({one} {chance.choice(SIGNS)} {two})"
    return chance.choice(
        [
            f"CASE WHEN n > 5 THEN {one} ELSE {two} END",
            f"[{one}, {two}]",
            f"{{'a': {one}, 'b': {two}}}",
            f"map([{one}], [{two}])",
            f"({one})[{two}]",
            f"TRY({one})",
            f"coalesce({one}, {two})",
            f"({one} BETWEEN {two} AND {two})",
            f"({one} IS NULL)",
            f"(NOT {one})",
            f"(- {one})",
            f"({one} COLLATE NOCASE)",
            f"({one}).a",
        ]
    )


def raw(folder: Path, count: int, seed: int) -> dict[str, list[list[str]]]:
    """Which of `count` expressions end otherwise than with a value or a sentence."""
    chance = random.Random(seed)
    given = [expression(chance) for _ in range(count)]
    found = outcomes(folder, given)
    assert sum(how == "value" for (how, _), _ in found) > count // 20
    return {
        text: said
        for text, said in zip(given, found, strict=True)
        if any(how not in ("value", "refused") for how, _ in said)
    }


def test_any_expression_is_a_value_or_a_sentence(tmp_path: Path) -> None:
    assert raw(tmp_path, QUICK, 5) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_expressions_are(tmp_path: Path, seed: int) -> None:
    assert raw(tmp_path, MANY // 3, 100 + seed) == {}
