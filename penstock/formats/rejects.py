"""Rows that cannot be read, put aside with their file, line, reason and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import REJECT_SCHEMA
from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError


class Rejects:
    """Writes rejects to one Parquet file, in batches. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._held: list[dict[str, Any]] = []
        self._held_bytes = 0
        self.count = 0
        self.first = ""
        """The first reject in words."""

    def add(self, file: str, reject: Reject, *, fail: bool = False) -> None:
        """Put a row aside, or with `fail` end the run because of it.

        Raises:
            SourceError: `fail` is true.
        """
        where = (
            f"{file}, line {reject.line}{f', column {reject.column!r}' if reject.column else ''}:"
            f" {reject.reason}"
        )
        if fail:
            raise SourceError(
                f"{where}. Correct the row, or set `on_bad_row: quarantine`. The row:"
                f" {reject.row[:200]!r}"
            )
        self.first = self.first or where
        self.count += 1
        self._held.append(
            {
                "file": file,
                "line": reject.line,
                "stage": "read",
                "column": reject.column,
                "reason": reject.reason,
                "row": reject.row,
            }
        )
        # 200 bytes stand for the reason, the names and what Python's objects take.
        self._held_bytes += len(reject.row) + 200
        if self._held_bytes > 4 << 20:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            if self._writer is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(
                    self._path, REJECT_SCHEMA, compression="zstd"
                )
            self._writer.write_table(
                pa.Table.from_pylist(self._held, schema=REJECT_SCHEMA)
            )
            self._held.clear()
            self._held_bytes = 0

    def close(self) -> list[Path]:
        """The files written: one or none."""
        self._flush()
        if self._writer is None:
            return []
        self._writer.close()
        self._writer = None
        return [self._path]
