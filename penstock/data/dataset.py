"""Dataset: one immutable version of clean, split rows, in Parquet, with lineage.

    datasets/<name>/<id>/  rows/split=train/part-0.parquet …   in the order of row_id
                           quarantine/part-0.parquet           rows put aside, with their reasons
                           profile.json                        each column of the training split, summarised
                           manifest.json                       counts, lineage, schema, facts, checksums; written last
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.contracts.data import ROW_ID, Engine
from penstock.contracts.part import did_you_mean
from penstock.core.errors import StoreError, UserError
from penstock.core.store import Artefact, Store

SPLITS = ("train", "validation", "test")
_DIFF_BYTES = 2**30
_DIFF_SHOWN = 20


class Dataset:
    """One version."""

    def __init__(self, artefact: Artefact) -> None:
        self.path = artefact.path
        self.manifest = artefact.manifest
        self.name: str = artefact.manifest["name"]
        self.id: str = artefact.manifest["id"]

    @classmethod
    def open(cls, store: Store, reference: str, *, verify: bool = False) -> Dataset:
        """The version `name@id`, or the newest one called `name`.

        Raises:
            StoreError: it is not there, or was changed.
        """
        name, _, id = reference.partition("@")
        shelf = f"datasets/{name}"
        if not id:
            newest = max(store.names(shelf), key=lambda n: (store.open(n).manifest.get("created", ""), n), default=None)
            if newest is None:
                raise StoreError(f"the store {store.url} has no dataset called {name!r}.{_near(store, name)}")
            return cls(store.open(newest, verify=verify))
        if not store.has(f"{shelf}/{id}"):
            raise StoreError(f"the store {store.url} has no dataset {reference}.{_near(store, name)}")
        return cls(store.open(f"{shelf}/{id}", verify=verify))

    def __repr__(self) -> str:
        return f"Dataset({self.reference!r})"

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.id}"

    @property
    def counts(self) -> dict[str, int]:
        """Rows: `in`, and the headings that add up to it: train, validation, test, quarantined, duplicates, filtered."""
        return dict(self.manifest["counts"])

    @property
    def facts(self) -> dict[int, dict[str, Any]]:
        """What fitted cleaners learnt, by their places in the recipe."""
        return {int(place): facts for place, facts in self.manifest["facts"].items()}

    @cached_property
    def schema(self) -> pa.Schema:
        """`row_id`, then the columns."""
        import pyarrow.parquet as pq

        return pq.read_schema(self.files("train")[0]).remove_metadata()

    def files(self, split: str) -> list[Path]:
        """The Parquet files of a split; their rows in the order of the files' names are in the order of `row_id`."""
        if split not in SPLITS:
            raise UserError(f"there is no split {split!r}; expected train, validation or test.{did_you_mean(split, list(SPLITS))}")
        return sorted((self.path / "rows" / f"split={split}").glob("*.parquet"))

    def batches(self, split: str, columns: Sequence[str] | None = None, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """A split's rows, streamed in stored order.

        Args:
            split: `train`, `validation` or `test`.
            columns: all unless given; `row_id` always comes first.
            rows: the most in one batch.

        Raises:
            UserError: there is no such split or column.
        """
        import pyarrow.parquet as pq

        wanted = self._columns(columns)
        for path in self.files(split):
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(rows, columns=wanted):
                    yield batch.select(wanted)

    def table(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A split in memory."""
        wanted = self._columns(columns)
        fields = pa.schema([self.schema.field(name) for name in wanted])
        return pa.Table.from_batches(self.batches(split, columns), schema=fields)

    def _columns(self, columns: Sequence[str] | None) -> list[str]:
        known = self.schema.names
        for name in columns or ():
            if name not in known:
                raise UserError(f"the dataset {self.reference} has no column {name!r}.{did_you_mean(name, known)} Columns: {', '.join(known)}.")
        return list(dict.fromkeys([ROW_ID, *(known if columns is None else columns)]))

    def diff(self, other: Dataset) -> dict[str, Any]:
        """What `other` has that this version has not, and the reverse: schema, counts, rows by id.

        Rows are compared by id alone, on disk, so versions larger than memory can be compared.
        """
        ours, theirs = ({f.name: str(f.type) for f in d.schema} for d in (self, other))
        with tempfile.TemporaryDirectory(prefix="penstock-diff-") as scratch, Engine.load("embedded").open(Path(scratch), memory_bytes=_DIFF_BYTES, threads=2) as session:
            here, there = (session.read([p for split in SPLITS for p in d.files(split)]).select(ROW_ID) for d in (self, other))
            rows = {}
            for word, some, others in (("added", there, here), ("removed", here, there)):
                only = session.keep(some.anti_join(others, ROW_ID))
                rows[word] = {"count": session.count(only), "first": [row[ROW_ID] for row in session.rows(only.order_by(ROW_ID).limit(_DIFF_SHOWN))]}
        return {
            "from": self.reference, "to": other.reference,
            "columns": {
                "added": sorted(theirs.keys() - ours.keys()), "removed": sorted(ours.keys() - theirs.keys()),
                "changed": {name: [ours[name], theirs[name]] for name in ours if name in theirs and ours[name] != theirs[name]},
            },
            "counts": {heading: [count, other.counts[heading]] for heading, count in self.counts.items()},
            "rows": rows,
        }


def _near(store: Store, name: str) -> str:
    names = [folder.removeprefix("datasets/") for folder in store.folders("datasets")]
    versions = [f"{name}@{n.rsplit('/', 1)[1]}" for n in store.names(f"datasets/{name}")] if name in names else []
    if versions:
        return f" Versions: {', '.join(versions)}."
    return did_you_mean(name, names) or (f" Datasets: {', '.join(names)}." if names else " It has none yet; `penstock prepare RECIPE` makes one.")
