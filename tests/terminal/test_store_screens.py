"""Lists and artefacts on a screen: short ids, ages, curves; the same in every zone and at every width."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.cells import cell_len

from penstock.terminal.report_screen import report_screen
from penstock.terminal.screens import facts_screen, plan_screen
from penstock.terminal.store_screens import list_screen, show_screen

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RUNS = [
    {
        "reference": f"run-01m7yr15{i}gs963sy5yw1k7xsa4",
        "status": "done",
        "created": "2026-11-21T11:58:00Z",
        "name": "adult",
        "dataset": "adult@0123456789abcdef",
    }
    for i in range(2)
]
REPORT: dict[str, Any] = {
    "split": "test",
    "rows": 100,
    "metrics": {
        "test": {"income": {"roc_auc": 0.926, "recall": 0.61, "precision": 0.74}}
    },
    "intervals": {"income": {"roc_auc": [0.92, 0.931]}},
    "baseline": {"income": {"roc_auc": 0.5}},
    "trivial": {"income": "always answering '<=50K'"},
    "classical": {
        "model": "gradient boosting",
        "metrics": {"income": {"roc_auc": 0.927}},
    },
    "classes": {"income": ["<=50K", ">50K"]},
    "plain": {"income": {"kind": "binary", "unanswered": 0}},
    "verdict": "income: the network is clearly better than always answering '<=50K'.",
    "slices": [],
    "notes": [],
}
CURVE = [
    {"epoch": i + 1, "train_loss": 1 / (i + 1), "validation_loss": 1.2 / (i + 1)}
    for i in range(8)
]


@pytest.fixture(params=[60, 80, 120])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    width: int = request.param
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    size = os.terminal_size((width, 24))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: size)
    return width


def test_a_list_is_the_same_in_every_zone() -> None:
    assert list_screen("runs", RUNS, "./store", now=NOW) == (
        "runs in ./store\n"
        "                status  name   dataset         made\n"
        "──────────────  ──────  ─────  ──────────────  ─────────────\n"
        "run-01m7yr150g  done    adult  adult@01234567  2 minutes ago\n"
        "run-01m7yr151g  done    adult  adult@01234567  2 minutes ago"
    )


def test_what_cannot_be_read_stands_below_its_neighbours() -> None:
    rows = [*RUNS, {"reference": "run-x", "problem": "it was changed."}]
    text = list_screen("runs", rows, "./store", now=NOW)
    assert text.endswith("! run-x cannot be read: it was changed.")
    assert list_screen("runs", [], "./store", now=NOW) == "No runs in ./store."


def test_a_run_shows_its_curve_and_its_result() -> None:
    facts = {
        **RUNS[0],
        "path": "/store/runs/x",
        "curve": CURVE,
        "bundle": "bundle-0123456789abcdef",
        "report": REPORT,
        "summary": {"epochs": 8, "best_epoch": 8, "seconds": 252.0},
    }
    text = show_screen(facts, now=NOW)
    assert "made     2 minutes ago" in text
    assert "trained  8 epochs in 4 min 12 s; the best is epoch 8" in text
    assert "Loss on the validation split, epochs 1 to 8; lowest at epoch 8" in text
    assert "█" in text
    assert "Of 100 rows with income = >50K it finds 61; of 100 rows" in text


def test_metrics_are_explained_when_asked() -> None:
    assert "roc_auc: the chance that a positive row" in report_screen(
        REPORT, explain=True
    )
    assert "the chance that" not in report_screen(REPORT)


def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    facts = {**RUNS[0], "path": "/s", "curve": CURVE, "report": REPORT, "summary": {}}
    plan = {
        "name": "adult",
        "stages": [
            {
                "stage": "train",
                "done": False,
                "why": "no finished run has this model, this data and these settings",
                "expects": {
                    "rows": 1,
                    "parameters": 86_513,
                    "memory_bytes": 1 << 30,
                    "least_seconds": 60.0,
                    "most_seconds": 240.0,
                    "about": ["parameters", "most_seconds"],
                },
            }
        ],
        "notes": ["The time is for one process on this machine."],
    }
    screens = [
        list_screen("runs", RUNS, "./store", now=NOW),
        show_screen(facts, explain=True, now=NOW),
        plan_screen(plan),
        facts_screen({"seconds": 3_700.0, "stages": {"read": 1e-6, "model": 12.5}}),
    ]
    for text in screens:
        assert max(map(cell_len, text.splitlines())) <= columns
    words = plan_screen(plan).split()
    assert "parameters," in words and "settings" in words
    assert "1 h 2 min" in screens[3]


def test_a_plan_says_one_row_and_a_range_of_time() -> None:
    plan = {
        "name": "p",
        "stages": [
            {
                "stage": "train",
                "done": False,
                "why": "",
                "expects": {"rows": 1, "least_seconds": 60.0, "most_seconds": 240.0},
            }
        ],
    }
    assert "1 row, time 60 s to 4 min" in plan_screen(plan)
