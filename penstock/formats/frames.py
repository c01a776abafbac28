"""What an Arrow file or stream says it has: its messages, walked without trusting anything they point to.

A stream of messages ends with a mark, and an IPC file is such a stream with an index behind it. So a stream
that was cut between two batches, or an index that lost one, shows here, before rows are missing in silence.
Only the lengths of messages, their kinds and the rows of each record batch are read: Message and RecordBatch
of Arrow's `Message.fbs`. Where a batch is compressed, each of its buffers begins with the bytes that it will
have; a few kilobytes may say gigabytes, which Arrow would ask the system for, so these are summed up first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

# Stands before the length of each message, but for files of Arrow before 0.15.
_CONTINUED = 0xFFFFFFFF
# Kinds of messages, as `Message.fbs` numbers them.
_DICTIONARY, _RECORD_BATCH = 2, 3
_SIZE_BYTES = 8
"""What a compressed buffer begins with: the bytes it will have."""
# Of a message's head: its columns and buffers. More is damage.
_MOST_META = 256 << 20
_PIECE = 1 << 20


@dataclass(frozen=True)
class Frames:
    """What the messages of a file say that it has."""

    batches: int
    rows: int
    largest_bytes: int
    """Of the bodies of messages."""
    largest_unpacked_bytes: int = 0
    """Of the bodies of messages, once they are decompressed."""


def walk(raw: BinaryIO, *, file: bool) -> Frames:
    """Walk through all messages, and sum up what they say.

    Args:
        raw: at the first byte.
        file: whether it is an IPC file, which begins with a mark of eight bytes.

    Raises:
        ValueError: a message cannot be read, the end mark is missing, or there is more behind it.
    """
    if file:
        # `ARROW1`, and two bytes that round it up to eight.
        _take(raw, 8)
    batches = rows = largest = unpacked = 0
    while True:
        start = _take(raw, 4, end=True)
        size = struct.unpack("<I", start)[0]
        if size == _CONTINUED:
            size = struct.unpack("<I", _take(raw, 4))[0]
        if size == 0:
            # Behind the mark a file has its index, and a stream has nothing.
            if not file and raw.read(1):
                raise ValueError("there is more data after the end-of-stream mark")
            return Frames(batches, rows, largest, unpacked)
        if size > _MOST_META:
            raise ValueError(f"a message says its head has {size:,} bytes")
        head = _take(raw, size)
        kind, body, count = _message(head)
        if kind == _RECORD_BATCH:
            batches += 1
            rows += count
        largest = max(largest, body)
        unpacked = max(unpacked, _sizes(raw, _packed_buffers(head, kind, body), body))


def _packed_buffers(head: bytes, kind: int, body: int) -> list[int]:
    """Where compressed buffers begin in a message's body, in order; none where it is not compressed.

    A batch of dictionary entries (kind 2) holds a record batch as its second field.
    """
    try:
        table = struct.unpack_from("<I", head)[0]
        # Slot 2 of a message: the table that its kind says.
        place = _place(head, table, 2)
        if kind not in (_DICTIONARY, _RECORD_BATCH) or place is None:
            return []
        batch = place + struct.unpack_from("<I", head, place)[0]
        if kind == _DICTIONARY:
            # Slot 1 of a batch of dictionary entries: their record batch.
            place = _place(head, batch, 1)
            if place is None:
                return []
            batch = place + struct.unpack_from("<I", head, place)[0]
        # Slots of a record batch: 2 has its buffers, 3 its compression, without which
        # nothing is packed.
        vector = _place(head, batch, 2)
        if _place(head, batch, 3) is None or vector is None:
            return []
        start = vector + struct.unpack_from("<I", head, vector)[0]
        count = struct.unpack_from("<I", head, start)[0]
        # Each buffer's offset in the body and its length, of eight bytes each.
        buffers = [
            struct.unpack_from("<qq", head, start + 4 + 16 * i) for i in range(count)
        ]
    except struct.error:
        raise ValueError("the head of a message cannot be read") from None
    if any(offset < 0 or size < 0 or offset + size > body for offset, size in buffers):
        raise ValueError("a buffer of a message leads out of it")
    # An empty buffer has no size before it.
    return sorted({offset for offset, size in buffers if size >= _SIZE_BYTES})


def _sizes(raw: BinaryIO, places: list[int], body: int) -> int:
    """Pass over a body; returns the bytes that its buffers say they have, decompressed."""
    at = whole = 0
    for place in places:
        if place < at:
            raise ValueError("two buffers of a message lie at one place")
        _pass(raw, place - at)
        declared = struct.unpack("<q", _take(raw, _SIZE_BYTES))[0]
        whole += max(
            declared, 0
        )  # -1: this one is not compressed, and counted as a part of the body
        at = place + _SIZE_BYTES
    _pass(raw, body - at)
    return whole + body


def _take(raw: BinaryIO, size: int, *, end: bool = False) -> bytes:
    data = b""
    while len(data) < size and (more := raw.read(size - len(data))):
        data += more
    if end and not data:
        raise ValueError("it ends without the end-of-stream mark: it was cut short")
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
            # To the byte before the end, which is read next: seeking beyond the file's
            # end would succeed.
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
        raise ValueError("a message has a negative length")
    return kind, body, rows


def _place(head: bytes, table: int, slot: int) -> int | None:
    """Where a field of a flatbuffer's table is; None where it has its default."""
    # A table begins with the distance back to its list of fields; both lengths there
    # come before the fields.
    index = table - struct.unpack_from("<i", head, table)[0]
    # A field behind the end of the list is one that the writer did not know.
    if index < 0 or 4 + 2 * slot >= struct.unpack_from("<H", head, index)[0]:
        return None
    offset = struct.unpack_from("<H", head, index + 4 + 2 * slot)[0]
    return table + offset if offset else None


def _field(head: bytes, table: int, slot: int, form: str) -> int:
    place = _place(head, table, slot)
    return 0 if place is None else int(struct.unpack_from(form, head, place)[0])
