"""Rows → shards of one split: `ShardWriter`; `shards.layout` says how a shard lies on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.core.store import as_store_error
from penstock.shards.layout import (
    FORMAT,
    LAYOUT,
    Arrays,
    Place,
    bytes_of,
    held_dtype,
    layout_of,
    object_column,
    paged,
)
from penstock.shards.mmap_concat import PAGE_BYTES

SHARD_BYTES = 64 * 2**20
"""A shard is closed once it holds about so much."""
_ALIGN_ROWS = PAGE_BYTES
"""So many rows are whole pages, whatever their width; then the matrices of all shards can be laid side by
side (`mmap_concat`).
"""


class ShardWriter:
    """Writes the rows of one split as `<prefix>-00000.arrow`, ….  Use as a context manager.

    Every shard but the last has the same number of rows, so that a row's shard follows from its place: as
    many as make `shard_bytes`, by the bytes of the first rows (of rows whose size differs, by those of the
    first shard).

    Dense arrays are laid into the shard's matrices as they come, so there is no second copy of a shard.

    Args:
        folder: where the shards go.
        prefix: usually the split's name.
        shard_bytes: a shard is closed once it holds about so much.
        shard_rows: the rows of a shard, where somebody else decided.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        *,
        shard_bytes: int = SHARD_BYTES,
        shard_rows: int | None = None,
    ) -> None:
        self.rows = 0
        self.files: list[str] = []
        self.rows_by_file: list[int] = []
        self._folder, self._prefix, self._shard_bytes = folder, prefix, shard_bytes
        self._places: list[Place] = []
        self._matrices: Arrays = {}
        self._objects: dict[str, list[np.ndarray]] = {}
        self._full = shard_rows
        """Rows of a shard; None until the first of ragged rows is full."""
        self._filled = self._filled_bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *problem: object) -> None:
        # After a failure nothing is finished: the folder is a draft that goes.
        if kind is None:
            self.close()

    def write(self, arrays: Arrays) -> None:
        """Add rows: arrays `[n, …]` by name, the same names, dtypes and inner shapes each time."""
        rows = len(next(iter(arrays.values())))
        if not rows:
            return
        if not self._places:
            self._begin(arrays, rows)
        self._check(arrays)
        # While the size of a shard is open, rows are weighed; afterwards they are
        # counted.
        per_row = max(bytes_of(arrays) // rows, 1) if self._full is None else 0
        start = 0
        while start < rows:
            most = (
                self._full - self._filled
                if self._full is not None
                # At least one row, so that a row larger than a shard still gets one.
                else max((self._shard_bytes - self._filled_bytes) // per_row, 1)
            )
            taken = min(most, rows - start)
            self._lay(
                {name: values[start : start + taken] for name, values in arrays.items()},
                taken,
            )
            self._filled_bytes += taken * per_row
            start += taken
            if self._full is None and self._filled_bytes + per_row > self._shard_bytes:
                # Up to whole pages, if that makes the shard longer by a sixteenth at
                # most.
                aligned = -(-self._filled // _ALIGN_ROWS) * _ALIGN_ROWS
                self._full = (
                    aligned
                    if aligned - self._filled <= self._filled // 16
                    else self._filled
                )
            # Right away: a full matrix must not be laid into again.
            if self._filled == self._full:
                self._flush()

    def _begin(self, arrays: Arrays, rows: int) -> None:
        self._places = layout_of(arrays)
        # Dense rows have all the same size, so the first batch decides how many make a
        # shard.
        if self._full is None and all(place.ragged is None for place in self._places):
            full = max(self._shard_bytes // max(bytes_of(arrays) // rows, 1), 1)
            # Down to whole pages; a shard of fewer rows than that stays as it is.
            self._full = full // _ALIGN_ROWS * _ALIGN_ROWS or full

    def _check(self, arrays: Arrays) -> None:
        if [p.name for p in self._places] != list(arrays):
            raise ValueError(
                f"a shard has the arrays {[p.name for p in self._places]}; found {list(arrays)}"
            )
        for place, values in zip(self._places, arrays.values(), strict=True):
            if values.dtype.name != place.dtype or values.shape[1:] != place.shape:
                raise ValueError(
                    f"{place.name} was {place.dtype} {list(place.shape)} in the first rows, and is"
                    f" {values.dtype.name} {list(values.shape[1:])} now"
                )

    def _lay(self, piece: Arrays, rows: int) -> None:
        """Copy rows into the matrices, which grow while the number of rows of a shard is open."""
        stop = self._filled + rows
        # One matrix a dtype, whatever the number of features.
        for dtype in dict.fromkeys(p.dtype for p in self._places if p.ragged is None):
            dense = [p for p in self._places if p.ragged is None and p.dtype == dtype]
            matrix = self._matrices.get(dtype)
            if matrix is None or len(matrix) < stop:
                grown = np.empty(
                    # Twice the size whenever it must grow, so that rows are copied a
                    # few times at most.
                    (self._full or 2 * stop, sum(p.width for p in dense)),
                    held_dtype(dtype),
                )
                if matrix is not None:
                    grown[: self._filled] = matrix[: self._filled]
                matrix = self._matrices[dtype] = grown
            for place in dense:
                matrix[self._filled : stop, place.start : place.start + place.width] = (
                    # A row's values in a row of the matrix, whatever shape they have.
                    piece[place.name].reshape(rows, place.width)
                )
        for place in self._places:
            if place.ragged is not None:
                self._objects.setdefault(place.name, []).append(piece[place.name])
        self._filled = stop

    def close(self) -> None:
        """Write what is pending."""
        if self._filled:
            self._flush()
        self._matrices = {}

    def _flush(self) -> None:
        rows, name = self._filled, f"{self._prefix}-{len(self.files):05d}.arrow"
        columns, names = [], []
        # A view of the rows that are filled: Arrow takes it without a copy.
        for dtype, matrix in self._matrices.items():
            columns.append(
                pa.FixedSizeListArray.from_arrays(
                    pa.array(matrix[:rows].reshape(-1)), matrix.shape[1]
                )
            )
            names.append(dtype)
        for place in self._places:
            if place.ragged is not None:
                columns.append(
                    object_column(
                        np.concatenate(self._objects.pop(place.name)), place.ragged
                    )
                )
                names.append(place.name)
        layout = {
            "format": FORMAT,
            "arrays": [
                {
                    "name": p.name,
                    "dtype": p.dtype,
                    "shape": list(p.shape),
                    "start": p.start,
                    "ragged": p.ragged,
                }
                for p in self._places
            ],
        }
        schema = pa.schema(
            [
                # Shards have no nulls: what is missing is said by arrays of the
                # feature.
                pa.field(n, c.type, nullable=False)
                for n, c in zip(names, columns, strict=True)
            ],
            metadata={LAYOUT: json.dumps(layout).encode()},
        )
        # A file of which the first matrix begins at a page can be mapped next to
        # others.
        if self._full is not None and self._full % _ALIGN_ROWS == 0:
            schema = paged(schema, [column.slice(0, 1) for column in columns])
        path = self._folder / name
        with (
            as_store_error(path),
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            writer.write_batch(pa.record_batch(columns, schema=schema))
        self.files.append(name)
        self.rows_by_file.append(rows)
        self.rows += rows
        # The matrices stay and are laid into again; ragged rows were let go of.
        self._filled = self._filled_bytes = 0
