"""Lists of numbers and windows of series as plain columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.encode.encoding import Encoding

LONGEST = 4_096
"""Numbers of a list that are read."""


def is_spread(kind: pa.DataType) -> bool:
    """Whether a column holds lists of numbers."""
    is_list = (
        pa.types.is_fixed_size_list(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
    )
    return bool(
        is_list
        and (
            pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
        )
    )


def spread_out(
    encoding: Encoding, name: str, column: pa.Array, width: int | None = None
) -> np.ndarray:
    """Return lists of numbers as float64 `[N, D]`, NaN where there is nothing; a series has behind them each
    row's mean, deviation, and last value above the mean.

    Args:
        width: the columns that the training rows had; longer lists are cut.
    """
    is_series = encoding.inputs[name].type in ("series", "sequence")
    extra = 3 if is_series else 0
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)
    if width is None:
        width = extra + int(min(lengths.max(initial=0), LONGEST))
    block = np.full((len(column), width - extra), np.nan)
    flat = pc.cast(pc.list_flatten(column), pa.float64())
    values = np.asarray(pc.fill_null(flat, float("nan")), np.float64)
    parents = np.asarray(pc.list_parent_indices(column), np.int64)
    place = np.arange(len(values)) - (np.cumsum(lengths) - lengths)[parents]
    inside = place < block.shape[1]
    block[parents[inside], place[inside]] = values[inside]
    if not is_series:
        return block
    there = np.isfinite(block)
    count = np.maximum(there.sum(axis=1), 1)
    mean = np.where(there, block, 0).sum(axis=1) / count
    deviation = np.sqrt(
        np.where(there, (block - mean[:, None]) ** 2, 0).sum(axis=1) / count
    )
    last = (
        block[np.arange(len(block)), np.maximum(there.sum(axis=1) - 1, 0)]
        if width > extra
        else mean
    )
    return np.concatenate(
        [block, np.stack([mean, deviation, np.nan_to_num(last) - mean], axis=1)], axis=1
    )


def doubles(column: pa.Array) -> np.ndarray:
    """Return plain values as float64 `[N]`; NaN where they are missing."""
    if pa.types.is_temporal(column.type):
        column = pc.cast(column, pa.int64())
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    number = pc.cast(column, pa.float64(), safe=False)
    return np.asarray(pc.fill_null(number, float("nan")), np.float64)
