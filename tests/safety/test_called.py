"""Columns, features and targets may be called what they like: no name of theirs is taken for one of ours,
for Python's, or for a mark in what is written.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.cli import main
from penstock.core.errors import SourceError, UserError
from penstock.terminal.report_screen import report_screen

ODD = 'one "two"\r\nthree\\four.%22'
"""What a spreadsheet's header may be, and what ends a text in generated code."""
ROWS = 80


def table(**more: Any) -> pa.Table:
    chance = random.Random(7)
    numbers = [chance.random() for _ in range(ROWS)]
    words = [chance.choice(["p", "q"]) for _ in range(ROWS)]
    return pa.table(
        {
            "self": numbers,
            ODD: words,
            "rows": ["u" if number > 0.5 else "v" for number in numbers],
            "metrics": [number * 2 for number in numbers],
            "seconds": [f"{word}!" for word in words],
            **more,
        }
    )


def test_names_that_are_ours_or_pythons_are_columns_like_any(tmp_path: Path) -> None:
    """From the file to the report, and from a request to the answers."""
    pq.write_table(table(), tmp_path / "a.parquet")
    recipe = {
        "name": "odd",
        "source": {"type": "files", "path": str(tmp_path / "a.parquet")},
        "derive": {"table": "self + 1", "exprs": "upper(seconds)"},
        "clean": [
            {"type": "clip_outliers", "columns": ["self"]},
            {"type": "fill", "values": {"self": 0.0, "table": 0.0}},
            {"type": "trim"},
        ],
        "inputs": {"self": "number", ODD: "category", "table": "number"},
        "targets": {"rows": "category", "metrics": "number", "seconds": "category"},
        "train": {"epochs": 1},
        "evaluate": {"bootstrap": 0, "slices": [ODD, "exprs"]},
    }
    outcome = penstock.run(recipe, store=tmp_path / "store")
    report = outcome.report
    assert report is not None
    classical = report["classical"]
    assert set(classical["metrics"]) == {"rows", "metrics", "seconds"}
    assert isinstance(classical["rows"], int) and isinstance(classical["seconds"], float)
    screen = report_screen(report)
    assert all(f"{target} on the" in screen for target in ("rows", "metrics", "seconds"))
    (bundle,) = (tmp_path / "store" / "bundles").iterdir()
    answers = penstock.Bundle.open(bundle).predict(table().slice(0, 4).to_pylist())
    penstock.predict(
        str(bundle), source=str(tmp_path / "a.parquet"), output=tmp_path / "o.jsonl"
    )
    lines = [
        json.loads(line)
        for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(lines) == ROWS
    for answer, line in zip(answers, lines, strict=False):
        assert answer["metrics"] == pytest.approx(line["metrics"], abs=1e-4)
        assert (answer["rows"], answer["seconds"]) == (line["rows"], line["seconds"])


def test_a_name_with_nul_is_told_where_it_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a\0b": [1, 2]}), tmp_path / "a.parquet")
    words = {"type": "files", "path": str(tmp_path / "a.parquet")}
    with pytest.raises(SourceError, match="the character NUL"):
        penstock.prepare({"name": "n", "source": words}, store=tmp_path / "store")
    renamed = {"name": "n", "source": {**words, "rename": {"a\0b": "ab"}}}
    assert penstock.prepare(renamed, store=tmp_path / "store").counts["in"] == 2


@pytest.mark.parametrize("folder", ["Run.json", "CHECKPOINTS/x", "Model.SafeTensors"])
def test_a_tracker_takes_no_name_of_the_runs_in_other_letters(folder: str) -> None:
    source = {"type": "files", "path": "a.csv"}
    recipe = {"source": source, "trackers": [{"type": "tensorboard", "folder": folder}]}
    with pytest.raises(UserError, match="it is what the run itself keeps there"):
        penstock.check(recipe, data=False)


@pytest.mark.parametrize(
    "words",
    [
        ["check", "{nul}"],
        ["init", "a\0b.csv"],
        ["schema", "-o", "a\0b.json"],
        ["init", "{rows}", "-o", "a\0b.yaml"],
        ["prepare", "{recipe}", "--store", "a\0b"],
        ["list", "runs", "--store", "a\0b"],
        ["show", "run-\0", "--store", "{folder}"],
        ["init", "http://127.0.0.1:99999/x.csv"],
        ["init", "https://127.0.0.1:abc/x.csv"],
        ["init", "http://me:***@[::1]:9/x.csv"],
        ["list", "runs", "--store", "http://[fe80::1]/x"],
    ],
    ids=lambda words: ascii(" ".join(words)),
)
def test_a_place_that_no_system_has_is_told(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("x\n1\n2\n")
    (tmp_path / "recipe.yaml").write_text("source: {type: files, path: rows.csv}\n")
    (tmp_path / "nul.yaml").write_text('source: {type: files, path: "a\\0b"}\n')
    files = {
        "nul": "nul.yaml",
        "rows": "rows.csv",
        "recipe": "recipe.yaml",
        "folder": str(tmp_path),
    }
    assert main([word.format(**files) for word in words]) == 2
    said = capsys.readouterr().err
    assert "\0" not in said and "defect" not in said and len(said) > 20
