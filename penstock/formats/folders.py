"""What lies below a folder, local or at a URL: every file, whatever it is, for sources whose rows are files.

Unlike tables (`places.find`), names with a leading underscore are data here: cameras write `_DSC0001.jpg`.
"""

from __future__ import annotations

import errno
import glob
import os
from dataclasses import dataclass, field
from pathlib import Path

from penstock.core import objects
from penstock.core.errors import SourceError
from penstock.formats.archive import is_archive
from penstock.formats.files import FileInfo, found_remote, stamp_of
from penstock.formats.find_files import find, near, utf8
from penstock.formats.members import are_tables
from penstock.formats.path_pattern import hidden
from penstock.formats.places import filesystem, is_remote, plainly
from penstock.formats.shelf import ending, is_table

_NOWHERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
"""What following a link ends in that leads to nothing, in a circle, or below a file."""


@dataclass
class Folder:
    """A folder's files, sorted by path."""

    root: str
    files: list[tuple[str, FileInfo]] = field(default_factory=list)
    """Path from the root, with `/`, and the file."""
    odd: list[str] = field(default_factory=list)
    """Paths that cannot be read as files: links that lead nowhere, sockets, devices."""


def local_path(entry: str, base: Path) -> str:
    """An entry of a recipe as an absolute local path."""
    return os.path.abspath(base / Path(entry.removeprefix("file://")).expanduser())


def is_folder(entry: str, base: Path) -> bool:
    """Whether an entry of a recipe is a folder, here or at its URL."""
    if not is_remote(entry):
        return os.path.isdir(local_path(entry, base))
    system, path = filesystem(entry)
    with plainly(entry):
        system.invalidate_cache()
        known = objects.info(system, path)
        return known is not None and known["type"] == "directory"


def holds_no_tables(entry: str, base: Path) -> bool:
    """Whether a path is archives of no tables, or a folder in which no file's ending names a table's format:
    its files would be rows.
    """
    if is_archive(entry):
        archives = find(entry, base, any_ending=True)
        return not are_tables(archives[0].url, is_table, archives[0].stamp)
    return (
        not glob.has_magic(entry)
        and is_folder(entry, base)
        and not any(ending(path) for path, _ in walk(entry, base).files)
    )


def walk(entry: str, base: Path, *, names_only: bool = False) -> Folder:
    """Every file below a folder that is not hidden. Links are followed, but not in a circle.

    Args:
        names_only: sizes and times are not asked for (and are 0), which takes a fifth of the time.

    Raises:
        SourceError: it is not there, may not be read, or has names that are not UTF-8.
    """
    if is_remote(entry):
        return _walk_remote(entry)
    root = local_path(entry, base)
    if not os.path.isdir(root):
        raise SourceError(
            f"there is no folder {root}.{near(os.path.dirname(root), os.path.basename(root))}"
        )
    listing = Folder(root)
    with plainly(root):
        start = os.stat(root)
        _walk_local(root, "", ((start.st_dev, start.st_ino),), listing, names_only)
    listing.files.sort(key=lambda pair: pair[0])
    listing.odd.sort()
    return listing


def _walk_local(
    folder: str,
    prefix: str,
    above: tuple[tuple[int, int], ...],
    listing: Folder,
    names_only: bool,
) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{prefix}{entry.name}"
            if hidden(entry.name):
                continue
            # A name in ASCII is UTF-8.
            if not path.isascii():
                utf8(path, folder)
            # The listing itself knows this, without a question for each file.
            if names_only and entry.is_file(follow_symlinks=False):
                listing.files.append((path, FileInfo(entry.path, listing.root, 0, "")))
                continue
            try:
                is_dir = entry.is_dir()
                info = entry.stat()
            except OSError as error:
                # A link that leads nowhere is told; a folder that may not be entered
                # ends the run.
                if error.errno not in _NOWHERE:
                    raise
                listing.odd.append(path)
                continue
            if is_dir:
                place = (info.st_dev, info.st_ino)
                # Folders above this one, not all that were seen: two links to one
                # folder are no circle.
                if place not in above:
                    _walk_local(
                        entry.path, f"{path}/", (*above, place), listing, names_only
                    )
            elif entry.is_file():
                listing.files.append(
                    (
                        path,
                        FileInfo(entry.path, listing.root, info.st_size, stamp_of(info)),
                    )
                )
            else:
                listing.odd.append(path)


def _walk_remote(entry: str) -> Folder:
    system, path = filesystem(entry)
    with plainly(entry):
        system.invalidate_cache()
        listed = objects.below(system, path)
        if not listed and objects.info(system, path) is None:
            raise SourceError(f"there is no folder {entry}.")
        root = path.rstrip("/")
        listing = Folder(system.unstrip_protocol(root))
        for name, info in sorted(listed.items()):
            below = name[len(root) :].strip("/")
            if below and not hidden(below) and info["type"] == "file":
                listing.files.append((below, found_remote(system, info, root)))
    return listing
