"""Chance as a pure function of a key: what augmentations and orders are made of.

A row's key (uint64) decides all that happens to it, so the same row is changed alike in whatever batch,
thread or process it is drawn, and a resumed run sees what it would have seen. splitmix64 (Steele, Lea and
Flood 2014), on whole columns.
"""

from __future__ import annotations

import numpy as np

# 2^64 over the golden ratio: splitmix64's step.
_GOLDEN = 0x9E3779B97F4A7C15


def mix(values: np.ndarray) -> np.ndarray:
    """A bijection of uint64 in which every bit of the input moves every bit of the output."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def salted(keys: np.ndarray, salt: int) -> np.ndarray:
    """Other keys `[n]` from the same ones: what two consumers of one key use must not be the same chance."""
    # salt + 1, since a salt of 0 would leave the keys as they are before mixing.
    return mix(np.asarray(keys, np.uint64) + np.uint64((salt + 1) * _GOLDEN % 2**64))


def uniform(keys: np.ndarray, draws: int) -> np.ndarray:
    """`draws` numbers in [0, 1) for each key: float64 `[n, draws]`."""
    steps = np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    bits = mix(np.asarray(keys, np.uint64)[:, None] + steps[None, :])
    # The upper 53 bits are what a double in [0, 1) can hold.
    numbers: np.ndarray = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
