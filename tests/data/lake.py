"""A small lake in a folder, and recipes over it, for the tests of preparing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.core.events import Event, Events
from penstock.core.store import Store
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import prepare
from penstock.recipe.schema import Recipe, load_recipe

SPLITS = ("train", "validation", "test")


class Lake:
    """Files, a store, and what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.heard: list[Event] = []

    def put(self, name: str, rows: pa.Table | list[dict[str, Any]] | str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(rows, str):
            path.write_text(rows, "utf-8")
        else:
            pq.write_table(
                rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), path
            )
        return name

    def recipe(self, **words: Any) -> Recipe:
        return load_recipe(
            {
                "name": "lake",
                "source": {"type": "files", "path": "rows.parquet"},
                "resources": {"memory": "600MB", "threads": 2},
                **words,
            },
            base=self.folder,
        )

    def prepare(self, **words: Any) -> Dataset:
        return prepare(self.recipe(**words), self.store, Events(self.heard.append))

    def said(self, name: str = "said") -> str:
        return "\n".join(
            event.fields.get("text", "") for event in self.heard if event.name == name
        )


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    """All rows, with their split."""
    return [
        {**row, "split": split}
        for split in SPLITS
        for row in dataset.table(split).to_pylist()
    ]


def quarantine(dataset: Dataset) -> list[dict[str, Any]]:
    files = sorted((dataset.path / "quarantine").glob("*.parquet"))
    return (
        pa.concat_tables([pq.read_table(f) for f in files]).to_pylist() if files else []
    )


def adds_up(dataset: Dataset) -> bool:
    counts = dict(dataset.counts)
    return (
        counts.pop("in") == sum(counts.values())
        and all(counts[s] == dataset.table(s).num_rows for s in SPLITS)
        and counts["quarantined"] == len(quarantine(dataset))
    )
