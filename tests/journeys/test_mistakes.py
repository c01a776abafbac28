"""One clear sentence and the right exit code for what users do wrong."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from penstock.cli import main


@pytest.fixture
def lake(tmp_path):
    pq.write_table(
        pa.table(
            {"id": range(60), "x": [i / 7 for i in range(60)], "y": ["a", "b", "c"] * 20}
        ),
        tmp_path / "t.parquet",
    )
    return tmp_path


def run(lake, capsys, command="run", **changes) -> tuple[int, str]:
    recipe = {
        "name": "t",
        "source": {"type": "files", "path": "t.parquet"},
        "inputs": {"x": "number"},
        "targets": {"y": "category"},
        "train": {"epochs": 1},
        "launcher": {"type": "local", "processes": 1, "threads": 1},
    }
    recipe.update(changes)
    (lake / "r.yaml").write_text(yaml.safe_dump(recipe))
    code = main([command, str(lake / "r.yaml")])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out == ""
    return code, err


def test_a_missing_file(lake, capsys):
    code, text = run(lake, capsys, source={"type": "files", "path": "t.parqet"})
    assert code == 2
    assert "t.parqet" in text and "t.parquet" in text


def test_an_empty_folder(lake, capsys):
    (lake / "void").mkdir()
    code, text = run(lake, capsys, source={"type": "files", "path": "void"})
    assert code == 2
    assert "void" in text


def test_a_corrupt_parquet_file(lake, capsys):
    data = (lake / "t.parquet").read_bytes()
    (lake / "t.parquet").write_bytes(data[: len(data) // 2])
    code, text = run(lake, capsys)
    assert code == 2
    assert "t.parquet" in text


def test_a_target_with_one_class(lake, capsys):
    pq.write_table(pa.table({"x": range(60), "y": ["a"] * 60}), lake / "t.parquet")
    code, text = run(lake, capsys)
    assert code == 3
    assert "y" in text and "'a'" in text


def test_a_target_missing_everywhere(lake, capsys):
    pq.write_table(
        pa.table({"x": range(60), "y": pa.nulls(60, pa.string())}), lake / "t.parquet"
    )
    code, text = run(lake, capsys)
    assert code == 3
    assert "y" in text and "missing" in text


def test_a_column_that_is_not_there(lake, capsys):
    code, text = run(lake, capsys, inputs={"xx": "number"})
    assert code == 2
    assert "xx" in text and "'x'" in text
    assert run(lake, capsys, command="check", inputs={"xx": "number"})[0] == 2


@pytest.mark.parametrize(
    "where",
    [
        {"where": "ag > 3"},
        {"derive": {"z": "x + nosuch"}},
        {"expect": {"nosuch": {"min": 3}}},
        {"split": {"by": "time", "on": "nosuch"}},
        {"key": "nosuch"},
    ],
)
def test_a_column_that_is_not_there_in_any_section(lake, capsys, where):
    code, text = run(lake, capsys, command="prepare", **where)
    assert code == 2
    assert next(iter(where)) in text


def test_sql_that_is_more_than_an_expression(lake, capsys):
    for where in (
        "x > (select 1)",
        "x > 1; drop table t",
        "read_csv('/etc/passwd') is null",
        "x >",
    ):
        code, text = run(lake, capsys, command="prepare", where=where)
        assert code == 2, where
        assert "where" in text


def test_a_misspelt_section_and_a_wrong_shape(lake, capsys):
    code, text = run(lake, capsys, trian={"epochs": 3})
    assert code == 2
    assert "Did you mean 'train'?" in text
    (lake / "r.yaml").write_text("- a\n- list\n")
    assert main(["run", str(lake / "r.yaml")]) == 2
    assert "must be a mapping" in capsys.readouterr().err


def test_the_contract_is_kept(lake, capsys):
    code, text = run(
        lake, capsys, command="prepare", expect={"x": {"max": 1, "on_violation": "fail"}}
    )
    assert code == 3
    assert "x" in text and "1" in text


def test_a_mistake_in_json(lake, capsys):
    (lake / "r.yaml").write_text("source: {type: filez, path: x}\n")
    assert main(["check", str(lake / "r.yaml"), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == "RecipeError"
    assert told["problems"][0]["path"] == ["source", "type"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu", "x"], "Did you mean run?"),
        (["show", "what"], "There is nothing called"),
        (["show", "run-nosuch"], "run"),
        (["show", "bundle-0000000000000000"], "bundle"),
        (["show", "a@0000000000000000"], "has no dataset a@0000000000000000"),
        (["predict", "bundle-0000000000000000", "x", "-o", "y.csv"], "bundle"),
        (["resume", "run-nosuch"], "run"),
        (["run", "nosuch.yaml"], "there is no recipe"),
    ],
)
def test_words_on_the_command_line(tmp_path, capsys, arguments, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
