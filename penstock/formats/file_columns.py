"""`FileColumn`: the words with which a recipe says that a column names files, and which files they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from penstock.contracts.amounts import Bytes
from penstock.contracts.data import SourceFile
from penstock.contracts.part import Strict, mistakes
from penstock.core.errors import Problem, SourceError
from penstock.core.ordered_map import ordered_map
from penstock.core.paths import Inside
from penstock.formats.archive import is_archive
from penstock.formats.file_hashes import hashes
from penstock.formats.files import FileInfo, found_remote, stamp_of
from penstock.formats.find_files import find
from penstock.formats.folders import is_folder, local_path, walk
from penstock.formats.path_pattern import check_encoding
from penstock.formats.places import filesystem, is_remote, plainly

UNREAD = ""
"""In the place of a SHA-256: the file is there, but could not be read when the snapshot was taken."""
_PROTOCOLS = (
    "http",
    "https",
    "s3",
    "s3a",
    "gs",
    "gcs",
    "abfs",
    "abfss",
    "az",
    "hdfs",
    "memory",
)
_MOST_BYTES = 2**31 - 2**20


class FileColumn(Strict):
    """A column whose values name files; what is in them takes its place, or stands beside it."""

    root: str = "."
    """Where the paths start: a folder, a URL, or an archive (.tar, .tar.gz, .zip, …).

    Relative to the recipe's folder. No path leads out of it.
    """
    urls: bool = False
    """The values are URLs (https://, s3://, gs://, …) instead of paths; there is no `root` then.

    All are read to take the snapshot, unless a hash is known for the size and etag that the server tells.
    """
    as_: str | None = Field(None, alias="as")
    """The new column's name; unless given, it takes the place of the column of paths."""
    ending: str = ""
    """What is put after each value, such as `.jpg` where a column has the bare number."""
    text: bool = False
    """Whether the files hold text; bytes unless so."""
    encoding: str = "utf-8"
    """Of texts: any encoding Python knows, or `auto`."""
    max_bytes: Bytes = 64 * 2**20
    """A larger file is a bad row."""

    @model_validator(mode="after")
    def _sensible(self) -> FileColumn:
        problems: list[Problem] = []
        if self.urls and "root" in self.model_fields_set and self.root != ".":
            problems.append(
                Problem(("root",), "is for paths; with `urls: true` leave it out")
            )
        if self.as_ == "":
            problems.append(
                Problem(("as",), "must be a name; leave it out to replace the column")
            )
        if wrong := check_encoding(self.encoding):
            problems.append(Problem(("encoding",), wrong))
        if self.encoding != "utf-8" and not self.text:
            problems.append(Problem(("encoding",), "is for `text: true`; leave it out"))
        if self.max_bytes > _MOST_BYTES:
            problems.append(
                Problem(
                    ("max_bytes",),
                    f"must be less than 2GiB, the most that one value can have; found {self.max_bytes:,}",
                )
            )
        if problems:
            raise mistakes(*problems)
        return self

    def named(self, value: Any) -> tuple[str | None, str | None]:
        """The file that a value names, from the root (or as a URL), and why it must be refused, if it
        must.
        """
        text = f"{value}{self.ending}"
        if self.urls:
            protocol = text.partition("://")[0]
            # `::` chains file systems (`zip::https://…`), which would open more than
            # the URL says.
            if "://" not in text or protocol not in _PROTOCOLS or "::" in text:
                return None, f"{text!r} is no URL ({', '.join(_PROTOCOLS[:3])} …)"
            return text, None
        if not str(value):
            return None, "names no file"
        steps = [s for s in text.split("/") if s not in ("", ".")]
        # Anybody may have written the table: no value leads out of the root.
        if (
            text.startswith("/")
            or ".." in steps
            or not steps
            or "\0" in text
            or "://" in text
        ):
            return None, f"its file {text!r} is not below the root"
        return "/".join(steps), None

    def shown(self, name: str) -> str:
        """A file's name as the user knows it."""
        return (
            name
            if self.urls or self.root in (".", "./")
            else f"{self.root.rstrip('/')}/{name}"
        )


def owners(loads: Mapping[str, FileColumn]) -> dict[str, list[str]]:
    """Group the columns whose files have one root, under the first of them: a file that
    several columns name is read once.
    """
    groups: dict[str, list[str]] = {}
    firsts: dict[tuple[str, bool], str] = {}
    for column, load in loads.items():
        groups.setdefault(firsts.setdefault((load.root, load.urls), column), []).append(
            column
        )
    return groups


def prefix(owner: str) -> str:
    """What the snapshot's paths begin with for files below one root; no table's path
    does.
    """
    return f"<{owner}>/"


# -- the snapshot --------------------------------------------------------------------------------------------


def survey(
    owner: str,
    columns: Mapping[str, tuple[FileColumn, Sequence[Any]]],
    base: Path,
    memo: Path | None,
) -> list[SourceFile]:
    """The files that the values of columns with one root name and that are there now; one for a whole
    archive.

    Raises:
        SourceError: the root is not there, or a file cannot be read halfway.
    """
    load = columns[owner][0]
    if not load.urls and is_archive(load.root):
        archives = find(load.root, base, any_ending=True)
        if len(archives) != 1:
            raise SourceError(
                f"source.load.{owner}.root: {load.root} names {len(archives)} archives; name one."
            )
        sha = hashes(archives, memo)[0]
        return [
            SourceFile(
                prefix(owner) + load.root.rstrip("/").rsplit("/", 1)[-1],
                archives[0].url,
                archives[0].size_bytes,
                sha,
                stamp=archives[0].stamp,
            )
        ]
    names = sorted(
        {
            name
            for each, values in columns.values()
            for value in values
            # What a value may not name is told when rows are loaded.
            if (name := each.named(value)[0]) is not None
        }
    )
    by_name, unread = _urls(names) if load.urls else _below(owner, load, names, base)
    digests = hashes(list(by_name.values()), memo)
    files = [
        SourceFile(prefix(owner) + name, f.url, f.size_bytes, sha, stamp=f.stamp)
        for (name, f), sha in zip(by_name.items(), digests, strict=True)
    ]
    return [
        *files,
        *(
            SourceFile(prefix(owner) + name, url, 0, UNREAD)
            for name, url in unread.items()
        ),
    ]


def _below(
    column: str, load: FileColumn, names: list[str], base: Path
) -> tuple[dict[str, FileInfo], dict[str, str]]:
    if not is_folder(load.root, base):
        if is_remote(load.root):
            raise SourceError(
                f"source.load.{column}.root: there is no folder {load.root}."
            )
        walk(load.root, base)  # says that it is not there, and what is
    # One listing, instead of a question to the bucket for each name.
    if is_remote(load.root):
        listed = dict(walk(load.root, base).files)
        return {name: listed[name] for name in names if name in listed}, {}
    root = local_path(load.root, base)
    is_below = Inside(root)
    files: dict[str, FileInfo] = {}
    unread: dict[str, str] = {}
    for name in names:
        path = os.path.join(root, name)
        try:
            if not is_below(path):
                unread[name] = path  # a link on the way leads out of the root
                continue
            info = os.stat(path)
        # What is not there makes its row a reject, when rows are loaded.
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            unread[name] = path  # a folder that may not be entered, a name too long
            continue
        # A folder or a pipe counts as not there.
        if stat.S_ISREG(info.st_mode):
            if os.access(path, os.R_OK):
                files[name] = FileInfo(path, root, info.st_size, stamp_of(info))
            else:
                unread[name] = path
    return files, unread


def _urls(names: list[str]) -> tuple[dict[str, FileInfo], dict[str, str]]:
    def look(url: str) -> FileInfo | str | None:
        try:
            with plainly(url):
                system, path = filesystem(url)
                try:
                    return found_remote(system, {"name": path, **system.info(path)}, url)
                except FileNotFoundError:
                    return None
        # A refusal concerns this URL alone: its row becomes a reject.
        except SourceError:
            return url

    looked = list(
        ordered_map(look, names, threads=min(16, len(names)), name="penstock-read")
    )
    pairs = list(zip(names, looked, strict=True))
    return {
        n: FileInfo(n, f.root, f.size_bytes, f.stamp)
        for n, f in pairs
        if isinstance(f, FileInfo)
    }, {n: f for n, f in pairs if isinstance(f, str)}
