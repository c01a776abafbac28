"""How well cleaners repair dirty tables whose truth is known, cell by cell.

    PENSTOCK_DIRTY_TABLES=FOLDER python -m benchmarks repair

FOLDER has `hospital` and `beers`, each with dirty.csv and clean.csv (BigDaMa/raha). Columns are compared by
position, all as texts. Precision: of the changed cells, those that are now right. Recall: of the wrong cells,
those that are now right.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import penstock
from benchmarks.harness import folder_in

ALL = {"train": 1, "validation": 0, "test": 0}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "hospital": [
        {
            "type": "spelling",
            "columns": (
                "provider_number name address_1 city state zip county phone type owner emergency_service"
                " condition measure_code measure_name score sample state_average"
            ).split(),
            "distance": 0.34,
            "times": 5,
        }
    ],
    "beers": [
        {
            "type": "units",
            "columns": "ounces",
            "units": {"oz": 1, "ounce": 1, "ounces": 1},
        },
        {"type": "units", "columns": "abv", "units": {"%": 1}},
        {"type": "replace", "columns": "ibu", "values": {"N/A": None}},
    ],
}


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def measure(name: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """Cells wrong, changed and repaired, and the two shares."""
    shutil.copy(folder / name / "dirty.csv", scratch / f"{name}.csv")
    dirty, truth = rows(folder / name / "dirty.csv"), rows(folder / name / "clean.csv")
    columns = dirty[0]
    dataset = penstock.prepare(
        {
            "name": name,
            "source": {
                "type": "files",
                "path": str(scratch / f"{name}.csv"),
                "types": dict.fromkeys(columns, "text"),
            },
            "clean": RECIPES[name],
            "split": ALL,
            "resources": {"memory": "1GB"},
        },
        store=scratch / "store",
    )
    mended = {row["index"]: row for row in dataset.table("train").to_pylist()}
    wrong = changed = repaired = right = 0
    for before, true in zip(dirty[1:], truth[1:], strict=True):
        now = mended[before[0]]
        for i, column in enumerate(columns):
            value = now[column] or ""
            is_wrong, is_changed = before[i] != true[i], before[i] != value
            wrong += is_wrong
            changed += is_changed
            right += is_changed and value == true[i]
            repaired += is_wrong and value == true[i]
    return {
        "cells": len(columns) * (len(dirty) - 1),
        "wrong": wrong,
        "changed": changed,
        "repaired": repaired,
        "precision": round(right / max(changed, 1), 3),
        "recall": round(repaired / max(wrong, 1), 3),
    }


def bench() -> None:
    """Print the figures of each table.

    Raises:
        Cannot: it was not said where the tables are.
    """
    folder = folder_in("PENSTOCK_DIRTY_TABLES", "hospital/ and beers/")
    with tempfile.TemporaryDirectory() as scratch:
        for name in RECIPES:
            figures = measure(name, folder, Path(scratch))
            print(json.dumps({"name": f"repair {name}", **figures}), flush=True)
