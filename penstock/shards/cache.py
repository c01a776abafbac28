"""A node's copies of what lies far away: one folder, a limit in bytes, shared by all processes and runs.

    <PENSTOCK_CACHE>/shards/<sha256>        a whole, checked copy; its modification time is its last use
                            <sha256>.part   one being fetched; whoever holds its lock writes it

A file is named by its content, fetched once by whoever comes first, checked, and renamed into place. The lock
is `flock` on the part file itself: the kernel lets go of it when its holder dies, so a crash leaves no lock,
and a part file that can be locked is a dead one's rest, which the next one takes over or sweeps away. Room is
made under one more lock: part files take their full size at once, so that the sum never passes the limit
while several fetch; the least recently used copies go first. A copy that somebody has mapped may go as well:
its pages live until it is let go of.

Nothing but copies ever lies here, so nothing that is evicted can be lost. When a copy cannot be kept (the
disk is full, the limit is smaller than the file, the file system knows no locks), `open` says so once and
returns None: the caller reads the file without keeping it.

What this file refuses to know: what the files mean, where they come from.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from penstock.core.listeners import notify
from penstock.core.locks import locked
from penstock.core.store import Member, cache_folder

_POLL_SECONDS = 0.02
_STUCK_SECONDS = 60.0
"""A fetch of another process that has not moved for so long is not waited for: the file is then read without
the cache.
"""
_NAME = re.compile(r"[0-9a-f]{64}")
# Errors of the disk or the file system that another try would meet again.
_CANNOT = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOLCK,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EFBIG,
)


class Cache:
    """Copies of files, by their content.

    Args:
        limit_bytes: the most that all copies take; 0 keeps none.
        folder: where they lie; the node's own unless given.
    """

    def __init__(self, limit_bytes: int, folder: Path | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.folder = folder or cache_folder() / "shards"
        self._why_not: str | None = None
        self._told: set[str] = set()

    @property
    def is_on(self) -> bool:
        """Whether copies are kept: False once the disk has refused one."""
        return self.limit_bytes > 0 and self._why_not is None

    def open(
        self, member: Member, *, stopped: Callable[[], bool] = lambda: False
    ) -> pa.Buffer | None:
        """A file's content, mapped from a copy that is made if there is none.

        Args:
            stopped: asked while another process' fetch is waited for; True gives up waiting.

        Returns:
            None where no copy can be kept: said once, and to be read without.

        Raises:
            StoreError: the file cannot be fetched, or what comes is not what its manifest says.
        """
        if not self.is_on:
            return None
        if member.size_bytes > self.limit_bytes:
            self._say(
                "limit",
                f"the cache may hold {self.limit_bytes:,} bytes, and {member.url} alone has"
                f" {member.size_bytes:,}: it is read without being kept. Raise `resources.cache`.",
            )
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # In a loop, since a copy may be evicted between its fetch and its mapping.
            while True:
                if (mapped := self._mapped(member)) is not None:
                    return mapped
                if not self._fetch(member, stopped):
                    return None
        except OSError as error:
            # Anything else is a defect, and no reason to go without the cache.
            if error.errno not in _CANNOT:
                raise
            # From now on no copy is tried: `is_on` is False, for this process.
            self._why_not = error.strerror or str(error)
            full = (
                "the disk is full"
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else f"it cannot be written ({self._why_not})"
            )
            self._say(
                "off",
                f"the cache {self.folder} is left out: {full}. Files are read from the bucket as they are"
                " needed, and held in memory. Free some space, or set PENSTOCK_CACHE to another folder.",
            )
            return None

    def _say(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            notify(text, cache=str(self.folder))

    # -- reading ---------------------------------------------------------------------------------------------

    def _mapped(self, member: Member) -> pa.Buffer | None:
        path = self.folder / member.sha256
        try:
            with open(path, "rb") as file:
                stat = os.fstat(file.fileno())
                # The name says what the content is, so size is enough, unless the
                # machine went down since: writes that were not on the disk may be holes
                # then.
                if stat.st_size != member.size_bytes or (
                    stat.st_mtime < _boot_time()
                    and hashlib.file_digest(file, "sha256").hexdigest() != member.sha256
                ):
                    # Not one of ours any more; the next round fetches it.
                    path.unlink(missing_ok=True)
                    return None
                # The time of last use. A cache that others own cannot be touched, and
                # is still read.
                with contextlib.suppress(OSError):
                    os.utime(file.fileno())
                # An empty file cannot be mapped.
                if not member.size_bytes:
                    return pa.py_buffer(b"")
                return pa.py_buffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        except FileNotFoundError:
            return None

    # -- fetching --------------------------------------------------------------------------------------------

    def _fetch(self, member: Member, stopped: Callable[[], bool]) -> bool:
        """Make the copy, or wait for the process that makes it. False: the file must be read
        without a copy.
        """
        path, part = self.folder / member.sha256, self.folder / f"{member.sha256}.part"
        # No file has the time -1, so the first look counts as a movement.
        progress, moved = -1, time.monotonic()
        while not path.exists():
            with locked(part) as file:
                if file is not None:
                    # Another process finished between our look and our lock.
                    if path.exists():
                        part.unlink(missing_ok=True)
                        return True
                    return self._fill(file, part, path, member)
            # Asked before each wait: a loader that ends must not wait for a stranger's
            # fetch.
            if stopped():
                return False
            # The writer touches its file with every piece; that is the pulse which is
            # watched.
            try:
                done = part.stat().st_mtime_ns
            except FileNotFoundError:
                # Finished or given up just now: look again.
                continue
            if done != progress:
                progress, moved = done, time.monotonic()
            elif time.monotonic() - moved > _STUCK_SECONDS:
                self._say(
                    "stuck",
                    f"another process has been fetching {member.url} without getting further for"
                    f" {_STUCK_SECONDS:.0f} s; it is read without the cache",
                )
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _fill(self, file: int, part: Path, path: Path, member: Member) -> bool:
        whole = False
        try:
            if not self._make_room(file, member.size_bytes):
                return False
            # What comes damaged is fetched once more: a broken transfer is commoner
            # than a broken file.
            for last in (False, True):
                digest, at = hashlib.sha256(), 0
                for piece in member.pieces():
                    digest.update(piece)
                    rest = memoryview(piece)
                    while rest:
                        # At a place, since a part file has its full size from the
                        # start. A write may take fewer bytes than it is given.
                        done = os.pwrite(file, rest, at)
                        rest, at = rest[done:], at + done
                if (actual := digest.hexdigest()) == member.sha256:
                    break
                if last:
                    raise member.damaged(actual)
            # whoever sums up the folder must not miss a file between its two names
            with locked(self.folder / "lock", wait=True):
                os.rename(part, path)
            whole = True
            return True
        finally:
            # A part file without a writer would count until somebody sweeps it away.
            if not whole:
                part.unlink(missing_ok=True)

    def _make_room(self, file: int, size_bytes: int) -> bool:
        """Take `size_bytes` for a part file, evicting what was not used for longest.

        False: others' fetches leave no room now.

        Raises:
            OSError: the disk is full, even without any copy of ours that may go.
        """
        # One after another, or two fetches would both take the last room.
        with locked(self.folder / "lock", wait=True):
            copies, taken = [], 0
            # Our own part file is empty still, and must not be swept.
            mine = os.fstat(file).st_ino
            for entry in os.scandir(self.folder):
                # A copy may go while the folder is listed.
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    # A part file of a living writer has its full size; a dead one's is
                    # removed.
                    if entry.name.endswith(".part") and stat.st_ino != mine:
                        taken += 0 if _swept(Path(entry.path)) else stat.st_size
                    elif _NAME.fullmatch(entry.name):
                        copies.append((stat.st_mtime_ns, stat.st_size, entry.path))
                        taken += stat.st_size
            # The least recently used at the end, where `pop` takes it.
            copies.sort(reverse=True)

            def evict() -> int:
                _, size, oldest = copies.pop()
                Path(oldest).unlink(missing_ok=True)
                return size

            while copies and taken + size_bytes > self.limit_bytes:
                taken -= evict()
            # The rest is being fetched by others: this file is read without a copy,
            # this time.
            if taken + size_bytes > self.limit_bytes:
                return False
            while True:
                try:
                    # Empty again: the file may be a dead writer's, taken over.
                    os.ftruncate(file, 0)
                    # Blocks for all of it at once: a full disk is found here, and not
                    # in the middle of a fetch.
                    if hasattr(os, "posix_fallocate") and size_bytes:
                        os.posix_fallocate(file, 0, size_bytes)
                    else:
                        os.ftruncate(file, size_bytes)
                    return True
                except OSError as error:
                    # What was taken in part is given back before something is evicted.
                    os.ftruncate(file, 0)
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not copies:
                        raise
                    evict()


def _boot_time() -> float:
    """Seconds since 1970 at which this machine started; 0 where it cannot be known."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if clock is None else time.time() - time.clock_gettime(clock)


def _swept(part: Path) -> bool:
    """Remove a part file whose writer has died; returns whether it was one."""
    # A lock that can be had means that no writer lives.
    with locked(part, create=False) as file:
        if file is None:
            return not part.exists()
        part.unlink(missing_ok=True)
        return True
