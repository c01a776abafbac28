"""How many wrong cells a contract finds in tables with their truth: one that `init` proposes, uncommented,
and one written by hand from a look at the dirty table.

    python -m benchmarks.contract FOLDER     (with hospital/ and beers/, each dirty.csv and clean.csv)
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import folder_in
from penstock import api
from penstock.contracts.data import ROW_NUMBER
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.prepare.agreed import contract_of
from penstock.prepare.extraction import extract
from penstock.prepare.row_ids import by_place, read_extract
from penstock.prepare.survey import survey
from penstock.prepare.validate import judge
from penstock.recipe.read import parse_yaml
from penstock.recipe.schema import load_recipe

BY_HAND: Mapping[str, Mapping[str, Any]] = {
    "hospital": {
        "provider_number": {"pattern": "[0-9]{5}"},
        "zip": {"pattern": "[0-9]{5}"},
        "phone": {"pattern": "[0-9]{10}"},
        "state": {"allowed": ["al", "ak"]},
        "type": {"allowed": ["acute care hospitals"]},
        "emergency_service": {"allowed": ["yes", "no"]},
        "owner": {"pattern": "(government|voluntary non-profit|proprietary).*"},
        "condition": {
            "allowed": [
                "heart attack",
                "heart failure",
                "pneumonia",
                "surgical infection prevention",
                "children s asthma care",
            ]
        },
        "measure_code": {"pattern": "(ami|hf|pn|scip|cac)-[a-z0-9-]+"},
        "score": {"pattern": "empty|[0-9]{1,3}%"},
        "sample": {"pattern": "empty|[0-9]+ patients"},
        "state_average": {"pattern": "(al|ak)_(ami|hf|pn|scip|cac)-[a-z0-9-]+"},
    },
    "beers": {
        "ounces": {"pattern": r"[0-9]+(\.[0-9]+)?"},
        "abv": {"pattern": r"0\.[0-9]+", "type": "number", "max": 0.2},
        "ibu": {"pattern": "[0-9]+"},
        "city": {"pattern": "[^,]*[a-z.]"},
        "state": {"not_null": True, "pattern": "[A-Z]{2}"},
    },
}


def _texts(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    return names, rows


def _proposed(path: Path) -> dict[str, Any]:
    draft = str(api.init({"path": str(path)}))
    _, _, commented = draft.partition("# expect:\n")
    text = "\n".join(line.removeprefix("# ") for line in commented.splitlines())
    return parse_yaml("expect:\n" + text, where="the draft")["expect"] if text else {}


def cells(path: Path, expect: Mapping[str, Any]) -> set[tuple[int, str]]:
    """The cells (row from 0, column) that break a rule."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(
            {
                "name": "dirty",
                "source": {"type": "files", "path": str(path), "strip": False},
                "expect": expect,
            }
        )
        scratch, store = Path(folder), Store(Path(folder) / "store")
        sources = survey(recipe, store)
        extracts = extract(recipe, sources, scratch, Events())
        with recipe.engine.open(scratch, memory_bytes=1 << 30, threads=2) as session:
            # Counted by the rules themselves: where every row breaks one, no dataset is left.
            contract = contract_of(recipe, extracts, session, store)
            table = by_place(
                session, read_extract(session, extracts.main), sources.snapshot.files
            )
            counts = judge(table, contract, session=session)
            return {
                (row[ROW_NUMBER], check.column)
                for check in counts.checks
                for row in session.rows(counts.table.filter(check.bad).select(ROW_NUMBER))
            }


def measure(folder: Path) -> dict[str, Any]:
    """Precision and recall over cells, of both contracts."""
    names, dirty = _texts(folder / "dirty.csv")
    _, clean = _texts(folder / "clean.csv")
    wrong = {
        (i, name)
        for i, (was, should) in enumerate(zip(dirty, clean, strict=True))
        for name, a, b in zip(names, was, should, strict=True)
        if a.strip() != b.strip()
    }
    answers: dict[str, Any] = {"wrong": len(wrong)}
    contracts = {
        "proposed": _proposed(folder / "dirty.csv"),
        "by hand": BY_HAND[folder.name],
    }
    for name, expect in contracts.items():
        flagged = cells(folder / "dirty.csv", expect) if expect else set()
        right = len(flagged & wrong)
        answers[name] = {
            "rules on": len(expect),
            "flagged": len(flagged),
            "precision": round(right / max(len(flagged), 1), 3),
            "recall": round(right / max(len(wrong), 1), 3),
        }
    return answers


def bench() -> None:
    """Print the figures of each table.

    Raises:
        Cannot: it was not said where the tables are.
    """
    folder = folder_in("PENSTOCK_DIRTY_TABLES", "hospital/ and beers/")
    for table in BY_HAND:
        print(json.dumps({"name": f"contract {table}", **measure(folder / table)}))
