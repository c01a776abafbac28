"""Zip, by its central directory: read in any order, and a member whose check sum is wrong is damaged alone.

A directory that was damaged may still be read, and then lacks members, or names them otherwise. So its length
is held against the count in the end record, and each member against the header that stands before its bytes:
by Python's own reader where it is read, and by `check` where nothing is read of it, since its name says that
it is no row. Members that the directory does not list (deleted, lost, or of a zip to which another was
joined) leave holes between the others, and are told.
"""

from __future__ import annotations

import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, cast

from penstock.core.errors import SourceError
from penstock.formats.archive_entry import Archive, DamagedMember, Entry, reason
from penstock.formats.places import plainly

# As in the specification (APPNOTE): the end record, its form for zip64, that one's
# locator, a member's header.
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_MEMBER = b"PK\x03\x04"
# What may stand behind a member's bytes: mark, check sum and two sizes of eight bytes.
_DESCRIPTOR_BYTES = 24
_SLACK_BYTES = 20
"""By how much more a member may take than its entry of the directory shows, before its own header is asked:
of fields that stand in one of the two alone. No member is so small.
"""
_LOOKED_BYTES = 65_536
"""Of a hole, at most."""
_LONGEST_NAME = 65_535
_LONGEST_LINK = 65_536
"""Bytes. What says it is a link and is longer is a file whose attributes were damaged."""


class Zip(Archive):
    """A zip archive, read by its central directory."""

    in_any_order = True

    def __init__(
        self, url: str, raw: BinaryIO, warn: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(url)
        self._raw = raw
        with self._told():
            self._zip = zipfile.ZipFile(raw)
            self._complete(_counted(raw))
            unlisted = list(self._unlisted()) if warn is not None else []
        if unlisted and warn is not None:
            warn(
                f"has members that its directory does not list, in {len(unlisted):,}"
                f" place{('s' if len(unlisted) > 1 else '')}, such as {unlisted[0]!r}. They"
                " are not read: they were deleted or lost, or several zips were joined and"
                " only the last can be read."
            )

    def _unlisted(self) -> Iterator[str]:
        """The first member in each hole between the members that the directory lists, and before them.

        Raises:
            BadZipFile: it lists two members at one place.
        """
        infos = sorted(self._zip.infolist(), key=lambda info: info.header_offset)
        # Before the first member that is listed there may be room for another.
        if (infos[0].header_offset if infos else self._zip.start_dir) >= _LOCAL.size:
            yield from self._member_in(0, _LOCAL.size + _LONGEST_NAME, begins=True)
        # A member ends where the next begins at the latest, the last one where the
        # directory does.
        ends = [*(info.header_offset for info in infos), self._zip.start_dir][1:]
        for info, end in zip(infos, ends, strict=True):
            if info.header_offset == end:
                raise zipfile.BadZipFile(
                    f"its directory has {info.filename!r} and another member at the same place"
                )
            # At the least: the extra fields of the member's own header are not known
            # yet.
            behind = (
                info.header_offset
                + _LOCAL.size
                + len(info.orig_filename.encode("utf-8", "surrogateescape"))
                + info.compress_size
            )
            if (
                end - behind
                > len(info.extra)
                + (_DESCRIPTOR_BYTES if info.flag_bits & 8 else 0)
                + _SLACK_BYTES
            ):
                # Only in doubt: a read for each member would be a request each from a
                # bucket.
                self._raw.seek(info.header_offset)
                header = self._raw.read(_LOCAL.size)
                if len(header) == _LOCAL.size and header.startswith(_MEMBER):
                    start = (
                        info.header_offset
                        + _LOCAL.size
                        # The last two fields: how long its name and its own extra
                        # fields are.
                        + sum(_LOCAL.unpack(header)[-2:])
                        + info.compress_size
                    )
                    yield from self._member_in(start, min(end, start + _LOOKED_BYTES))

    def _member_in(self, start: int, end: int, *, begins: bool = False) -> Iterator[str]:
        """The name of the first member in some bytes of the file, if there is one."""
        self._raw.seek(start)
        data = self._raw.read(max(0, end - start))
        at = data.find(_MEMBER)
        # Before the first member a program may stand (a self-extracting zip): only a
        # member at the very beginning counts.
        if at < 0 or (begins and at) or len(data) - at < _LOCAL.size:
            return
        length = _LOCAL.unpack_from(data, at)[-2]
        yield data[at + _LOCAL.size : at + _LOCAL.size + length].decode(
            "utf-8", "backslashreplace"
        )

    def _complete(self, counts: tuple[int, bool]) -> None:
        """Refuse a directory with fewer or more members than the end record says.

        Raises:
            BadZipFile: it has not.
        """
        count, exact = counts
        members = len(self._zip.infolist())
        # Sixteen bits that overflowed still tell the number up to multiples of 65,536.
        if members != count and (exact or members % 65_536 != count):
            raise zipfile.BadZipFile(
                f"its directory has {members:,} members, and its end record says {count:,}"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise SourceError(
                f"{self.url} cannot be read as a zip: it is damaged or cut short ({reason(error)}). Fetch it"
                " again."
            ) from None
        except OSError:
            with plainly(self.url):
                raise

    def close(self) -> None:
        self._zip.close()
        self._raw.close()

    def entries(self) -> Iterator[Entry]:
        # In the order of their bytes, in which disks and networks are fast.
        for info in sorted(self._zip.infolist(), key=lambda i: i.header_offset):
            # Unix's mode, if a Unix wrote the entry (system 3).
            mode = info.external_attr >> 16
            type, problem = "file", None
            if info.filename.endswith("/"):
                type = "folder"
            elif (
                info.create_system == 3
                and stat.S_ISLNK(mode)
                and info.file_size <= _LONGEST_LINK
            ):
                type = "link"
            elif info.create_system == 3 and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                type = "device"
            # Bit 0: encrypted.
            elif info.flag_bits & 1:
                type, problem = "odd", "it is encrypted"
            elif info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
                zipfile.ZIP_BZIP2,
                zipfile.ZIP_LZMA,
            ):
                type, problem = (
                    "odd",
                    f"it is packed by method {info.compress_type}, which is not known here",
                )
            yield Entry(
                _zip_name(info), type, info.file_size, info.header_offset, problem, info
            )

    def check(self, entry: Entry) -> None:
        info = entry.handle
        with self._told():
            self._raw.seek(info.header_offset)
            header = self._raw.read(_LOCAL.size)
            if len(header) < _LOCAL.size or not header.startswith(_MEMBER):
                raise zipfile.BadZipFile(
                    f"there is no member where its directory has {entry.name!r}"
                )
            length = _LOCAL.unpack(header)[-2]
            name = self._raw.read(length)
            given = _name_bytes(info)
            if name != given:
                raise zipfile.BadZipFile(
                    f"its directory says {given!r} of the member {name!r}"
                )

    def read(self, entry: Entry) -> bytes:
        with _member(self.url), self._zip.open(entry.handle) as file:
            content = file.read(entry.size_bytes + 1)  # no more than it says: a bomb lies
            if len(content) == entry.size_bytes:
                return content
            raise DamagedMember(
                f"it has {len(content):,} bytes or more, and its header says {entry.size_bytes:,}"
            )

    def stream(self, entry: Entry) -> BinaryIO:
        """Open the content of a file, to be read in bounded memory; its check sum is compared at its end.

        Raises:
            DamagedMember: this member cannot be opened.
        """
        with _member(self.url):
            return cast(BinaryIO, _Member(self.url, self._zip.open(entry.handle), entry))


@contextmanager
def _member(url: str) -> Iterator[None]:
    """Damage of a member as `DamagedMember`; what concerns all of the zip as a SourceError."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        raise DamagedMember(f"it is damaged ({reason(error)})") from None
    except OSError as error:
        # What the system refuses (a disk that fails, a network that is gone) has a number, and concerns every
        # member; to call it damage would put good rows aside.
        if error.errno is not None:
            with plainly(url):
                raise
        # bzip2 tells damaged data by an OSError, without a number.
        raise DamagedMember(f"it is damaged ({reason(error)})") from None


class _Member(io.RawIOBase):
    """The content of a member, as it is unpacked; sought by unpacking it again."""

    def __init__(self, url: str, file: IO[bytes], entry: Entry) -> None:
        super().__init__()
        self._url, self._file, self._entry = url, file, entry
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        with _member(self._url):
            self._place = self._file.seek(place, whence)
        return self._place

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end. Raises DamagedMember."""
        with _member(self._url):
            piece = self._file.read(size)
        self._place += len(piece)
        # The standard library stops where the header says, and wherever the bytes end.
        if not piece and size and self._place < self._entry.size_bytes:
            raise DamagedMember(
                f"it has {self._place:,} bytes, and its header says {self._entry.size_bytes:,}"
            )
        return piece

    def close(self) -> None:
        self._file.close()
        super().close()


def open_member(url: str, raw: BinaryIO, entry: Entry) -> BinaryIO:
    """Open one member of a zip whose directory is known, without reading that again; it can be sought.

    Args:
        raw: the zip's own bytes; they are closed with the member.

    Raises:
        DamagedMember: it is not where the directory has it.
    """
    info = entry.handle
    with _member(url):
        raw.seek(info.header_offset)
        header = raw.read(_LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(_MEMBER):
            raise zipfile.BadZipFile("there is no member where the directory has it")
        name, extra = _LOCAL.unpack(header)[-2:]
        if raw.read(name) != _name_bytes(info):
            raise zipfile.BadZipFile(
                "another name stands before it than in the directory"
            )
        raw.seek(info.header_offset + _LOCAL.size + name + extra)
        file = zipfile.ZipExtFile(raw, "r", info, None, True)
        return cast(BinaryIO, _Member(url, cast(IO[bytes], file), entry))


def _name_bytes(info: zipfile.ZipInfo) -> bytes:
    # Bit 11: the name is UTF-8; without it, it is in the standard's code page.
    return info.orig_filename.encode(
        "utf-8" if info.flag_bits & 0x800 else "cp437", "surrogateescape"
    )


def _counted(raw: BinaryIO) -> tuple[int, bool]:
    """How many members the end record says there are, and whether the number is whole (writers before zip64
    let it overflow).

    Raises:
        BadZipFile: there is no end record.
    """
    end = raw.seek(0, 2)
    # The record is followed by a comment of at most 65,535 bytes, so it begins in this
    # tail.
    start = max(0, end - _END.size - 65_535)
    raw.seek(start)
    tail = raw.read()
    # The last mark that leaves room for a whole record.
    place = tail.rfind(b"PK\x05\x06", 0, len(tail) - _END.size + 4)
    if place < 0:
        raise zipfile.BadZipFile("it has no end record")
    count = _END.unpack_from(tail, place)[4]
    if place + start >= _LOCATOR.size:
        raw.seek(place + start - _LOCATOR.size)
        locator = raw.read(_LOCATOR.size)
        if locator.startswith(b"PK\x06\x07"):
            # Right before its locator first: the locator's own offset is wrong where
            # bytes stand before the archive.
            raw.seek(place + start - _LOCATOR.size - _END64.size)
            record = raw.read(_END64.size)
            if not record.startswith(b"PK\x06\x06"):
                raw.seek(_LOCATOR.unpack(locator)[2])
                record = raw.read(_END64.size)
            if record.startswith(b"PK\x06\x06") and len(record) == _END64.size:
                return int(_END64.unpack(record)[7]), True
    return int(count), False


def _zip_name(info: zipfile.ZipInfo) -> str:
    r"""A member's name as a path: many writers store UTF-8 without saying so, and old
    ones on Windows write `\`.
    """
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with suppress(UnicodeError):  # else it is what the standard says: code page 437
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if info.create_system == 0 else name
