"""Makes the golden store: one small artefact of each kind, as this version writes them.

Run it only when `core.store.FORMAT` grows, into a new folder (`store-<format>`); the old ones stay, since
readers accept every older format: `python -m tests.golden.make`.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from pathlib import Path

from penstock.core.events import Events
from penstock.core.store import FORMAT, MANIFEST, Store, seal
from penstock.pipeline.stages import Pipeline
from penstock.recipe.schema import load_recipe

FOLDER = Path(__file__).parent / f"store-{FORMAT}"
ROWS = 120


def neutral(folder: Path, names: dict[str, str]) -> None:
    """Name no folder of the machine that made it: replace them in the artefact's JSON, and seal it again."""
    for file in folder.rglob("*.json"):
        text = file.read_text("utf-8")
        for ours, other in names.items():
            text = text.replace(ours, other)
        file.write_text(text, "utf-8")
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    seal(
        folder,
        {
            word: value
            for word, value in manifest.items()
            if word not in ("format", "files")
        },
    )


def main() -> int:
    if FOLDER.exists():
        print(f"{FOLDER} is there already and must not change", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        with open(Path(scratch) / "t.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "age", "city", "seen", "pay"])
            for i in range(ROWS):
                writer.writerow(
                    [
                        i,
                        18 + i * 7 % 60 if i % 11 else "",
                        ("Oslo", "Bergen", "Tromsø")[i % 3],
                        f"2026-01-{1 + i % 28:02d}",
                        "high" if (i * 7 % 60) > 25 else "low",
                    ]
                )
            file.write("torn\n")
        recipe = load_recipe(
            {
                "name": "golden",
                "seed": 1,
                "source": {"type": "files", "path": "t.csv"},
                "key": "id",
                "derive": {"half": "age / 2"},
                "clean": ["deduplicate"],
                "inputs": {
                    "age": "number",
                    "half": "number",
                    "city": "category",
                    "seen": "timestamp",
                },
                "targets": {"pay": {"type": "binary", "positive": "high"}},
                "keep": "id",
                "model": {"combiner": {"type": "mlp", "width": 8, "depth": 1}},
                "train": {"epochs": 2, "batch_size": 32, "checkpoint": {"keep": 1}},
                "evaluate": {"bootstrap": 0, "baselines": False},
                "launcher": {"type": "local", "processes": 1, "threads": 1},
                "trackers": [],
            },
            base=Path(scratch),
        )
        store = Store(Path(scratch) / "store")
        outcome = Pipeline(recipe, store, Events()).until("evaluate")
        assert outcome.bundle is not None
        rows = {
            "id": [1, 2],
            "age": [30, None],
            "city": ["Oslo", "Paris"],
            "seen": ["2026-01-02", None],
        }
        expected = {
            "dataset": outcome.to_dict()["dataset"],
            "feed": outcome.feed.id,
            "run": outcome.run.id,
            "bundle": outcome.bundle.reference,
            "rows": outcome.rows(),
            "question": rows,
            "answer": outcome.bundle.predict(rows),
        }
        (store.folder / "expected.json").write_text(
            json.dumps(expected, indent=1, ensure_ascii=False)
        )
        for manifest in store.folder.rglob(MANIFEST):
            neutral(
                manifest.parent,
                {str(Path(__file__).parents[2]): "/project", scratch: "/scratch"},
            )
        shutil.copytree(
            store.folder, FOLDER, ignore=shutil.ignore_patterns("index", ".*")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
