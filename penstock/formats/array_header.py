"""The header of an array that NumPy wrote: its type and shape, as literals; nothing is run or unpickled."""

from __future__ import annotations

import ast
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from penstock.core.errors import SourceError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 18
"""Bytes; structured arrays of thousands of fields have long ones."""
_MOST_AXES = 32
# By NumPy's kind of a type: what Arrow holds as well.
_KINDS = "biufUSM"
_WORDS = {"descr", "fortran_order", "shape"}


@dataclass(frozen=True)
class Header:
    """What an array's header says."""

    dtype: np.dtype
    shape: tuple[int, ...]
    is_fortran: bool
    size: int
    """Bytes of the header itself."""

    @property
    def rows(self) -> int:
        """Along the first axis."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        count = 1
        for side in self.shape[1:]:
            count *= side
        return count * self.dtype.itemsize


def read_header(stream: BinaryIO, what: str) -> Header:
    """Read the header that a stream begins with.

    Args:
        what: the array, as it is called in messages.

    Raises:
        SourceError: there is none, or it is damaged.
    """
    start = exactly(stream, 8)
    if len(start) < 8 or not start.startswith(_MAGIC) or start[6] not in (1, 2, 3):
        raise damaged(what, "it does not begin with a header of NumPy")
    width = "<H" if start[6] == 1 else "<I"
    field = exactly(stream, struct.calcsize(width))
    length = struct.unpack(width, field)[0] if len(field) == struct.calcsize(width) else 0
    if not 0 < length <= _LONGEST_HEADER:
        raise damaged(what, f"its header has {length:,} bytes")
    text = exactly(stream, length)
    if len(text) < length:
        raise damaged(what, "its header is cut short")
    dtype, shape, is_fortran = _parsed(text.decode("utf-8", "replace"), what)
    return Header(dtype, shape, is_fortran, 8 + len(field) + length)


def _parsed(text: str, what: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    try:
        words = ast.literal_eval(text.strip())
        if type(words) is not dict or set(words) != _WORDS:
            raise ValueError("it has not the three words that it must have")
        dtype = np.lib.format.descr_to_dtype(words["descr"])
    # A damaged literal fails in any way: too deep, no type, bytes that are no Python.
    except Exception as error:  # noqa: BLE001
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        raise damaged(what, f"its header cannot be read ({reason})") from None
    shape = words["shape"]
    if (
        type(shape) is not tuple
        or len(shape) > _MOST_AXES
        or any(type(side) is not int or not 0 <= side < 2**62 for side in shape)
    ):
        raise damaged(what, f"its shape is {str(shape)[:80]}")
    return dtype, shape, bool(words["fortran_order"])


def refuse_type(dtype: np.dtype, what: str) -> None:
    """Refuse a type whose values cannot be read. Raises SourceError."""
    if dtype.names is not None:
        for name in dtype.names:
            refuse_type(dtype.fields[name][0].base, f"{what}, field {name!r}")  # type: ignore[index]
        return
    if dtype.hasobject:
        raise SourceError(
            f"{what} holds Python objects, which are pickled: opening them may run code, so they are not"
            " read. Save numbers or texts instead: array.astype(float), or array.astype(str)."
        )
    if dtype.kind not in _KINDS or (dtype.itemsize > 8 and dtype.kind in "iuf"):
        raise SourceError(
            f"{what} has values of the type {dtype}, which no column has. Save it as one that has, for"
            " example by array.astype(float); of complex numbers, save array.real and array.imag."
        )


def exactly(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes of a stream, fewer only at its end."""
    pieces: list[bytes] = []
    while size and (piece := stream.read(min(size, 4 << 20))):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def damaged(what: str, how: str) -> SourceError:
    """The refusal of an array that is damaged."""
    return SourceError(f"{what} is damaged or cut short: {how}. Fetch or write it again.")
