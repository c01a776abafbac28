"""Rows drawn over a whole source: the same rows whenever the same source is looked at.

    every row → a key, by a hash of its file's path and its number → the rows with the lowest keys

A row's key depends on nothing but its place, so a draw is the same on every machine, in any order, and
however rows come in batches; a source that grows keeps most of its sample. What is drawn waits in Parquet
files in scratch: of N rows about `rows * (1 + ln(N / rows))` are written, and those that lower keys have
pushed out are left out at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import PLACE, ROW_FILE, ROW_NUMBER, WIDE_COLUMNS

CELL_BYTES = 8
"""What a value of a sample counts beside its bytes, be it missing."""
MOST_HASHED = 1 << 24
"""Rows whose equals are counted: eight bytes of memory each."""
HEAD_ROWS = 1_000
_HEAD_BYTES = 4 << 20


def seed_of(name: str) -> int:
    """64 bits that stand for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def keys_of(seed: int, numbers: np.ndarray) -> np.ndarray:
    """A key for each number, evenly spread over 64 bits (SplitMix64) `[N]` uint64."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Draw:
    """Draws rows while they go by, and counts all of them.

    Args:
        rows: how many to draw.
        most_bytes: what they may take as columns; fewer are drawn where they are wide.
    """

    def __init__(self, rows: int, most_bytes: int) -> None:
        self._wanted = max(rows, 1)
        self._most_bytes = most_bytes
        self.begin()

    def begin(self) -> None:
        """Forget what was drawn: a pass over the rows begins, perhaps anew."""
        self.rows = 0
        """Rows that went by."""
        self.head: pa.Table | None = None
        """The first rows, one behind another."""
        self._seeds: dict[int, int] = {}
        self._keys = np.empty(0, np.uint64)
        self._sizes = np.empty(0, np.float64)
        self._limit = np.uint64(2**64 - 1)
        self._equals = Equals()

    def take(self, batch: pa.RecordBatch, *, path: str) -> pa.RecordBatch:
        """The rows of a batch that may be among those drawn.

        Args:
            batch: has `ROW_FILE`, the same in all rows, and `ROW_NUMBER`.
            path: of the file.
        """
        if not batch.num_rows:
            return batch
        if self.head is None:
            each = max(1, batch.nbytes // batch.num_rows)
            most = max(1, min(HEAD_ROWS, _HEAD_BYTES // each))
            self.head = pa.Table.from_batches([batch.slice(0, most)])
        self.rows += batch.num_rows
        self._equals.add(batch)
        seed = self._seeds.setdefault(batch.column(ROW_FILE)[0].as_py(), seed_of(path))
        keys = keys_of(seed, batch.column(ROW_NUMBER).to_numpy())
        chosen = np.flatnonzero(keys <= self._limit)
        some = batch.take(pa.array(chosen))
        if len(chosen):
            # Each counts as the mean of its batch does.
            size = some.nbytes / len(chosen) + CELL_BYTES * batch.num_columns
            self._keys = np.append(self._keys, keys[chosen])
            self._sizes = np.append(self._sizes, np.full(len(chosen), size))
            if (
                len(self._keys) > 2 * self._wanted
                or self._sizes.sum() > 2 * self._most_bytes
            ):
                self._tighten()
        return some

    def _tighten(self) -> None:
        """Keep the lowest keys alone, as many as were asked for and have room."""
        order = np.argsort(self._keys, kind="stable")
        fit = int(
            np.searchsorted(np.cumsum(self._sizes[order]), self._most_bytes, "right")
        )
        # A single row is taken however large, or a sample of wide rows would be empty.
        order = order[: max(1, min(self._wanted, fit))]
        self._keys, self._sizes = self._keys[order], self._sizes[order]
        if len(order):
            self._limit = min(self._limit, self._keys[-1])

    @property
    def duplicates(self) -> int | None:
        """How many rows equal an earlier one in all columns; None where they are too many, or too wide, to
        be compared.
        """
        return self._equals.count()

    def table(
        self, parquet: Sequence[Path | str], columns: Sequence[str]
    ) -> tuple[pa.Table, bool]:
        """What was drawn, in the order in which it went by, and whether rows are fewer than were asked for
        since they are wide.

        Args:
            parquet: the files into which the batches of `take` were written.
            columns: which to give, and `PLACE` behind them.
        """
        self._tighten()
        pieces: list[pa.RecordBatch] = []
        for path in parquet:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                # One row group after the other: those of a wide table are large.
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, columns=[*columns, *PLACE])
                    for batch in rows.to_batches():
                        pieces.append(batch.filter(pa.array(self._is_drawn(batch))))
                schema = file.schema_arrow
        whole = pa.Table.from_batches(pieces, _chosen(schema, columns))
        return whole, whole.num_rows < min(self._wanted, self.rows)

    def _is_drawn(self, batch: pa.RecordBatch) -> np.ndarray:
        files = batch.column(ROW_FILE).to_numpy()
        numbers = batch.column(ROW_NUMBER).to_numpy()
        drawn = np.zeros(len(files), bool)
        for index in np.unique(files):
            here = files == index
            drawn[here] = keys_of(self._seeds[int(index)], numbers[here]) <= self._limit
        return drawn


def _chosen(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in (*columns, *PLACE)])


class Equals:
    """Counts the rows that equal an earlier one, by 64-bit hashes of them."""

    def __init__(self) -> None:
        import duckdb

        self._hashes: list[np.ndarray] | None = []
        self._rows = 0
        self._session = duckdb.connect(config={"threads": 1})
        self._error = duckdb.Error

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the rows of a batch; its `PLACE` is not compared."""
        self._rows += batch.num_rows
        if self._hashes is None:
            return
        names = [name for name in batch.schema.names if name not in PLACE]
        if self._rows > MOST_HASHED or not 0 < len(names) <= WIDE_COLUMNS:
            self._hashes = None
            return
        rows = pa.Table.from_batches([batch])
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        try:
            hashed = self._session.from_arrow(rows).project(f"hash({quoted}) as h")
            self._hashes.append(hashed.fetchnumpy()["h"])
        # A type that DuckDB does not know: then nothing is said of equal rows.
        except self._error:
            self._hashes = None

    def count(self) -> int | None:
        """How many; None where they were not counted."""
        if self._hashes is None:
            return None
        if not self._hashes:
            return 0
        whole = np.concatenate(self._hashes)
        whole.sort()
        return int((whole[1:] == whole[:-1]).sum())


def file_numbers(table: pa.Table, places: Sequence[int]) -> pa.Table:
    """The table with each `ROW_FILE` i as `places[i]`."""
    at = table.column_names.index(ROW_FILE)
    numbers = pc.take(pa.array(places, pa.int32()), table[ROW_FILE])
    return table.set_column(at, table.schema.field(at), numbers)
