"""`penstock labels`: a dataset, a recipe, a bare source; on the screen, as JSON and in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.cli import main
from penstock.core.errors import ContractError, RecipeError, UserError

ROWS = 600


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with goods.csv: `kind` follows from the rest, but for every tenth row; and with a recipe."""
    folder = tmp_path_factory.mktemp("goods")
    chance = np.random.default_rng(5)
    true = chance.integers(0, 2, ROWS)
    given = np.where(np.arange(ROWS) % 10 == 0, 1 - true, true)
    words = np.array(["steel and iron", "wool and silk"])
    kinds = np.array(["metal", "cloth"])
    table = pa.table(
        {
            "number": np.arange(ROWS),
            "weight": np.round(chance.normal(0, 1, ROWS) + 3 * true, 3),
            "depth": pa.array(np.where(chance.random(ROWS) < 0.1, np.nan, 1.5 * true)),
            "about": words[true],
            "score": chance.integers(0, 100, ROWS),
            "tags": [
                ";".join(sorted({"abcdefg"[i % 7], "abcde"[i % 5]})) for i in range(ROWS)
            ],
            "kind": kinds[given],
        }
    )
    csv.write_csv(table, folder / "goods.csv")
    recipe = {
        "name": "goods",
        "key": "number",
        "source": {"type": "files", "path": "goods.csv"},
        "inputs": {"weight": {"type": "number"}, "about": {"type": "text"}},
        "targets": {"kind": {"type": "category"}, "score": {"type": "number"}},
    }
    (folder / "goods.json").write_text(json.dumps(recipe))
    return folder


@pytest.fixture
def here(goods: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(goods)
    return goods


def wrong(rows: list[dict[str, Any]], column: str = "number") -> float:
    return sum(row[column] % 10 == 0 for row in rows) / len(rows)


def test_a_bare_source_is_searched_whole_and_leaves_nothing(here: Path) -> None:
    before = sorted(path.name for path in here.iterdir())
    report = penstock.labels("goods.csv", target="kind", top=ROWS)
    assert sorted(path.name for path in here.iterdir()) == before
    assert report["rows"] == ROWS and report["dataset"] is None
    assert len(report.top) == report["suspects"]
    assert 45 <= report["suspects"] <= 75
    assert report["estimated_share"] == pytest.approx(0.1, abs=0.03)
    assert {row["given"] != row["suggested"] for row in report.top} == {True}
    json.dumps(report.to_dict(), allow_nan=False)
    assert report["estimate"] == "about"
    # Without a key a row is named by its file and the row in it.
    first = report.top[0]["place"]
    row = int(first.removeprefix("row ").removesuffix(" of goods.csv"))
    kind = csv.read_csv("goods.csv")["kind"][row - 1].as_py()
    assert kind == report.top[0]["given"]


def test_a_recipe_is_searched_in_its_training_split_by_its_inputs(here: Path) -> None:
    report = penstock.labels("goods.json", target="kind", store=here / "store")
    assert report["splits"] == ["train"]
    assert report["model"]["inputs"] == ["weight", "about"]
    dataset = penstock.Dataset.open(
        penstock.Store(here / "store"), reference=report["dataset"]
    )
    assert report["rows"] == dataset.counts["train"]
    again = penstock.labels(dataset, target="kind", split="all", top=ROWS)
    assert again["rows"] == ROWS
    assert {row["split"] for row in again.top} == {"train", "validation", "test"}
    # The dataset is what it was.
    assert penstock.Dataset.open(
        penstock.Store(here / "store"), reference=report["dataset"], verify=True
    )


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_all_suspects_go_to_a_file_with_their_rows(here: Path, ending: str) -> None:
    output = here / f"suspects.{ending}"
    report = penstock.labels(
        "goods.json", target="kind", top=3, output=output, store=here / "store"
    )
    read = pq.read_table if ending == "parquet" else csv.read_csv
    table = read(output)
    rows = table.to_pylist()
    assert len(rows) == report["suspects"] > 3 == len(report.top)
    assert [row["row_id"] for row in rows[:3]] == [row["row_id"] for row in report.top]
    assert wrong(rows) > 0.75
    confidence = [row["self_confidence"] for row in rows]
    assert confidence == sorted(confidence)
    assert {"number", "about", "kind", "given", "suggested"} <= set(table.column_names)
    output.unlink()


def test_the_screen_and_json_say_the_same(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["labels", "goods.json", "--target", "kind", "--top", "2"]
    command += ["--store", "store"]
    assert main(command) == 0
    screen = capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert f"{facts['suspects']:,} labels suspect" in screen
    assert facts["top"][0]["place"] in screen
    assert facts["top"][0]["place"].startswith("number ")
    assert facts["source"] == "goods.json"


@pytest.mark.parametrize(
    ("source", "words", "error", "sentence"),
    [
        ("goods.json", {}, UserError, "the recipe has the targets kind, score"),
        ("goods.json", {"target": "kin"}, RecipeError, "Did you mean"),
        ("goods.json", {"target": "score"}, ContractError, "holds numbers"),
        ("goods.csv", {"target": "tags"}, ContractError, "a set of labels in each row"),
        ("goods.csv", {"target": "kind", "folds": 1}, UserError, "from 2 to 20, not 1"),
        ("goods.csv", {"target": "kind", "split": "dev"}, UserError, "no split 'dev'"),
        ("goods.csv", {"target": "kind", "rank": "age"}, UserError, "not by 'age'"),
        ("goods.csv", {"target": "kind", "top": -1}, UserError, "not -1"),
        ("goods.csv", {"target": "kind", "output": "a.doc"}, UserError, "ending of"),
    ],
)
def test_what_cannot_be_is_said(
    here: Path, source: str, words: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        penstock.labels(source, store=here / "store", **words)
