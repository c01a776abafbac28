"""Files that a user names: a regular file, or a sentence at once.

A device such as /dev/zero never ends, and a named pipe waits for a writer that may never come. So a name is
asked what it is before it is opened, it is opened without waiting, and what was opened is asked again.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from penstock.core.errors import SourceError, UserError

_WORDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def special(mode: int) -> str | None:
    """What a file is that is no regular one; None if it is one."""
    if stat.S_ISREG(mode):
        return None
    return next((word for test, word in _WORDS if test(mode)), "no regular file")


def refuse_special(path: str | Path, *, error: type[UserError] = SourceError) -> None:
    """Refuse what is there and is no regular file.

    Raises:
        UserError: of the type `error`.
        OSError: it is not there, or may not be asked.
    """
    _refuse(path, os.stat(path).st_mode, error)


def refuse_output(path: str | Path) -> None:
    """Refuse to put a file in the place of what is no file: the rename at the end of writing would take a
    device's name.

    Raises:
        UserError: a device, a pipe, a socket or a folder is there.
    """
    try:
        what = special(os.stat(path).st_mode)
    except OSError:  # nothing is there, or whoever writes is told why not
        return
    if what is not None:
        raise UserError(f"{path} is {what}, and a file written there would replace it. Name a file.")


def local_output(path: str) -> str:
    """Where a file that is written on this machine alone goes; `file://` is taken off.

    Raises:
        UserError: it names a bucket or another machine.
    """
    local = path.removeprefix("file://")
    if "://" in local:
        raise UserError(
            f"{path} is not on this machine, and this file is written here alone. Name a local file, and copy"
            " it there."
        )
    return local


def lasting_output(path: str) -> str:
    """A place that outlives this process.

    Raises:
        UserError: it is this process's own memory, and what is written there is gone when the command ends.
    """
    if path.split("::", 1)[0].partition("://")[0].lower() == "memory" or "::memory://" in path:
        raise UserError(
            f"{path} is this process's own memory: what is written there is gone when the command ends. Name"
            " a file or a bucket."
        )
    return path


def open_regular(path: str | Path, *, error: type[UserError] = SourceError, buffering: int = -1) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        UserError: it is no regular file; of the type `error`.
        OSError: it cannot be opened.
    """
    refuse_special(path, error=error)
    handle = os.open(path, _FLAGS)
    try:
        _refuse(path, os.fstat(handle).st_mode, error)
        return os.fdopen(handle, "rb", buffering)
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: str | Path, *, most_bytes: int, error: type[UserError] = SourceError) -> bytes:
    """All of a small regular file.

    Raises:
        UserError: it is no regular file, or larger than `most_bytes`; of the type `error`.
        OSError: it cannot be read.
    """
    with open_regular(path, error=error) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise error(f"{path} is larger than {most_bytes / 2**20:,.0f} MiB, which is too large here.")
    return content


def _refuse(path: str | Path, mode: int, error: type[UserError]) -> None:
    what = special(mode)
    if what is not None:
        raise error(f"{path} is {what}, not a file. Write what comes from it to a file first, and name that.")
