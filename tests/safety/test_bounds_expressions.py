"""Expressions take bounded memory, whoever wrote them, and end at once where they are interrupted.

Whatever could hurt the machine runs in a child whose address space is bounded (expressions_child.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.bundle.steps import Steps
from penstock.contracts.sql import bind
from penstock.contracts.sqlsize import Size, of_template
from penstock.core.errors import RecipeError

CHILD = Path(__file__).with_name("expressions_child.py")
CEILING_BYTES = 1 << 30
HANG_SECONDS = 240
"""Not a measure: a test that takes so long hangs."""

CHEAP = [
    "n + 1",
    "a || b",
    "lower(trim(a))",
    "concat(a, '-', b)",
    "replace(a, ',', '.')",
    "regexp_replace(a, '[^0-9]', '', 'g')",
    "repeat(a, 3)",
    "lpad(a, 10, '0')",
    "a LIKE '%x%'",
    "CASE WHEN n > 3 THEN a ELSE b END",
    "date_trunc('month', t)",
    "a IN ('x', 'y')",
    "string_split(a, ',')",
    "CAST(a AS DOUBLE)",
    "strftime(t, '%Y-%m')",
    "printf('%05d', n)",
    "levenshtein(a, 'word')",
    "coalesce(a, b)",
    "substr(a, 1, 3)",
    "l[1]",
    "len(l)",
    "round(n / 3, 2)",
    "regexp_matches(a, '^[a-z]{2,5}$')",
    "CAST(n AS VARCHAR)",
    "hour(t)",
    " + ".join(["n"] * 200),
    " AND ".join(["n > 1"] * 200),
]
DEAR = [
    "repeat('x', 1000000000)",
    "repeat(a, n)",
    "repeat(repeat(a, 100), 100)",
    "lpad(a, 1000000000, 'x')",
    "rpad(a, n, 'x')",
    "levenshtein(a, b)",
    "damerau_levenshtein(a, b)",
    "length(repeat(a, n))",
    "printf('%1000000000d', n)",
    "printf('%*d', n, n)",
    "format('{:1000000000}', n)",
    "format(a, n)",
    "replace(a, 'a', b)",
    "replace(a, 'a', repeat('x', 10000))",
    "regexp_replace(a, '', b, 'g')",
    "regexp_matches(a, '((a{100}){100}){10}')",
    "regexp_matches(a, b)",
    "a LIKE '%a%a%a%b_'",
    "a LIKE b",
    "CAST(a AS INTEGER[100000])",
    "CAST(a AS INTEGER[1000][1000])",
    "CAST(a AS BIGNUM)",
    "to_base(n, 2, 100000000)",
    "array_to_string(l, b)",
    "concat_ws(b, a, a)",
    "string_split(repeat('x', 1000000), '')",
    "l + l + l + l" + " + l" * 70,
]


@pytest.mark.parametrize("text", CHEAP)
def test_ordinary_expressions_stay_in_the_engine(text: str) -> None:
    assert _growth(text).is_cheap(Size(1.0, 16.0))


@pytest.mark.parametrize("text", DEAR)
def test_what_may_make_much_of_little_is_recognised(text: str) -> None:
    assert not _growth(text).is_cheap(Size(1.0, 16.0))


def _growth(text: str):  # type: ignore[no-untyped-def]
    bound = bind(text, ["a", "b", "n", "t", "l"])
    return of_template(bound.template, lists="l" in bound.columns)


def test_every_function_of_the_allow_list_has_a_size_or_is_dear() -> None:
    from penstock.contracts import sqlsize
    from penstock.contracts.sql import FUNCTIONS

    listed = (
        sqlsize._SCALAR | sqlsize._SAME | sqlsize._SCALED.keys() | sqlsize._RULES.keys()
    )
    assert listed >= FUNCTIONS
    for name in ("no_such_function", "range", "generate_series"):
        assert name not in listed


Outcomes = dict[str, list]  # type: ignore[type-arg]
"""By the name of a chain: how it ended, the value or sentence, and the peak of memory in bytes."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What the quick chains came to."""
    return _tried([name for name in CHAINS if name not in SLOW], tmp_path_factory)


@pytest.fixture(scope="module")
def slow_outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What the others came to."""
    return _tried(list(SLOW), tmp_path_factory)


def _tried(chains: list[str], tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    given = json.dumps([CHAINS[name] for name in chains])
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path_factory.mktemp("expressions")), "try"],
        input=given,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(chains, map(json.loads, done.stdout.splitlines()), strict=True))


FINE = {
    "distance": "[25, 25, 25]",
    "repeated": "[0, 10, 20]",
    "split": "['', '1', '1']",
    "structs": "[{'x': '', 'y': [0, 0]}",
}
REFUSED = (
    "repeat",
    "repeat of a column",
    "doublings of text",
    "doublings of lists",
    "pad",
    "printf",
    "array",
    "constant",
)
SLOW = ("repeated", "split", "repeat", "doublings of text", "pad", "printf")
"""What a quick chain proves as well: of another function, or with another type."""
CHAINS = {
    "distance": ["levenshtein(a, b) - 5"],
    "repeated": ["length(repeat(a, n))"],
    "split": ["array_to_string(string_split(repeat('1,', n), ','), '+')[1:1]"],
    "structs": ["{'x': repeat('z', n % 3), 'y': [n, n]}"],
    "repeat": ["repeat('x', 1000000000)"],
    "repeat of a column": ["repeat(a, 100000 + n)"],
    "doublings of text": ["a || a", *(f"d{i} || d{i}" for i in range(26))],
    "doublings of lists": ["[a, a]", *(f"d{i} || d{i}" for i in range(26))],
    "pad": ["lpad(a, 1000000000, b)"],
    "printf": ["printf('%1000000000d', n)"],
    "constant": ["length(repeat('x', 1000000000)) > 1"],
    "array": ["CAST([a] AS VARCHAR[100000])"],
}


def _rings(names: Iterable[str]) -> list[Any]:
    """The chains as parameters; those that prove no more than others are slow."""
    return [
        pytest.param("slow_outcomes", name, marks=pytest.mark.slow, id=name)
        if name in SLOW
        else pytest.param("outcomes", name, id=name)
        for name in names
    ]


@pytest.mark.parametrize(("ring", "name"), _rings(FINE))
def test_a_dear_expression_gives_what_the_engine_would(
    request: pytest.FixtureRequest, ring: str, name: str
) -> None:
    how, text, *_ = request.getfixturevalue(ring)[name]
    assert how == "value", text
    assert text.startswith(FINE[name][:-1])


@pytest.mark.parametrize(("ring", "name"), _rings(REFUSED))
def test_what_does_not_fit_ends_in_a_sentence_below_the_ceiling(
    request: pytest.FixtureRequest, ring: str, name: str
) -> None:
    how, text, peak_bytes, *_ = request.getfixturevalue(ring)[name]
    assert how in ("TooDear", "UserError", "ContractError", "RecipeError"), text
    assert "MiB" in text or "cast" in text.lower()
    assert peak_bytes < CEILING_BYTES


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_an_interrupt_ends_what_would_take_hours(tmp_path: Path, number: int) -> None:
    chain = ["levenshtein(repeat(a, 20000 + n), repeat(b, 20000))"]
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(tmp_path), "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps([chain]))
        child.stdin.close()
        busy = [
            child.stdout.readline(),
            child.stdout.readline(),
        ]  # the type, then the rows
        assert busy == ["busy\n", "busy\n"]
        child.send_signal(number)
        assert child.stdout.readline() == "interrupted\n"
        assert child.wait(HANG_SECONDS) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()  # type: ignore[union-attr]


def _cells(pid: int) -> list[int]:
    """The cells that a process has started."""
    cells: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if "_cell_child" in Path(f"/proc/{child}/cmdline").read_text():
                cells.append(int(child))
    return cells


def _is_working(cell: int) -> bool:
    """Whether it has computed for three seconds, more than all that it starts with takes."""
    fields = Path(f"/proc/{cell}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK") > 3


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="finds a process's children in /proc"
)
def test_an_interrupt_ends_a_command_whose_rows_are_made_ahead(tmp_path: Path) -> None:
    rows = "\n".join(f"name{i},{i},{'yes' if i % 3 else 'no'}" for i in range(5000))
    (tmp_path / "people.csv").write_text(f"a,b,y\n{rows}\n", "utf-8")
    recipe = {
        "source": {"type": "files", "path": "people.csv"},
        "derive": {"d": "levenshtein(repeat(a, 20000), repeat(a, 20000))"},
        "inputs": {"b": "number"},
        "targets": {"y": "binary"},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    child = subprocess.Popen(
        [sys.executable, "-m", "penstock", "prepare", "recipe.json", "--store", "store"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + HANG_SECONDS
        cells: list[int] = []
        while not any(map(_is_working, cells)):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
            cells = _cells(child.pid)
        child.send_signal(signal.SIGINT)
        text, _ = child.communicate(timeout=HANG_SECONDS)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, text
    assert "Stopped." in text
    assert "Traceback" not in text
    for cell in cells:
        assert not Path(f"/proc/{cell}").exists()


def test_a_step_of_a_bundle_refuses_the_row_and_answers_its_neighbours() -> None:
    steps = Steps({"d": "length(repeat(a, n))"}, [], {"a": pa.string(), "n": pa.int64()})
    rows = pa.table({"a": ["xy", "xy", "xy"], "n": pa.array([3, 300_000_000, 5])})
    answer, _, refused = steps.apply(rows)
    assert answer["d"].to_pylist() == [6, 10]
    assert list(refused) == [1]
    assert "length(repeat(a, n))" in refused[1][0].text


def test_a_step_that_takes_long_refuses_its_row_in_time() -> None:
    steps = Steps(
        {"d": "levenshtein(repeat(a, n), repeat(a, n))"},
        [],
        {"a": pa.string(), "n": pa.int64()},
    )
    rows = pa.table({"a": ["xy", "xy"], "n": pa.array([3, 200_000])})
    answer, _, refused = steps.apply(rows)
    assert answer["d"].to_pylist() == [0]
    assert list(refused) == [1]
    assert "takes longer" in refused[1][0].text


def test_the_cell_ends_with_its_session(tmp_path: Path) -> None:
    from penstock.contracts.data import Engine

    with Engine.load("embedded").open(
        tmp_path, memory_bytes=CEILING_BYTES, threads=1
    ) as session:
        table = session.table(pa.table({"a": ["x", "y"], "b": ["y", "y"]}))
        rows = session.rows(table.mutate(d=session.sql(table, "levenshtein(a, b)")))
        assert [row["d"] for row in rows] == [1, 0]
        pid = session._bounded._cell._child.pid  # type: ignore[attr-defined]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


NESTED = [
    "(" * 50 + "a" + ")" * 50,
    "(" * 5000 + "a" + ")" * 5000,
    "not " * 5000 + "a",
    "- " * 5000 + "a",
    "lower(" * 2000 + "a" + ")" * 2000,
    "a" + "[1]" * 3000,
    "[" * 3000 + "]" * 3000,
    "a" + "::int" * 5000,
    " + ".join(["a"] * 2000),
    "{'a':" * 2000 + "1" + "}" * 2000,
    "CASE WHEN a THEN " * 2000 + "1" + " END" * 2000,
    "a" * 70_000,
    "a\0",
    "'\ud800'",
    "",
    "(",
    "a b c",
    "a::" + "STRUCT(a " * 900 + "int" + ")" * 900,
]


@pytest.mark.parametrize("text", NESTED, ids=range(len(NESTED)))
def test_deep_and_long_expressions_are_read_or_refused_in_a_sentence(text: str) -> None:
    sentence = ""
    try:
        bound = bind(text, ["a"])
        of_template(bound.template, lists=False)
    except RecipeError as error:
        sentence = error.message
        sentence.encode()
    assert len(sentence) <= 2_100
