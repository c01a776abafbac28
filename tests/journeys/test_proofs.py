"""The recipes reach what the project promises of them, on the real data, with one seed (docs/benchmarks.md
has more).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def run(name: str, tmp_path: Path, shared_data: Path, *words: str) -> dict[str, Any]:
    recipe = ROOT / "recipes" / f"{name}.yaml"
    assert shared_data.is_dir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "penstock",
            "run",
            str(recipe),
            "--json",
            "--store",
            str(tmp_path / "store"),
            *(f"--set={word}" for word in words),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    rows = outcome["rows"]
    assert rows["in"] == sum(n for word, n in rows.items() if word != "in")
    return outcome


def test_adult(tmp_path, shared_data):
    outcome = run("adult", tmp_path, shared_data)
    assert outcome["rows"]["in"] == 32_561 + 16_281
    assert outcome["rows"]["test"] == 16_281
    metrics = outcome["metrics"]["test"]["income"]
    assert metrics["roc_auc"] >= 0.920
    assert metrics["accuracy"] >= 0.865
    assert outcome["baseline"]["income"]["accuracy"] < 0.77


def test_restaurant(tmp_path, shared_data):
    outcome = run("restaurant", tmp_path, shared_data)
    assert outcome["rows"]["in"] == 2548
    assert (
        outcome["metrics"]["test"]["type_of_food"]["accuracy"]
        > outcome["baseline"]["type_of_food"]["accuracy"] + 0.1
    )
    assert (
        outcome["metrics"]["test"]["rating"]["rmse"]
        < outcome["baseline"]["rating"]["rmse"]
    )


@pytest.mark.long
def test_cifar10(tmp_path, shared_data):
    outcome = run("cifar10", tmp_path, shared_data)
    assert (
        outcome["rows"]["in"] == 13_000
        and outcome["rows"]["test"] == 3_000
        and outcome["rows"]["quarantined"] == 0
    )
    assert outcome["metrics"]["test"]["label"]["accuracy"] >= 0.72


def test_grades_have_no_signal_and_the_report_says_so(tmp_path, shared_data):
    outcome = run("grades", tmp_path, shared_data)
    assert outcome["rows"]["in"] == 280
    assert "no signal" in outcome["verdict"]


@pytest.mark.long
def test_goemotions(tmp_path, shared_data):
    outcome = run("goemotions", tmp_path, shared_data)
    assert outcome["rows"]["in"] == 43_410 + 5_426 + 5_427
    assert outcome["metrics"]["test"]["labels"]["f1_macro"] >= 0.40


def test_a_part_of_fashion_is_learnt_in_a_few_epochs(tmp_path, shared_data):
    """The whole of it is in the long ring."""
    outcome = run("fashion", tmp_path, shared_data, "sample=600", "train.epochs=4")
    assert outcome["rows"]["in"] == 2176
    metrics, commonest = outcome["metrics"]["test"], outcome["baseline"]
    for target, better_by in ("masterCategory", 0.2), ("articleType", 0.1):
        assert metrics[target]["accuracy"] >= commonest[target]["accuracy"] + better_by, (
            target
        )


@pytest.mark.long
def test_fashion(tmp_path, shared_data):
    outcome = run("fashion", tmp_path, shared_data)
    assert outcome["rows"]["in"] == 2176
    metrics = outcome["metrics"]["test"]
    assert metrics["masterCategory"]["accuracy"] >= 0.98
    assert metrics["articleType"]["accuracy"] >= 0.89


@pytest.mark.long
def test_captions(tmp_path, shared_data):
    outcome = run("captions", tmp_path, shared_data)
    found, commonest = (
        outcome["metrics"]["test"]["productDisplayName"],
        outcome["baseline"]["productDisplayName"],
    )
    assert found["bleu"] > 2 * commonest["bleu"]
    assert found["rouge_l"] > commonest["rouge_l"]


def test_ett(tmp_path, shared_data):
    outcome = run("ett", tmp_path, shared_data)
    assert outcome["rows"]["in"] == 17_420
    metrics = outcome["metrics"]["test"]["series"]
    assert metrics["mse_standardised"] <= 0.395
    assert metrics["mse_standardised"] < outcome["baseline"]["series"]["mse_standardised"]
