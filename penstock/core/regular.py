"""Files that a user names: a regular file, or a sentence at once.

A device such as /dev/zero never ends, and a named pipe waits for a writer that may never come. So a name is
asked what it is before it is opened, it is opened without waiting, and what was opened is asked again.

Files of /proc, /sys and their like call themselves regular, and are made up while they are read: they have no
size, another content at each reading, and some wait for ever (/proc/kmsg). What is hashed would not be what
is read, so they are refused by their file system, and elsewhere where an empty file gives bytes after all.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import lru_cache
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
_SYSTEMS = frozenset(
    {
        "proc",
        "sysfs",
        "debugfs",
        "tracefs",
        "securityfs",
        "configfs",
        "cgroup",
        "cgroup2",
        "mqueue",
        "pstore",
    }
    | {
        "bpf",
        "efivarfs",
        "selinuxfs",
        "fusectl",
        "binfmt_misc",
        "devpts",
        "rpc_pipefs",
        "nsfs",
    }
)
"""File systems of Linux whose files are made up while they are read."""
_MADE_UP = (
    "{path} is made up by the system while it is read ({why}), so it has no content of its own. Copy what it"
    " says into a file first, and name that."
)
_FLAGS = (
    os.O_RDONLY
    # getattr(os, "O_NONBLOCK"|Opening a pipe without it would wait for a writer.
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    # getattr(os, "O_NOCTTY"|A terminal must not become this process's own by being
    # opened.
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
    _refuse(path, os.stat(path), error)


def refuse_nul(path: str | Path, *, error: type[UserError] = SourceError) -> None:
    """Refuse a path that holds the character NUL, which ends it for the system.

    Raises:
        UserError: of the type `error`.
    """
    if "\0" in str(path):
        raise error(
            f"{str(path)!r} holds the character NUL, which no file's name may have. Take it out."
        )


def where_link_ends(path: str | Path) -> str | None:
    """What is wrong with a link that cannot be followed, as a sentence; None where `path` is no such link."""
    try:
        os.stat(path)
    # A link that can be followed ends in something, and `stat` succeeds.
    except OSError as error:
        if not os.path.islink(path):
            return None
        if error.errno == errno.ELOOP:
            return f"{path} is a link that leads in a circle. Let it name a file."
        return f"{path} is a link to {os.readlink(path)}, which cannot be reached. Mend it, or name the file."
    return None


def refuse_output(path: str | Path) -> None:
    """Refuse to put a file in the place of what is no file: the rename at the end of writing would take a
    device's name.

    Raises:
        UserError: a device, a pipe, a socket or a folder is there; it is no path.
    """
    refuse_nul(path, error=UserError)
    try:
        # Links are followed: what counts is what would be replaced at their end.
        what = special(os.stat(path).st_mode)
    except OSError:  # nothing is there, or whoever writes is told why not
        return
    if what is not None:
        raise UserError(
            f"{path} is {what}, and writing a file there would replace it. Name a file."
        )


def local_output(path: str) -> str:
    """Where a file that is written on this machine alone goes; `file://` is taken off.

    Raises:
        UserError: it names a bucket or another machine.
    """
    local = path.removeprefix("file://")
    if "://" in local:
        raise UserError(
            f"{path} is not on this machine, but this file can only be written locally."
            " Name a local file, and copy it afterwards."
        )
    return local


def lasting_output(path: str) -> str:
    """A place that outlives this process.

    Raises:
        UserError: it is this process's own memory, and what is written there is gone when the command ends.
    """
    if (
        # Also within a chain of protocols, such as `zip://a.csv::memory://b`.
        path.split("::", 1)[0].partition("://")[0].lower() == "memory"
        or "::memory://" in path
    ):
        raise UserError(
            f"{path} is memory of this process and is lost when the command ends. Name a"
            " file or a bucket."
        )
    return path


def open_regular(
    path: str | Path, *, error: type[UserError] = SourceError, buffering: int = -1
) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        UserError: it is no regular file; of the type `error`.
        OSError: it cannot be opened.
    """
    # Before the opening, since opening a device may already have effects.
    refuse_special(path, error=error)
    handle = os.open(path, _FLAGS)
    try:
        # What was opened is asked again: the name may lead elsewhere by now.
        info = os.fstat(handle)
        _refuse(path, info, error)
        # Files of virtual systems have size 0 and content; a truly empty file passes.
        if not info.st_size and (why := _gives_after_all(handle)) is not None:
            raise error(_MADE_UP.format(path=path, why=why))
        return os.fdopen(handle, "rb", buffering)
    except BaseException:
        os.close(handle)
        raise


def read_regular(
    path: str | Path, *, most_bytes: int, error: type[UserError] = SourceError
) -> bytes:
    """All of a small regular file.

    Raises:
        UserError: it is no regular file, or larger than `most_bytes`; of the type `error`.
        OSError: it cannot be read.
    """
    with open_regular(path, error=error) as file:
        # One byte more than allowed tells "too large" without reading the rest.
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise error(
            f"{path} is larger than {most_bytes / 2**20:,.0f} MiB, which is too large here."
        )
    return content


def _refuse(path: str | Path, info: os.stat_result, error: type[UserError]) -> None:
    what = special(info.st_mode)
    if what is not None:
        raise error(
            f"{path} is {what}, not a file. Write what comes from it to a file first, and name that."
        )
    system = _made_up_systems().get(info.st_dev)
    if system is not None:
        raise error(_MADE_UP.format(path=path, why=f"it lies in {system}"))


def _gives_after_all(handle: int) -> str | None:
    """Why an open file of no bytes is none that is empty; None where it is empty.

    It was opened without waiting, so what has nothing to say yet says that.
    """
    try:
        # `pread` leaves the position at the start for whoever reads the file.
        return "it has no size, and gives bytes" if os.pread(handle, 1, 0) else None
    except BlockingIOError:
        return "it has no size, and waits"


@lru_cache(maxsize=1)
def _made_up_systems() -> dict[int, str]:
    """Number of a device → file system, of those that make up their files. None but on Linux.

    Asked once: these are mounted when a machine starts.
    """
    systems: dict[int, str] = {}
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return systems
    for line in lines:
        # 36 35 98:0 /root /where options [fields …] - type source options
        ours, _, theirs = line.partition(b" - ")
        device, system = (
            ours.split()[2].split(b":"),
            theirs.split(b" ", 1)[0].decode("ascii", "replace"),
        )
        if system in _SYSTEMS:
            systems[os.makedev(int(device[0]), int(device[1]))] = system
    return systems
