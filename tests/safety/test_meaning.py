"""What a value means never depends on the file it stands in, on what is beside it, or on a name that two
things share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.core.errors import RecipeError, SourceError
from penstock.core.events import Events
from penstock.formats.extract import extract
from penstock.formats.options import Reading
from penstock.formats.reader import Input
from penstock.recipe.names import kept_names
from penstock.recipe.schema import load_recipe
from tests.safety.meanings import VALUES

PLAIN: dict[str, Any] = {
    "source": {"type": "files", "path": "rows.csv"},
    "inputs": {"x": "number"},
    "targets": {"y": "binary"},
}


def checked(tmp_path: Path, **words: Any) -> list[str]:
    """What `check` finds wrong, held against a table that has every column named here."""
    names = ["x", "y", "z", "w", "refused", "Y", "X2"]
    (tmp_path / "rows.csv").write_text(
        ",".join(dict.fromkeys(n if n != "Y" else "Yy" for n in names))
        + "\n"
        + "1,u,v,1,n,u,2\n2,v,u,1,n,v,3\n",
        "utf-8",
    )
    (tmp_path / "recipe.json").write_text(json.dumps({**PLAIN, **words}), "utf-8")
    try:
        penstock.check(tmp_path / "recipe.json")
    except RecipeError as error:
        return [str(problem) for problem in error.problems]
    return []


CATEGORY = {"type": "category", "column": "z"}


@pytest.mark.parametrize(
    ("words", "path", "said"),
    [
        (
            {"targets": {"y": "binary", "y_probabilities": CATEGORY}},
            "targets.y_probabilities",
            "as the target 'y' does",
        ),
        (
            {"targets": {"y": "binary", "Y_Probabilities": CATEGORY}},
            "targets.Y_Probabilities",
            "as the target 'y' does",
        ),
        (
            {"targets": {"y": "binary", "Y": CATEGORY}},
            "targets.Y",
            "in the case of its letters only",
        ),
        (
            {"inputs": {"x": "number", "X": {"type": "number", "column": "X2"}}},
            "inputs.X",
            "in the case of its letters only",
        ),
        (
            {"inputs": {"Y": {"type": "number", "column": "X2"}}},
            "targets.y",
            "in the case of its letters only",
        ),
        (
            {"targets": {"refused": {"type": "binary", "column": "y"}}},
            "targets.refused",
            "why a row has no answer",
        ),
        (
            {"targets": {"Row_ID": {"type": "binary", "column": "y"}}},
            "targets.Row_ID",
            "what a row is called",
        ),
        (
            {"inputs": {"row_id": {"type": "number", "column": "x"}}},
            "inputs.row_id",
            "Penstock's own name",
        ),
        (
            {"targets": {"w": {"type": "binary", "column": "y"}}, "weight": "w"},
            "weight",
            "the target 'w' answers in a column",
        ),
        ({"keep": ["y"]}, "keep[0]", "'y_kept'"),
        (
            {"targets": {"X2": {"type": "binary", "column": "y"}}, "keep": ["z", "X2"]},
            "keep[1]",
            "the target 'X2' answers",
        ),
        ({"keep": ["refused"]}, "keep[0]", "why a row has no answer"),
        ({"keep": ["z", "z"]}, "keep[1]", "is kept already"),
    ],
)
def test_check_finds_a_clash(
    tmp_path: Path, words: dict[str, Any], path: str, said: str
) -> None:
    problems = checked(tmp_path, **words)
    assert any(problem.startswith(path) and said in problem for problem in problems), (
        problems
    )


def test_check_finds_all_clashes_at_once(tmp_path: Path) -> None:
    words = {
        "targets": {
            "y": "binary",
            "y_probabilities": CATEGORY,
            "refused": {"type": "binary", "column": "y"},
        },
        "keep": ["y", "refused"],
    }
    problems = checked(tmp_path, **words)
    paths = {problem.split(":")[0].split(" ")[0] for problem in problems}
    assert {
        "targets.y_probabilities",
        "targets.refused",
        "keep[0]",
        "keep[1]",
    } <= paths, problems


def test_names_that_only_look_alike_are_no_clash(tmp_path: Path) -> None:
    words = {
        "targets": {"y": "binary", "probabilities": CATEGORY},
        "keep": ["w"],
        "weight": "w",
        "inputs": {"weight": {"type": "number", "column": "x"}},
    }
    assert checked(tmp_path, **words) == []


def test_a_kept_column_gets_a_name_that_nothing_else_has() -> None:
    answers = ["y", "y_probabilities"]
    assert kept_names(["id", "y"], answers) == {"id": "id", "y": "y_kept"}
    assert kept_names(["y", "y_kept"], answers) == {"y": "y_kept_2", "y_kept": "y_kept"}
    assert kept_names(["Y", "refused"], answers) == {
        "Y": "Y_kept",
        "refused": "refused_kept",
    }


def rows_of(
    folder: Path, parts: dict[str, str], scratch: str = "scratch", **reading: Any
) -> tuple[pa.Table, list[str]]:
    """What is read of the parts, united, and what was said."""
    inputs = []
    for name, text in parts.items():
        (folder / name).write_text(text, "utf-8")
        inputs.append(Input(name, str(folder / name), Reading(**reading)))
    heard: list[str] = []
    made = extract(
        inputs,
        folder / scratch,
        memory_bytes=256 << 20,
        events=Events(lambda event: heard.append(str(event.fields.get("text", "")))),
    )
    table = pa.concat_tables([pq.read_table(path) for path in made.parquet])
    assert made.rejected == 0
    return table.drop_columns([ROW_FILE, ROW_NUMBER]), heard


def test_a_value_that_equals_a_column_name_makes_no_header_data(tmp_path: Path) -> None:
    parts = {
        f"part-{i}.csv": (
            "x,c,y\n"
            + "".join(f"{k / 7:.3f},{letters[k % 3]},{'uv'[k % 2]}\n" for k in range(40))
        )
        for i, letters in enumerate(("klm", "abc"))
    }
    table, _ = rows_of(tmp_path, parts)
    assert (
        table.column_names == ["x", "c", "y"]
        and table.num_rows == 80
        and table["y"].null_count == 0
    )


@pytest.mark.parametrize(
    ("second", "names"),
    [
        (
            "y,c,x\nu,x,1.5\n",
            ["x", "c", "y"],
        ),  # another order, and the value `x` in the column `c`
        ("x,y\n1.5,u\n", ["x", "c", "y"]),  # a column less
        ("x,c,y,more\n1.5,c,u,9\n", ["x", "c", "y", "more"]),  # a column more
        ("X,C,Y\n1.5,C,u\n", ["x", "c", "y"]),  # other letters
        ("x;c;y\n1.5;c;u\n", ["x", "c", "y"]),  # another delimiter
    ],
)
def test_another_header_is_mapped_by_name(
    tmp_path: Path, second: str, names: list[str]
) -> None:
    table, heard = rows_of(
        tmp_path, {"a.csv": "x,c,y\n0.5,k,u\n0.25,l,v\n", "b.csv": second}
    )
    assert table.column_names == names
    assert table["x"].to_pylist() == [0.5, 0.25, 1.5] and table["y"].to_pylist() == [
        "u",
        "v",
        "u",
    ]
    if len(names) > 3 or table["c"].null_count:
        assert any("lacks columns" in line for line in heard)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x,c,y\n0.5,k,u\n", "1.5,c,u\n2.5,k,v\n"),  # no header, in numbers
        (
            "name,city\nann,bergen\n",
            "bob,oslo\neve,oslo\n",
        ),  # no header, nothing but text
        ("x,c,y\n0.5,k,u\n", "price,size,kind\n1.5,2,u\n"),  # a header of another table
    ],
)
def test_a_part_without_the_others_names_is_refused(
    tmp_path: Path, first: str, second: str
) -> None:
    with pytest.raises(SourceError, match="shares too few names"):
        rows_of(tmp_path, {"a.csv": first, "b.csv": second})
    with pytest.raises(SourceError, match="shares too few names"):
        rows_of(tmp_path, {"a.csv": second, "b.csv": first})


def test_parts_that_all_lack_a_header_stay_without(tmp_path: Path) -> None:
    table, _ = rows_of(tmp_path, {"a.csv": "1,k\n2,l\n", "b.csv": "3,k\n4,m\n"})
    assert table.column_names == ["column_1", "column_2"] and table.num_rows == 4


def test_decimal_commas_do_not_outvote_the_delimiter(tmp_path: Path) -> None:
    table, _ = rows_of(tmp_path, {"a.csv": "a;b\n" + "1,5;2,5\n" * 40})
    assert table.column_names == ["a", "b"] and table["a"].to_pylist() == ["1,5"] * 40


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    cells=st.lists(
        st.tuples(st.sampled_from(VALUES), st.sampled_from(VALUES)),
        min_size=2,
        max_size=8,
    ),
    data=st.data(),
)
def test_rows_split_into_any_parts_are_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, str]],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    lines = [f"{i},{c},{t}" for i, (c, t) in enumerate(cells)]
    cut = data.draw(st.integers(1, len(lines) - 1))

    def typed(parts: dict[str, list[str]], scratch: str) -> list[dict[str, Any]]:
        table, _ = rows_of(
            folder,
            {name: "\n".join(["n,c,t", *some]) + "\n" for name, some in parts.items()},
            scratch,
            header=True,
        )
        return sorted(table.to_pylist(), key=lambda row: row["n"])

    one = typed({"all.csv": lines}, "one")
    assert typed({"p0.csv": lines[:cut], "p1.csv": lines[cut:]}, "two") == one
    assert typed({"p0.csv": lines[cut:], "p1.csv": lines[:cut]}, "three") == one


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            ["2.25", "1.50", "x"],
            ["2.25", "1.50"],
        ),  # text here; the lookup alone looks like numbers
        (
            ["1.50", "2.25", "3.00"],
            ["1.50", "2.25", "n.a."],
        ),  # numbers here; the lookup alone is text
        (["True", "False", "True"], ["True", "Unknown"]),
    ],
)
def test_a_lookup_is_typed_like_the_source(
    tmp_path: Path, ours: list[str], theirs: list[str]
) -> None:
    from penstock.core.store import Store
    from penstock.prepare.prepare import prepare

    (tmp_path / "rows.csv").write_text(
        "k,n\n" + "".join(f"{key},{i}\n" for i, key in enumerate(ours * 20)), "utf-8"
    )
    (tmp_path / "lookup.csv").write_text(
        "k,brought\n" + "".join(f"{key},b{i}\n" for i, key in enumerate(theirs)), "utf-8"
    )
    recipe = load_recipe(
        {
            "name": "joined",
            "source": {"type": "files", "path": "rows.csv"},
            "join": [{"source": {"type": "files", "path": "lookup.csv"}, "on": "k"}],
            "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
        },
        base=tmp_path,
    )
    table = prepare(recipe, Store(tmp_path / "store"), Events()).table("train")
    found = {
        ours[n % len(ours)]: brought
        for n, brought in zip(
            table["n"].to_pylist(), table["brought"].to_pylist(), strict=True
        )
    }
    assert found == {
        key: f"b{theirs.index(key)}" if key in theirs else None for key in ours
    }


def test_fields_are_flattened_alike_in_all_parts(tmp_path: Path) -> None:
    lines = [
        '{"n": 0, "a": {"b": 1}}',
        '{"n": 1, "a": 2}',
        '{"n": 2, "a": 1.0}',
        '{"n": 3}',
    ]
    (tmp_path / "all").mkdir()
    one, _ = rows_of(tmp_path / "all", {"all.jsonl": "\n".join(lines) + "\n"})
    parts, _ = rows_of(
        tmp_path, {f"p{i}.jsonl": line + "\n" for i, line in enumerate(lines)}
    )
    assert sorted(parts.to_pylist(), key=lambda row: row["n"]) == one.to_pylist() and one[
        "a"
    ].to_pylist()[1:3] == ["2", "1"]


def test_a_run_that_goes_on_keeps_its_dataset(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from penstock.core.store import Store
    from penstock.pipeline.stages import Pipeline
    from penstock.prepare.prepare import prepare

    (tmp_path / "rows.csv").write_text(
        "x,y\n" + "".join(f"{i},{'uv'[i % 2]}\n" for i in range(60)), "utf-8"
    )
    recipe, store = (
        load_recipe({**PLAIN, "name": "resumed"}, base=tmp_path),
        Store(tmp_path / "store"),
    )
    first = prepare(recipe, store, Events()).reference
    (tmp_path / "rows.csv").write_text(
        "x,y\n" + "".join(f"A{i},{'uv'[i % 2]}\n" for i in range(60)), "utf-8"
    )
    pipeline = Pipeline(recipe, store, Events(), of=SimpleNamespace(dataset=first))  # type: ignore[arg-type]
    pipeline.prepare()
    assert (
        pipeline.outcome.dataset is not None
        and pipeline.outcome.dataset.reference == first
    )
