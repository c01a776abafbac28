"""What a workbook may make a reader hold, asked before its XML is parsed.

A small file can unpack to gigabytes, or be one text of gigabytes. So its members are streamed once: what is
parsed as a whole has a ceiling, and so have a text and a row; a document type (which may define entities that
multiply) is refused, and check sums are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, cast

from penstock.contracts.reading import TableFile
from penstock.core.errors import SourceError
from penstock.formats.archive_entry import DamagedMember, Entry
from penstock.formats.zips import Zip

_READ_BYTES = 1 << 20
_LONGEST_TEXT = 1 << 20
"""Bytes between two marks of XML; a cell has 32,767 characters."""
_LONGEST_ROW = 64 << 20
"""Bytes of XML; 16,384 cells have some megabytes."""
_SHEETS = "worksheets/"
_GROWTH = 8
"""About so many bytes are held for one of XML that is parsed as a whole."""
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def check(file: TableFile, path: Path) -> None:
    """Refuse a workbook that is none, is damaged, or would take too much memory.

    Raises:
        SourceError: it is; and what to do.
    """
    with open(path, "rb") as raw:
        if raw.read(len(_OLE)) == _OLE:
            raise SourceError(
                f"{file.path} is protected by a password, or is an old .xls under another name. Open it in"
                " Excel or LibreOffice, take the password off (File, Info, Protect Workbook), and save it as"
                " .xlsx."
            )
        raw.seek(0)
        with Zip(
            file.path, cast(BinaryIO, raw), lambda text: file.say(text, warn=True)
        ) as packed:
            entries = [entry for entry in packed.entries() if entry.type != "folder"]
            names = {entry.name for entry in entries}
            if "[Content_Types].xml" not in names:
                raise SourceError(
                    f"{file.path} is a zip, and no workbook of Excel. Give it the ending .zip if it holds"
                    " tables."
                )
            for entry in entries:
                if entry.name.endswith((".xml", ".rels")):
                    _check_member(file, packed, entry)


def _check_member(file: TableFile, packed: Zip, entry: Entry) -> None:
    is_sheet = _SHEETS in entry.name and entry.name.endswith(".xml")
    if not is_sheet and entry.size_bytes * _GROWTH > file.most_bytes:
        raise SourceError(
            f"{file.path}: {entry.name!r} in it unpacks to {entry.size_bytes:,} bytes, which may take"
            f" {entry.size_bytes * _GROWTH >> 20:,} MiB of memory at once, more than"
            f" {file.most_bytes >> 20:,} MiB. Save the sheet as CSV, or raise `resources.memory`."
        )
    texts, rows = _Gaps(b"<"), _Gaps(b"</row>")
    is_first = True
    try:
        with packed.stream(entry) as stream:
            while block := stream.read(_READ_BYTES):
                bare = block.removeprefix(b"\xef\xbb\xbf").lstrip() if is_first else b"<"
                if not bare.startswith(b"<") or b"<!DOCTYPE" in block:
                    raise SourceError(
                        f"{file.path}: {entry.name!r} in it is not XML as Excel writes it. Open the workbook"
                        " in Excel or LibreOffice and save it again."
                    )
                is_first = False
                texts.see(block)
                if is_sheet:
                    rows.see(block)
                if texts.longest > _LONGEST_TEXT or rows.longest > _LONGEST_ROW:
                    raise SourceError(
                        f"{file.path}: {entry.name!r} in it has a text or a row of more than"
                        f" {max(texts.longest, rows.longest) >> 20:,} MiB, which no program for sheets"
                        " writes. Is it what you expect? Save what you need of it as CSV."
                    )
    except DamagedMember as error:
        raise SourceError(
            f"{file.path}: {entry.name!r} in it cannot be read: {error}. Fetch the file again."
        ) from None


class _Gaps:
    """The longest distance between two marks in a stream."""

    def __init__(self, mark: bytes) -> None:
        self.longest = 0
        self._mark = mark
        self._open = 0
        """Bytes since the last mark."""

    def see(self, block: bytes) -> None:
        """Go on with the next block. A mark that two blocks share is missed: the gap seems longer."""
        first, *others = map(len, block.split(self._mark))
        begun = self._open + first
        self._open = others[-1] if others else begun
        self.longest = max(self.longest, begun, *others)
