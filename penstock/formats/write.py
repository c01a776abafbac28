"""Batches → a file: Parquet, Arrow, CSV or JSON lines by its ending, packed with gzip or Zstandard if that
says so, at a local path or URL. A local file appears whole or not at all.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from penstock.core.errors import StoreError, UserError
from penstock.core.regular import refuse_output
from penstock.core.remote_errors import explain, refusals
from penstock.core.writing import OUTPUT, as_store_error, make_folder
from penstock.formats.places import filesystem, is_remote
from penstock.formats.shelf import PACKED, ending, readers
from penstock.formats.typed import to_text

WRITTEN = ("arrow", "csv", "jsonl", "parquet", "tsv")
"""The formats that can be written. There may be more that can be read."""


def _endings() -> list[str]:
    """The endings that say how to write a file."""
    return [ending for name in WRITTEN for ending in readers()[name].endings]


class TableWriter:
    """Writes batches of one schema to a file. A context manager: leaving it by an error leaves no local file.

    Args:
        path: a local path or URL; its ending says the format. In CSV and JSON lines bytes become Base64; in
            CSV, nested columns become JSON text.
        schema: what the batches have; the first one's unless given.

    Raises:
        UserError: the ending says nothing, or the place cannot be written.
        StoreError: the disk is full, or the folder may not be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], schema: pa.Schema | None = None
    ) -> None:
        self.path = os.fspath(path)
        self.rows = 0
        self._schema = schema
        self._format = ending(self.path)
        if self._format not in WRITTEN:
            raise UserError(
                f"The ending of {self.path} does not name a format. Known endings:"
                f" {' '.join(_endings())} (.csv, .tsv and .jsonl also with .gz or .zst)."
            )
        packing = next((p for p in PACKED if self.path.lower().endswith(p)), "")
        if packing and self._format in ("parquet", "arrow"):
            raise UserError(
                f"{self.path}: Parquet and Arrow are already compressed; remove {packing}."
            )
        # An object in a bucket appears when it is closed; a local file is written
        # beside its place first.
        self._part = self.path if is_remote(self.path) else f"{self.path}.part"
        self._packing = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}.get(packing)
        self._file: Any = None
        self._inner: Any = None
        self._open()
        if schema is not None:
            self._begin(schema)

    def _open(self) -> None:
        if is_remote(self.path):
            system, path = filesystem(self.path)
            with self._told():
                self._file = system.open(path, "wb")
        else:
            refuse_output(self.path)
            with self._told():
                make_folder(Path(os.path.abspath(self.path)).parent)
                self._file = open(self._part, "wb")  # noqa: SIM115 - closed in close()
        self._sink = (
            pa.CompressedOutputStream(pa.PythonFile(self._file, mode="w"), self._packing)
            if self._packing
            else self._file
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn refusals of the system or of a bucket into an error of one sentence."""
        if not is_remote(self.path):
            with as_store_error(Path(self.path), option=OUTPUT):
                yield
            return
        try:
            yield
        except refusals() as error:
            raise StoreError(
                f"cannot write {self.path}: {explain(error, self.path)}"
            ) from None

    def _begin(self, schema: pa.Schema) -> None:
        self._schema = schema
        if self._format == "parquet":
            self._inner = pq.ParquetWriter(
                self._sink, self._schema, compression="zstd", compression_level=1
            )
        elif self._format == "arrow":
            self._inner = pa.ipc.new_file(self._sink, self._schema)
        elif self._format in ("csv", "tsv"):
            # CSV has no other types: all else becomes text in `_cell`.
            plain = pa.schema(
                [
                    pa.field(f.name, f.type if _is_plain(f.type) else pa.string())
                    for f in self._schema
                ]
            )
            options = pacsv.WriteOptions(
                delimiter="\t" if self._format == "tsv" else ",", quoting_style="needed"
            )
            self._inner = pacsv.CSVWriter(self._sink, plain, write_options=options)

    def write(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Write the rows of a batch of the schema.

        Raises:
            ValueError: it has other columns than the schema.
        """
        if self._schema is None:
            self._begin(batch.schema)
        assert self._schema is not None
        # In any order: they are selected by name below.
        if sorted(batch.schema.names) != sorted(self._schema.names):
            raise ValueError(
                f"cannot write columns {batch.schema.names} to {self.path}, which has {self._schema.names}"
            )
        with self._told():
            for piece in batch.to_batches() if isinstance(batch, pa.Table) else [batch]:
                self._write(piece.select(self._schema.names).cast(self._schema))
                self.rows += piece.num_rows

    def _write(self, batch: pa.RecordBatch) -> None:
        if self._format in ("parquet", "arrow"):
            self._inner.write_batch(batch)
        elif self._format == "jsonl":
            lines = [
                (
                    # Nearly all rows have no NaN, and need no copy.
                    json.dumps(row, ensure_ascii=False, default=_said)
                    if _clean(row)
                    else json.dumps(_finite(row), ensure_ascii=False, default=_said)
                )
                for row in batch.to_pylist()
            ]
            # Without rows the line end alone would be an empty line.
            if lines:
                self._sink.write(("\n".join(lines) + "\n").encode())
        else:
            columns = [c if _is_plain(c.type) else _cell(c) for c in batch.columns]
            self._inner.write_batch(
                pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
            )

    def close(self) -> None:
        """Finish the file, which appears only now."""
        if self._schema is None:
            self._begin(pa.schema([]))
        with self._told():
            self._shut()
            # Renamed once it is whole, so that nobody sees half a file.
            if self._part != self.path:
                os.replace(self._part, self.path)

    def _shut(self) -> None:
        # From within outwards: each layer writes what it still holds into the next.
        if self._inner is not None:
            self._inner.close()
        if self._sink is not self._file:
            self._sink.close()
        self._file.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: object, *problem: object) -> None:
        if kind is None:
            self.close()
            return
        if self._part == self.path:
            self._abandon()
            return
        self._shut()
        os.unlink(self._part)

    def _abandon(self) -> None:
        """Leave a bucket without what was written: closing the file would make an object of it."""
        # Whatever these raise, the error that ended the writing is the one to be told.
        with contextlib.suppress(Exception):
            self._file.discard()
        with contextlib.suppress(Exception):
            # Marked as closed, or its own end would upload what was written.
            self._file.closed = True
        for part in (self._inner, self._sink):
            with contextlib.suppress(Exception):
                part.close()


def write(
    path: str | os.PathLike[str], batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> int:
    """Write all batches to a file; returns the number of rows."""
    with TableWriter(path, schema) as writer:
        for batch in batches:
            writer.write(batch)
    return writer.rows


def _is_plain(kind: pa.DataType) -> bool:
    t = pa.types
    return (
        t.is_integer(kind)
        or t.is_floating(kind)
        or t.is_boolean(kind)
        or t.is_string(kind)
        or t.is_large_string(kind)
        or (t.is_timestamp(kind) and not kind.tz)
        or t.is_date(kind)
    )


def _cell(array: pa.Array) -> pa.Array:
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return pa.array(
            [
                None if v is None else base64.b64encode(v).decode()
                for v in array.to_pylist()
            ],
            pa.string(),
        )
    return to_text(array)


def _said(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return (
        value.isoformat()
        if isinstance(value, (date, datetime)) or hasattr(value, "isoformat")
        else str(value)
    )


def _clean(value: Any) -> bool:
    """Whether JSON has words for all of a value: it has none for NaN and infinity."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_clean, value.values()))
    return all(map(_clean, value)) if isinstance(value, (list, tuple)) else True


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value
