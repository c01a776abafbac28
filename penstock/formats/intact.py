"""Whether a picture's bytes are whole, where the decoder itself would not say.

Decoders are made for eyes: what is torn or bent becomes grey, or noise, and no word is said. Here the file's
own check sums and the decoder's own complaints are asked, before pixels become numbers to learn from:

    PNG     the CRC of every chunk, the end chunk, and Adler's sum over the unpacked pixels
    JPEG    what libjpeg warns of (through simplejpeg); where that is not installed, the marks of the scans
    TIFF    Adler's sum over each strip or tile that is packed by Deflate
    WebP    the length in its header

A changed byte in a format without check sums (BMP, a TIFF that is not packed) is another picture, and nobody
can know.
"""

from __future__ import annotations

import importlib
import re
import zlib
from functools import lru_cache
from typing import Any

_PIECE = 1 << 20
# Deflate in TIFF: its number, and the one that it had first.
_DEFLATE = (8, 32946)
# Where strips and tiles lie, and how many bytes they have.
_OFFSETS, _COUNTS = (273, 324), (279, 325)
_BENIGN = re.compile(
    r"unknown JFIF|Adobe color transform|Invalid SOS parameters", re.IGNORECASE
)
"""Complaints of libjpeg that concern no pixel."""


def damage(data: bytes, image: Any) -> str | None:
    """What is wrong with a picture whose header could be read; None where nothing is known to be.

    Args:
        image: Pillow's, not yet loaded.
    """
    if image.format == "PNG":
        return _png(data)
    if image.format == "TIFF":
        return _tiff(data, image)
    if image.format == "WEBP":
        size = int.from_bytes(data[4:8], "little") + 8
        return (
            f"cut short: its header says {size:,} bytes, and there are {len(data):,}"
            if size > len(data)
            else None
        )
    return None


def _png(data: bytes) -> str | None:
    # Behind the eight bytes of PNG's mark. A chunk is its length, its kind, its content
    # and a check sum.
    place, unpacker = 8, zlib.decompressobj()
    while True:
        size = int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        end = place + 12 + size
        if end > len(data):
            return "cut short: it ends before its end chunk"
        checksum = int.from_bytes(data[end - 4 : end], "big")
        # The sum is over kind and content, without the length.
        if zlib.crc32(memoryview(data)[place + 4 : end - 4]) != checksum:
            return f"damaged: the check sum of its chunk {kind.decode('ascii', 'replace')!r} is wrong"
        if kind == b"IEND":
            break
        # All chunks of pixels together are one stream of zlib.
        if kind == b"IDAT" and not unpacker.eof:
            problem = _unpack(unpacker, data[place + 8 : end - 4])
            if problem is not None:
                return f"damaged: its pixels cannot be unpacked ({problem})"
        place = end
    return None if unpacker.eof else "cut short: its pixels end early"


def _unpack(unpacker: Any, packed: bytes) -> str | None:
    """Unpack a piece at a time and forget it; returns what zlib complains of.

    It compares Adler's sum at the end of its stream.
    """
    try:
        # In pieces that are thrown away: a few kilobytes may unpack to gigabytes.
        while packed and not unpacker.eof:
            unpacker.decompress(packed, _PIECE)
            packed = unpacker.unconsumed_tail
    except zlib.error as error:
        return str(error)
    return None


def _tiff(data: bytes, image: Any) -> str | None:
    tags = image.tag_v2
    # Only Deflate has check sums.
    if tags.get(259) not in _DEFLATE:
        return None
    for offsets, counts in zip(_OFFSETS, _COUNTS, strict=True):
        for offset, count in zip(
            tags.get(offsets, ()), tags.get(counts, ()), strict=False
        ):
            if offset + count > len(data):
                return "cut short: a strip of it lies beyond its end"
            unpacker = zlib.decompressobj()
            problem = _unpack(unpacker, data[offset : offset + count])
            if problem is not None or not unpacker.eof:
                return f"damaged: its pixels cannot be unpacked ({problem or 'they end early'})"
    return None


# -- JPEG ----------------------------------------------------------------------------------------------------


def jpeg_damage(data: bytes) -> str | None:
    """What libjpeg complains of in a JPEG, decoded at an eighth of its size: every bit of it is read all the
    same.
    """
    codec = simplejpeg()
    if codec is None:
        return _jpeg_marks(data)
    try:
        space = codec.decode_jpeg_header(data)[2]
        codec.decode_jpeg(
            data,
            "CMYK" if space in ("CMYK", "YCCK") else "GRAY",
            min_height=1,
            min_width=1,
        )
    except ValueError as error:
        return jpeg_complaint(error)
    return None


def jpeg_complaint(error: BaseException) -> str | None:
    """A complaint of libjpeg as a reason; None where it concerns no pixel."""
    text = str(error).strip().rstrip(".")
    return None if _BENIGN.search(text) else f"damaged: {text}"


def _jpeg_marks(data: bytes) -> str | None:
    """Check the marks within scans, and the end mark, where libjpeg cannot be asked."""
    scan = data.find(b"\xff\xda")
    if scan < 0:
        return "cut short: it has no pixels"
    # Behind 0xFF a zero belongs to the pixels; all else is a mark.
    for match in re.finditer(rb"\xff+([^\x00\xff])", data[scan + 2 :]):
        mark = match[1][0]
        if mark == 0xD9:
            return None
        # Tables, comments, restarts and data of applications may stand between scans.
        if (
            mark not in (0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE)
            and not 0xD0 <= mark <= 0xD7
            and not 0xE0 <= mark <= 0xEF
        ):
            return f"damaged: the mark 0x{mark:02x} stands within its pixels"
    return "cut short: it has no end mark"


@lru_cache(maxsize=1)
def simplejpeg() -> Any:
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module("simplejpeg")
    except ModuleNotFoundError:
        return None
