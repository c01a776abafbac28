"""Files that are whole or absent, and the system's refusals in a sentence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.core.drafts import temporary_file
from penstock.core.errors import StoreError
from penstock.core.paths import MOST_BYTES, shown
from penstock.core.regular import refuse_output

STORE, OUTPUT = "--store", "-o"
"""What of the command line chooses a place: the store's, or a single file's."""


def atomic_write(
    path: Path, content: str | bytes | Iterable[bytes], *, option: str = STORE
) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it.

    Args:
        content: whole, or in pieces that are never together in memory. Where they raise, nothing is written.
        option: what of the command line chooses the place.

    Raises:
        UserError: what is there is no file.
        StoreError: the disk is full, or the place may not be written.
    """
    whole = content.encode() if isinstance(content, str) else content
    pieces = [whole] if isinstance(whole, bytes) else whole
    refuse_output(path)
    with as_store_error(path, option=option):
        make_folder(path.parent)
        with temporary_file(path) as (handle, name):
            for piece in pieces:
                # `os.write` may write less than it was given; a view avoids copies of
                # the rest.
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(handle, rest) :]
            # Before the rename: after a loss of power a name must not lead to an empty
            # file.
            os.fsync(handle)
            # it was made private; a store is shared as its folders are
            os.chmod(name, path.parent.stat().st_mode & 0o666)
            os.replace(name, path)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they are there; within `as_store_error`.

    Raises:
        OSError: what the system refuses; that a part of the path is a file is `NotADirectoryError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(
            errno.ENOTDIR, "a part of that path is a file, not a folder", str(folder)
        ) from error
    except (
        FileNotFoundError
    ) as error:  # the system lets nobody make folders there (/proc)
        raise PermissionError(
            errno.EPERM, "no folder can be made there", str(folder)
        ) from error


@contextmanager
def as_store_error(path: Path, *, option: str = STORE) -> Iterator[None]:
    """Turn the operating system's refusals (full, read-only, forbidden) into a `StoreError` that says what to
    do.

    Args:
        option: what of the command line chooses the place.
    """
    try:
        yield
    # Errors of the system that a user can mend become sentences; all others pass
    # unchanged.
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            elsewhere = "put the store elsewhere with --store"
            # A single file has no store to be put elsewhere.
            if option != STORE:
                elsewhere = f"name another place with {option}"
            raise StoreError(
                f"the disk is full while writing {path} ({_free(path)} free). Nothing"
                f" incomplete was kept. Free some space, or {elsewhere}."
            ) from None
        if error.errno in (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.ENAMETOOLONG,
        ):
            # The system does not say which name is too long, so the longest is
            # measured.
            if error.errno == errno.ENAMETOOLONG:
                size = max(len(os.fsencode(part)) for part in path.parts)
                raise StoreError(
                    f"cannot write {shown(str(path))}: a name in it is too long ({size:,} bytes; file systems"
                    f" take {MOST_BYTES}). Give a shorter one with {option}."
                ) from None
            what = "a folder" if option == STORE else "a place"
            raise StoreError(
                f"cannot write {path}: {error.strerror}. Choose {what} you may write to with {option}."
            ) from None
        raise


def _free(path: Path) -> str:
    # The file is not there yet; its nearest folder tells the file system.
    while not path.exists() and path != path.parent:
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**20:.1f} MiB"
