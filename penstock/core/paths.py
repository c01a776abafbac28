"""The gate for names from elsewhere: what a manifest, a bucket's listing, a recipe or a request may call a
file.

A name is a relative POSIX path, spelt in the one normal way, and stays below its root: `reason` judges its
spelling, `below` also asks the file system whether a link on the way leads out. Every place where such a name
becomes a path goes through here; whoever joins one by hand opens the door that this file keeps shut.

What it refuses to know: which files there should be.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from penstock.core.errors import StoreError

MOST_BYTES = 255
"""The longest step that file systems take."""
# Below PATH_MAX of Linux (4,096), which leaves little for the root before it.
_LONGEST_BYTES = 4_000
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SHOWN = 80


def reason(name: object) -> str | None:
    """Why `name` is no plain relative path that stays below its root; None if it is one."""
    if not isinstance(name, str):
        return "it is not text"
    if not name:
        return "it is empty"
    # No name needs one, and a NUL ends a path for the system.
    if _CONTROL.search(name):
        return "it has a control character"
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "it is not UTF-8"
    # A separator on Windows; a name must mean the same path on every system.
    if "\\" in name:
        return "it has a backslash"
    steps = name.split("/")
    # A drive in any step: `pathlib` on Windows would begin anew at it.
    if name.startswith("/") or any(map(_DRIVE.match, steps)):
        return "it is absolute"
    # Refused in whatever place, also where it would stay inside: one path, one
    # spelling.
    if ".." in steps:
        return "it leads out of its folder"
    if "" in steps or "." in steps:
        return "it is not spelt in the normal way: it has an empty step, or a '.'"
    if len(encoded) > _LONGEST_BYTES or any(
        len(step.encode("utf-8")) > MOST_BYTES for step in steps
    ):
        return "it is too long"
    return None


def shown(name: object) -> str:
    """A name as an error may print it: quoted, cut, without control characters."""
    # Names in other scripts stay readable unless they hold a control character.
    text = (
        ascii(name) if not isinstance(name, str) or _CONTROL.search(name) else repr(name)
    )
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def plain(name: object, *, where: str) -> str:
    """`name`, if it is a plain relative path.

    Args:
        where: what gave the name, as the error's sentence begins with it.

    Raises:
        StoreError: it is not.
    """
    if (why := reason(name)) is not None:
        raise _refused(name, why, where)
    return str(name)


def step(name: object, *, where: str) -> str:
    """`name`, if it is one step of a path.

    Raises:
        StoreError: it is not.
    """
    if "/" in plain(name, where=where):
        raise _refused(name, "it has more than one step", where)
    return str(name)


def plain_all(names: Iterable[object], *, where: str) -> None:
    """Every name is a plain relative path, and none is a folder of another.

    Raises:
        StoreError: one is not.
    """
    # One set of all names, then each name's folders are looked up: linear in their
    # text.
    files = {plain(name, where=where) for name in names}
    for name in files:
        at = name.find("/")
        while at > 0:
            if name[:at] in files:
                raise _refused(
                    name, f"it lies below {shown(name[:at])}, which is a file", where
                )
            at = name.find("/", at + 1)


def below(root: Path, name: object, *, where: str) -> Path:
    """The path of `name` below `root`, to be read or written: no link leads out of `root`, and what is there
    is no device.

    Args:
        root: a folder that the user named, or one that this has passed; it may itself be a link.
        where: what gave the name.

    Raises:
        StoreError: the name is refused; a link on the way leads out; a device, a socket or a pipe lies there.
    """
    path = root / plain(name, where=where)
    # Both are resolved, since the root itself may be a link of the user's.
    real, top = os.path.realpath(path), os.path.realpath(root)
    # With the separator, or `/store-old` would count as below `/store`.
    if not real.startswith(top.rstrip(os.sep) + os.sep):
        raise _refused(name, f"a link leads it out of {root}", where)
    try:
        mode = os.stat(real).st_mode
    except OSError:
        return path  # it is not there, or may not be seen: whoever opens it says so
    # Opening a pipe would wait for a writer for ever.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _refused(name, "a device, a socket or a pipe lies there", where)
    return path


class Inside:
    """Whether paths lie below `root`, links followed.

    What is known of their folders is kept: one question a file is left.
    """

    def __init__(self, root: str) -> None:
        self._top = os.path.realpath(root).rstrip(os.sep) + os.sep
        self._folders: dict[str, bool] = {}

    def __call__(self, path: str) -> bool:
        folder = os.path.dirname(path)
        if folder not in self._folders:
            self._folders[folder] = self._is_below(folder)
        # The folder is known to be inside; of the file only a link can still lead out.
        return self._folders[folder] and (
            not os.path.islink(path) or self._is_below(path)
        )

    def _is_below(self, path: str) -> bool:
        # With the separator, so that the root itself counts, and its namesakes do not.
        return (os.path.realpath(path) + os.sep).startswith(self._top)


def _refused(name: object, why: str, where: str) -> StoreError:
    return StoreError(
        f"{where} is {shown(name)}, which is refused: {why}. A name must be a"
        " relative path below its folder, such as 'rows/part-0.parquet'. If you did"
        " not write it, somebody changed it: restore it, or make it again."
    )
