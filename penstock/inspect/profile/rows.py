"""Rows that equal others: within a split and across splits, by 64-bit hashes of whole rows.

While rows are few each one's hash is held; beyond, only hashes whose last bits are zero, so that memory stays
bounded and counts become estimates that no order of rows sways (Broder's sampling by hash).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.data import WIDE_COLUMNS
from penstock.inspect.profile.distinct import sorted_different

MOST_HELD = 1 << 23
"""Hashes that are held: eight bytes each, twice while they are counted."""


class Rows:
    """Hashes of rows, by split."""

    def __init__(self, *, most: int = MOST_HELD) -> None:
        import duckdb

        self._most = most
        self._session = duckdb.connect(config={"threads": 1})
        self._error = duckdb.Error
        self._hashes: dict[str, list[np.ndarray]] = {}
        self._held = 0
        self._bits = 0
        self.is_known = True

    def add(self, split: str, batch: pa.RecordBatch) -> None:
        """Take rows of a split: the columns that are to be compared."""
        if not self.is_known:
            return
        names = batch.schema.names
        if not 0 < len(names) <= WIDE_COLUMNS:
            self.is_known = False
            return
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        try:
            rows = self._session.from_arrow(pa.Table.from_batches([batch]))
            hashes = rows.project(f"hash({quoted}) as h").fetchnumpy()["h"]
        # A type that DuckDB does not know: then nothing is said of equal rows.
        except self._error:
            self.is_known = False
            return
        hashes = self._thinned(np.asarray(hashes, np.uint64))
        self._hashes.setdefault(split, []).append(hashes)
        self._held += len(hashes)
        while self._held > self._most:
            self._bits += 1
            for pieces in self._hashes.values():
                pieces[:] = [self._thinned(np.concatenate(pieces))]
            self._held = sum(len(h) for pieces in self._hashes.values() for h in pieces)

    def _thinned(self, hashes: np.ndarray) -> np.ndarray:
        if not self._bits:
            return hashes
        last = np.uint64((1 << self._bits) - 1)
        return np.asarray(hashes[(hashes & last) == 0])

    def result(self) -> dict[str, Any] | None:
        """Plain data: `duplicates` by split, and `overlap` of each split with the training rows; None where
        rows could not be compared.
        """
        if not self.is_known:
            return None
        scale = 1 << self._bits
        different, duplicates = {}, {}
        for split, pieces in self._hashes.items():
            whole = np.concatenate(pieces)
            different[split] = sorted_different(whole)
            duplicates[split] = (len(whole) - len(different[split])) * scale
        train = different.get("train")
        overlap = {}
        if train is not None:
            for split, pieces in self._hashes.items():
                if split != "train":
                    overlap[split] = _shared(np.concatenate(pieces), train) * scale
        return {"exact": not self._bits, "duplicates": duplicates, "overlap": overlap}


def _shared(hashes: np.ndarray, train: np.ndarray) -> int:
    """How many of `hashes` are among the sorted different ones of the training rows."""
    at = np.minimum(np.searchsorted(train, hashes), len(train) - 1)
    return int((train[at] == hashes).sum()) if len(train) else 0
