"""What was learnt from forgotten rows: bundles, reports and records are searched; models are trained anew."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import penstock
from penstock.cli import main
from penstock.core.identity import sha256_file
from penstock.core.store import Store
from penstock.run import Run
from tests.forget.test_forget import WHERE, lake, nothing_left, texts

__all__ = ["lake"]

pytestmark = pytest.mark.slow

RECIPE = """
name: visits
source: lake
key: [visit]
seed: {seed}
expect: {{age: {{max: 120}}}}
inputs: {{age: number, job: category, person: category, email: text}}
targets: {{pay: binary}}
train: {{epochs: 2, batch_size: 32}}
launcher: {{type: local, processes: 1, threads: 1}}
store: {store}
"""


def _recipe(lake: Path, seed: int, store: str) -> Path:
    path = lake / f"{store}.yaml"
    path.write_text(RECIPE.format(seed=seed, store=store), "utf-8")
    return path


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))]
)
def test_retrained_it_is_what_training_the_child_gives(
    lake: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _recipe(lake, seed, "store")
    if seed == 1:
        outcome = penstock.run(path, quiet=True)
        run, bundle = outcome.run, outcome.bundle
        before = texts(lake / "store")
        assert any("planted-7" in before[name] for name in before if "bundles" in name)
    else:
        run, bundle = penstock.train(path, quiet=True), None
    assert run is not None
    old = sha256_file(run.weights)
    command = ["forget", "--where", WHERE, "--store", str(lake / "store"), "--json"]
    assert main([*command, "--yes", "--retrain"]) == 0
    report = json.loads(capsys.readouterr().out)

    nothing_left(lake / "store")
    [version] = report["versions"]
    assert version["runs_that_saw_them"] == [run.id]
    assert version["bundles_destroyed"] == ([bundle.reference] if bundle else [])
    store = Store(lake / "store")
    # A sealed run whose record was blanked, and whose checkpoints went, is whole still.
    store.open(f"runs/{run.id}", verify=True)
    [made] = report["retrained"]
    assert made["dataset"] == version["child"] and not made["skipped"]["train"]
    again = Run.open(store, reference=made["run"])
    # The child, trained from step 0 by itself in a store of its own: a copy of the child alone.
    (lake / "lake" / "visits.csv").write_text(
        "\n".join(
            line
            for line in (lake / "lake" / "visits.csv").read_text("utf-8").splitlines()
            if "planted-7," not in line
        )
        + "\n",
        "utf-8",
    )
    other = penstock.train(_recipe(lake, seed, "other"), quiet=True)
    assert sha256_file(again.weights) == sha256_file(other.weights) != old
    if bundle:
        assert penstock.Bundle.open(made["bundle"], store=store)


def test_it_asks_before_it_destroys(
    lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    penstock.prepare(_recipe(lake, 1, "store"), quiet=True)
    command = ["forget", "--where", WHERE, "--store", str(lake / "store")]
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(command) == 2
    assert "--yes" in capsys.readouterr().err
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "would be destroyed" in shown and "planted-7" not in shown
    assert main([*command, "--yes"]) == 0
    assert "signed by" in capsys.readouterr().out
