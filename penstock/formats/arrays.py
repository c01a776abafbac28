"""NumPy's arrays as rows: the first axis of an array counts them.

    [N]                            a column of values
    [N, 1]                         the same
    [N, D]                         one column of vectors; in an `.npy` alone, one column for each of a few
    [N, H, W], [N, H, W, 1|3|4]    of uint8: a column of pictures, as PNG; [N, 1|3|4, H, W] as well
    structured                     a column for each field

Arrays are read in blocks, by their headers; before anything is held, the size that a header declares is
compared with what is there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from penstock.core.errors import SourceError
from penstock.formats.array_header import (
    Header,
    damaged,
    exactly,
    read_header,
    refuse_type,
)

_BLOCK_BYTES = 4 << 20
"""Of all arrays together, about what is read at once."""
_MOST_ROWS = 8_192
_MOST_SINGLE = 256
"""Columns of a matrix that are columns of the table; more are a vector."""
_LAST_CHARACTER, _NO_CHARACTER = 0x10FFFF, 0xDC80
_CHANNELS = (1, 3, 4)
_COLOURS = {1: 0, 3: 2, 4: 6}
"""PNG's words for grey, RGB and RGBA, by channels."""


class ArrayStream:
    """One array, read forward in blocks of rows."""

    def __init__(
        self, name: str, stream: BinaryIO, what: str, *, size: int | None, most_bytes: int
    ) -> None:
        """
        Args:
            name: of its column.
            what: the array, as it is called in messages.
            size: bytes of the stream, where they are known.
            most_bytes: what may be held at once, of an array that lies column by column.

        Raises:
            SourceError: it is damaged, or has values that are not read.
        """
        self.name, self._what, self._stream = name, what, stream
        self.header: Header = read_header(stream, what)
        refuse_type(self.header.dtype, what)
        self._shape = _row_shape(self.header, what)
        content = self.header.rows * self.header.row_bytes
        if size is not None and size != self.header.size + content:
            raise damaged(
                what,
                f"its header declares {content:,} bytes of values, and {size - self.header.size:,} follow",
            )
        # Rows of such an array lie scattered, so that it is held as a whole.
        self._is_whole = self.header.is_fortran and len(self.header.shape) > 1
        if self._is_whole and content > most_bytes:
            raise SourceError(
                f"{what} lies column by column (Fortran's order) and has {content:,} bytes, more than the"
                f" {most_bytes:,} that may be held at once. Save it as numpy.ascontiguousarray(array), or"
                " raise `resources.memory`."
            )
        self._held: np.ndarray | None = None
        self._place = 0

    @property
    def rows(self) -> int:
        """How many rows its header declares."""
        return self.header.rows

    def take(self, rows: int) -> np.ndarray:
        """The next rows, as `[rows, …]`.

        Raises:
            SourceError: the stream ends before them.
        """
        header, start = self.header, self._place
        self._place += rows
        if not self._is_whole:
            data = self._bytes(rows * header.row_bytes)
            return np.frombuffer(data, header.dtype).reshape(rows, *header.shape[1:])
        if self._held is None:
            flat = np.frombuffer(
                self._bytes(header.rows * header.row_bytes), header.dtype
            )
            self._held = flat.reshape(header.shape, order="F")
        return self._held[start : start + rows]

    def _bytes(self, size: int) -> bytes:
        data = exactly(self._stream, size)
        if len(data) < size:
            raise damaged(
                self._what, f"it ends {size - len(data):,} bytes before its last value"
            )
        return data

    def check_end(self) -> None:
        """Refuse bytes behind the last value; of a packed array, this compares its check sum.

        Raises:
            SourceError: there are some.
        """
        if self._stream.read(1):
            raise damaged(self._what, "more bytes follow its last value")

    def columns(
        self, rows: np.ndarray, *, is_alone: bool
    ) -> Iterator[tuple[str, pa.Array]]:
        """Rows of the array as columns with their names.

        Args:
            is_alone: no other array gives columns to the table.
        """
        names = self.header.dtype.names
        if names is not None:
            for name in names:
                yield name, _column(rows[name])
        elif len(self._shape) > 1:
            yield self.name, _pictures(rows.reshape(len(rows), *self.header.shape[1:]))
        elif not self._shape:
            yield self.name, _column(rows.reshape(len(rows)))
        elif is_alone and self._shape[0] <= _MOST_SINGLE:
            for i in range(self._shape[0]):
                yield f"{self.name}_{i + 1}", _column(rows[:, i])
        else:
            yield self.name, _column(rows)


def _row_shape(header: Header, what: str) -> tuple[int, ...]:
    """The shape of a row as a column has it: of a value, a vector or a picture.

    Raises:
        SourceError: it is none of them.
    """
    shape, dtype = header.shape, header.dtype
    if not shape:
        raise SourceError(f"{what} is a single value; its first axis must count rows.")
    inner = shape[1:]
    if not dtype.itemsize:
        raise SourceError(f"{what} has values of the type {dtype}, which have no bytes.")
    if dtype.names is not None:
        if inner:
            raise SourceError(
                f"{what} has records in {len(shape)} axes. Save it with one: array.reshape(-1)."
            )
        for name in dtype.names:
            if len(dtype.fields[name][0].shape) > 1:  # type: ignore[index]
                raise SourceError(
                    f"{what}: the field {name!r} is a matrix. Save it as an array of its own."
                )
        return ()
    if 0 in inner:
        raise SourceError(f"{what} has the shape {shape}: its rows have no values.")
    if inner in ((), (1,)):
        return ()
    if len(inner) == 1:
        return inner
    if dtype == np.uint8 and (
        len(inner) == 2
        or (len(inner) == 3 and (inner[2] in _CHANNELS or inner[0] in _CHANNELS))
    ):
        return inner
    raise SourceError(
        f"{what} has the shape {shape} and values of the type {dtype}. Read are [N], [N, D], and pictures:"
        " uint8 as [N, height, width] or [N, height, width, 1|3|4]. Pictures of other numbers: save"
        " (array * 255).astype('uint8') where they go from 0 to 1. Else: array.reshape(len(array), -1)."
    )


def _column(values: np.ndarray) -> pa.Array:
    """Values `[N]` or `[N, D]` as a column."""
    kind = values.dtype.kind
    if values.ndim == 2:
        flat = _column(np.ascontiguousarray(values).reshape(-1))
        # Within a vector, what is no number stays that.
        if kind == "f":
            flat = flat.fill_null(float("nan"))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    if kind == "f":
        # NumPy's way to say that a value is missing.
        values = values.astype(np.float64 if values.dtype.itemsize == 8 else np.float32)
        return pa.array(values, mask=np.isnan(values))
    if kind == "M":
        return _moments(values)
    if kind == "U":
        return _texts(values)
    if kind == "S":
        return pa.array(values.tolist(), pa.binary())
    return pa.array(values.astype(values.dtype.newbyteorder("=")))


def _texts(values: np.ndarray) -> pa.Array:
    """Texts; one with a number that is no character is no UTF-8, so that its row is a reject."""
    width = values.dtype.itemsize // 4
    native = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
    codes = native.view(np.uint32).reshape(len(values), width)
    codes = np.where(codes > _LAST_CHARACTER, _NO_CHARACTER, codes).astype(np.uint32)
    texts = [
        row.tobytes().decode("utf-32-le", "surrogatepass").rstrip("\0") for row in codes
    ]
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return pa.array(encoded, pa.binary()).view(pa.string())


def _moments(values: np.ndarray) -> pa.Array:
    unit = np.datetime_data(values.dtype)[0]
    if unit in ("Y", "M", "W", "D"):
        return pa.array(values.astype("datetime64[D]"))
    finer = unit in ("ps", "fs", "as", "generic")
    target = "ns" if finer or unit == "ns" else unit if unit in ("s", "ms", "us") else "s"
    return pa.array(values.astype(f"datetime64[{target}]"))


def _pictures(rows: np.ndarray) -> pa.Array:
    """Pictures `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]`, each as PNG."""
    if rows.ndim == 4 and rows.shape[3] not in _CHANNELS:
        rows = rows.transpose(0, 2, 3, 1)
    if rows.ndim == 3:
        rows = rows[..., None]
    return pa.array([png(np.ascontiguousarray(row)) for row in rows], pa.binary())


def png(pixels: np.ndarray) -> bytes:
    """Pixels, uint8 `[H, W, C]`, as a PNG, packed as fast as it goes."""
    height, width, channels = pixels.shape
    # Each line begins with the number of its filter: none.
    lines = np.zeros((height, 1 + width * channels), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">2I5B", width, height, 8, _COLOURS[channels], 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    )


def batches(arrays: list[ArrayStream], rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of arrays that have equally many, side by side.

    Raises:
        SourceError: an array is damaged.
    """
    width = sum(max(1, array.header.row_bytes) for array in arrays)
    step = max(1, min(_MOST_ROWS, _BLOCK_BYTES // width))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        columns = [
            column
            for array in arrays
            for column in array.columns(array.take(count), is_alone=len(arrays) == 1)
        ]
        yield pa.RecordBatch.from_arrays(
            [array for _, array in columns], names=[name for name, _ in columns]
        )
    for array in arrays:
        array.check_end()
