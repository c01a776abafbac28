"""How wide rows are, and what follows from it: how many may be held at once, by how many threads.

DuckDB bounds what it counts, but it does not count everything, and it reserves memory for every column in
every step of a query; so the session must know widths beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pyarrow.parquet as pq

from penstock.contracts.data import WIDE_COLUMNS
from penstock.core.errors import UserError

ROW_GROUP = 65_536
"""Rows in a row group of what is written, or fewer where rows are wide: every thread holds one, and readers
hold a few.
"""
_LEAST_GROUP = 256
GROUP_SHARE = 8
"""Of DuckDB's memory, all threads' row groups in the making take one part in so many."""
_SAMPLED = 256
_ROW_COPIES = 4
"""Forms of a row at once: as read, computed, gathered, written."""
_VECTOR_BYTES = 16_384
"""DuckDB reserves so much for a column in each step of a query."""
_FILLED, _RESERVED = 4, 8
"""Of a query over whole rows: steps that fill what they reserve, at the most, and all of them.

A step that passes values on reserves as much, and DuckDB counts it, but no page of it is ever touched.
"""
_UNKNOWN_BYTES = 32
"""Of a value in a column that was made on the way."""


class Widths:
    """The bytes of a value of each column, measured on some rows of the files that were read."""

    def __init__(self) -> None:
        self.of_columns: dict[str, int] = {}

    def measure(self, files: Sequence[str], *, limit_bytes: int, threads: int) -> None:
        """Measure the first rows of the first and the last file.

        Raises:
            UserError: a few rows are wider than the memory that there is.
        """
        most_rows = 1
        # A file that is not here costs requests; rows from elsewhere count as
        # `_UNKNOWN_BYTES` a column.
        for path in {files[0], files[-1]} if "://" not in files[0] else ():
            # Small reads: a few hundred rows are wanted, not a whole row group of wide
            # ones.
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
                groups = range(file.metadata.num_row_groups)
                most_rows = max(
                    [most_rows, *(file.metadata.row_group(i).num_rows for i in groups)]
                )
                # One batch, so that a file of any length costs the same.
                for batch in itertools.islice(file.iter_batches(_SAMPLED), 1):
                    for column, name in zip(
                        batch.columns, batch.schema.names, strict=True
                    ):
                        # Rounded up, and at least 1, since the width divides the
                        # memory. Null rows count, too, so a sparse column is narrow.
                        width = -(-column.nbytes // max(len(column), 1))
                        self.of_columns[name] = max(self.of_columns.get(name, 1), width)
        row_bytes = sum(self.of_columns.values())
        # A thread reads one row group at a time, so no more rows than that are together, however wide.
        least = min(most_rows, _LEAST_GROUP) * _ROW_COPIES * threads * row_bytes
        # A few rows may mislead, so only what is over twice the limit is refused.
        if least > 2 * limit_bytes:
            widest = max(self.of_columns, key=lambda name: self.of_columns[name])
            # The column that makes rows wide is the first thing to leave out.
            raise UserError(
                "rows are too wide for resources.memory: a row has about"
                f" {row_bytes / 2**20:,.1f} MiB, most of it in the column {widest!r}, and"
                f" the embedded engine has {limit_bytes / 2**20:,.0f} MiB for {threads}"
                " threads. The smallest limit that works is about"
                f" {least + (600 << 20) >> 20:,}MiB; or lower resources.threads, or leave that"
                " column out."
            )

    @property
    def are_wide(self) -> bool:
        """Whether there are so many columns that DuckDB's reserves outweigh the values."""
        return len(self.of_columns) > WIDE_COLUMNS

    def fewer_threads(self, limit_bytes: int, threads: int) -> int:
        """The most threads, up to `threads`, whose steps fit into the limit; at least one."""
        return max(1, min(threads, limit_bytes // (self._step_bytes * _FILLED)))

    def reserved_bytes(self, threads: int) -> int:
        """Bytes that the steps of a query reserve and never touch; DuckDB's limit must include
        them.
        """
        return self._step_bytes * _RESERVED * threads

    @property
    def _step_bytes(self) -> int:
        return len(self.of_columns) * _VECTOR_BYTES

    def row_bytes(self, columns: Sequence[str], *, unknown: int | None = None) -> int:
        """About how many bytes a row of these columns has.

        Args:
            unknown: bytes of a value in a column that was made on the way.
        """
        unknown = _UNKNOWN_BYTES if unknown is None else unknown
        return max(sum(self.of_columns.get(name, unknown) for name in columns), 1)
