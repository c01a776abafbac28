"""Contiguous: pieces of several files as one array, without a copy.

The matrices of a split lie in many shards. Gathering a shuffled batch shard by shard costs a sort, a call a
shard and a second copy of every row, about as much again as the gather itself. But the system can lay pages
of different files side by side in memory: a run of addresses is reserved, and each piece is mapped into its
place of it. Then the matrix of a split is one array, and a batch one `take`.

Pages can only be laid whole: all pieces but the last must begin at a page of their file and be whole pages
(`ShardWriter` writes them so). The last piece, of fewer rows, is copied into memory if it begins elsewhere:
no more than one shard. Where pieces do not lie so (older feeds, other page sizes, systems without mmap),
`mmap_concat` says None, and shards are gathered one by one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PAGE_BYTES = 4096
"""What shards are aligned to: the page of every common system but some ARM ones, which gather shard by
shard.
"""
# Numbers of the system's own headers; they are the same on Linux and macOS, but for
# one.
_NOTHING, _READ, _WRITE = 0, 1, 2
_SHARED, _PRIVATE, _FIXED = 0x01, 0x02, 0x10
_ANONYMOUS = 0x1000 if sys.platform == "darwin" else 0x20
_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class Piece:
    """A run of bytes in a file."""

    file: str
    offset: int
    size_bytes: int


class _Run:
    """Mapped addresses, for as long as an array looks at them."""

    def __init__(
        self, address: int, size: int, dtype: np.dtype, shape: tuple[int, ...], free: Any
    ) -> None:
        self.__array_interface__ = {
            "version": 3,
            # True: the memory is read-only.
            "data": (address, True),
            "shape": shape,
            "typestr": dtype.str,
        }
        # The addresses go when no array looks at them: numpy keeps this object as the
        # base of every view.
        self._finalizer = weakref.finalize(self, free, address, size)


def mmap_concat(
    pieces: Sequence[Piece], dtype: np.dtype, width: int
) -> np.ndarray | None:
    """The pieces, one after another, as one matrix `[rows, width]` that may not be written to.

    Args:
        pieces: each of whole rows.

    Returns:
        None where this system, or how the pieces lie, does not allow it.
    """
    if (
        not pieces
        or sys.platform not in ("linux", "darwin")
        # Addresses of 32 bits have no room for a split.
        or ctypes.sizeof(ctypes.c_void_p) != 8
    ):
        return None
    page = mmap.ALLOCATIONGRANULARITY
    # The last piece may end anywhere: nothing follows it.
    if any(piece.offset % page or piece.size_bytes % page for piece in pieces[:-1]):
        return None
    total = sum(piece.size_bytes for piece in pieces)
    # Rows are whole, or the layout and the file disagree.
    if not total or total % (dtype.itemsize * width):
        return None
    libc = _libc()
    # Room for all of it is reserved first, so that nothing else is laid between the pieces.
    start = libc.mmap(None, total, _NOTHING, _PRIVATE | _ANONYMOUS, -1, 0)
    # Too little address space, as under a limit: shards are then gathered one by one.
    if start in (None, _FAILED):
        return None
    # From here on the run frees itself, also when a piece cannot be laid.
    run = _Run(
        start, total, dtype, (total // (dtype.itemsize * width), width), libc.munmap
    )
    at = start
    for piece in pieces:
        handle = os.open(piece.file, os.O_RDONLY)
        try:
            # Pages beyond a file's end would end the process when they are read.
            if os.fstat(handle).st_size < piece.offset + piece.size_bytes:
                return None  # torn: whoever opens it the usual way says so
            if not _lay(libc, handle, piece, at):
                return None
        finally:
            # A mapping outlives its handle.
            os.close(handle)
        at += piece.size_bytes
    return np.asarray(run)


def _libc() -> Any:
    """The C library's mmap and munmap; Python's own mmap takes no address."""
    libc = ctypes.CDLL(None, use_errno=True)
    size, number = ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = ctypes.c_void_p
    # Sizes and offsets of 64 bits: by default ctypes would cut them to an int.
    libc.mmap.argtypes = [ctypes.c_void_p, size, number, number, number, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, size]
    return libc


def _lay(libc: Any, handle: int, piece: Piece, address: int) -> bool:
    """Put a piece at an address, mapped where it begins at a page of its file, else copied; False if the
    system refuses.
    """
    size = piece.size_bytes
    # Only the last piece may come here.
    if piece.offset % mmap.ALLOCATIONGRANULARITY:
        flags = _PRIVATE | _ANONYMOUS | _FIXED
        if libc.mmap(address, size, _READ | _WRITE, flags, -1, 0) != address:
            return False
        _copy(handle, piece, address)
        return True
    return (
        not size
        # Shared and read-only: all processes of a machine look at the same pages of the
        # cache.
        or libc.mmap(address, size, _READ, _SHARED | _FIXED, handle, piece.offset)
        == address
    )


def _copy(handle: int, piece: Piece, address: int) -> None:
    into = memoryview((ctypes.c_char * piece.size_bytes).from_address(address)).cast("B")
    done = 0
    # A read may give fewer bytes than were asked for.
    while done < piece.size_bytes:
        done += os.preadv(handle, [into[done:]], piece.offset + done)
