"""A bucket's mirror on this machine: how a copy of what still grows is renewed, and how the mirror is kept
within its bound.

A finished artefact never changes, so a copy of one is right for ever. One that is not finished (a run) grows
in the bucket: a copy of it that another machine may have outgrown is made anew whenever it is opened.

The mirror is bounded by removing the finished artefacts that were not used for longest. None goes that a
living process has opened: each holds a shared lock on a file that stands for the artefact, which the kernel
lets go of when it dies. And none goes that the bucket does not hold.

What this file refuses to know: what the artefacts mean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.core.bucket import Bucket
from penstock.core.identity import fingerprint
from penstock.core.paths import below

_MANIFEST = "manifest.json"
# Reasons for which use cannot be noted here; reading goes on, without the protection.
_CANNOT = (
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENOLCK,
    errno.EOPNOTSUPP,
)


def renew(bucket: Bucket, name: str, here: Path, draft: Path) -> None:
    """Make `here` what the bucket holds under `name`.

    Whole folders within it (checkpoints) that are here already, with the same manifest, are not fetched
    again.

    Args:
        draft: an empty folder on the same disk.
    """
    sizes = bucket.below(name)
    if not sizes:
        return
    # Checkpoints are large and never change once sealed: the manifest's bytes say
    # whether one is the same.
    same = [
        folder for folder in _sealed(sizes, name) if _is_same(bucket, name, folder, here)
    ]
    missing = {
        key: size
        for key, size in sizes.items()
        if not any(key.startswith(f"{name}/{folder}/") for folder in same)
    }
    bucket.get(missing, draft, name)
    # Moved, not copied: the old folder is about to go anyway.
    for folder in same:
        (draft / folder).parent.mkdir(parents=True, exist_ok=True)
        os.rename(here / folder, draft / folder)
    # The `.torn` name lets a sweep remove it if this process dies between the two
    # renames.
    outgrown = draft.with_name(f"{draft.name}.torn")
    here.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(here, outgrown)
    os.rename(draft, here)
    shutil.rmtree(outgrown, ignore_errors=True)


def complete(bucket: Bucket, name: str, here: Path, draft: Path) -> None:
    """Fetch into `here` what the bucket holds under `name` and `here` lacks: manifests last, each file at
    once.

    Args:
        draft: an empty folder on the same disk.
    """
    sizes = bucket.below(name)
    files = {key: key.removeprefix(name).lstrip("/") for key in sizes}
    missing = {
        key: size for key, size in sizes.items() if not (here / files[key]).exists()
    }
    bucket.get(missing, draft, name)
    # Manifests last: a checkpoint must not look whole while its tensors are missing.
    for key in sorted(missing, key=lambda key: files[key].endswith(_MANIFEST)):
        target = below(here, files[key], where=f"a key in the store {bucket.url}")
        target.parent.mkdir(parents=True, exist_ok=True)
        # A rename on the same disk, so nobody ever reads half a file.
        os.replace(draft / files[key], target)


def _sealed(sizes: dict[str, int], name: str) -> Iterator[str]:
    """The folders below `name` that have a manifest of their own, by their paths in it."""
    for key in sizes:
        folder, _, file = key.removeprefix(f"{name}/").rpartition("/")
        if folder and file == _MANIFEST:
            yield folder


def _is_same(bucket: Bucket, name: str, folder: str, here: Path) -> bool:
    try:
        content = (here / folder / _MANIFEST).read_bytes()
    except OSError:
        return False
    return content == bucket.read(f"{name}/{folder}/{_MANIFEST}")


# -- use and eviction ----------------------------------------------------------------------------------------

_open: dict[tuple[str, str], int] = {}
"""By mirror and artefact: the descriptor of the file whose shared lock says that this process uses it."""
_opening = threading.Lock()


def _use_file(mirror: Path, name: str) -> Path:
    return mirror / ".used" / fingerprint(name)


def use(mirror: Path, name: str) -> None:
    """Protect an artefact of the mirror from eviction until this process ends.

    Look only afterwards whether the artefact is there.
    """
    place = (str(mirror), name)
    with _opening:
        try:
            # One descriptor an artefact, for the life of the process: closing it would
            # unlock.
            if place not in _open:
                path = _use_file(mirror, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                _open[place] = _shared(path)
            # The time of last use, by which `evict` orders.
            os.utime(_open[place])
        except OSError as error:
            if error.errno not in _CANNOT:
                raise


@dataclass(frozen=True)
class _Copy:
    """Something finished that lies in the mirror."""

    used: float
    name: str
    size_bytes: int


def _shared(path: Path) -> int:
    """Open a file and take its shared lock. Where the file system has no locks, the file without one: it is
    then not asked again at each use.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        # Waits for who is removing the artefact at this moment.
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in _CANNOT:
            os.close(file)
            raise
    except BaseException:
        # Ctrl-C during the wait: a descriptor that was noted would count as locked.
        os.close(file)
        raise
    return file


def evict(mirror: Path, limit_bytes: int, *, is_in_bucket: Callable[[str], bool]) -> None:
    """Remove finished artefacts from the mirror, those first that were not used for longest, until it is
    within its bound.

    Args:
        is_in_bucket: whether the bucket holds an artefact whole; one that it does not hold stays.
    """
    copies = sorted(_copies(mirror), key=lambda copy: copy.used)
    size_bytes = sum(copy.size_bytes for copy in copies)
    for copy in copies:
        if size_bytes <= limit_bytes:
            return
        # One in use is skipped, so the mirror may stay above its bound for a while.
        if _removed(mirror, copy.name, is_in_bucket):
            size_bytes -= copy.size_bytes


def _copies(mirror: Path) -> Iterator[_Copy]:
    """Finished artefacts (the outermost manifest of each), and single files of some (below `.files`)."""
    for shelf in ("runs", "bundles", "feeds", "reports", "datasets/*"):
        for base in ("", ".files/"):
            for folder in mirror.glob(f"{base}{shelf}/*"):
                # Single files below `.files` are whole by construction (`Member.copy`)
                # and have no manifest.
                is_whole = bool(base) or (folder / _MANIFEST).is_file()
                if folder.is_dir() and is_whole:
                    name = folder.relative_to(mirror).as_posix()
                    yield _Copy(_last_use(mirror, name, folder), name, _size(folder))


def _last_use(mirror: Path, name: str, folder: Path) -> float:
    # A copy that no process has used since it came counts by its folder's own time.
    for path in (_use_file(mirror, name), folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    total = 0
    for base, _, files in os.walk(folder):
        for file in files:
            # It may be going at this moment, by another's eviction.
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(base, file)).st_size
    return total


def _removed(mirror: Path, name: str, is_in_bucket: Callable[[str], bool]) -> bool:
    """Remove a copy, unless a process uses it or the bucket lacks it. Returns whether
    it is gone.
    """
    path = _use_file(mirror, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Copies of single files always come from the bucket; an artefact may not have
    # reached it.
    if not name.startswith(".files/") and not is_in_bucket(name):
        return False
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return False
    try:
        # Fails at once if any process holds its shared lock, that is, uses it.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = mirror / ".gone" / fingerprint(name)
        gone.parent.mkdir(exist_ok=True)
        # What an eviction that was killed left under this name.
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(mirror / name, gone)  # at once, so that nobody sees half of it
        shutil.rmtree(gone, ignore_errors=True)
        return True
    except OSError:
        return False
    finally:
        os.close(file)
