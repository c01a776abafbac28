"""Leaks of each kind planted among 20 honest columns, by 30 seeds: all are told, and clean tables are quiet.

`profile` and `init` judge leaks by `look`; one seed goes through `profile` as a whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import penstock
from penstock.inspect import look

ROWS = 1_000
SEEDS = [
    pytest.param(seed, marks=[] if seed < 1 else [pytest.mark.slow]) for seed in range(30)
]
DAY = np.timedelta64(1, "D")


def honest(rng: np.random.Generator) -> tuple[dict[str, Any], np.ndarray]:
    """Twenty columns, and a score that some of them make."""
    columns: dict[str, Any] = {
        f"n{i}": rng.normal(i, 1 + i / 3, ROWS).round(3) for i in range(8)
    }
    columns |= {f"k{i}": rng.poisson(3 + i, ROWS) for i in range(4)}
    columns |= {
        f"c{i}": rng.choice([f"{i}{x}" for x in "abcdefg"[: 3 + i]], ROWS)
        for i in range(4)
    }
    columns["opened"] = np.datetime64("2023-01-01") + rng.integers(0, 700, ROWS) * DAY
    columns["flag"] = rng.random(ROWS) < 0.3
    gaps = rng.normal(size=ROWS)
    gaps[rng.random(ROWS) < 0.2] = np.nan
    columns["gaps"] = gaps
    words = rng.choice(["red", "slow", "new", "loud", "flat", "cold", "thin"], (ROWS, 8))
    columns["words"] = [" ".join(row) for row in words]
    score = columns["n1"] - 1 + 0.4 * (columns["k0"] - 3) + rng.normal(0, 1, ROWS)
    return columns, score


def with_leaks(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, str]]:
    """A table whose target is a class, and by leak a word of its evidence."""
    columns, score = honest(rng)
    y = score > 0.3
    label = np.where(y, "won", "lost")
    columns["result_code"] = label
    columns["stage"] = np.where(y, "Q7", "Z1")
    reasons = rng.choice(["price", "speed", "service"], ROWS)
    columns["reason"] = np.where(y, reasons, None)
    closed = columns["opened"] + rng.integers(1, 60, ROWS) * DAY
    columns["closed"] = np.where(y, closed, np.datetime64("NaT"))
    columns["document"] = [f"archive/{c}/{i:05d}.pdf" for i, c in enumerate(label)]
    columns["label"] = label
    says = {
        "result_code": "target",
        "stage": "target",
        "reason": "filled in",
        "closed": "filled in",
        "document": "folder",
    }
    return pd.DataFrame(columns), says


def told(frame: pd.DataFrame, target: str) -> dict[str, str]:
    """By column the sentence of its leak."""
    findings = look(pa.Table.from_pandas(frame, preserve_index=False), target=target)
    return {f.column: f.why for f in findings.columns if f.role == "leak"}


@pytest.mark.parametrize("seed", SEEDS)
def test_leaks_of_a_class_are_told(seed):
    frame, says = with_leaks(np.random.default_rng(seed))
    leaks = told(frame, "label")
    assert set(leaks) == set(says), leaks
    for column, word in says.items():
        assert leaks[column].startswith("gives the target away: ")
        assert word in leaks[column].removeprefix("gives the target away: ")


def test_profile_says_so():
    frame, says = with_leaks(np.random.default_rng(0))
    findings = penstock.profile(frame, target="label").findings
    leaks = {f["column"]: f for f in findings if f["kind"] == "leak"}
    assert set(leaks) == set(says)
    assert {f["severity"] for f in leaks.values()} == {"error"}
    assert {c: f["sentence"] for c, f in leaks.items()} == told(frame, "label")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sum_of_two_is_told(seed):
    rng = np.random.default_rng(1_000 + seed)
    columns, _ = honest(rng)
    parts = rng.gamma(2, 30, (2, ROWS)).round(2)
    columns |= {"goods": parts[0], "freight": parts[1], "total": parts.sum(0).round(2)}
    leaks = told(pd.DataFrame(columns), "total")
    assert set(leaks) == {"goods", "freight"}, leaks
    assert any("+" in why for why in leaks.values()), leaks


@pytest.mark.slow
def test_clean_tables_are_quiet():
    alarms = {}
    for seed in range(30):
        columns, score = honest(np.random.default_rng(2_000 + seed))
        answers = {0: score > 0.3, 1: score.round(2), 2: np.digitize(score, [-1, 0.5])}
        answer = answers[seed % 3]
        frame = pd.DataFrame({**columns, "y": answer})
        if leaks := told(frame, "y"):
            alarms[seed] = leaks
    assert len(alarms) <= 1, alarms
