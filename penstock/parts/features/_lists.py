"""Columns of lists as flat arrays and lengths, and columns of numbers as numpy has them: what features share.

Every feature of lists works in the same way: all items one after another in one array, since Arrow and numpy
are quick there, and beside it how many items each row has, from which owners and offsets follow.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists, in whichever of Arrow's layouts."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
    )


def lengths(column: pa.Array) -> np.ndarray:
    """How many items each row has, int64 `[n]`; 0 for a null."""
    # A null has no length, and a null among numbers would make numpy's array one of doubles.
    return np.asarray(
        pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False),
        np.int64,
    )


def items(column: pa.Array, rows: np.ndarray) -> pa.Array:
    """The items of the rows where `rows` (bool `[n]`), one after another."""
    # Filtered first: `list_flatten` leaves nulls out, but not rows that are refused for another reason.
    return pc.list_flatten(column.filter(pa.array(rows)))


def doubles(column: pa.Array) -> np.ndarray:
    """Numbers as float64 `[n]`; NaN for a null."""
    return np.asarray(
        pc.fill_null(column, float("nan")).to_numpy(zero_copy_only=False), np.float64
    )


def in_lists_of(flat: pa.Array, size: int) -> pa.Array:
    """`flat` `[n · size]` as a column `[n]` of lists of `size` items."""
    offsets = np.arange(len(flat) // size + 1, dtype=np.int64) * size
    # Offsets are 32-bit: beyond 2^31 items the cast raises rather than wrap round.
    return pa.ListArray.from_arrays(pa.array(offsets).cast(pa.int32()), flat)
