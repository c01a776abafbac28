"""Zip, by its central directory: read in any order, and a member whose check sum is wrong is damaged alone."""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from penstock.core.errors import SourceError
from penstock.formats.entry import Archive, DamagedMember, Entry, said
from penstock.formats.places import plainly


class Zip(Archive):
    """A zip."""

    in_any_order = True

    def __init__(self, url: str, raw: BinaryIO) -> None:
        super().__init__(url)
        self._raw = raw
        with self._told():
            self._zip = zipfile.ZipFile(raw)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise SourceError(f"{self.url} cannot be read as a zip: it is damaged or cut short ({said(error)}). Fetch it again.") from None
        except OSError:
            with plainly(self.url):
                raise

    def close(self) -> None:
        self._zip.close()
        self._raw.close()

    def entries(self) -> Iterator[Entry]:
        for info in sorted(self._zip.infolist(), key=lambda i: i.header_offset):
            mode = info.external_attr >> 16
            type, problem = "file", None
            if info.is_dir():
                type = "folder"
            elif info.create_system == 3 and stat.S_ISLNK(mode):
                type = "link"
            elif info.create_system == 3 and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                type = "device"
            elif info.flag_bits & 1:
                type, problem = "odd", "it is encrypted"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
                type, problem = "odd", f"it is packed by method {info.compress_type}, which is not known here"
            yield Entry(_zip_name(info), type, info.file_size, info.header_offset, problem, info)

    def read(self, entry: Entry) -> bytes:
        try:
            with self._zip.open(entry.handle) as file:
                found = file.read(entry.size_bytes + 1)  # no more than it says: a bomb lies
                if len(found) == entry.size_bytes:
                    return found
                raise DamagedMember(f"it has {len(found):,} bytes or more, and its header says {entry.size_bytes:,}")
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise DamagedMember(f"it is damaged ({said(error)})") from None
        except OSError as error:
            if isinstance(error, PermissionError | FileNotFoundError):
                with plainly(self.url):
                    raise
            raise DamagedMember(f"it is damaged ({said(error)})") from None


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name; many writers store UTF-8 without saying so, and old ones on Windows write `\\`."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with suppress(UnicodeError):  # else it is what the standard says: code page 437
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if info.create_system == 0 else name
