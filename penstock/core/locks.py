"""Locks between processes of a machine, on files. The kernel lets go of one when its holder dies: a crash leaves none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def locked(path: Path, *, wait: bool = False, create: bool = True) -> Iterator[int | None]:
    """An open file that nobody else has locked, or None if somebody has. `wait`: until it is free.

    A file may be renamed or removed between its opening and its locking; then the lock is on what is no longer there, and
    the file is opened again.
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
            try:
                same = os.stat(path).st_ino == os.fstat(file).st_ino
            except FileNotFoundError:
                same = False
            if same:
                yield file
                return
        finally:
            os.close(file)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process of this machine at a time; the others wait. The file goes with the last of them.

    Where the file system knows no locks nobody waits: what is done here must be right then too, if only done twice.

    Raises:
        OSError: the file cannot be made.
    """
    with contextlib.ExitStack() as held:
        for _ in range(100):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(path, wait=True))
                break
            except (FileNotFoundError, FileExistsError):
                continue  # another removed the empty folder, or made it, at this very moment
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                break
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # under the lock: whoever waits for it finds that it is gone, and makes another
            with contextlib.suppress(OSError):
                path.parent.rmdir()
