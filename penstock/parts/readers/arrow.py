"""Arrow: IPC files (Feather) and streams. The work is `penstock.formats.columnar`'s."""

from __future__ import annotations

from typing import ClassVar

from penstock.formats.columnar import Columnar
from penstock.formats.reader import Context, FileReader, Input, ScannedReader

_STREAM = b"\xff\xff\xff\xff"
"""How a stream begins. Other files may as well, so that another ending is believed before it."""


class Arrow(ScannedReader):
    """Arrow IPC files and streams, in the types they are stored in; structs become columns `a.b`."""

    endings: ClassVar[tuple[str, ...]] = (".arrow", ".feather", ".ipc")
    magic: ClassVar[tuple[bytes, ...]] = (b"ARROW1",)

    @classmethod
    def resembles(cls, start: bytes) -> bool:
        return start.startswith(_STREAM)

    def open(self, input: Input, context: Context) -> FileReader:
        return Columnar(input, context, "arrow")
