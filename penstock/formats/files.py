"""Where files lie: finding, opening and hashing them, on this machine or at any URL that fsspec knows.

All refusals of an operating system or a cloud become one sentence here (`plainly`). Credentials come from
where each cloud's own tools look for them (environment, profile, instance role); a recipe has no place for
them.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from penstock.core import objects
from penstock.core.errors import SourceError, StoreError
from penstock.core.jsons import parsed
from penstock.core.near import nearest
from penstock.core.optional import require
from penstock.core.ordered_map import ordered_map
from penstock.core.redact import redacted_url
from penstock.core.regular import (
    open_regular,
    refuse_nul,
    refuse_special,
    where_link_ends,
)
from penstock.core.remote import reach
from penstock.core.remote_errors import explain, first_line
from penstock.core.store import atomic_write, refusals
from penstock.core.visible import visible
from penstock.core.wanted import is_wanted
from penstock.formats.shelf import endings, is_table

P = TypeVar("P")
T = TypeVar("T")

_TICK_NANOSECONDS = 20 * 10**6
"""Within a tick of a file system's clock, two versions of a file have one time.

Linux ticks every 10 ms at the slowest; file systems that know whole seconds only, every two seconds.
"""
_COARSE_NANOSECONDS = 2 * 10**9
_WAITING_SECONDS = 0.02
"""A portion that took less says nothing: the scheduler alone may take that much."""
# Where a pattern begins: the characters that `glob` takes for wildcards.
_MAGIC = re.compile(r"[*?[]")
# By protocol: the module that fsspec needs, and the extra that installs it.
_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
    "az": ("adlfs", "azure"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
}


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


def is_remote(url: str) -> bool:
    """Whether `url` lies in a bucket or on another machine, and not on this one's disk."""
    return "://" in url and not url.startswith("file://")


@contextmanager
def plainly(url: str) -> Iterator[None]:
    """Turn refusals of the system or of a cloud into a `SourceError` of one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        # A missing bucket, or a server that does not answer, is a FileNotFoundError in
        # some packages: neither means that the file is gone.
        if not objects.is_absent(error):
            raise SourceError(f"cannot read {url}: {explain(error, url)}") from None
        raise SourceError(f"there is no {url}. ({first_line(error)})") from None
    except PermissionError as error:
        raise SourceError(
            f"{url} may not be read: {first_line(error)}. Give yourself the permission, or other credentials."
        ) from None
    except refusals() as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        # Each cloud's package raises a class of its own here; the word is what they
        # share.
        if "credential" in said.lower():
            raise SourceError(
                f"{url} needs credentials, and none were found ({said}). Set them as the cloud's own tools"
                " expect, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://."
            ) from None
        raise SourceError(f"cannot read {url}: {said}") from None


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        MissingPackage: the protocol's package is not installed.
        SourceError: there is no such protocol.
    """
    protocol = url.split("://", 1)[0]
    if protocol in _PACKAGES:
        module, extra = _PACKAGES[protocol]
        require(module, extra=extra, why=f"reading {protocol}:// URLs")
    try:
        with plainly(url):
            # Code of others reads through this file system, beyond our own retries, so
            # it tries again by itself.
            system, path = reach(url, patient=True)
    except ImportError as error:
        raise SourceError(
            f"{url}: reading {protocol}:// needs more than is installed: {first_line(error)}"
        ) from None
    except ValueError as error:
        raise SourceError(
            f"{url}: {first_line(error)}. Known protocols include s3, gs, abfs, hdfs, memory."
        ) from None
    return system, path


def open_bytes(url: str) -> BinaryIO:
    """Open a file for reading; it can be sought."""
    with plainly(url):
        if is_remote(url):
            system, path = filesystem(url)
            # Each request to a bucket costs a round trip, so at least 4 MiB are asked
            # for.
            return system.open(path, "rb", block_size=4 << 20)  # type: ignore[no-any-return]
        return open_regular(url)


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
        made = work(portion)
        wall, busy = time.perf_counter() - wall, time.thread_time() - busy
        yield portion, made
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


def settle(found: Iterable[FileInfo]) -> None:
    """Wait until the clocks of file systems have ticked since local files changed last, some milliseconds at
    most: from then on another change gives another stamp.
    """
    now = time.time_ns()
    rest = max(
        (_unsettled(file.stamp, now) for file in found if not is_remote(file.url)),
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


# -- finding -------------------------------------------------------------------------------------------------


def find(
    entry: str, base: Path, *, any_ending: bool = False, own: tuple[str, ...] = ()
) -> list[FileInfo]:
    """The files that a path, glob, folder or URL names, sorted.

    A folder gives the files below it whose ending names a format (all, with `any_ending`); files and
    folders whose names begin with `.` or `_` are never data (Spark's `_SUCCESS`, `_delta_log`).

    Args:
        own: endings that name a format beside the built-in ones: those of a reader that was learnt.

    Raises:
        SourceError: nothing is there, or it may not be read.
    """
    refuse_nul(entry)
    if is_remote(entry):
        return _find_remote(entry, any_ending, own)
    path = os.path.abspath(base / Path(entry.removeprefix("file://")).expanduser())
    if os.path.isdir(path):
        names = [
            # A socket, or a link that leads nowhere, is passed over unless its name
            # makes it data: then `_stat` refuses it aloud.
            name
            for name in _walk(path)
            if any_ending or is_table(name, own) or os.path.isfile(name)
        ]
        return _sift(entry, path, [_stat(n, path) for n in names], any_ending, own)
    # A path that is there is taken as it is, before it can be a pattern: names may have
    # brackets.
    if os.path.exists(path):
        return [_stat(path, os.path.dirname(path))]
    if glob.has_magic(path):
        root = path[: _MAGIC.search(path).start()].rsplit(os.sep, 1)[0] or os.sep  # type: ignore[union-attr]
        names = sorted(
            n
            for n in glob.glob(path, recursive=True)
            # Judged below the root only: the user may keep data under a hidden folder.
            if os.path.isfile(n) and _visible(os.path.relpath(n, root))
        )
        if not names:
            raise SourceError(
                f"nothing matches {entry} (looked in {root}).{_near_glob(path)}"
            )
        return [_stat(n, root) for n in names]
    # The name of a broken link is there, so "there is no …" would puzzle.
    if (problem := where_link_ends(path)) is not None:
        raise SourceError(problem)
    raise SourceError(
        f"there is no {path}.{near(os.path.dirname(path), os.path.basename(path))}"
    )


def _walk(path: str) -> list[str]:
    # Without this, `os.walk` passes over a folder that it may not list, and rows are
    # missing in silence.
    def refuse(error: OSError) -> None:
        raise error

    with plainly(path):
        found: list[str] = []
        seen: set[str] = set()
        for folder, folders, names in os.walk(path, onerror=refuse, followlinks=True):
            seen.add(os.path.realpath(folder))  # links are followed, but not in a circle
            # In place: `os.walk` goes down only into what is left in this very list.
            folders[:] = sorted(
                f
                for f in folders
                if _visible(f) and os.path.realpath(os.path.join(folder, f)) not in seen
            )
            found += [os.path.join(folder, n) for n in names if _visible(n)]
        return sorted(found)


def utf8(path: str, folder: str) -> None:
    """Refuse a file in `folder` whose name no record can hold.

    Raises:
        SourceError: its name is not UTF-8.
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        name = os.fsencode(path)
        raise SourceError(
            f"{visible(folder)} has a file whose name is not UTF-8: {name!r}. Rename it, for example with"
            " convmv."
        ) from None


def _stat(path: str, root: str) -> FileInfo:
    utf8(path, root)
    with plainly(path):
        stat = os.stat(path)
        refuse_special(path)
        if not os.access(path, os.R_OK):
            raise SourceError(
                f"{path} may not be read by you. Give yourself the permission, for example with chmod u+r."
            )
        return FileInfo(path, root, stat.st_size, stamp_of(stat))


def _visible(path: str) -> bool:
    return not any(
        step.startswith((".", "_")) and step not in (".", "..")
        for step in path.replace(os.sep, "/").split("/")
    )


def _sift(
    entry: str,
    root: str,
    found: list[FileInfo],
    any_ending: bool,
    own: tuple[str, ...],
) -> list[FileInfo]:
    if not found:
        raise SourceError(
            f"the folder {entry} ({root}) has no files. Name a folder with data in it."
        )
    tables = [f for f in found if any_ending or is_table(f.url, own)]
    if not tables:
        some = ", ".join(PurePosixPath(f.url).name for f in found[:5])
        raise SourceError(
            f"the folder {entry} has no file whose ending names a format ({' '.join([*endings(), *own])});"
            f" found {some}. Name the files themselves, or set `format`."
        )
    return tables


def near(folder: str, name: str) -> str:
    """A sentence with the names in a folder that may have been meant."""
    if not os.path.isdir(folder):
        parent = os.path.dirname(folder)
        return f" The folder {folder} is not there either." + (
            near(parent, os.path.basename(folder)) if os.path.isdir(parent) else ""
        )
    names = sorted(n for n in os.listdir(folder) if not n.startswith("."))
    alike = nearest(name, names, most=3)
    if alike:
        return f" Did you mean {' or '.join(map(repr, alike))}?"
    return (
        f" {folder} has: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}."
        if names
        else f" {folder} is empty."
    )


def _near_glob(path: str) -> str:
    folder = os.path.dirname(path)
    return "" if glob.has_magic(folder) else near(folder, os.path.basename(path))


def _find_remote(entry: str, any_ending: bool, own: tuple[str, ...]) -> list[FileInfo]:
    system, path = filesystem(entry)
    with plainly(entry):
        # A remembered listing would hide files that came since.
        system.invalidate_cache()
        if glob.has_magic(path):
            root = path[: _MAGIC.search(path).start()].rsplit("/", 1)[0]  # type: ignore[union-attr]
            listed = objects.matching(system, path, root)
            infos = [
                i
                for n, i in sorted(listed.items())
                if i["type"] == "file" and _visible(n[len(root) :].strip("/"))
            ]
            if not infos:
                raise SourceError(f"nothing matches {entry}.")
            return [found_remote(system, i, root) for i in infos]
        # A bucket may have an object and a "folder" of one name; the object is meant.
        if (known := objects.info(system, path)) is not None and known["type"] == "file":
            return [found_remote(system, known, path.rsplit("/", 1)[0])]
        listed = objects.below(system, path)
        infos = [
            i
            for n, i in sorted(listed.items())
            if i["type"] == "file" and _visible(n[len(path) :].strip("/"))
        ]
        # An empty folder is there, and `_sift` refuses it; only what is absent gets a
        # suggestion.
        if not infos and known is None:
            parent, name = (
                path.rstrip("/").rsplit("/", 1) if "/" in path.strip("/") else ("", path)
            )
            beside = (
                [
                    str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]
                    for entry in objects.entries(system, parent)
                ]
                if parent
                else []
            )
            near = nearest(name, beside, most=3)
            raise SourceError(
                f"there is no {entry}."
                + (f" Did you mean {' or '.join(map(repr, near))}?" if near else "")
            )
    return _sift(
        entry, path, [found_remote(system, i, path) for i in infos], any_ending, own
    )


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


def relative(found: Iterable[FileInfo]) -> dict[str, str]:
    """By URL: the path from the root that all were looked for under, with `/`."""
    files = list(found)
    roots = {redacted_url(f.root).replace(os.sep, "/").rstrip("/") for f in files}
    root = roots.pop() if len(roots) == 1 else _common(roots)
    # A signature in a URL changes from day to day, and is nobody's business: it is in no name.
    paths = {f.url: redacted_url(f.url).replace(os.sep, "/") for f in files}
    return {
        # Compared with its slash, or `data` would be the root of `database/x.csv`.
        url: path[len(root) :].lstrip("/")
        if root and path.startswith(f"{root}/")
        else path.lstrip("/")
        for url, path in paths.items()
    }


def _common(roots: set[str]) -> str:
    steps = [r.split("/") for r in roots]
    shared = []
    # Step by step: what `data1` and `data2` begin with is no folder.
    for column in zip(*steps, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    root = "/".join(shared)
    # `s3:/` and `C:` are a protocol and a drive, and no folder.
    return "" if root.endswith((":/", ":")) else root


# -- hashing -------------------------------------------------------------------------------------------------


def digest_of(url: str, size_bytes: int) -> str:
    """The SHA-256 of a file's content, now."""
    if size_bytes <= 1 << 20:
        return hashlib.sha256(read_whole(url, size_bytes)).hexdigest()
    sha = hashlib.sha256()
    with open_bytes(url) as stream, plainly(url):
        while chunk := stream.read(1 << 20):
            sha.update(chunk)
            if not is_wanted():  # an interrupt does not wait until a terabyte is hashed
                raise SourceError(
                    f"{url} was not hashed to its end: nobody waits for it any more."
                )
    return sha.hexdigest()


def hashes(found: list[FileInfo], memo: Path | None) -> list[str]:
    """The SHA-256 of each file; what `memo` knows of (url, size, stamp) is not read again.

    Raises:
        SourceError: a file changes while it is hashed.
    """
    known = _known(memo)
    # From here on an unchanged stamp proves an unchanged file.
    settle(found)

    def digest(file: FileInfo) -> str:
        entry = known.get(redacted_url(file.url))
        # Where a place has no stamps, nothing tells a changed file, so it is hashed
        # each time.
        if (
            isinstance(entry, dict)
            and file.stamp
            and entry.get("size_bytes") == file.size_bytes
            and entry.get("stamp") == file.stamp
        ):
            return str(entry["sha256"])
        sha256 = digest_of(file.url, file.size_bytes)
        # What was written to while it was hashed has the digest of no version.
        if not is_remote(file.url) and look(file.url).stamp != file.stamp:
            raise SourceError(
                f"{file.url} has changed while it was being hashed. Run again when it is at rest."
            )
        return sha256

    # hashing lets go of Python's lock
    large = bool(found) and (
        is_remote(found[0].url) or sum(f.size_bytes for f in found) > len(found) << 20
    )
    portions = (
        ([f] for f in found)
        if large
        # Tiny files come in portions: one alone takes too little time for `spread` to
        # measure.
        else (found[i : i + 256] for i in range(0, len(found), 256))
    )
    digests = [
        d
        for _, made in spread(
            portions, lambda files: [digest(f) for f in files], workers=4, waits=large
        )
        for d in made
    ]
    fresh = {
        # Redacted, so that no signature of a URL comes to lie in the store.
        redacted_url(f.url): {"size_bytes": f.size_bytes, "stamp": f.stamp, "sha256": d}
        for f, d in zip(found, digests, strict=True)
    }
    if memo is not None and any(known.get(url) != entry for url, entry in fresh.items()):
        with contextlib.suppress(
            StoreError
        ):  # a store that may only be read: the memo only saves time
            # What other sources hashed stays in the memo.
            atomic_write(memo, json.dumps({**known, **fresh}))
    return digests


def _known(memo: Path | None) -> dict[str, Any]:
    if memo is None or not memo.is_file():
        return {}
    try:
        known = parsed(memo.read_text("utf-8"))
    except ValueError:
        return {}  # a memo only saves time: a torn one is written anew
    return known if isinstance(known, dict) else {}
