"""Bytes → UTF-8: decompression, encodings, and what a file seems to be.

A `TextStream` gives UTF-8 bytes whatever the file holds. Bytes that the declared encoding does not know come
through as bytes that are not UTF-8, so that the row they are in is rejected, and no other.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import BinaryIO

from penstock.core.errors import SourceError
from penstock.formats.files import open_bytes
from penstock.formats.foreign import foreign
from penstock.formats.path_pattern import lacks_mark
from penstock.formats.places import plainly
from penstock.formats.shelf import (
    PACKED,
    by_looks,
    by_magic,
    ending,
    readers,
    unpacked_path,
)
from penstock.formats.unpack import unpacked

UNKNOWN_IN_CP1252 = frozenset((0x81, 0x8D, 0x8F, 0x90, 0x9D))
"""Bytes that are nothing in it."""
_NOT_C1 = bytes([*range(0x80), *range(0xA0, 0x100)])
"""All bytes but those of Latin-1's second row of control characters."""
_NOT_UTF8 = "\udc80"  # a lone surrogate: with "surrogatepass" it becomes three bytes that no UTF-8 has
_MARK = _NOT_UTF8.encode("utf-8", "surrogatepass")


def undecodable(text: bytes, at: int) -> str:
    """Why a row is rejected whose byte `at` is not UTF-8: a byte of the file's own, or what a `TextStream`
    put where the declared encoding knows none.
    """
    if text.startswith(_MARK, at):
        return (
            f"byte {at + 1} of it, or near that, is nothing in the declared `encoding`: name"
            " another, or auto"
        )
    return f"byte {at + 1} (0x{text[at]:02x}) is not UTF-8: the file may have another `encoding`"


_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
LONGEST_LINE = 64 << 20
"""Bytes. A longer line means that the file is no text table."""


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    # As many marks as bad bytes; reading goes on behind them.
    return _NOT_UTF8 * (error.end - error.start), error.end


codecs.register_error("penstock.mark", _mark)


def opened(url: str) -> BinaryIO:
    """The file's bytes, decompressed if its first bytes say it is gzip or Zstandard."""
    raw = open_bytes(url)
    with plainly(url):
        start = raw.read(512)
        raw.seek(0)
    magic = start[:4]
    packing = "gzip" if magic.startswith(_GZIP) else "zstd" if magic == _ZSTD else None
    if packing is None:
        # Plain text under a packed name is read as it is; bytes that are neither are
        # damage.
        if url.lower().endswith(PACKED) and _is_binary(start):
            raw.close()
            raise SourceError(
                f"{url} is damaged: its name says gzip or Zstandard, but its first bytes"
                f" ({magic!r}) are neither. Fetch it again."
            )
        return raw
    return unpacked(raw, packing)  # type: ignore[no-any-return]


def _is_cp1252(url: str, most_bytes: int | None) -> bool:
    """Whether a file that is not UTF-8 has bytes that are letters in cp1252, and control characters in
    Latin-1, which no text has (the euro sign is 0x80); all else is the same in both.
    """
    controls: set[int] = set()
    read = 0
    with opened(url) as stream:
        while (most_bytes is None or read < most_bytes) and (
            chunk := _read(stream, url, 1 << 20)
        ):
            read += len(chunk)
            controls.update(chunk.translate(None, _NOT_C1))
    return bool(controls) and not controls & UNKNOWN_IN_CP1252


def is_packed(url: str) -> bool:
    """Whether the file's first bytes say that it is gzip or Zstandard."""
    with open_bytes(url) as raw, plainly(url):
        return raw.read(4).startswith((_GZIP, _ZSTD))


def _is_binary(start: bytes) -> bool:
    """Whether bytes are neither text nor a table's beginning: there are control characters that no text
    has.
    """
    # Below 9 and from 14 to 31 are control characters that no text has; tabs and line
    # ends lie between.
    return any(byte < 9 or 13 < byte < 32 for byte in start) and not (
        by_magic(start) or start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    )


def head(url: str, size: int = 1 << 16) -> bytes:
    """The first bytes, decompressed."""
    with opened(url) as stream:
        return _read(stream, url, size)


def _read(stream: BinaryIO, url: str, size: int) -> bytes:
    try:
        with plainly(url):
            start = b""
            # A stream may give less than was asked for before it ends.
            while len(start) < size and (more := stream.read(size - len(start))):
                start += more
            return start
    except SourceError as error:
        # What comes of unpacking is known by its words alone.
        if (
            "ompress" in error.message
            or "zlib" in error.message.lower()
            or "zstd" in error.message.lower()
        ):
            raise SourceError(
                f"{url} is damaged: it ends early or cannot be unpacked"
                f" ({error.message.rsplit(': ', 1)[-1]}). Fetch it again."
            ) from None
        raise


def format_of(url: str) -> str:
    """The built-in format of a file: what its first bytes prove, else what its ending names, else what it
    looks like.

    Raises:
        SourceError: it is empty, or no table that can be read here.
    """
    start = head(url, 4096)
    if not start:
        raise SourceError(f"{url} is empty: it has no rows and no columns.")
    known = by_magic(start) or ending(url)
    if not known and (kind := foreign(unpacked_path(url), start)) is not None:
        raise SourceError(kind.sentence(url))
    known = known or by_looks(start)
    if known:
        return known
    # UTF-16 has a zero in every letter of English; nothing else that is text has many.
    if start.count(b"\0") * 10 > len(start) and not start.startswith(
        (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    ):
        raise SourceError(
            f"{url} is not text, and its first bytes match no known format"
            f" ({start[:8]!r}). Set `format` if it is one of {', '.join(readers())}."
        )
    return "csv"


def encoding_of(
    url: str, declared: str, say: Callable[[str], None], *, most_bytes: int | None = None
) -> str:
    """The encoding to read with; `auto` looks at the whole file, or at its first `most_bytes`."""
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if declared != "auto":
        start = head(url, 4)
        if start.startswith(marks) and codecs.lookup(declared).name == "utf-8":
            raise SourceError(
                f"{url} begins with the mark of UTF-16. Set `encoding: utf-16`."
            )
        if problem := lacks_mark(start, declared):
            raise SourceError(f"{url} {problem}.")
        return declared
    # In pieces, since a letter may be cut between two of them.
    decoder = codecs.getincrementaldecoder("utf-8")()
    with opened(url) as stream:
        chunk = _read(stream, url, 1 << 20)
        if chunk.startswith(marks):
            return "utf-16"
        try:
            looked_at = 0
            while chunk:
                decoder.decode(chunk)
                looked_at += len(chunk)
                if most_bytes is not None and looked_at >= most_bytes:
                    return "utf-8"
                chunk = _read(stream, url, 1 << 20)
            # A file that ends within a letter is not UTF-8 either.
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            if _is_cp1252(url, most_bytes):
                say(
                    "is not UTF-8; read as cp1252, in which Windows writes. If letters look wrong, set"
                    " `encoding`."
                )
                return "cp1252"
            say(
                "is not UTF-8 and is read as Latin-1, which accepts every byte. If letters"
                " look wrong, set `encoding`, for example cp1252."
            )
            return "latin-1"
    return "utf-8"


_BLANKS = re.compile(rb"[ \t]+")
_BLANKS_OR_QUOTED = re.compile(rb'"[^"\n]*"|[ \t]+')
_AT_LINE_ENDS = re.compile(rb"\t+(?=\r?(?:\n|\Z))|(?:(?<=\n)|\A)\t+")


def collapsed(text: bytes) -> bytes:
    """Whole lines with a tab for each run of blanks between cells, and none around a line; blanks within
    double quotes stay.
    """
    if b'"' in text:
        tabbed = _BLANKS_OR_QUOTED.sub(
            lambda match: match[0] if match[0][:1] == b'"' else b"\t", text
        )
    else:
        tabbed = _BLANKS.sub(b"\t", text)
    return _AT_LINE_ENDS.sub(b"", tabbed)


class TextStream:
    """The text of a file as UTF-8 bytes, without a byte-order mark, in blocks.

    Args:
        spaces: cells are separated by runs of blanks; each becomes a tab.
    """

    def __init__(self, url: str, encoding: str, *, spaces: bool = False) -> None:
        self.url = url
        self._spaces = spaces
        self._held = b""
        self._stream = opened(url)
        # UTF-8 is passed on as it is, faults and all: each row is judged by itself.
        self._decoder = (
            None
            if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
            else codecs.getincrementaldecoder(encoding)("penstock.mark")
        )
        self._encoding = encoding
        self._begun = False

    def read(self, size: int) -> bytes:
        """About `size` bytes; none only at the end."""
        if not self._spaces:
            return self._read(size)
        # In whole lines, since a run of blanks may lie across two blocks.
        while more := self._read(size):
            lines, end, rest = (self._held + more).rpartition(b"\n")
            self._held = rest
            if end:
                return collapsed(lines + end)
            if len(rest) > LONGEST_LINE:
                break
        text, self._held = self._held, b""
        return collapsed(text)

    def _read(self, size: int) -> bytes:
        # Half a letter may give nothing yet; only a read of nothing is the end.
        while True:
            chunk = _read(self._stream, self.url, size)
            if self._decoder is None:
                text = chunk
            else:
                # Lets the marks through, as bytes that are no UTF-8.
                text = self._decoder.decode(chunk, final=not chunk).encode(
                    "utf-8", "surrogatepass"
                )
            if text and not self._begun:
                self._begun = True
                text = text.removeprefix(codecs.BOM_UTF8)
            if text or not chunk:
                return text

    def close(self) -> None:
        """Close the stream of bytes below."""
        self._stream.close()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()
