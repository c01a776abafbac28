"""Packed bytes → bytes: gzip, bzip2, xz and Zstandard, of one stream or several, each whole.

gzip, bzip2 and xz are read here: libraries take whatever follows the last stream for rubbish and say nothing
(bzip2, xz), or take even the zeros for rubbish that tapes and block devices pad a file with (gzip in Arrow).
Zeros behind the last stream of gzip or xz are padding, as their own tools read them; anything else behind it
may be a stream whose beginning is damaged, and is refused.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa

_PACKED_BYTES = 1 << 16
_GZIP_WINDOW = 31
"""For zlib: the largest window, in gzip's own wrapping."""
_PADDED = ("gzip", "xz")


class _Gzip:
    """A gzip stream with the interface that the decompressors of bz2 and lzma have."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_WINDOW)
        self._rest = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, packed: bytes, size: int) -> bytes:
        unpacked = self._stream.decompress(self._rest + packed, size)
        self._rest = self._stream.unconsumed_tail
        # zlib may hold output back that did not fit, though it took all of the input
        self.needs_input = not self._rest and len(unpacked) < size
        return unpacked


_STREAMS: dict[str, Callable[[], Any]] = {
    "gzip": _Gzip,
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
}


class Unpacked:
    """The unpacked bytes of a file of gzip, bzip2 or xz, read forward."""

    def __init__(self, raw: BinaryIO, packing: str) -> None:
        self._raw = raw
        self._packing = packing
        self._new = _STREAMS[packing]
        self._is_padded = packing in _PADDED
        self._stream: Any = self._new()
        self._packed = b""
        self._ended = False
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end; all that are left, where `size` is negative.

        Raises:
            OSError: a stream is cut short or damaged, or bytes follow the last one that are none.
        """
        pieces, left = [], size
        # Where all is asked for, `left` stays below zero, and so true.
        while left and (piece := self._piece(left if size >= 0 else 1 << 20)):
            pieces.append(piece)
            left -= len(piece) if size >= 0 else 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        """Some bytes, at most `size`; none only at the end."""
        while not self._ended:
            # Streams may be joined end to end, as `cat` joins files.
            if self._stream.eof:
                self._next()
                continue
            if self._stream.needs_input and not self._packed:
                self._packed = self._raw.read(_PACKED_BYTES)
                if not self._packed:
                    raise OSError(
                        f"{self._packing} cannot be decompressed: it ends before its end mark"
                    )
            # Handed over once: the stream keeps what it has not used.
            packed, self._packed = self._packed, b""
            try:
                unpacked = self._stream.decompress(packed, size)
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
                raise OSError(
                    f"{self._packing} cannot be decompressed: {error}"
                ) from None
            if unpacked:
                return bytes(unpacked)
        return b""

    def _next(self) -> None:
        """Go on to the stream behind the one that ended, if there is one; there may be
        padding between them.
        """
        rest = self._stream.unused_data or self._raw.read(_PACKED_BYTES)
        while self._is_padded and rest and not rest.strip(b"\0"):
            rest = self._raw.read(_PACKED_BYTES)
        # Padding may end within these bytes, where the next stream begins.
        self._packed = rest.lstrip(b"\0") if self._is_padded else rest
        self._ended = not rest
        self._stream = self._new()

    # Arrow asks these of a file.

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def writable(self) -> bool:
        """Return False: it is only read."""
        return False

    def seekable(self) -> bool:
        """Return False: it is read forward only."""
        return False

    def close(self) -> None:
        """Close the packed file as well."""
        self.closed = True
        self._stream, self._packed, self._ended = self._new(), b"", True
        self._raw.close()

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def unpacked(raw: BinaryIO, packing: str) -> Any:
    """A stream of the unpacked bytes; closing it closes `raw`.

    Args:
        packing: `gzip`, `bz2`, `xz` or `zstd`.
    """
    if packing in _STREAMS:
        return Unpacked(raw, packing)
    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), packing)
