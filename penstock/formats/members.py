"""Members of archives as files by themselves: tables in a zip or tar, each at a place of its own.

Nothing is unpacked to a named file. A member of a zip, or of a plain tar, is read where it lies. A compressed
tar has no index, so that it is unpacked once, to a file without a name on this machine's disk, which is gone
with the process. What an index says is remembered as long as the archive's stamp is the same.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO, cast

from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.core.wanted import is_wanted
from penstock.formats.archive import open_archive
from penstock.formats.archive_entry import Archive, DamagedMember, Entry
from penstock.formats.archive_names import MemberPlace, member_place
from penstock.formats.path_pattern import hidden, is_text, safe
from penstock.formats.places import open_bytes, plainly
from penstock.formats.shelf import ending
from penstock.formats.tars import Tar
from penstock.formats.zips import open_member as open_in_zip

_BUFFER_BYTES = 1 << 20
_FREE_BYTES = 1 << 30
"""Of the disk that stay free where a compressed tar is unpacked."""
_MOST_SHOWN = 5
_MOST_NOTES = 2
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")


@dataclass
class Members:
    """What an archive holds."""

    entries: dict[str, Entry] = field(default_factory=dict)
    """By plain path, what is a file and not hidden."""
    warnings: list[str] = field(default_factory=list)
    """What is odd about it, each as a sentence that goes on behind its path."""
    spool: _Spool | None = None
    """Where a compressed tar is unpacked."""


class _Spool:
    """A file without a name, that is gone with this object."""

    def __init__(self) -> None:
        handle, path = tempfile.mkstemp(prefix="penstock-tar-")
        os.unlink(path)
        self.handle = handle
        self._folder = os.path.dirname(path)
        self._size = 0
        weakref.finalize(self, os.close, handle)

    def write(self, data: bytes) -> int:
        """Append some bytes. Raises SourceError where the disk would be full, or nobody waits any more."""
        if not is_wanted():
            raise SourceError(
                "the tar was not unpacked to its end: nobody waits for it any more."
            )
        if shutil.disk_usage(self._folder).free < len(data) + _FREE_BYTES:
            raise SourceError(
                f"the tar unpacks to more than {self._size:,} bytes, for which {self._folder} has no room."
                " Free some, name another folder in TMPDIR, or unpack it yourself and name the folder."
            )
        self._size += os.write(self.handle, data)
        return len(data)


class _Slice(io.RawIOBase):
    """Some bytes of a file, read by their places."""

    def __init__(
        self, read_at: Callable[[int, int], bytes], offset: int, size: int
    ) -> None:
        super().__init__()
        self._read_at, self._offset, self._size = read_at, offset, size
        self._place = 0
        self.on_close: Callable[[], None] = lambda: None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + place)
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        wanted = left if size < 0 else min(size, left)
        data = self._read_at(self._offset + self._place, wanted) if wanted else b""
        self._place += len(data)
        if wanted and not data:
            raise DamagedMember("the archive ends within it")
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.on_close()
        super().close()


class _Told(io.RawIOBase):
    """A member's bytes, whose damage is told with its name."""

    def __init__(self, stream: BinaryIO, place: MemberPlace) -> None:
        super().__init__()
        self._stream, self._place = stream, place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return int(self._in_words(lambda: self._stream.seek(place, whence)))

    def readinto(self, buffer: Any) -> int:
        data = cast(bytes, self._in_words(lambda: self._stream.read(len(buffer))))
        buffer[: len(data)] = data
        return len(data)

    def _in_words(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except DamagedMember as error:
            raise _damaged(self._place, str(error)) from None

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _damaged(place: MemberPlace, how: str) -> SourceError:
    return SourceError(
        f"{place.archive}: its member {place.name!r} cannot be read: {how}. Fetch the archive again, or name"
        " the members that are whole, as in `path: archive.zip/part-*.csv`."
    )


# -- what is in an archive -----------------------------------------------------------------------------------

_lock = threading.Lock()


def members(archive: str, stamp: str) -> Members:
    """What an archive holds, remembered by its stamp.

    Args:
        stamp: of the archive as it is now; without one, it is looked at each time.

    Raises:
        SourceError: it is damaged, or has two members of one name.
    """
    with _lock:
        return _remembered(archive, stamp) if stamp else _looked_at(archive)


@lru_cache(maxsize=8)
def _remembered(archive: str, stamp: str) -> Members:
    return _looked_at(archive)


def _looked_at(url: str) -> Members:
    listing = Members()
    with open_archive(url, warn=listing.warnings.append) as archive:
        if archive.in_any_order:
            _list(archive, listing)
            return listing
        assert isinstance(archive, Tar)
        listing.spool = _Spool()
        archive.copy_to(cast(BinaryIO, listing.spool))
    raw = io.BufferedReader(cast(Any, _spooled(listing.spool)), _BUFFER_BYTES)
    with Tar(url, cast(BinaryIO, raw), None, listing.warnings.append) as plain:
        _list(plain, listing)
    return listing


def _list(archive: Archive, listing: Members) -> None:
    url = archive.url
    for entry in archive.entries():
        path, unsafe = safe(entry.name)
        # What its name makes no table is held against its own header: a damaged entry of
        # the directory must not lose a table in silence.
        if hidden(path) or not ending(path):
            archive.check(entry)
        if entry.type not in ("file", "odd") or hidden(path):
            continue
        if unsafe is not None:
            listing.warnings.append(
                f"has a member that is not read: {path!r}, since {unsafe}."
            )
        elif path in listing.entries:
            raise SourceError(
                f"{url} has two members called {path!r}; which one is meant is not known. Pack it again"
                " without the old one."
            )
        else:
            listing.entries[path] = entry


def _spooled(spool: _Spool) -> _Slice:
    size = os.fstat(spool.handle).st_size
    return _Slice(lambda place, count: os.pread(spool.handle, count, place), 0, size)


def entry_of(place: MemberPlace, stamp: str) -> Entry:
    """What an archive says of a member. Raises SourceError where it has none of that name."""
    entry = members(place.archive, stamp).entries.get(place.name)
    if entry is None:
        raise SourceError(f"{place.archive} has no member {place.name!r} (any more).")
    return entry


def open_place(place: MemberPlace, stamp: str) -> BinaryIO:
    """Open a member for reading; it can be sought. Check sums are compared at its end.

    Raises:
        SourceError: it cannot be read; also while it is read.
    """
    entry = entry_of(place, stamp)
    if entry.problem is not None:
        raise _damaged(place, entry.problem)
    spool = members(place.archive, stamp).spool
    try:
        stream = _opened(place, entry, spool)
    except DamagedMember as error:
        raise _damaged(place, str(error)) from None
    return io.BufferedReader(cast(Any, _Told(stream, place)), _BUFFER_BYTES)


def _opened(place: MemberPlace, entry: Entry, spool: _Spool | None) -> BinaryIO:
    if spool is not None:

        def from_spool(start: int, count: int) -> bytes:
            return os.pread(spool.handle, count, start)

        return cast(BinaryIO, _Slice(from_spool, entry.offset, entry.size_bytes))
    raw = open_bytes(place.archive)
    try:
        # Of a zip, the handle is the entry of its directory.
        if entry.handle is not None:
            return open_in_zip(place.archive, raw, entry)
    except BaseException:
        raw.close()
        raise

    def from_file(start: int, count: int) -> bytes:
        with plainly(place.archive):
            raw.seek(start)
            return raw.read(count)

    stream = _Slice(from_file, entry.offset, entry.size_bytes)
    stream.on_close = raw.close
    return cast(BinaryIO, stream)


# -- choosing ------------------------------------------------------------------------------------------------


def chosen(
    archive: str,
    stamp: str,
    inner: str,
    is_table: Callable[[str], bool],
    *,
    any_ending: bool,
) -> dict[str, Entry]:
    """The members that a path into an archive names, by their paths, sorted.

    Args:
        inner: a member, a folder of them, or a pattern; nothing: every table.
        is_table: whether a member's name is that of a table.
        any_ending: take members of any name, where none of those that are meant is that of a table.

    Raises:
        SourceError: there is none.
    """
    entries = members(archive, stamp).entries
    if inner in entries:
        return {inner: entries[inner]}
    folder, pattern = inner.rstrip("/"), _pattern(inner)
    meant = [
        path
        for path in sorted(entries)
        if not inner or path.startswith(f"{folder}/") or pattern.fullmatch(path)
    ]
    tables = [path for path in meant if is_table(path)]
    if tables or (any_ending and meant):
        return {path: entries[path] for path in tables or meant}
    some = ", ".join(sorted(entries)[:_MOST_SHOWN]) or "nothing"
    what = f"that {inner!r} matches" if inner else "whose ending names a table's format"
    raise SourceError(
        f"{archive} has no member {what}; it holds {some}. Name them by a pattern (archive.zip/part-*), set"
        " `format`, or set `type: folder` if each file is to be a row."
    )


def tell(places: Iterable[tuple[str, str, str]], events: Events) -> None:
    """Tell the user what archives hold that is not read, and what is odd about them.

    Args:
        places: of the members that are read: path, URL and stamp.
    """
    read: dict[str, tuple[str, str, set[str]]] = {}
    for path, url, stamp in places:
        place = member_place(url)
        if place is not None:
            shown = path.removesuffix(f"/{place.name}")
            read.setdefault(place.archive, (shown, stamp, set()))[2].add(place.name)
    for archive, (shown, stamp, names) in read.items():
        whole = members(archive, stamp)
        others = sorted(whole.entries.keys() - names)
        if others:
            events.say(
                f"left out of {shown}: {len(others):,} members that are no tables or that `path` does not"
                f" name, such as {others[0]}."
            )
        for text in whole.warnings:
            events.warn(f"{shown} {text}")


def are_tables(archive: str, is_table: Callable[[str], bool], stamp: str) -> bool:
    """Whether the members of an archive are tables, rather than pictures and texts that are rows."""
    names = members(archive, stamp).entries
    tables = sum(map(is_table, names))
    rows = sum(name.lower().endswith(_PICTURES) or is_text(name) for name in names)
    # Beside tables stands a text or two that says what they are.
    return tables > 0 and tables >= rows - _MOST_NOTES


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob over the steps of a path: `*` and `?` stay within one, `**` is any number of them."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts))
