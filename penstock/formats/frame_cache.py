"""Files of frames in the user's cache folder: one for each content, and none that was long unused.

    ~/.cache/penstock/frames/<hash of the content>.parquet
                             .<hash of the content>.used        whose time is that of the last use

The time of use stands beside a file, since a file whose own time changes counts as changed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.core.caches import cache_folder
from penstock.core.locks import locked
from penstock.core.store import as_store_error

_GROUP_ROWS = 122_880
_UNUSED_SECONDS = 30 * 24 * 3600


def stored(table: pa.Table) -> Path:
    """The Parquet file with a table's content. Files that were not used for 30 days are removed.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    folder = cache_folder() / "frames"
    with as_store_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".new-", suffix=".parquet")
        os.close(handle)
        try:
            pq.write_table(table, name, row_group_size=_GROUP_ROWS, compression="zstd")
            with open(name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            path = folder / f"{digest[:32]}.parquet"
            # Nobody removes a file between the look at it and the note of its use.
            with locked(folder / ".lock", wait=True):
                # Equal content is there already, perhaps being read: it stays what it is.
                if not path.exists():
                    os.replace(name, path)
                _note(path).touch()
                _remove_unused(folder)
        finally:
            Path(name).unlink(missing_ok=True)
    return path


def _note(path: Path) -> Path:
    return path.with_name(f".{path.stem}.used")


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - _UNUSED_SECONDS
    for path in folder.glob("*.parquet"):
        if max(_time(path), _time(_note(path))) < oldest:
            path.unlink(missing_ok=True)
            _note(path).unlink(missing_ok=True)


def _time(path: Path) -> float:
    """When a file was written or read last, as far as its disk notes that; 0 without one."""
    try:
        times = path.stat()
    except FileNotFoundError:
        return 0.0
    return max(times.st_mtime, times.st_atime)
