"""The rows of a database as a file: pulled once, in a definite order, under a name that is their content.

    batches → checked that no two rows are alike in the order → ~/.cache/penstock/pulled/<content>.parquet

A file is what two passes of an extract can read, and what a look and a preparation can share. A file that
nobody used for a day is removed, and only its owner may read it.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.core.caches import cache_folder
from penstock.core.errors import SourceError
from penstock.core.locks import locked
from penstock.core.store import as_store_error
from penstock.formats.content_digest import ContentDigest

_GROUP_ROWS = 65_536
_GROUP_BYTES = 32 << 20
_UNUSED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Pulled:
    """Rows of a database, as a file."""

    digest: str
    """Of the content, 64 hexadecimal digits."""
    rows: int
    is_whole: bool = True
    """False: these are some of its rows, for a look."""

    @property
    def path(self) -> Path:
        """Where they lie."""
        return pulled_path(self.digest)


def pulled_path(digest: str) -> Path:
    """Where rows lie whose content has this digest."""
    return cache_folder() / "pulled" / f"{digest}.parquet"


def pull(
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    columns: Sequence[str],
    order: Sequence[str],
    most_bytes: int | None = None,
) -> Pulled:
    """Write rows as they come.

    Args:
        schema: of the batches.
        columns: those of the schema that are written.
        order: columns that the rows are sorted by; no two rows may have the same values in all of them.
        most_bytes: end after so many, as columns in memory; all rows unless given.

    Raises:
        SourceError: two rows are alike in `order`.
        StoreError: the disk is full, or the folder cannot be written.
    """
    folder = cache_folder() / "pulled"
    schema = pa.schema([schema.field(name) for name in columns])
    with as_store_error(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".new-", suffix=".parquet")
        os.close(handle)
    try:
        digest, check, is_whole = ContentDigest(schema), _Order(order), True
        rows, size = 0, 0
        with (
            as_store_error(folder),
            pq.ParquetWriter(
                name, schema, compression="zstd", compression_level=1
            ) as out,
        ):
            for batch in _groups(batches):
                check.see(batch)
                batch = batch.select(schema.names)
                digest.add(batch)
                out.write_batch(batch)
                rows, size = rows + batch.num_rows, size + batch.nbytes
                if most_bytes is not None and size >= most_bytes:
                    is_whole = False
                    break
        pulled = Pulled(digest.hexdigest(), rows, is_whole)
        with as_store_error(folder), locked(folder / ".lock", wait=True):
            # Equal content is there already, perhaps being read: it stays what it is.
            if not pulled.path.exists():
                os.replace(name, pulled.path)
            _note(pulled.path).touch()
            _remove_unused(folder)
        return pulled
    finally:
        Path(name).unlink(missing_ok=True)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about a row group."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        each = max(1, batch.nbytes // max(batch.num_rows, 1))
        step = max(1, min(_GROUP_ROWS, _GROUP_BYTES // each))
        for start in range(0, batch.num_rows, step):
            piece = batch.slice(start, step)
            waiting.append(piece)
            rows, size = rows + piece.num_rows, size + piece.nbytes
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                yield _one(waiting)
                waiting, rows, size = [], 0, 0
    if waiting:
        yield _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(batches)


class _Order:
    """Sees that the columns of an order tell neighbours apart: equal rows would have places by chance."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._last: pa.RecordBatch | None = None

    def see(self, batch: pa.RecordBatch) -> None:
        if not self._columns or not batch.num_rows:
            return
        some = batch.select(self._columns)
        whole = some if self._last is None else pa.concat_batches([self._last, some])
        alike = np.ones(whole.num_rows - 1, bool)
        for array in whole.columns:
            alike &= _alike(array.slice(1), array.slice(0, len(array) - 1))
        if alike.any():
            raise SourceError(
                f"the order by {', '.join(self._columns)} does not tell all rows apart: there are"
                " rows with the same values in it, so their places, and with them their ids, would be"
                " chance. Add a column to `order_by`, such as the primary key."
            )
        self._last = some.slice(some.num_rows - 1)


def _alike(one: pa.Array, other: pa.Array) -> np.ndarray:
    equal = pc.fill_null(pc.equal(one, other), False)
    neither = pc.and_(one.is_null(), other.is_null())
    alike: np.ndarray = pc.or_(equal, neither).to_numpy(zero_copy_only=False)
    return alike


def remembered(name: str, state: str) -> Pulled | None:
    """What was pulled under a name when the database was in the very same state, if it is still there."""
    try:
        note = json.loads(_state_path(name).read_text("utf-8"))
        if note["state"] != state:
            return None
        pulled = Pulled(str(note["digest"]), int(note["rows"]))
        # Its time of use, before anybody finds it unused.
        _note(pulled.path).touch()
        return pulled if pulled.path.exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(name: str, state: str, pulled: Pulled) -> None:
    """Note in which state of a database something was pulled."""
    note: dict[str, Any] = {
        "state": state,
        "digest": pulled.digest,
        "rows": pulled.rows,
    }
    path = _state_path(name)
    with as_store_error(path.parent), locked(path.parent / ".lock", wait=True):
        path.write_text(json.dumps(note), "utf-8")


def _state_path(name: str) -> Path:
    return cache_folder() / "pulled" / f"{name}.json"


def _note(path: Path) -> Path:
    return path.with_name(f".{path.stem}.used")


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - _UNUSED_SECONDS
    for path in folder.glob("*.parquet"):
        note = _note(path)
        times = [p.stat().st_mtime for p in (path, note) if p.exists()]
        if times and max(times) < oldest:
            path.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
    for path in folder.glob("*.json"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
