"""What an Arrow file or stream says it has: its messages, walked without trusting anything they point to.

A stream of messages ends with a mark, and an IPC file is such a stream with an index behind it. So a stream
that was cut between two batches, or an index that lost one, shows here, before rows are missing in silence.
Only the lengths of messages, their kinds and the rows of each record batch are read: Message and RecordBatch
of Arrow's `Message.fbs`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

_CONTINUED = 0xFFFFFFFF
_RECORD_BATCH = 3
_MOST_META = 256 << 20
_PIECE = 1 << 20


@dataclass(frozen=True)
class Frames:
    """What the messages tell."""

    batches: int
    rows: int
    largest_bytes: int
    """Of the bodies of messages."""


def walk(raw: BinaryIO, *, file: bool) -> Frames:
    """Go through every message.

    Args:
        raw: at the first byte.
        file: whether it is an IPC file, which begins with a mark of eight bytes.

    Raises:
        ValueError: a message cannot be read, the end mark is missing, or there is more behind it.
    """
    if file:
        _take(raw, 8)
    batches = rows = largest = 0
    while True:
        start = _take(raw, 4, end=True)
        size = struct.unpack("<I", start)[0]
        if size == _CONTINUED:
            size = struct.unpack("<I", _take(raw, 4))[0]
        if size == 0:
            if not file and raw.read(1):
                raise ValueError("there is more behind the mark that closes the stream")
            return Frames(batches, rows, largest)
        if size > _MOST_META:
            raise ValueError(f"a message says its head has {size:,} bytes")
        kind, body, count = _message(_take(raw, size))
        if kind == _RECORD_BATCH:
            batches += 1
            rows += count
        largest = max(largest, body)
        _pass(raw, body)


def _take(raw: BinaryIO, size: int, *, end: bool = False) -> bytes:
    data = b""
    while len(data) < size and (more := raw.read(size - len(data))):
        data += more
    if end and not data:
        raise ValueError("it ends without the mark that closes a stream: it was cut short")
    if len(data) < size:
        raise ValueError("it ends within a message")
    return data


def _pass(raw: BinaryIO, size: int) -> None:
    while size > 0:
        data = raw.read(min(size, _PIECE))
        if not data:
            raise ValueError("it ends within a message")
        size -= len(data)
        if size > _PIECE and raw.seekable():
            raw.seek(size - 1, 1)
            size = 1


def _message(head: bytes) -> tuple[int, int, int]:
    """Kind, bytes of its body, and rows of a record batch."""
    try:
        table = struct.unpack_from("<I", head)[0]
        kind = _field(head, table, 1, "<B")
        body = _field(head, table, 3, "<q")
        place = _place(head, table, 2)
        rows = 0
        if kind == _RECORD_BATCH and place is not None:
            rows = _field(head, place + struct.unpack_from("<I", head, place)[0], 0, "<q")
    except struct.error:
        raise ValueError("the head of a message cannot be read") from None
    if body < 0 or rows < 0:
        raise ValueError("a message has a length below nothing")
    return kind, body, rows


def _place(head: bytes, table: int, slot: int) -> int | None:
    """Where a field of a flatbuffer's table is; None where it has its default."""
    index = table - struct.unpack_from("<i", head, table)[0]
    if index < 0 or 4 + 2 * slot >= struct.unpack_from("<H", head, index)[0]:
        return None
    offset = struct.unpack_from("<H", head, index + 4 + 2 * slot)[0]
    return table + offset if offset else None


def _field(head: bytes, table: int, slot: int, form: str) -> int:
    place = _place(head, table, slot)
    return 0 if place is None else int(struct.unpack_from(form, head, place)[0])
