"""Tables of Delta Lake, by their log: the data files are read where they lie, by this package's own means.

Columns that a file is older than are missing in its rows, columns of partitions come from the log, and rows
that a deletion vector marks are left out. A table whose columns have other names in its files (column
mapping) is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.core.errors import SourceError
from penstock.core.optional import require
from penstock.formats.files import open_bytes
from penstock.formats.lake import Lake, LakeFile

_BATCH_ROWS = 65_536
_MAPPING = "delta.columnMapping.mode"
_FEATURES = frozenset(
    "columnMapping deletionVectors timestampNtz typeWidening typeWidening-preview v2Checkpoint variantType"
    " variantType-preview vacuumProtocolCheck".split()
)
"""Features that a table may name, since writers name them before they are used. Columns with other names
than in their files are refused where they are in use.
"""
_PARTITION = "partition."


class DeltaLake(Lake):
    """A Delta table at a version, or as of a moment; the newest unless given.

    Raises:
        SourceError: there is no such table or version, or it has a feature that cannot be read.
        MissingPackage: `deltalake` is not installed.
    """

    def __init__(
        self, path: str, base: Path, *, version: int | None, as_of: datetime | None
    ) -> None:
        package = require("deltalake", extra="lakehouse", why="reading a Delta table")
        errors = require("deltalake.exceptions", extra="lakehouse", why="a Delta table")
        self.location = path if "://" in path else os.path.abspath(base / path)
        try:
            table = package.DeltaTable(self.location, version=version)
            if as_of is not None:
                table.load_as_version(as_of)
        except (errors.DeltaError, OSError, ValueError) as error:
            raise SourceError(_not_opened(path, version, as_of, str(error))) from None
        features = table.protocol().reader_features or []
        unknown = sorted({*features} - _FEATURES)
        mapping = table.metadata().configuration.get(_MAPPING, "none")
        unknown += ["columnMapping"] if mapping != "none" else []
        if unknown:
            raise SourceError(
                f"the Delta table {path} needs {', '.join(unknown)}, which is not read here. Write it again"
                " without, or write the rows that are wanted as Parquet."
            )
        self.version = str(table.version())
        self.schema = pa.schema(table.schema().to_arrow())
        self._partitions = tuple(table.metadata().partition_columns)
        actions = pa.table(table.get_add_actions(flatten=True))
        rows = sorted(actions.to_pylist(), key=lambda row: str(row["path"]))
        self.files = tuple(self._file(str(row["path"])) for row in rows)
        self._values = [
            {name: row.get(_PARTITION + name) for name in self._partitions}
            for row in rows
        ]
        self._present = _masks(table) if "deletionVectors" in features else {}

    def _file(self, path: str) -> LakeFile:
        plain = unquote(path)
        is_whole = "://" in plain or plain.startswith("/")
        url = plain if is_whole else f"{self.location.rstrip('/')}/{plain}"
        return LakeFile(plain, url)

    def deleted(self) -> str:
        if not self._present:
            return ""
        whole = hashlib.sha256()
        for name, present in sorted(self._present.items()):
            whole.update(
                f"{name}\0{len(present)}\0".encode() + np.packbits(present).tobytes()
            )
        return whole.hexdigest()

    def in_place(self) -> bool:
        if self._partitions or self._present or not self.files:
            return False
        there: set[str] = set()
        for file in self.files:
            with open_bytes(file.url) as raw:
                there |= set(pq.read_schema(raw).names)
        return there == set(self.schema.names)

    def batches(self, place: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        file, schema = (
            self.files[place],
            pa.schema([self.schema.field(name) for name in columns]),
        )
        values, done = self._values[place], 0
        present = self._present.get(os.path.basename(file.path))
        with (
            open_bytes(file.url) as raw,
            pq.ParquetFile(raw, pre_buffer=False) as parquet,
        ):
            there = [name for name in columns if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=there):
                arrays = [
                    _array(batch, field, values, is_there=field.name in there)
                    for field in schema
                ]
                whole = pa.RecordBatch.from_arrays(arrays, schema=schema)
                if present is not None:
                    mask = present[done : done + batch.num_rows]
                    # A vector ends with the last row that it marks.
                    rest = np.ones(batch.num_rows - len(mask), bool)
                    whole = whole.filter(pa.array(np.concatenate([mask, rest])))
                done += batch.num_rows
                yield whole


def _array(
    batch: pa.RecordBatch, field: pa.Field, values: dict[str, Any], *, is_there: bool
) -> pa.Array:
    if field.name in values:
        value = pa.scalar(values[field.name]).cast(field.type)
        return pa.repeat(value, batch.num_rows)
    if is_there:
        return batch.column(field.name).cast(field.type)
    return pa.nulls(batch.num_rows, field.type)


def _masks(table: Any) -> dict[str, np.ndarray]:
    """By the name of a data file: which of its rows are there, bool `[rows]`."""
    masks = {}
    for row in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for path, mask in zip(
            *(column.to_pylist() for column in row.columns), strict=True
        ):
            masks[os.path.basename(unquote(path))] = np.array(mask, bool)
    return masks


def _not_opened(
    path: str, version: int | None, as_of: datetime | None, reason: str
) -> str:
    which = f" at version {version}" if version is not None else ""
    which = f" as of {as_of.isoformat()}" if as_of is not None else which
    return (
        f"source: {path} cannot be opened as a Delta table{which} ({reason.strip()[:200].rstrip('.')})."
        " Name the folder that has _delta_log in it, and a version that is there."
    )
