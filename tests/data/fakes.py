"""A dataset version held in memory, with the face that `encode.feed` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from penstock.recipe.schema import Recipe, load_recipe


class FakeDataset:
    def __init__(self, splits: dict[str, pa.Table], id: str = "0123456789abcdef") -> None:
        self.id, self.name, self.reference = id, "fake", f"fake@{id}"
        self.splits = {
            split: table.add_column(0, "row_id", ids(split, len(table)))
            for split, table in splits.items()
        }
        self.counts = {
            split: len(self.splits[split]) if split in self.splits else 0
            for split in ("train", "validation", "test")
        }
        self.schema = self.splits["train"].schema

    def batches(
        self,
        split: str,
        columns: Sequence[str] | None = None,
        rows: int = 65_536,
        *,
        coded: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        table = self.splits[split]
        yield from (
            (table.select(["row_id", *columns]) if columns is not None else table)
            .combine_chunks()
            .to_batches(max_chunksize=min(rows, 700))
        )


def ids(split: str, rows: int) -> pa.Array:
    return pa.array(
        [hashlib.md5(f"{split}-{row}".encode()).hexdigest() for row in range(rows)],
        pa.string(),
    )


def recipe(**words: Any) -> Recipe:
    return load_recipe(
        {"name": "fake", "source": {"type": "files", "path": "rows.csv"}, **words}
    )
