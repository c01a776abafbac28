"""A metric that Penstock does not know is one file beside the recipe: watched, reported, judged by the laws.

The file, the recipe and the test are those of docs/extending.md, so that what the page shows is what runs.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
import penstock.parts.metrics
from penstock.cli import main
from penstock.core.errors import RecipeError
from penstock.metrics import known, names_for
from tests import metric_table

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
QUICK = ["launcher.processes=1", "evaluate.bootstrap=20", "evaluate.baselines=false"]


def _blocks() -> dict[str, str]:
    """By the file that each is for, the page's code under 'A metric of your own'."""
    section = (
        PAGE.read_text("utf-8").split("## A metric of your own")[1].split("\n## ")[0]
    )
    named = {}
    for language, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
        first = text.split("\n", 1)[0]
        named[first.removeprefix("# ") if first.startswith("# ") else language] = text
    return named


def _folder(path: Path) -> Path:
    """The page's files, and people of whom the older smiths buy."""
    blocks, chance = _blocks(), random.Random(1)
    (path / "acme").mkdir()
    (path / "acme" / "profit.py").write_text(blocks["acme/profit.py"], "utf-8")
    (path / "recipe.yaml").write_text(blocks["recipe.yaml"], "utf-8")
    lines = ["age,job,buys"]
    for _ in range(400):
        age, job = chance.randint(18, 80), chance.choice(["smith", "clerk"])
        lines.append(f"{age},{job},{'yes' if age + 30 * (job == 'smith') > 65 else 'no'}")
    (path / "people.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = set(sys.modules), list(sys.path)
    yield _folder(tmp_path_factory.mktemp("calls"))
    for name in set(sys.modules) - before[0]:
        if name.split(".")[0] == "acme":
            del sys.modules[name]
    sys.path[:] = before[1]


@pytest.fixture(scope="module")
def outcome(workshop: Path) -> Any:
    return penstock.run(workshop / "recipe.yaml", overrides=QUICK[:2])


def test_it_is_watched_and_in_the_report(outcome: Any, workshop: Path) -> None:
    best = outcome.run.summary["validation"]["buys"]["acme.profit"]
    assert best > 0 and "acme.profit" in (outcome.run.path / "events.jsonl").read_text(
        "utf-8"
    )
    report = outcome.report
    value = report["metrics"]["test"]["buys"]["acme.profit"]
    low, high = report["intervals"]["buys"]["acme.profit"]
    assert low <= value <= high
    assert report["baseline"]["buys"]["acme.profit"] <= value
    assert report["classical"]["buys"]["acme.profit"] is not None
    assert "| acme.profit |" in Path(report["path"]).read_text("utf-8")


def test_the_pages_laws_hold(outcome: Any) -> None:
    names: dict[str, Any] = {}
    exec(compile(_blocks()["python"], str(PAGE), "exec"), names)
    names["test_profit_keeps_the_laws"]()


def test_changed_code_is_a_report_of_its_own(
    outcome: Any, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = penstock.run(workshop / "recipe.yaml", overrides=QUICK[:2])
    assert all(again.skipped.values())
    file = workshop / "acme" / "profit.py"
    text = file.read_text("utf-8")
    file.write_text(text + "\n# changed\n", "utf-8")
    try:
        same = penstock.plan(workshop / "recipe.yaml", overrides=QUICK[:2])
        # What runs in this process is what was imported; the next process has the file as it is.
        monkeypatch.delitem(sys.modules, "acme.profit")
        plan = penstock.plan(workshop / "recipe.yaml", overrides=QUICK[:2])
    finally:
        file.write_text(text, "utf-8")
    assert all(stage["done"] for stage in same["stages"])
    assert [stage["done"] for stage in plan["stages"]] == [True, True, True, True, False]


def test_elsewhere_its_bundle_answers_and_evaluating_says_what_to_do(
    outcome: Any,
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workshop)
    bundle = penstock.Bundle.open(outcome.bundle.path)
    assert bundle.predict([{"age": 70, "job": "smith"}])[0]["buys"] in ("yes", "no")
    assert main(["evaluate", outcome.bundle.reference]) == 2
    said = capsys.readouterr().err
    assert (
        "evaluate.metrics[0].type: the metric 'acme.profit' is code that is not part of"
        in said
    )
    assert "--trust" in said
    assert main(["evaluate", outcome.bundle.reference, "--trust"]) == 0
    for name in [name for name in sys.modules if name.split(".")[0] == "acme"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        sys, "path", [folder for folder in sys.path if folder != str(workshop)]
    )
    monkeypatch.chdir(workshop.parent)
    with pytest.raises(RecipeError, match="Is 'acme' importable from here"):
        bundle.recipe(trust=True)


def test_a_process_that_never_saw_its_code_evaluates_with_trust_alone(
    outcome: Any, workshop: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(workshop / "store", tmp_path / "store")
    # A report that is there would be shown, and nothing computed.
    shutil.rmtree(store / "reports")
    command = [sys.executable, "-m", "penstock", "evaluate", outcome.bundle.reference]
    command += ["--store", str(store)]

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words],
            cwd=workshop,
            env={**os.environ, "PYTHONPATH": str(Path(penstock.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    refused = ask()
    assert refused.returncode == 2 and "--trust" in refused.stderr
    assert not (store / "reports").exists()
    answered = ask("--trust")
    assert answered.returncode == 0, answered.stderr
    [report] = store.glob("reports/*/report.json")
    value = json.loads(report.read_text("utf-8"))["metrics"]["test"]["buys"][
        "acme.profit"
    ]
    assert value == outcome.report["metrics"]["test"]["buys"]["acme.profit"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["evaluate.metrics=[]"],
            "'buys.acme.profit' cannot be watched.*Name it in evaluate.metrics",
        ),
        (
            ["evaluate.metrics=[acme.profit, {type: acme.profit, cost: 5}]"],
            r"metrics\[1\]: has the same name as another, 'acme.profit'. Give it a `name`",
        ),
        (
            ["evaluate.metrics=[acme.profit, {type: ece, bins: 3}]"],
            "has the name of a metric of Penstock, 'ece'",
        ),
        (
            ["evaluate.metrics=[acme.profit, r2]"],
            r"metrics\[1\]: 'r2' is for a number, but no target is one: buys is a binary",
        ),
        (["evaluate.metrics=[acme.profot]"], "no metric is called 'acme.profot'"),
    ],
)
def test_mistakes_in_a_recipe(workshop: Path, words: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=re.compile(message, re.DOTALL)):
        penstock.Recipe.load(workshop / "recipe.yaml", *words)


def test_an_error_in_its_code_is_its_line(workshop: Path) -> None:
    (workshop / "acme" / "broken.py").write_text(
        _blocks()["acme/profit.py"].replace(
            "rows.predicted == 1", "rows.predicted + unknown"
        ),
        "utf-8",
    )
    words = [
        *QUICK,
        "train.early_stop=null",
        "train.epochs=1",
        "evaluate.metrics=[acme.broken]",
    ]
    with pytest.raises(
        RecipeError,
        match=r"'acme.broken' failed on .*NameError.*\n.*broken.py:\d+, in stat",
    ):
        penstock.run(workshop / "recipe.yaml", overrides=words)


@pytest.fixture
def shelved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's folder, its metric put on the shelf as one more file, and in no other place."""
    folder, shelf = _folder(tmp_path), tmp_path / "shelf"
    shelf.mkdir()
    shutil.move(folder / "acme" / "profit.py", shelf / "profit.py")
    with monkeypatch.context() as patch:
        patch.setattr(
            penstock.parts.metrics,
            "__path__",
            [*penstock.parts.metrics.__path__, str(shelf)],
        )
        known.cache_clear()
        yield folder
    known.cache_clear()
    sys.modules.pop("penstock.parts.metrics.profit", None)


@pytest.mark.slow
def test_on_the_shelf_one_new_file_is_a_metric_everywhere(shelved: Path) -> None:
    """The report, early stopping and the page of metrics know it, and no other file does."""
    assert names_for("binary")[-1] == "profit" and "profit" not in names_for("number")
    assert "| `profit` | higher | binary | What is earned per row" in metric_table.table()
    words = [*QUICK, "train.early_stop.metric=buys.profit", "evaluate.metrics=[]"]
    outcome = penstock.run(shelved / "recipe.yaml", overrides=words)
    assert outcome.run.summary["validation"]["buys"]["profit"] is not None
    assert outcome.report["intervals"]["buys"]["profit"] is not None
    assert "| profit |" in Path(outcome.report["path"]).read_text("utf-8")
