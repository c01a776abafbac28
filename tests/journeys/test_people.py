"""The whole job on a small lake: every verb, by the command line and in Python, and the same again for
nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import penstock
from penstock.cli import main


def command(capsys, *arguments: str) -> dict:
    """Run a command with --json; standard output has one object and nothing else."""
    code = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def journey(people, tmp_path_factory):
    """(folder, outcome of the first run)"""
    folder = tmp_path_factory.mktemp("journey") / "people"
    shutil.copytree(people, folder)
    return folder, penstock.run(folder / "recipe.yaml").to_dict()


def test_every_row_is_accounted_for(journey):
    rows = journey[1]["rows"]
    assert rows["in"] == 601
    assert rows["quarantined"] == 1
    assert sum(n for word, n in rows.items() if word != "in") == 601


def test_the_report_says_what_was_promised(journey):
    _, first = journey
    assert first["metrics"]["test"]["pay"]["roc_auc"] > 0.75
    assert first["baseline"]["pay"]["accuracy"] is not None
    low, high = first["intervals"]["pay"]["roc_auc"]
    assert low <= first["metrics"]["test"]["pay"]["roc_auc"] <= high
    assert any(s["column"] == "city" for s in first["slices"])
    assert first["peak_memory_bytes"] > 10_000_000
    assert (
        set(first["seconds"])
        == {"prepare", "encode", "train", "pack", "evaluate"}
        == set(first["skipped"])
    )
    assert not any(first["skipped"].values())


def test_a_second_run_does_nothing_and_says_so(journey, capsys):
    folder, first = journey
    again = command(capsys, "run", str(folder / "recipe.yaml"))
    assert all(again["skipped"].values())
    assert {k: again[k] for k in ("dataset", "run", "bundle", "rows", "metrics")} == {
        k: first[k] for k in ("dataset", "run", "bundle", "rows", "metrics")
    }
    assert main(["run", str(folder / "recipe.yaml")]) == 0
    out, err = capsys.readouterr()
    assert "Nothing was run" in out
    assert "is there already" in err


@pytest.mark.parametrize(
    ("override", "reruns"),
    [
        ("evaluate.slices=[age]", {"evaluate"}),
        ("keep=[id, city]", {"pack", "evaluate"}),
        ("resources.memory=2GiB", set()),
    ],
)
def test_a_changed_word_reruns_only_what_depends_on_it(journey, capsys, override, reruns):
    folder, first = journey
    again = command(capsys, "run", str(folder / "recipe.yaml"), "--set", override)
    assert {stage for stage, skipped in again["skipped"].items() if not skipped} == reruns
    assert again["dataset"] == first["dataset"]


def test_the_plan_knows_what_is_done(journey, capsys):
    folder, _ = journey
    plan = command(capsys, "plan", str(folder / "recipe.yaml"))
    assert [s["stage"] for s in plan["stages"]] == [
        "prepare",
        "encode",
        "train",
        "pack",
        "evaluate",
    ]
    assert all(s["done"] for s in plan["stages"])
    changed = command(
        capsys, "plan", str(folder / "recipe.yaml"), "--set", "train.epochs=4"
    )
    assert [s["done"] for s in changed["stages"]] == [True, True, False, False, False]
    assert "parameters" in changed["stages"][2]["expects"]
    fresh = command(capsys, "plan", str(folder / "recipe.yaml"), "--set", "seed=99")
    assert not any(s["done"] for s in fresh["stages"])


def test_a_file_is_answered_row_for_row(journey, capsys, tmp_path):
    folder, first = journey
    store = ["--store", str(folder / "store")]
    for ending in ("parquet", "csv", "jsonl"):
        output = tmp_path / f"answers.{ending}"
        told = command(
            capsys,
            "predict",
            first["bundle"],
            str(folder / "lake" / "part-0.csv"),
            "-o",
            str(output),
            *store,
        )
        assert told["rows"] == told["predicted"] == 200
        assert output.is_file()
    table = pq.read_table(tmp_path / "answers.parquet")
    assert table.column_names[:3] == ["id", "pay", "pay_probabilities"]
    assert table["id"].to_pylist() == list(range(200))
    lines = [
        json.loads(line)
        for line in (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()
    ]
    assert [line["pay"] for line in lines] == table["pay"].to_pylist()
    assert abs(sum(lines[0]["pay_probabilities"].values()) - 1) < 1e-5


def test_unreadable_and_refused_rows_are_not_lost(journey, capsys, tmp_path):
    folder, first = journey
    (tmp_path / "new.csv").write_text(
        "id,age,city,joined\n1,30,Oslo,2026-01-02\n2,old,Oslo,2026-01-02\n3\n"
    )
    told = command(
        capsys,
        "predict",
        first["bundle"],
        str(tmp_path / "new.csv"),
        "-o",
        str(tmp_path / "a.jsonl"),
        "--store",
        str(folder / "store"),
    )
    assert (told["rows"], told["predicted"], told["refused"], told["unreadable"]) == (
        3,
        1,
        1,
        1,
    )
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines[0]["refused"] is None and lines[0]["pay"] in ("high", "low")
    assert "'old' is not a number" in lines[1]["refused"] and lines[1]["pay"] is None
    aside = (tmp_path / "a.jsonl.unreadable.jsonl").read_text()
    assert "new.csv" in aside and '"3"' in aside


def test_the_python_face_gives_back_what_it_was_given(journey):
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    folder, first = journey
    bundle = penstock.Bundle.open(first["bundle"], store=penstock.Store(folder / "store"))
    rows = {
        "id": [1, 2],
        "age": [30, None],
        "city": ["Oslo", "Paris"],
        "joined": ["2026-01-02", "2026-02-02"],
    }
    answers = [
        bundle.predict(kind(rows))
        for kind in (dict, pd.DataFrame, pl.DataFrame, pa.table)
    ]
    assert [type(a) for a in answers] == [dict, pd.DataFrame, pl.DataFrame, pa.Table]
    first_words = [
        list(a["pay"]) if not isinstance(a, pa.Table) else a["pay"].to_pylist()
        for a in answers
    ]
    assert all(words == first_words[0] for words in first_words)


def test_list_and_show(journey, capsys):
    folder, first = journey
    store = ["--store", str(folder / "store")]
    assert first["dataset"] in [
        row["reference"] for row in command(capsys, "list", "datasets", *store)
    ]
    assert first["run"] in [
        row["reference"] for row in command(capsys, "list", "runs", *store)
    ]
    assert first["bundle"] in [
        row["reference"] for row in command(capsys, "list", "bundles", *store)
    ]
    for word in ("dataset", "run", "bundle"):
        assert command(capsys, "show", first[word], *store)["reference"] == first[word]
        assert main(["show", first[word], *store]) == 0
        assert first[word] in capsys.readouterr().out
    for shelf in ("datasets", "runs", "bundles", "feeds", "reports"):
        assert main(["list", shelf, *store]) == 0
        assert shelf in capsys.readouterr().out


def test_evaluate_again_and_check(journey, capsys):
    folder, first = journey
    told = command(capsys, "evaluate", first["bundle"], "--store", str(folder / "store"))
    assert told["metrics"] == first["metrics"]
    assert command(capsys, "check", str(folder / "recipe.yaml"))["ok"] is True


def test_a_run_in_a_bucket(people, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "here"))
    url = f"memory://team-{tmp_path.name}"
    first = command(capsys, "run", str(people / "recipe.yaml"), "--store", url)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "there"))
    again = command(capsys, "run", str(people / "recipe.yaml"), "--store", url)
    assert all(again["skipped"].values())
    assert again["bundle"] == first["bundle"]


def test_init_writes_a_recipe_that_runs(people, tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    told = command(
        capsys, "init", str(people / "lake"), "--target", "pay", "-o", str(recipe)
    )
    assert told["recipe"] == str(recipe)
    text = recipe.read_text("utf-8")
    assert "#" in text and "pay" in text
    outcome = command(
        capsys,
        "run",
        str(recipe),
        "--set",
        "train.epochs=1",
        "--sample",
        "300",
        "--set",
        "launcher.threads=1",
    )
    assert outcome["rows"]["filtered"] == 300
    assert Path(tmp_path / "store").is_dir()


def test_what_is_named_for_later_stages_is_asked_of_a_dataset_that_is_there_already(
    journey, capsys
):
    folder, _ = journey
    for change, word in (
        ("evaluate.slices=[citty]", "evaluate.slices"),
        ("keep=[idd]", "keep"),
        ("weight=wait", "weight"),
    ):
        for verb in ("run", "check", "plan"):
            assert main([verb, str(folder / "recipe.yaml"), "--set", change]) == 2
            err = capsys.readouterr().err
            assert word in err and "there is no column" in err


@pytest.mark.parametrize("beside", ["", ".unreadable.jsonl", ".refused.jsonl"])
def test_answers_never_overwrite_what_they_are_for(journey, capsys, tmp_path, beside):
    folder, first = journey
    rows = tmp_path / f"rows.csv{beside}"
    rows.write_text("age,city,joined,id\n30,Oslo,2026-01-02,1\n", "utf-8")
    assert (
        main(
            [
                "predict",
                first["bundle"],
                str(rows),
                "-o",
                str(tmp_path / "rows.csv"),
                "--store",
                str(folder / "store"),
            ]
        )
        == 2
    )
    assert "overwrite" in capsys.readouterr().err
    assert rows.read_text("utf-8").startswith("age,city")


def test_an_input_of_which_no_row_can_be_read_is_a_failure(journey, capsys, tmp_path):
    folder, first = journey
    rows = tmp_path / "rows.csv"
    rows.write_bytes(b"age,city,joined,id\n30,Troms\xf8,2026-01-02,1\n")
    code = main(
        [
            "predict",
            first["bundle"],
            str(rows),
            "-o",
            str(tmp_path / "a.csv"),
            "--store",
            str(folder / "store"),
            "--json",
        ]
    )
    out = capsys.readouterr().out
    assert code == 2 and "has 1 row, and none could be read" in json.loads(out)["message"]
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "r.yaml", "--nope", "--json"], 2),
        (["runn", "--json"], 2),
        (["list", "frogs", "--json"], 2),
        (["run", "--json"], 2),
    ],
)
def test_a_mistaken_command_line_is_json_too(arguments, code, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code
    assert json.loads(capsys.readouterr().out)["message"]


def test_a_port_that_is_none_is_told(journey, capsys):
    folder, first = journey
    assert (
        main(
            [
                "serve",
                first["bundle"],
                "--port",
                "99999",
                "--store",
                str(folder / "store"),
            ]
        )
        == 2
    )
    assert "65535" in capsys.readouterr().err


@pytest.mark.parametrize("shelf", ["datasets", "runs", "bundles", "feeds", "reports"])
def test_whatever_is_listed_can_be_shown(journey, shelf):
    store = journey[0] / "store"
    listed = penstock.list_artefacts(shelf, store=store)
    assert listed
    for row in listed:
        assert (
            penstock.show(row["reference"], store=store)["reference"] == row["reference"]
        )
