"""Files as they are now: looking at them and opening them, on this machine, at any URL that fsspec knows
(`places`), or within an archive (`members`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from penstock.core.ordered_map import ordered_map
from penstock.core.regular import open_regular
from penstock.formats.archive_names import carrier, member_place
from penstock.formats.members import entry_of, open_place
from penstock.formats.places import filesystem, is_remote, plainly
from penstock.formats.places import open_bytes as open_file

P = TypeVar("P")
T = TypeVar("T")

_TICK_NANOSECONDS = 20 * 10**6
"""Within a tick of a file system's clock, two versions of a file have one time.

Linux ticks every 10 ms at the slowest; file systems that know whole seconds only, every two seconds.
"""
_COARSE_NANOSECONDS = 2 * 10**9
_WAITING_SECONDS = 0.02
"""A portion that took less says nothing: the scheduler alone may take that much."""


@dataclass(frozen=True)
class FileInfo:
    """A file, as it is now."""

    url: str
    """An absolute local path, or a URL."""
    root: str
    """Where it was looked for: a folder, in the same spelling."""
    size_bytes: int
    stamp: str
    """Changes when the file does: a time in nanoseconds, or an etag. Empty where the place has neither."""


def open_bytes(url: str) -> BinaryIO:
    """Open a file, or a member of an archive, for reading; it can be sought."""
    place = member_place(url)
    if place is None:
        return open_file(url)
    return open_place(place, look(place.archive).stamp)


def read_whole(url: str, size_bytes: int | None = None) -> bytes:
    """Read all of a file, which must be small enough to hold.

    Args:
        size_bytes: what it is believed to have; a local file of just that size is read with three calls of
            the system.
    """
    if size_bytes is not None and "://" not in url:
        try:
            # Opening a named pipe would wait for its writer, but for O_NONBLOCK.
            handle = os.open(
                url,
                os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0),
            )
            try:
                # One byte more than expected: a file that has grown does not pass for
                # the one it was.
                data = os.read(handle, size_bytes + 1)
            finally:
                os.close(handle)
        except OSError:
            data = b""  # told below, in words
        # An empty or short answer may come from a pipe or a device, which
        # `open_regular` refuses.
        if len(data) == size_bytes > 0:
            return data
    if member_place(url) is not None:
        with open_bytes(url) as member:
            return member.read()
    with plainly(url):
        if is_remote(url):
            system, path = filesystem(url)
            return bytes(system.cat_file(path))
        with open_regular(url, buffering=0) as file:
            return file.read()


def spread(
    portions: Iterator[P], work: Callable[[P], T], *, workers: int, waits: bool = False
) -> Iterator[tuple[P, T]]:
    """Apply `work` to each portion, in order: one after another as long as the time
    goes into computing, and by `workers` threads, a few portions ahead, once it goes
    into waiting for a disk or a network.

    Files in the page cache are opened and read in microseconds: threads would only pass Python's lock about,
    at twice the cost. A cold disk, or a network, wants many requests at once.

    Args:
        waits: known to wait.
    """
    while not waits:
        portion = next(portions, None)
        if portion is None:
            return
        wall, busy = time.perf_counter(), time.thread_time()
        outcome = work(portion)
        wall, busy = time.perf_counter() - wall, time.thread_time() - busy
        yield portion, outcome
        # Far more wall time than this thread's CPU time means waiting, for a disk or a
        # network.
        waits = wall > _WAITING_SECONDS and wall > 2 * busy
    yield from ordered_map(
        lambda portion: (portion, work(portion)),
        portions,
        threads=workers,
        name="penstock-read",
    )


def look(url: str) -> FileInfo:
    """Ask for the size and the stamp of a file, as they are now.

    Raises:
        SourceError: it is not there.
    """
    place = member_place(url)
    if place is not None:
        whole = look(place.archive)
        size = entry_of(place, whole.stamp).size_bytes
        return FileInfo(url, whole.root, size, whole.stamp)
    with plainly(url):
        if is_remote(url):
            system, path = filesystem(url)
            # A listing that fsspec remembers would give the size and stamp of an older
            # version.
            system.invalidate_cache()
            return found_remote(system, {"name": path, **system.info(path)}, url)
        info = os.stat(url.removeprefix("file://"))
        return FileInfo(url, url, info.st_size, stamp_of(info))


def stamp_of(info: os.stat_result) -> str:
    """A text that changes when a local file does: the times of its content and of its
    entry, in nanoseconds, and its inode (a file that replaces another has another).
    """
    return f"{info.st_mtime_ns}-{info.st_ctime_ns}-{info.st_ino}"


def settle(files: Iterable[FileInfo]) -> None:
    """Wait until the clocks of file systems have ticked since local files changed last, some milliseconds at
    most: from then on another change gives another stamp.
    """
    now = time.time_ns()
    rest = max(
        (
            _unsettled(file.stamp, now)
            for file in files
            if not is_remote(carrier(file.url))
        ),
        default=0,
    )
    if rest > 0:
        time.sleep(rest / 1e9)


def _unsettled(stamp: str, now: int) -> int:
    """Nanoseconds until the clock of a file's file system has surely ticked."""
    times = [int(part) for part in stamp.split("-")[:2] if part.isdigit()]
    last = max(times, default=0)
    # whole seconds: a file system that knows no more
    tick = _COARSE_NANOSECONDS if last % 10**9 == 0 else _TICK_NANOSECONDS
    # A time in the future comes of another machine's clock: no waiting would settle it.
    return last + tick - now if last <= now else 0


def found_remote(system: Any, info: dict[str, Any], root: str) -> FileInfo:
    """A file as an fsspec listing tells of it."""
    # What follows from the content comes before times; each store has a name of its own
    # for it.
    stamp = next(
        (
            str(info[key])
            for key in (
                "ETag",
                "etag",
                "md5Hash",
                "mtime",
                "LastModified",
                "last_modified",
                "created",
                "updated",
            )
            if info.get(key)
        ),
        "",
    )
    return FileInfo(
        system.unstrip_protocol(info["name"]),
        system.unstrip_protocol(root),
        int(info["size"]),
        stamp,
    )
