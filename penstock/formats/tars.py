"""Tar, plain or packed (gzip, Zstandard, bzip2, xz), read forward in large pieces.

The reader is ours, since the standard library's ends silently at a torn header or a missing end mark: here a
tar whose end is not marked is refused. POSIX ustar and pax, GNU long names and base-256 numbers are
understood (header fields are parsed by `tarfile.TarInfo.frombuf`); sparse files are not, and are told. Tars
joined end to end are read on.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa

from penstock.core.errors import SourceError
from penstock.formats.archive_entry import Archive, Entry, reason
from penstock.formats.places import plainly
from penstock.formats.unpack import unpacked

# A tar is made of blocks of 512 bytes.
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_CHUNK = 1 << 20
_PADDING_BYTES = 1 << 30
"""Zeros behind the end mark that are looked through for another tar."""
_NAMES_BYTES = 1 << 20
"""A longer name or header is a sign of damage."""
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, ValueError)


class _Stream:
    """Bytes read forward in large pieces, with the place; seeking forward where the source can."""

    def __init__(self, url: str, raw: BinaryIO, packing: str | None) -> None:
        self.url = url
        self.place = 0
        """Of the next byte."""
        self._raw = raw
        self._source = raw if packing is None else unpacked(raw, packing)
        self._packing = packing
        self._held = b""
        self._at = 0
        self._end: int | None = None
        # Only a plain tar's length is known without unpacking it.
        if packing is None:
            with plainly(url):
                self._end = raw.seek(0, 2)
                raw.seek(0)

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        if len(self._held) - self._at < size:
            pieces, filled = [self._held[self._at :]], len(self._held) - self._at
            while filled < size and (
                # A packed tar is read through in any case; of a plain one members may
                # be skipped, so less is read ahead.
                more := self._more(
                    max(_CHUNK, size - filled)
                    if self._end is None
                    else max(1 << 16, size - filled)
                )
            ):
                pieces.append(more)
                filled += len(more)
            self._held, self._at = b"".join(pieces), 0
        piece = self._held[self._at : self._at + size]
        self._at += len(piece)
        self.place += len(piece)
        return piece

    def _more(self, size: int) -> bytes:
        try:
            return bytes(self._source.read(size))
        except _DAMAGE as error:
            # Nothing is unpacked here, so it is the disk or the network that fails.
            if self._packing is None:
                with plainly(self.url):
                    raise
            raise SourceError(
                f"{self.url} is damaged or cut short: it cannot be unpacked beyond byte {self.place:,} of the"
                f" tar in it ({reason(error)}). Fetch it again."
            ) from None

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; returns how many there were."""
        have = len(self._held) - self._at
        if size <= have:
            self._at += size
            self.place += size
            return size
        if self._end is not None:
            # Seeking beyond the end succeeds in silence: the number that is returned
            # tells the caller.
            size = max(0, min(size, self._end - self.place))
            self.seek(self.place + size)
            return size
        done = 0
        while done < size and (piece := self.take(min(_CHUNK, size - done))):
            done += len(piece)
        return done

    def seek(self, place: int) -> None:
        """Go to a place; only where the source can."""
        with plainly(self.url):
            self._raw.seek(place)
        self._held, self._at, self.place = b"", 0, place

    def close(self) -> None:
        if self._source is not self._raw:
            self._source.close()
        self._raw.close()


class Tar(Archive):
    """A tar. Entries are given while the stream passes them."""

    def __init__(
        self, url: str, raw: BinaryIO, packing: str | None, warn: Callable[[str], None]
    ) -> None:
        super().__init__(url)
        self.in_any_order = packing is None
        self._stream = _Stream(url, raw, packing)
        self._warn = warn
        self._packed = packing is not None
        self._last = "its beginning"

    def close(self) -> None:
        self._stream.close()

    def copy_to(self, target: BinaryIO) -> None:
        """Write the unpacked tar to a file. Only before anything else is read."""
        while piece := self._stream.take(_CHUNK):
            target.write(piece)

    def _cut(self, where: str) -> SourceError:
        return SourceError(
            f"{self.url} is cut short: it ends {where}, after {self._last}. Fetch it again."
        )

    def _exactly(self, size: int, what: str) -> bytes:
        block = self._stream.take(size)
        if len(block) < size:
            raise self._cut(f"within {what} at byte {self._stream.place:,}")
        return block

    def entries(self) -> Iterator[Entry]:
        stream = self._stream
        if self.in_any_order:
            stream.seek(0)
        ended = joined = False
        zeros = 0
        while True:
            start = stream.place
            block = stream.take(_BLOCK)
            if not block and ended:
                return
            if len(block) < _BLOCK:
                # Padding ends with a whole block; within one, the file was cut.
                if ended and not block.strip(b"\0") and not self._packed:
                    raise self._cut(f"at byte {stream.place:,}, within a block")
                if ended:  # a few bytes after the end mark, as some writers leave
                    return
                raise (
                    self._cut(
                        f"at byte {stream.place:,} without the two empty blocks that close a tar"
                    )
                    if start
                    else SourceError(
                        f"{self.url} is not an archive: it is neither a tar nor a zip."
                    )
                )
            if block == _ZEROS:
                ended = True
                zeros += 1
                if zeros * _BLOCK > _PADDING_BYTES:
                    raise SourceError(
                        f"{self.url} has more than {_PADDING_BYTES >> 30} GiB of zeros behind"
                        f" {self._last}: it was written with a hole, or is not a tar. Cut it there, or"
                        " fetch it again."
                    )
                continue
            # The end mark is two empty blocks, so one alone is damage.
            if zeros == 1:
                raise SourceError(
                    f"{self.url} is damaged: at byte {start - _BLOCK:,}, after {self._last}, an empty block"
                    " stands where a header belongs. Fetch it again."
                )
            zeros = 0
            header = self._header(block, start, ended)
            if header is None:
                self._only_rubbish(start)
                return
            if ended and not joined:
                joined = True
                self._warn("is several tars joined end to end; all are read.")
            ended = False
            entry, end = header
            yield entry
            # The consumer may have read any member meanwhile; a plain tar goes back.
            if self.in_any_order and stream.place != end and stream.place > end:
                stream.seek(end)
            elif stream.place < end:
                wanted = end - stream.place
                if stream.skip(wanted) < wanted:
                    raise self._cut(f"within {entry.name!r} at byte {stream.place:,}")
            elif stream.place > end:
                raise AssertionError("an entry was read beyond its end")
            self._last = repr(entry.name)

    def _only_rubbish(self, start: int) -> None:
        """What follows the end mark and is no header, read to its end, so that a packed stream's check sum is
        compared.

        Raises:
            SourceError: there are headers, or a second end mark, in it: the mark was damage within the tar.
        """
        # Anything that is not empty begins the loop.
        block = _ZEROS[:1]
        last = b""
        while block:
            last = block if len(block) == _BLOCK else last
            block = self._stream.take(_BLOCK)
            if len(block) == _BLOCK and block != _ZEROS and _is_header(block):
                break
        if block or last == _ZEROS:
            raise SourceError(
                f"{self.url} is damaged: before byte {start:,}, after {self._last}, empty blocks stand where"
                " members belong. Fetch it again."
            )
        self._warn(
            f"has bytes after its end that are no tar (from byte {start:,}); they are not read."
        )

    def _header(self, block: bytes, start: int, ended: bool) -> tuple[Entry, int] | None:
        """The entry whose first header block this is, and where the next begins; None for rubbish after the
        end.
        """
        extra: dict[str, str] = {}
        while True:
            try:
                # Names that are not UTF-8 keep their bytes, and are refused one by one
                # later.
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                if ended:
                    return None
                if start == 0:
                    raise SourceError(
                        f"{self.url} is not an archive: it is neither a tar nor a zip."
                    ) from None
                raise SourceError(
                    f"{self.url} is damaged: at byte {start:,}, after {self._last}, there is no header of a"
                    " tar. Fetch it again."
                ) from None
            # These only say something of the header that follows: long names, extended
            # attributes.
            if info.type not in (
                tarfile.XHDTYPE,
                tarfile.XGLTYPE,
                tarfile.SOLARIS_XHDTYPE,
                tarfile.GNUTYPE_LONGNAME,
                tarfile.GNUTYPE_LONGLINK,
            ):
                break
            # A damaged length would have gigabytes read for a name.
            if not 0 <= info.size <= _NAMES_BYTES:
                raise SourceError(
                    f"{self.url} is damaged: the header at byte {start:,} is {info.size:,} bytes long. Fetch"
                    " it again."
                )
            data = self._exactly(_padded(info.size), "a header")[: info.size]
            if info.type == tarfile.GNUTYPE_LONGNAME:
                extra["path"] = data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            # Of the others only these name members: global headers and long targets of
            # links are passed over.
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                extra |= self._pax(data, start)
            block = self._exactly(_BLOCK, "a header")
        return self._entry(info, block, extra, start)

    def _pax(self, data: bytes, start: int) -> dict[str, str]:
        """Records `length key=value\\n`."""
        records: dict[str, str] = {}
        rest = data
        while rest.strip(b"\0"):
            # The length counts the whole record, its own digits among it.
            length, space, _ = rest.partition(b" ")
            size = int(length) if length.isdigit() and len(length) < 9 else 0
            record = rest[len(length) + 1 : size - 1]
            if not space or size < 5 or size > len(rest) or b"=" not in record:
                raise SourceError(
                    f"{self.url} is damaged: the extended header at byte {start:,} cannot be read. Fetch it"
                    " again."
                )
            key, _, value = record.partition(b"=")
            records[key.decode("utf-8", "replace")] = value.decode(
                "utf-8", "surrogateescape"
            )
            rest = rest[size:]
        return records

    def _entry(
        self, info: tarfile.TarInfo, block: bytes, extra: dict[str, str], start: int
    ) -> tuple[Entry, int]:
        stream = self._stream
        name = extra.get("path", info.name)
        # Sizes from 8 GiB on do not fit into the header's field, so the extended one
        # counts.
        size = int(extra["size"]) if extra.get("size", "").isdigit() else info.size
        if size < 0:
            raise SourceError(
                f"{self.url} is damaged: {name!r} at byte {start:,} says it has {size:,} bytes. Fetch it"
                " again."
            )
        type, problem = "file", None
        if info.type == tarfile.GNUTYPE_SPARSE:
            # Byte 482, and byte 504 of each block that follows, say whether one more
            # block of the sparse map comes.
            more = block[482]
            while more:
                more = self._exactly(_BLOCK, "a header")[504]
            type, problem = (
                "odd",
                "it is a sparse file, which is not read here; pack it without --sparse",
            )
        elif any(key.startswith("GNU.sparse.") for key in extra):
            type, problem = (
                "odd",
                "it is a sparse file, which is not read here; pack it without --sparse",
            )
        # Whatever size these headers state, no content follows them.
        elif info.isdir():
            type, size = "folder", 0
        elif info.issym() or info.islnk():
            type, size = "link", 0
        elif info.isdev():
            type, size = "device", 0
        elif info.type not in tarfile.REGULAR_TYPES:
            type, problem = "odd", f"it is a member of the unknown type {info.type!r}"
        return Entry(name, type, size, stream.place, problem), stream.place + _padded(
            size
        )

    def read(self, entry: Entry) -> bytes:
        if self.in_any_order and self._stream.place != entry.offset:
            self._stream.seek(entry.offset)
        if self._stream.place != entry.offset:
            raise AssertionError("a compressed tar gives each member only as it passes")
        content = self._stream.take(entry.size_bytes)
        if len(content) < entry.size_bytes:
            raise self._cut(f"within {entry.name!r} at byte {self._stream.place:,}")
        return content


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
