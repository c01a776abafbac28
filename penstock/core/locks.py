"""Locks between processes of a machine, on files.

The kernel lets go of one when its holder dies: a crash leaves none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(
    path: Path, *, wait: bool = False, create: bool = True
) -> Iterator[int | None]:
    """Lock a file. Yields its descriptor, or None if another process has it locked.

    A file may be renamed or removed between its opening and its locking; then the lock
    is on what is no longer there, and the file is opened again.

    Args:
        wait: until the file is free, instead of yielding None.
        create: make the file if it is not there; otherwise a missing file yields None.
    """
    while True:
        try:
            file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        except FileNotFoundError:
            if create:
                raise
            yield None
            return
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
                return
            # Compared by inode: the name may lead to another file than the one that is
            # locked.
            try:
                same = os.stat(path).st_ino == os.fstat(file).st_ino
            except FileNotFoundError:
                same = False
            if same:
                yield file
                return
        finally:
            os.close(file)
