"""How many different values there are: exactly while they are few, then by HyperLogLog.

Flajolet, Fusy, Gandouet and Meunier 2007, with linear counting for the small range; 2^14 registers, so that
the standard error is 0.8 %. Hashes are 64 bits, and the order of rows changes nothing.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.formats.draw import keys_of

if TYPE_CHECKING:
    import duckdb

_EXACT = 65_536
"""Different hashes that are held as they are."""
_BITS = 14
_REGISTERS = 1 << _BITS


def number_hashes(values: np.ndarray) -> np.ndarray:
    """64 bits for each double `[N]`; -0.0 is 0.0."""
    return keys_of(1, (values.astype(np.float64) + 0.0).view(np.uint64))


@cache
def _session() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(config={"threads": 1})


def text_hashes(words: pa.Array) -> np.ndarray:
    """64 bits for each of some texts without nulls, by DuckDB's hash `[N]` uint64."""
    # A cursor of one session: columns are measured by several threads.
    with _session().cursor() as cursor:
        hashed = cursor.from_arrow(pa.table({"w": words})).project("hash(w) as h")
        return np.asarray(hashed.fetchnumpy()["h"], np.uint64)


def sorted_different(hashes: np.ndarray) -> np.ndarray:
    """The different ones of some hashes, sorted: of hashes a sort is several times faster than `np.unique`,
    which hashes them once more.
    """
    ordered = np.sort(hashes)
    is_first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


class Distinct:
    """Counts different values by their hashes."""

    def __init__(self) -> None:
        self._few: np.ndarray | None = np.empty(0, np.uint64)
        self._ranks = np.zeros(_REGISTERS, np.uint8)

    def add(self, hashes: np.ndarray) -> None:
        """Take the hashes of some values, which may come again `[N]` uint64."""
        if not len(hashes):
            return
        if self._few is not None:
            self._few = sorted_different(np.concatenate([self._few, hashes]))
            if len(self._few) <= _EXACT:
                return
            hashes, self._few = self._few, None
        register = (hashes >> np.uint64(64 - _BITS)).astype(np.int64)
        rest = hashes << np.uint64(_BITS) | np.uint64(1 << (_BITS - 1))
        # The place of the first one-bit: frexp gives the exponent of the leading bit.
        # A double may round up to the next power of two: hence the least.
        rank = np.maximum(65 - np.frexp(rest.astype(np.float64))[1], 1).astype(np.uint8)
        np.maximum.at(self._ranks, register, rank)

    def merge(self, other: Distinct) -> None:
        """Add what `other` has seen."""
        if other._few is not None:
            self.add(other._few)
            return
        if self._few is not None:
            few, self._few = self._few, None
            self._ranks = np.maximum(self._ranks, other._ranks)
            self.add(few)
            return
        self._ranks = np.maximum(self._ranks, other._ranks)

    @property
    def is_exact(self) -> bool:
        """Whether the count is no estimate."""
        return self._few is not None

    def count(self) -> int:
        """How many different values."""
        if self._few is not None:
            return len(self._few)
        alpha = 0.7213 / (1 + 1.079 / _REGISTERS)
        estimate = (
            alpha * _REGISTERS**2 / float(np.exp2(-self._ranks.astype(float)).sum())
        )
        empty = int((self._ranks == 0).sum())
        if estimate <= 2.5 * _REGISTERS and empty:
            estimate = _REGISTERS * float(np.log(_REGISTERS / empty))
        return round(estimate)
