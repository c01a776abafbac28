"""Drafts: folders and files that are being written, and the removal of those whose writer has died.

A killed process cannot tidy up. So each draft folder has a lock file beside it, which its writer holds for
the draft's whole life; the kernel lets go of the lock when the writer dies, however it dies. Whoever drafts
next in the same place first removes every draft whose lock is free.

    .staging/<prefix><32 hex digits>                      a draft folder
    .staging/<prefix><32 hex digits>.<6 hex digits>.held  its lock; the digits stand for the writer's machine
    .<name>.penstock-<6 hex digits>-<12 hex digits>       a file before it is renamed, locked by its writer

A file system may not carry locks from one machine to another. A free lock therefore proves a death only if
the writer was on this machine. A draft of another machine goes once nothing in it has changed for a day, by
the file system's own clock: the age is compared with a file that was written just now, not with this
machine's clock.

What this file refuses to know: what is drafted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from penstock.core.locks import locked

_FAR_SECONDS = 24 * 3600.0
"""A draft of another machine is taken for dead once nothing in it has changed for so long."""
_OLD_SECONDS = 600.0
"""The same for a draft without a lock file, which an earlier Penstock made."""
_TRIES = 100
# Without a lock file only such names are removed: a user's own folder may lie here.
_FOLDER = re.compile(r"(?:scratch-.+|[0-9a-f]{32})")
_HELD = re.compile(r"(?P<name>.+)\.(?P<machine>[0-9a-f]{6})\.held")
_TEMPORARY = re.compile(r"\..*\.penstock-(?P<machine>[0-9a-f]{6})-[0-9a-f]{12}")
_NAME_BYTES = 180
"""Of a file's name, how much its temporary name repeats: file systems allow 255 bytes."""

# Folders swept by this process: listing a large folder at every write would be dear.
_swept: set[Path] = set()
_sweeping = threading.Lock()


@cache
def machine() -> str:
    """Six hexadecimal digits for this machine, by its host name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


class Draft:
    """A new, empty folder in `staging` that is locked until `close`.

    Args:
        staging: the folder for drafts; made if it is not there. Drafts in it whose writers have died are
            removed first.
        prefix: how the folder's name begins.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, staging: Path, prefix: str = "") -> None:
        self._staging = staging
        self.path = staging / f"{prefix}{uuid.uuid4().hex}"
        # Beside the folder, not in it: the folder is renamed while the lock is held.
        self._lock_file = staging / f"{self.path.name}.{machine()}.held"
        self._lock = ExitStack()
        self._make()
        # Its own lock file, made just now, tells the file system's clock.
        sweep(staging, now=_modified(self._lock_file))

    def _make(self) -> None:
        for attempt in range(_TRIES):
            try:
                # Lock first, folder second: no folder ever stands without its lock.
                self._staging.mkdir(parents=True, exist_ok=True)
                self._hold()
                self.path.mkdir()
                return
            except (
                FileNotFoundError
            ):  # another removed the empty staging folder between its making and ours
                self._lock.close()
                if (
                    attempt == _TRIES - 1
                ):  # the system lets nobody make folders there (/proc)
                    raise PermissionError(
                        errno.EPERM, "no folder can be made there", str(self._staging)
                    ) from None
            # Also on Ctrl-C: what was half-made goes with the error.
            except BaseException:
                self.close()
                raise

    def _hold(self) -> None:
        try:
            # `wait`: a sweeper may hold the new file's lock for a moment.
            self._lock.enter_context(locked(self._lock_file, wait=True))
        except FileNotFoundError:
            raise
        except (
            OSError
        ):  # a file system without locks: the file alone says that there is a writer
            self._lock_file.touch()

    def close(self) -> None:
        """Remove the folder, if it has not been renamed, and what belongs to it."""
        # The folder goes before its lock, so that a crash in between leaves a lock that
        # says whose it was.
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._lock_file.unlink(missing_ok=True)
        self._lock.close()
        with contextlib.suppress(OSError):
            self._staging.rmdir()  # only if nobody else drafts there: another's draft must never go with it


@contextmanager
def draft_folder(staging: Path, prefix: str = "") -> Iterator[Path]:
    """A `Draft`'s folder, for as long as the body runs."""
    draft = Draft(staging, prefix)
    try:
        yield draft.path
    finally:
        draft.close()


def sweep(staging: Path, *, now: float) -> None:
    """Remove the drafts in `staging` whose writers have died.

    What cannot be removed is left: this never fails.

    Args:
        now: the file system's time, seconds since 1970.
    """
    # Others sweep the same folder, so anything may vanish between two lines.
    with contextlib.suppress(OSError):
        names = {entry.name for entry in os.scandir(staging)}
        drafts = {
            match["name"]: match for name in names if (match := _HELD.fullmatch(name))
        }
        for name, match in drafts.items():
            _sweep_held(staging, name, match, now)
        for name in names - drafts.keys():
            own = name.removesuffix(".torn")
            # Without a lock file nobody can be asked, so age alone decides.
            is_old = (
                _FOLDER.fullmatch(own)
                and own not in drafts
                and now - _newest(staging / name) > _OLD_SECONDS
            )
            if is_old:
                shutil.rmtree(staging / name, ignore_errors=True)


def _sweep_held(staging: Path, name: str, match: re.Match[str], now: float) -> None:
    lock_file = staging / match[0]
    with contextlib.suppress(OSError), locked(lock_file, create=False) as lock:
        # Somebody holds it: its writer lives.
        if lock is None:
            return
        is_ours = match["machine"] == machine()
        # The lock file counts as well: a draft may still be empty.
        newest = max(_newest(staging / name), _modified(lock_file))
        # A free lock proves nothing about a writer on another machine.
        if not is_ours and now - newest <= _FAR_SECONDS:
            return
        for folder in (staging / name, staging / f"{name}.torn"):
            shutil.rmtree(folder, ignore_errors=True)
        lock_file.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    # Not there counts as infinitely old.
    except OSError:
        return 0.0


def _newest(folder: Path) -> float:
    """When something in the folder changed last, seconds since 1970; 0 if it is not there."""
    newest = _modified(folder)
    # The folder's own time does not change when a file deep within it does.
    for base, _, files in os.walk(folder):
        newest = max(
            newest,
            _modified(Path(base)),
            *(_modified(Path(base, file)) for file in files),
        )
    return newest


# -- files ---------------------------------------------------------------------------------------------------


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[int, Path]]:
    """A new, empty file beside `path`, open for writing and locked: its descriptor and its name.

    Rename it in the body; if the body raises, it is removed.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        # In the same folder as `path`: a rename across file systems is not atomic.
        name = _temporary_name(path)
        # Private for now; `atomic_write` gives it its folder's mode before the rename.
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(
            OSError
        ):  # a file system without locks: its age will have to do
            fcntl.flock(file, fcntl.LOCK_EX)
        if name.exists():
            break
        os.close(
            file
        )  # another took it for a dead one's between its making and its locking
    try:
        sweep_files(path.parent, now=os.fstat(file).st_mtime)
        yield file, name
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _temporary_name(path: Path) -> Path:
    # Cut by bytes, not characters, since the limit of file systems is in bytes.
    short = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    return path.with_name(f".{short}.penstock-{machine()}-{secrets.token_hex(6)}")


def sweep_files(folder: Path, *, now: float) -> None:
    """Remove temporary files in `folder` whose writers have died; once in a process. It never fails.

    Args:
        now: the file system's time, seconds since 1970.
    """
    with _sweeping:
        if folder in _swept:
            return
        _swept.add(folder)
    with contextlib.suppress(OSError):
        names = [
            entry.name for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name)
        ]
        for name in names:
            _sweep_file(folder / name, now)


def _sweep_file(path: Path, now: float) -> None:
    match = _TEMPORARY.fullmatch(path.name)
    is_ours = match is not None and match["machine"] == machine()
    # `create=False`: a file that vanished meanwhile must not be made again.
    with contextlib.suppress(OSError), locked(path, create=False) as lock:
        is_dead = lock is not None and (is_ours or now - _modified(path) > _FAR_SECONDS)
        if is_dead:
            path.unlink(missing_ok=True)
