"""Recipes from anywhere: bounded, and valid or refused in a sentence; files that are none are refused at
once.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.core.errors import PenstockError, RecipeError, UserError
from penstock.recipe.bounded import MOST_VALUES, refuse_unbounded
from penstock.recipe.read import parse_value, parse_yaml, read_recipe
from penstock.recipe.schema import load_recipe

HANG_SECONDS = 240
MUTANTS = 200
VALID: dict[str, Any] = {
    "name": "people",
    "source": {"type": "files", "path": "people.csv"},
    "derive": {"b2": "b * 2", "t": "upper(a)"},
    "where": "b > 1",
    "expect": {"b": {"type": "integer", "min": 0}},
    "clean": [{"type": "filter", "keep": "b < 100"}],
    "inputs": {"a": "category", "b": {"type": "number"}},
    "targets": {"y": {"type": "binary"}},
    "split": {"by": "hash", "validation": 0.1, "test": 0.1},
    "seed": 3,
}


def _bomb(levels: int = 9) -> str:
    lines = ["name: bomb", "inputs:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)
    ]
    return "\n".join(lines)


HOSTILE_YAML = {
    "bomb": _bomb(),
    "bomb of mappings": "\n".join(
        [
            "a: &a0 {x: 1}",
            *(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}" for i in range(1, 40)),
        ]
    ),
    "cycle": "a: &a [*a]",
    "cycle of mappings": "a: &a {b: {c: *a}}",
    "deep list": "a: " + "[" * 5000 + "]" * 5000,
    "deep mapping": "a: " + "{b: " * 3000 + "1" + "}" * 3000,
    "indented": "\n".join(" " * i + f"a{i}:" for i in range(2000)),
    "list key": "? [a, b]\n: 1",
    "mapping key": "? {a: b}\n: 1",
    "twice": "a: 1\na: 2",
    "huge integer": f"seed: {'9' * 5000}",
    "python tag": "a: !!python/object/apply:os.system ['true']",
    "no date": "a: 2020-13-45",
    "binary": "a: !!binary '***'",
    "set": "a: !!set {x, y}",
    "merge": "a: &a {x: 1}\nb: {<<: *a}",
    "merge of a list": "a: {<<: [1, 2]}",
    "control": "a: \x01",
    "unknown alias": "a: *b",
    "int of text": "a: !!int abc",
    "float of text": "a: !!float abc",
    "two documents": "a: 1\n---\nb: 2",
    "large exponent": "a: 1e999999",
    "null tag": "a: !!null x",
    "omap": "a: !!omap [1]",
    "pairs": "a: !!pairs [{b: c}]",
    "sexagesimal": "a: !!int 1:99:99999999999999999999999999999999999999999999",
    "timestamp": "a: !!timestamp xyz",
    "surrogate": 'a: "\\ud800"',
    "bool": "a: !!bool maybe",
    "empty": "",
    "tab": "\ta: 1",
    "huge anchor": "a: &" + "x" * 10000 + " 1",
    "null key": "~: 1",
    "nan": "seed: .nan",
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_hostile_yaml_is_plain_data_within_bounds_or_a_sentence(
    name: str, tmp_path: Path
) -> None:
    text = HOSTILE_YAML[name]
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for reading in (
        lambda: load_recipe(path),
        lambda: load_recipe(VALID, [f"derive.x={text}"]),
    ):
        with pytest.raises(RecipeError) as caught:
            reading()
        assert len(caught.value.message.encode()) < 50_000


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("json", "[" * 50_000 + "]" * 50_000),
        ("json", '{"a":' * 50_000 + "1" + "}" * 50_000),
        ("json", '{"name": "a", "name": "b"}'),
        ("json", '{"seed": ' + "9" * 5000 + "}"),
        ("json", '{"name": "\\ud800"}'),
        ("json", '{"seed": NaN}'),
        ("json", "\ufeff{}"),
        ("toml", "a = " + "[" * 5000 + "]" * 5000),
        ("toml", "a = " + "{b = " * 3000 + "1" + "}" * 3000),
        ("toml", "seed = " + "9" * 5000),
        ("toml", ".".join(["a"] * 5000) + " = 1"),
        ("toml", "a = 1\na = 2"),
        ("toml", "a = 2020-13-45"),
        ("txt", "a: 1"),
    ],
)
def test_hostile_json_and_toml_likewise(ending: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"recipe.{ending}"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError):
        load_recipe(path)


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def _shared(levels: int) -> Any:
    value: Any = ["x"] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


def _cyclic() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    "extra",
    [
        _nested(5000),
        _shared(9),
        _cyclic(),
        {(1, 2): 3},
        {"a": 10**5000},
        {"a": "\ud800"},
        {"\ud800": 1},
        list(range(MOST_VALUES + 1)),
        {b"a": 1},
    ],
    ids=[
        "deep",
        "shared",
        "cycle",
        "tuple",
        "integer",
        "surrogate",
        "surrogate word",
        "many",
        "bytes",
    ],
)
def test_a_mapping_of_python_is_bounded_likewise(extra: Any) -> None:
    with pytest.raises(RecipeError):
        load_recipe({**VALID, "derive": extra})


def test_what_is_within_bounds_is_read_as_before() -> None:
    assert parse_yaml("a: &x [1, 1e-3]\nb: *x\nc: {on: yes, d: true}", where="t") == {
        "a": [1, 0.001],
        "b": [1, 0.001],
        "c": {"on": "yes", "d": True},
    }
    assert parse_value(",", where="t") == ","
    refuse_unbounded({"a": ["x"] * 200_000, "b": {1: None, "x": 2.5}}, where="t")
    assert (
        load_recipe(VALID).to_dict()
        == load_recipe(json.loads(json.dumps(VALID))).to_dict()
    )


@pytest.mark.parametrize(
    "derive",
    [
        {"": "b"},
        {" ": "b"},
        {"a\0": "b"},
        {"x\n": "b"},
        {"X": "b", "x": "b"},
        {"x" * 300: "b"},
    ],
)
def test_a_derived_column_has_a_name_of_its_own(derive: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match=r"name|letters"):
        penstock.check({**VALID, "derive": derive}, data=False)


def _people(folder: Path) -> None:
    rows = "\n".join(f"{'pq'[i % 2]},{i},{'yes' if i % 3 else 'no'}" for i in range(60))
    (folder / "people.csv").write_text(f"a,b,y\n{rows}\n", "utf-8")


@pytest.mark.parametrize(
    ("derive", "word"),
    [({"B": "b + 1"}, "already exists"), ({"d": "row(1, 2)"}, "cannot be a column")],
)
def test_a_derived_column_that_cannot_be_is_refused_in_a_sentence(
    tmp_path: Path, derive: dict[str, str], word: str
) -> None:
    _people(tmp_path)
    recipe = {
        **VALID,
        "source": {"type": "files", "path": str(tmp_path / "people.csv")},
        "derive": derive,
        "where": None,
        "expect": {},
        "clean": [],
    }
    with pytest.raises(RecipeError, match=word):
        penstock.prepare(recipe, store=str(tmp_path / "store"))


# -- files that are none -------------------------------------------------------------------------------------


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.yaml")
    return folder / "pipe.yaml"


def _socket(folder: Path) -> Path:
    here = os.getcwd()
    os.chdir(folder)  # a socket's path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket.yaml")
    finally:
        os.chdir(here)
    return folder / "socket.yaml"


def _link(folder: Path) -> Path:
    (folder / "zero.yaml").symlink_to("/dev/zero")
    return folder / "zero.yaml"


def _folder(folder: Path) -> Path:
    (folder / "folder.yaml").mkdir()
    return folder / "folder.yaml"


SPECIAL: dict[str, Callable[[Path], Path]] = {
    "/dev/zero": lambda _: Path("/dev/zero"),
    "/dev/stdin": lambda _: Path("/dev/stdin"),
    "a named pipe": _pipe,
    "a socket": _socket,
    "a link to a device": _link,
    "a folder": _folder,
}
WAYS: dict[str, str] = {
    "recipe": "penstock.recipe.schema.load_recipe(path)",
    "source": "penstock.check({**VALID, 'source': {'type': 'files', 'path': path}})",
    "rows that are files": "penstock.check({**VALID, 'source': {'type': 'folder', 'path': path}})",
    "join": "penstock.check({**VALID, 'join': [{'source': {'type': 'files', 'path': path}, 'on': 'a'}]})",
    "content_of": (
        "penstock.check({**VALID, 'inputs': {'a': {'type': 'text', 'given': {'content_of': path}}}})"
    ),
    "lines_of": (
        "penstock.check({**VALID, 'inputs': {'a': {'type': 'category', 'values': {'lines_of': path}}}})"
    ),
    "init": "penstock.init(path)",
    "opened": "penstock.formats.files.open_bytes(path)",
    "read whole": "penstock.formats.files.read_whole(path)",
}
PROGRAM = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
import penstock, penstock.formats.files, penstock.recipe.schema
from penstock.core.errors import UserError
VALID = json.loads(sys.argv[1])
for path in json.loads(sys.argv[2]):
    for way in json.loads(sys.argv[3]):
        try:
            eval(way)
            print(json.dumps("went through"), flush=True)
        except UserError as error:
            print(json.dumps("refused: " + error.message), flush=True)
        except BaseException as error:
            print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
"""


def test_what_is_no_file_is_refused_at_once_wherever_it_is_named(tmp_path: Path) -> None:
    _people(tmp_path)
    paths = {name: str(make(tmp_path)) for name, make in SPECIAL.items()}
    valid = {**VALID, "source": {"type": "files", "path": str(tmp_path / "people.csv")}}
    reader, writer = os.pipe()  # standard input that stays open and says nothing
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                PROGRAM,
                json.dumps(valid),
                json.dumps(list(paths.values())),
                json.dumps(list(WAYS.values())),
            ],
            stdin=reader,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 0, done.stderr[-2000:]
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(paths) * len(WAYS)
    places = [(name, way) for name in paths for way in WAYS]
    assert {
        place: text
        for place, text in zip(places, said, strict=True)
        if not text.startswith("refused: ")
    } == {}


# -- two hundred recipes -------------------------------------------------------------------------------------

WRONG: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x" * 100_000,
    "\0",
    "é\u202e",
    [],
    [[]],
    {},
    {"type": "no_such"},
    {"": 1},
    {"a": {"b": {"c": []}}},
    "repeat('x', 1000000000)",
    "(" * 400 + "b" + ")" * 400,
    "not " * 500 + "b",
    "b; DROP TABLE x",
    "(SELECT 1)",
    "read_csv('/etc/passwd')",
    "count(*)",
    "random()",
    "b > ",
    "levenshtein(a, repeat(a, 1000000))",
    "a LIKE '%%%%%%_%_%'",
    "row(1, 2)",
    "[1, 2][b]",
    "b::STRUCT(x INT)",
    "a.b.c.d",
    "$1",
    "?",
    "'",
    '"',
    "--",
    "/*",
    "getenv('HOME')",
    list(range(3000)),
    {str(i): "number" for i in range(300)},
    1e308,
    "9" * 4000,
    "{lines_of: x}",
    {"content_of": "/no/such/file"},
    {"lines_of": "/dev/zero"},
]


def _mutant(draw: random.Random) -> dict[str, Any]:
    """A valid recipe in which one to three places were replaced, doubled, moved or taken away."""
    recipe: dict[str, Any] = json.loads(json.dumps(VALID))
    for _ in range(draw.randint(1, 3)):
        here: Any = recipe
        while True:
            steps = list(here) if isinstance(here, dict) else list(range(len(here)))
            step = draw.choice(steps)
            if (
                isinstance(here[step], (dict, list))
                and here[step]
                and draw.random() < 0.7
            ):
                here = here[step]
                continue
            break
        how = draw.random()
        if how < 0.75:
            here[step] = draw.choice(WRONG)
        elif how < 0.85 and isinstance(here, dict):
            here[draw.choice(["", "typ", "a\0", "è", "source", "derive", "X" * 300])] = (
                here.pop(step)
            )
        elif how < 0.95:
            here[step] = [here[step]] * 3
        elif len(here) > 1:
            del here[step]
    return recipe


def test_two_hundred_mutants_are_valid_or_refused(tmp_path: Path) -> None:
    _people(tmp_path)
    draw = random.Random(11)
    refused = 0
    for number in range(MUTANTS):
        mutant = _mutant(draw)
        if (
            isinstance(mutant.get("source"), dict)
            and mutant["source"].get("path") == "people.csv"
        ):
            mutant["source"]["path"] = str(tmp_path / "people.csv")
        try:
            penstock.check(mutant)
        except PenstockError as error:
            problem = error
            refused += 1
        else:
            continue
        assert isinstance(problem, UserError), (number, problem)
        assert len(problem.message.encode()) < 700_000, number
    assert MUTANTS // 2 < refused < MUTANTS


def test_a_recipe_that_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("absent.yaml", "absent\0.yaml", "x" * 300 + ".yaml"):
        with pytest.raises(RecipeError):
            read_recipe(tmp_path / name)


@pytest.mark.parametrize("levels", [30, 60])
def test_aliases_of_aliases_nest_no_deeper_than_lists_may(tmp_path, levels):
    lines = ["a0: &a0 " + "[" * 90 + "1" + "]" * 90]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} " + "[" * 90 + f"*a{level - 1}" + "]" * 90)
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join([*lines, "source: x.csv"]), "utf-8")
    with pytest.raises(RecipeError):
        load_recipe(path)
