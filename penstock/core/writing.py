"""Files that are whole or absent, and the system's refusals in a sentence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.core.drafts import temporary_file
from penstock.core.errors import StoreError
from penstock.core.regular import refuse_output


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it.

    Raises:
        UserError: what is there is no file.
        StoreError: the disk is full, or the place may not be written.
    """
    data = content.encode() if isinstance(content, str) else content
    refuse_output(path)
    with told_plainly(path):
        _made(path.parent)
        with temporary_file(path) as (handle, name):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
            os.chmod(name, path.parent.stat().st_mode & 0o666)  # it was made private; a store is shared as its folders are
            os.replace(name, path)


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # the system lets nobody make folders there (/proc)
        raise PermissionError(errno.EPERM, "no folder can be made there", str(folder)) from error


@contextmanager
def told_plainly(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (full, read-only, forbidden) into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"the disk is full while writing {path} ({_free(path)} free). Nothing half-written was kept. "
                f"Free some space, or put the store elsewhere with --store."
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise StoreError(f"cannot write {path}: {error.strerror}. Choose a folder you may write to with --store.") from None
        raise


def _free(path: Path) -> str:
    while not path.exists() and path != path.parent:
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**20:.1f} MiB"
