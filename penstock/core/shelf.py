"""Small files under keys, in a folder as in a bucket, with a conditional create: what leases and markers are
made of.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

from penstock.core.drafts import temporary_file


class Shelf(Protocol):
    """Small files under keys, in a folder or a bucket."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a file that must not be there yet. Returns False if it is there."""

    def write(self, key: str, data: bytes) -> None:
        """Write or replace a file."""

    def read(self, key: str) -> bytes | None:
        """A file, or None."""

    def below(self, folder: str) -> dict[str, int]:
        """The files below a folder: key → size in bytes."""

    def drop(self, key: str) -> None:
        """Remove a file, if it is there."""


class FolderShelf(Shelf):
    """A `Shelf` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, key: str, data: bytes) -> bool:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as (file, name):
            _fill(file, data, path)
            try:
                # whole at once, and refused where the name is taken, on network file systems too
                os.link(name, path)
                return True
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                return _created(path, data)
            finally:
                name.unlink(missing_ok=True)

    def write(self, key: str, data: bytes) -> None:
        path = self._folder / key
        with temporary_file(path) as (file, name):
            _fill(file, data, path)
            os.replace(name, path)

    def read(self, key: str) -> bytes | None:
        try:
            return (self._folder / key).read_bytes()
        # A folder that was removed meanwhile, or a file in its place, holds no such
        # key.
        except (FileNotFoundError, NotADirectoryError):
            return None

    def below(self, folder: str) -> dict[str, int]:
        sizes: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self._folder / folder):
                # Another process may drop it between the listing and the look at its
                # size.
                with contextlib.suppress(FileNotFoundError):
                    sizes[f"{folder}/{entry.name}"] = entry.stat().st_size
        return sizes

    def drop(self, key: str) -> None:
        (self._folder / key).unlink(missing_ok=True)


def _fill(file: int, data: bytes, path: Path) -> None:
    os.write(file, data)
    # As its folder is: in a store of several users each reads the others' leases and markers.
    os.fchmod(file, path.parent.stat().st_mode & 0o666)


def _created(path: Path, data: bytes) -> bool:
    try:
        # Exclusive, but not whole at once: a reader may see it empty for a moment.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with open(file, "wb") as stream:
        stream.write(data)
    return True
