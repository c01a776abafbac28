"""Columns that are neither numbers nor texts: pictures and other bytes, lists, objects."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.errors import MissingPackage
from penstock.formats.pictures import BadPicture, looks_like_picture, pillow, spread

_SIZES = 10_000
_HASHED = 1 << 18
"""Pictures that are held against each other: some 250 bytes each."""
SMALL_SIDE = 64
_DARK = 255 / 6
_ALIKE = 4.0
"""Grey levels of 255 by which 8 × 8 points of near duplicates differ at most (root of the mean square):
things of one shape on a white ground have the same difference hash and are no copies.
"""
_NEAR = 2
"""Bits of 64 in which the hashes of near duplicates differ at most."""
_AHEAD = 16
"""Neighbours that are compared: things of one shape stand between near duplicates."""
_BANDS = 8
"""A near pair shares at least one of eight bytes in all but few cases."""
_MOST_PIXELS = 64 << 20


class Pictures:
    """Pictures of one column: sizes, channels, what cannot be read, and equal and nearly equal ones."""

    def __init__(self) -> None:
        self.count = self.missing = self.unread = self.not_pictures = 0
        self._sizes: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self._bytes = 0
        self._exact: list[int] = []
        self._looks: list[int] = []
        self._small: list[bytes] = []
        self.dark = self.small_jpeg = 0

    def update(self, column: pa.Array) -> None:
        """Take a batch of bytes, or of objects that have `bytes`."""
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        self.missing += column.null_count
        values = [value for value in column.to_pylist() if value is not None]
        self.count += len(values)
        self._bytes += sum(map(len, values))
        for picture in spread(_seen, values):
            if picture is None:
                self.unread += 1
                continue
            size, mode, exact, look, small, is_small_jpeg = picture
            self.dark += sum(small) < _DARK * len(small) if small else 0
            self.small_jpeg += is_small_jpeg
            if len(self._sizes) < _SIZES or size in self._sizes:
                self._sizes[size] += 1
            self._modes[mode] += 1
            if len(self._exact) < _HASHED:
                self._exact.append(exact)
                self._looks.append(look)
                self._small.append(small)

    def merge(self, other: Pictures) -> None:
        """Add what `other` has measured."""
        self.count += other.count
        self.missing += other.missing
        self.unread += other.unread
        self._sizes.update(other._sizes)
        self._modes.update(other._modes)
        self._bytes += other._bytes
        self._exact += other._exact
        self._looks += other._looks
        self._small += other._small
        self.dark += other.dark
        self.small_jpeg += other.small_jpeg

    def result(self) -> dict[str, Any]:
        """Plain data."""
        exact, near = equal_pictures(self._exact, self._looks, self._small)
        return {
            "sizes": [[size, n] for size, n in self._sizes.most_common(20)],
            "different_sizes": len(self._sizes),
            "channels": dict(self._modes.most_common()),
            "unread": self.unread,
            "dark": self.dark,
            "small_jpeg": self.small_jpeg,
            "bytes": self._bytes,
            "equal": exact,
            "nearly_equal": near,
        }


def _seen(data: bytes) -> tuple[str, str, int, int, bytes, bool] | None:
    """Size, mode, a hash of the bytes and one of the look, 8 × 8 greys, and whether it is a small JPEG; None
    of what is no picture that can be read.
    """
    if not looks_like_picture(data):
        return None
    exact = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    try:
        with pillow().open(io.BytesIO(data)) as image:
            if image.width * image.height > _MOST_PIXELS:
                size = f"{image.width} × {image.height}"
                return size, str(image.mode), exact, exact, b"", False
            size, mode = f"{image.width} × {image.height}", str(image.mode)
            is_small = image.format == "JPEG" and max(image.size) <= SMALL_SIDE
            image.draft("L", (64, 64))
            plain = image.convert("L")
            grey = np.asarray(plain.resize((9, 8)), np.int16)
            greys = plain.resize((8, 8), pillow().Resampling.BOX).tobytes()
    except (BadPicture, OSError, ValueError, SyntaxError):
        return None
    # dHash (Krawetz 2013): whether each of 8 × 8 points is brighter than its left neighbour.
    bits = np.packbits((grey[:, 1:] > grey[:, :-1]).ravel())
    return size, mode, exact, int.from_bytes(bits.tobytes(), "big"), greys, is_small


def can_open() -> bool:
    """Whether Pillow is there to read pictures."""
    try:
        pillow()
    except MissingPackage:
        return False
    return True


def equal_pictures(
    exact: list[int], looks: list[int], greys: list[bytes]
) -> tuple[int, int]:
    """How many pictures equal an earlier one in every byte, and how many others look like an earlier one.

    Args:
        exact: a hash of each picture's bytes.
        looks: its difference hash, 64 bits; a flat picture (all bits zero) is like no other.
        greys: its 64 greys, by which a near hash is looked at again; empty where there are none.
    """
    first = dict(zip(reversed(exact), reversed(range(len(exact))), strict=True))
    places = sorted(first.values())
    same = len(exact) - len(places)
    hashes = np.array([looks[i] for i in places], np.uint64)
    points = np.frombuffer(b"".join(greys[i] or bytes(64) for i in places), np.uint8)
    points = points.reshape(len(places), 64)
    near: set[int] = set()
    for band in range(_BANDS):
        near |= _near_within(hashes, points, band)
    return same, len(near)


def _near_within(hashes: np.ndarray, points: np.ndarray, band: int) -> set[int]:
    """Pictures near an earlier one with the same byte of the hash; neighbours by hash are compared."""
    near: set[int] = set()
    # Sorted by the whole hash turned so that the shared byte leads.
    turned = np.lexsort((hashes, (hashes >> np.uint64(8 * band)) & np.uint64(0xFF)))
    for ahead in range(1, min(_AHEAD, len(turned) - 1) + 1):
        first, second = turned[:-ahead], turned[ahead:]
        a, b = hashes[first], hashes[second]
        hit = np.flatnonzero((np.bitwise_count(a ^ b) <= _NEAR) & (a != 0) & (b != 0))
        first, second = first[hit], second[hit]
        apart = points[first].astype(np.float32) - points[second]
        hit = np.sqrt((apart * apart).mean(1)) <= _ALIKE
        near |= set(np.maximum(first, second)[hit].tolist())
    return near


class Lengths:
    """Lists of one column: how long they are."""

    def __init__(self) -> None:
        self.count = self.missing = self.empty = self.items = 0
        self.shortest, self.longest = 2**62, 0

    def update(self, column: pa.Array) -> None:
        """Take a batch."""
        self.missing += column.null_count
        lengths = np.asarray(pc.list_value_length(column.drop_null()), np.int64)
        self.count += len(lengths)
        if len(lengths):
            self.empty += int((lengths == 0).sum())
            self.items += int(lengths.sum())
            self.shortest = min(self.shortest, int(lengths.min()))
            self.longest = max(self.longest, int(lengths.max()))

    def merge(self, other: Lengths) -> None:
        """Add what `other` has measured."""
        self.count += other.count
        self.missing += other.missing
        self.empty += other.empty
        self.items += other.items
        self.shortest = min(self.shortest, other.shortest)
        self.longest = max(self.longest, other.longest)

    def result(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "items": {
                "min": self.shortest if self.count else 0,
                "mean": round(self.items / max(self.count, 1), 3),
                "max": self.longest,
                "empty": self.empty,
            }
        }


class Present:
    """A column of which only what is missing is counted: objects, and bytes that are no pictures."""

    def __init__(self) -> None:
        self.count = self.missing = 0

    def update(self, column: pa.Array) -> None:
        """Take a batch."""
        self.missing += column.null_count
        self.count += len(column) - column.null_count

    def merge(self, other: Present) -> None:
        """Add what `other` has measured."""
        self.count += other.count
        self.missing += other.missing

    def result(self) -> dict[str, Any]:
        """Nothing more is known."""
        return {}
