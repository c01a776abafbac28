"""Tables of Apache Iceberg, through pyiceberg: by a catalogue, or by the table's metadata alone.

Columns that were added, renamed or dropped, and rows that were deleted, are pyiceberg's business: each data
file is read as its table is at the snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.core.errors import SourceError
from penstock.core.optional import require
from penstock.formats.lake import Lake, LakeFile

_WHY = "reading an Iceberg table"


class IcebergLake(Lake):
    """An Iceberg table at a snapshot, or as of a moment; the newest unless given.

    Args:
        path: the table's folder (its newest metadata is taken), or a metadata file.
        table: `namespace.name` of a catalogue, instead of `path`.
        catalog: the catalogue's name in pyiceberg's own configuration (`~/.pyiceberg.yaml`, or variables
            `PYICEBERG_CATALOG__<NAME>__…`).

    Raises:
        SourceError: there is no such table or snapshot.
        MissingPackage: `pyiceberg` is not installed.
    """

    def __init__(
        self,
        base: Path,
        *,
        path: str | None,
        table: str | None,
        catalog: str,
        version: int | None,
        as_of: datetime | None,
    ) -> None:
        where = path or f"{table} of the catalogue {catalog}"
        errors = require("pyiceberg.exceptions", extra="lakehouse", why=_WHY)
        refusals: tuple[type[Exception], ...] = (
            *_errors_of(errors),
            OSError,
            ValueError,
            KeyError,
        )
        try:
            opened = _by_path(path, base) if path else _by_catalog(str(table), catalog)
            snapshot = _snapshot(opened, where, version, as_of)
            scan = opened.scan(snapshot_id=snapshot)
            self._tasks = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
        except refusals as error:
            raise SourceError(
                f"source: {where} cannot be opened as an Iceberg table ({str(error).strip()[:200]}). Name a"
                " folder with `metadata` in it, or a table of a catalogue that pyiceberg knows."
            ) from None
        self._scan, self._opened = scan, opened
        self.location = opened.location()
        self.version = str(snapshot)
        module = require("pyiceberg.io.pyarrow", extra="lakehouse", why=_WHY)
        self.schema = module.schema_to_pyarrow(scan.projection(), include_field_ids=False)
        self.files = tuple(self._file(task.file.file_path) for task in self._tasks)
        deletes = {d.file_path for task in self._tasks for d in task.delete_files}
        self.deletes = tuple(self._file(name) for name in sorted(deletes))

    def _file(self, url: str) -> LakeFile:
        plain = url.removeprefix("file://")
        root = self.location.removeprefix("file://").rstrip("/") + "/"
        return LakeFile(plain.removeprefix(root), plain)

    def batches(self, place: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        module = require("pyiceberg.io.pyarrow", extra="lakehouse", why=_WHY)
        scan = self._scan.select(*columns)
        expressions = require("pyiceberg.expressions", extra="lakehouse", why=_WHY)
        reader = module.ArrowScan(
            self._opened.metadata,
            self._opened.io,
            scan.projection(),
            expressions.AlwaysTrue(),
        )
        for batch in reader.to_record_batches([self._tasks[place]]):
            yield batch.select(list(columns))


def _errors_of(module: Any) -> tuple[type[Exception], ...]:
    kinds = [value for value in vars(module).values() if isinstance(value, type)]
    return tuple(kind for kind in kinds if issubclass(kind, Exception))


def _by_path(path: str, base: Path) -> Any:
    tables = require("pyiceberg.table", extra="lakehouse", why=_WHY)
    whole = path if "://" in path else os.path.abspath(base / path)
    if not whole.endswith(".json"):
        folder = Path(whole) / "metadata"
        # Names begin with the number of the version, so the last one is the newest.
        names = sorted(folder.glob("*.metadata.json"), key=_number)
        if not names:
            raise ValueError(f"there is no metadata in {folder}")
        whole = str(names[-1])
    return tables.StaticTable.from_metadata(whole)


def _number(path: Path) -> tuple[int, float]:
    digits = path.name.lstrip("v").split("-")[0].split(".")[0]
    return (int(digits) if digits.isdigit() else -1, path.stat().st_mtime)


def _by_catalog(table: str, catalog: str) -> Any:
    catalogs = require("pyiceberg.catalog", extra="lakehouse", why=_WHY)
    return catalogs.load_catalog(catalog).load_table(table)


def _snapshot(table: Any, where: str, version: int | None, as_of: datetime | None) -> int:
    if as_of is not None:
        snapshot = table.snapshot_as_of_timestamp(int(as_of.timestamp() * 1000))
    elif version is not None:
        snapshot = table.snapshot_by_id(version)
    else:
        snapshot = table.current_snapshot()
    if snapshot is None:
        known = [str(each.snapshot_id) for each in table.snapshots()]
        raise SourceError(
            f"source: {where} has no snapshot {version or as_of or 'yet'}."
            f" It has: {', '.join(known[-12:]) or 'none'}."
        )
    return int(snapshot.snapshot_id)
