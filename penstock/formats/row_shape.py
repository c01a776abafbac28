"""What the rows of files look like: which columns a path gives, and whether content is text or bytes.

It is decided from the names of all files alone, before the first is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from penstock.contracts.data import SourceFile
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.formats.archive import Archive, Entry, open_archive
from penstock.formats.path_pattern import ParentFolder, Pattern, hidden, is_text, safe

PATH, CONTENT = "path", "content"
_SHOWN = 3
_MOST_FOLDERS = 50_000
"""Folders whose files are counted apart."""
REST = "\0rest"
"""Stands for all other folders; no path has such a name."""


def folder_of(path: str) -> str:
    """The folder that a file is in; nothing for one at the top."""
    return path.rpartition("/")[0]


@dataclass(frozen=True)
class Gathering:
    """How files become rows."""

    pattern: Pattern | None = None
    """None: every file, and the folder it is in."""
    content: Literal["auto", "bytes", "text"] = "auto"
    encoding: str = "utf-8"
    max_bytes: int = 64 << 20
    fail: bool = False
    """Whether a file that cannot be a row ends the run."""


@dataclass
class Names:
    """What the names of all files tell: how many there are, in folders and of text, and
    their bytes.
    """

    files: int = 0
    in_folders: int = 0
    texts: int = 0
    size_bytes: int = 0
    shown: list[str] = field(default_factory=list)
    folders: Counter[str] = field(default_factory=Counter)
    """By folder: how many files it has; beyond some, all others together as `REST`."""

    def add(self, path: str, size_bytes: int) -> None:
        """Count the file at `path`; the first few are shown to the user by name."""
        self.files += 1
        self.in_folders += "/" in path
        self.texts += is_text(path)
        self.size_bytes += size_bytes
        folder = folder_of(path)
        is_known = folder in self.folders or len(self.folders) < _MOST_FOLDERS
        self.folders[folder if is_known else REST] += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(path)


@dataclass(frozen=True)
class Shape:
    """The columns of the rows: those of the pattern, and whether content is text or
    bytes.
    """

    pattern: Pattern | ParentFolder
    text: bool

    def schema(self) -> pa.Schema:
        """The schema of a table of files: path, the pattern's columns, content as text or bytes."""
        content = pa.string() if self.text else pa.binary()
        return pa.schema(
            [
                (PATH, pa.string()),
                *((name, pa.string()) for name in self.pattern.columns),
                (CONTENT, content),
            ]
        )


def shape_of(how: Gathering, names: Names | None, events: Events | None = None) -> Shape:
    """Decide on the columns, and on text or bytes; tell the user what was chosen.

    Raises:
        SourceError: an encoding is given for files that are no texts.
    """
    events = events or Events()
    pattern: Pattern | ParentFolder
    if how.pattern is not None:
        pattern = how.pattern
    else:
        assert names is not None
        pattern = ParentFolder(folders=names.in_folders > 0)
        if names.in_folders:
            events.say(
                "Each file is a row; its `label` is the name of its folder (change this with"
                " `pattern`)."
            )
    if how.content != "auto":
        text = how.content == "text"
    elif pattern.ending:
        # `x` stands for a name: a bare `.txt` would be a hidden file without an ending.
        text = is_text(f"x{pattern.ending}")
    else:
        assert names is not None
        # Without any file there is no evidence of text, hence the zero on the left.
        text = 0 < names.texts == names.files
        if 0 < names.texts < names.files:
            events.warn(
                f"{names.texts:,} of {names.files:,} files have the ending of a text file,"
                " the others do not. All are read as bytes. Narrow `pattern`, or set"
                " `content`."
            )
    if not text and how.encoding != "utf-8":
        raise SourceError(
            f"source.encoding: {how.encoding} is given, but the files are read as bytes (their endings name"
            " no text). Set `content: text`, or leave `encoding` out."
        )
    return Shape(pattern, text)


def needs_names(how: Gathering) -> bool:
    """Whether the names of all files must be known before the first is read."""
    return how.pattern is None or (how.content == "auto" and not how.pattern.ending)


def index(
    files: Sequence[SourceFile], how: Gathering, *, within: int | None = None
) -> Names:
    """Count the files in archives by their names, from indexes or headers.

    Args:
        within: of a compressed tar look at so many bytes only.
    """
    names = Names()
    # Without folders it matches every file, so all are counted.
    pattern = how.pattern or ParentFolder(folders=False)
    for file in files:
        with open_archive(file.url) as archive:
            for entry in entries_of(archive, within):
                path, _ = safe(entry.name)
                if (
                    # What is odd becomes a reject, so it is a file that is meant; links
                    # and devices are left out.
                    entry.type in ("file", "odd")
                    and not hidden(path)
                    and pattern.match(path) is not None
                ):
                    names.add(path, entry.size_bytes)
    return names


def entries_of(archive: Archive, within: int | None) -> Iterator[Entry]:
    """The entries of an archive in its order; of a compressed tar those that begin within so many bytes."""
    for entry in archive.entries():
        # A compressed tar has no index: every member further on costs the unpacking of
        # all before it.
        if within is not None and not archive.in_any_order and entry.offset > within:
            return
        yield entry
