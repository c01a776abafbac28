"""Finds the files that a path, glob, folder or URL names; what each is called from their common root."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from penstock.core import objects
from penstock.core.errors import SourceError
from penstock.core.near import nearest
from penstock.core.redact import redacted_url
from penstock.core.regular import refuse_nul, refuse_special, where_link_ends
from penstock.core.visible import visible
from penstock.formats.archive_names import (
    archive_within,
    is_archive,
    member_url,
    shown_path,
)
from penstock.formats.files import FileInfo, found_remote, stamp_of
from penstock.formats.members import chosen
from penstock.formats.places import filesystem, is_remote, plainly
from penstock.formats.shelf import endings, is_table

# Where a pattern begins: the characters that `glob` takes for wildcards.
_MAGIC = re.compile(r"[*?[]")


def find(
    entry: str,
    base: Path,
    *,
    any_ending: bool = False,
    own: tuple[str, ...] = (),
    within: bool = False,
) -> list[FileInfo]:
    """The files that a path, glob, folder or URL names, sorted.

    A folder gives the files below it whose ending names a format (all, with `any_ending`); files and
    folders whose names begin with `.` or `_` are never data (Spark's `_SUCCESS`, `_delta_log`). So does an
    archive, whose members are named as in a folder: `shop.zip`, `shop.zip/train/*.csv`.

    Args:
        own: endings that name a format beside the built-in ones: those of a reader that was learnt.
        within: whether an archive gives its members; it is a file as any other unless so.

    Raises:
        SourceError: nothing is there, or it may not be read.
    """
    refuse_nul(entry)
    inner = ""
    if within and (split := _archive_in(entry, base)) is not None:
        entry, inner = split
    files = (
        _find_remote(entry, any_ending, own)
        if is_remote(entry)
        else _find_local(entry, base, any_ending, own)
    )

    def is_of_table(name: str) -> bool:
        return is_table(name, own)

    listed: list[FileInfo] = []
    for file in files:
        if not (within and is_archive(file.url)):
            listed.append(file)
            continue
        meant = chosen(file.url, file.stamp, inner, is_of_table, any_ending=any_ending)
        for name, member in meant.items():
            url = member_url(file.url, name)
            listed.append(FileInfo(url, file.root, member.size_bytes, file.stamp))
    return listed


def _archive_in(entry: str, base: Path) -> tuple[str, str] | None:
    """A path that leads into an archive that is there, and the rest of it."""
    within = archive_within(entry)
    if within is None:
        return None
    if is_remote(entry):
        system, path = filesystem(within[0])
        known = objects.info(system, path)
        return within if known is not None and known["type"] == "file" else None
    path = os.path.abspath(base / Path(within[0].removeprefix("file://")).expanduser())
    return within if os.path.isfile(path) or glob.has_magic(path) else None


def _find_local(
    entry: str, base: Path, any_ending: bool, own: tuple[str, ...]
) -> list[FileInfo]:
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
        paths: list[str] = []
        folders_walked: set[str] = set()
        for folder, folders, names in os.walk(path, onerror=refuse, followlinks=True):
            folders_walked.add(
                os.path.realpath(folder)
            )  # links are followed, but not in a circle
            # In place: `os.walk` goes down only into what is left in this very list.
            folders[:] = sorted(
                f
                for f in folders
                if _visible(f)
                and os.path.realpath(os.path.join(folder, f)) not in folders_walked
            )
            paths += [os.path.join(folder, n) for n in names if _visible(n)]
        return sorted(paths)


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
                f"{path} cannot be read by this user. Grant the permission, for example with"
                " chmod u+r."
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
    files: list[FileInfo],
    any_ending: bool,
    own: tuple[str, ...],
) -> list[FileInfo]:
    if not files:
        raise SourceError(
            f"the folder {entry} ({root}) has no files. Name a folder with data in it."
        )
    tables = [f for f in files if any_ending or is_table(f.url, own)]
    if not tables:
        some = ", ".join(PurePosixPath(f.url).name for f in files[:5])
        archives = [PurePosixPath(f.url).suffix for f in files if is_archive(f.url)]
        # In a folder an archive may be anything: only one that is named is looked into.
        hint = f", as in {entry.rstrip('/')}/*{archives[0]}" if archives else ""
        raise SourceError(
            f"the folder {entry} has no file whose ending names a format ({' '.join([*endings(), *own])});"
            f" found {some}. Name the files themselves{hint}, or set `format`."
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


def relative(listed: Iterable[FileInfo]) -> dict[str, str]:
    """By URL: the path from the root that all were looked for under, with `/`."""
    files = list(listed)
    roots = {redacted_url(f.root).replace(os.sep, "/").rstrip("/") for f in files}
    root = roots.pop() if len(roots) == 1 else _common(roots)
    # A signature in a URL changes from day to day, and is nobody's business: it is in no name.
    paths = {f.url: shown_path(redacted_url(f.url).replace(os.sep, "/")) for f in files}
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
