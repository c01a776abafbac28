"""Summary: what can be learnt from a column by `update`, `merge`, `result`; associative and free of order.

So one core equals a thousand, DuckDB equals Spark, and a stream can go on where a batch left off. The same
bricks serve validation, fitting, profiles, metrics and drift.

Exactness. Sums are kept as one integer with a binary exponent (Kulisch 1971, in numpy): every double is split
into a signed 53-bit integer and an exponent, and integers add without rounding; so the sum does not depend on
the order of rows, and is rounded once. Quantiles come from a bottom-k sample: the k rows with the smallest
md5 of their row id (a uniform sample without replacement whatever the partition), so they too are the same
everywhere.
"""

from __future__ import annotations

import binascii
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.value_counts import MOST_BYTES, BottomK, Counts
from penstock.core.errors import ContractError


class Summary(ABC):
    """A mergeable summary of one column.

    Laws: `merge` is associative and commutative; halves merged equal the whole.
    """

    @abstractmethod
    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        """Take in a batch.

        Args:
            column: canonical values `[n]`; nulls are missing values. Text may come with a dictionary, if the
                feature's `accept` gives it so.
            row_ids: md5 of each row's id, 32 hexadecimal digits, `[n]`, without nulls; or `sample_keys` of
                them, for those who update many summaries with the same rows.
        """

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in all that `other` has seen. `other` must have seen other rows."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """What was learnt, as plain data (JSON)."""


Binary = tuple[int, int]
"""An integer and the exponent of two that it is multiplied by: any double, and any sum of doubles,
exactly.
"""
NOTHING: Binary = (0, 0)


def plus(one: Binary, other: Binary) -> Binary:
    """The exact sum: one integer, no wider than from the largest double to the last place of the smallest
    (some 2,100 bits), however many are added.
    """
    # Brought to the smaller exponent, since shifting left loses nothing.
    (a, low), (b, high) = (one, other) if one[1] <= other[1] else (other, one)
    # A zero says nothing about scale.
    if not a:
        return b, high
    return (a + (b << (high - low)), low) if b else (a, low)


def fraction(total: Binary) -> Fraction:
    """The exact value of an integer times a power of two."""
    return Fraction(total[0]) * Fraction(2) ** total[1]


class ExactSum:
    """The exact sum of doubles, rounded once when asked for."""

    def __init__(self) -> None:
        self._total = NOTHING

    def add(self, values: np.ndarray) -> None:
        """Add finite doubles `[n]`."""
        # `_add` is exact for 2^24 values at a time.
        for start in range(0, len(values), 1 << 24):
            mantissa, exponent = np.frexp(values[start : start + (1 << 24)])
            self._add(mantissa, exponent)

    def add_squares(self, values: np.ndarray) -> None:
        """Add the squares of finite doubles `[n]`, exactly: each mantissa's square is two doubles (Dekker
        1971), its exponent doubles.
        """
        for start in range(0, len(values), 1 << 24):
            mantissa, exponent = np.frexp(values[start : start + (1 << 24)])
            # Veltkamp's splitting: 2^27 + 1 parts a 53-bit mantissa into two halves
            # whose products are exact.
            large = mantissa * 134217729.0
            high = large - (large - mantissa)
            low = mantissa - high
            # The rounded square, then what rounding took from it; their sum is the
            # square exactly.
            square = mantissa * mantissa
            for part in (square, ((high * high - square) + 2 * high * low) + low * low):
                # A part's own exponent on top of twice the value's.
                finer, more = np.frexp(part)
                self._add(finer, more + 2 * exponent)

    def _add(self, mantissa: np.ndarray, exponent: np.ndarray) -> None:
        """Add mantissa · 2^exponent; at most 2^24 of them."""
        if not len(mantissa):
            return
        # |mantissa| < 1 with 53 bits: times 2^53 it is whole.
        whole = np.ldexp(mantissa, 53).astype(np.int64)
        # Two halves, of 27 and 26 bits: sums of 2^24 of either stay below 2^53.
        high, low = whole >> 26, whole & ((1 << 26) - 1)
        base = int(exponent.min())
        # One slot an exponent, since equal exponents add without a shift.
        slot = (exponent - base).astype(np.int64)
        highs = np.bincount(
            slot, weights=high.astype(np.float64)
        )  # exact: |high| ≤ 2^27 over 2^24 rows
        lows = np.bincount(slot, weights=low.astype(np.float64))
        # Few of the slots hold anything.
        for i in np.flatnonzero((highs != 0) | (lows != 0)):
            self._total = plus(
                self._total, ((int(highs[i]) << 26) + int(lows[i]), base + int(i) - 53)
            )

    def merge(self, other: ExactSum) -> None:
        """Add what `other` has summed. The order of merges does not matter."""
        self._total = plus(self._total, other._total)

    def fraction(self) -> Fraction:
        """The sum as an exact fraction; nothing is rounded."""
        return fraction(self._total)

    def __float__(self) -> float:
        return _rounded(self.fraction())


class Moments(Summary):
    """Count, missing, least, greatest, mean and population deviation of a column of doubles.

    The deviation is taken about a fixed origin (zero) from the exact sums of x and of x², and rounded at the
    end, so that it is right even where the mean dwarfs it (times, identifiers) or squares are no doubles, and
    equal on every engine.
    """

    def __init__(self) -> None:
        self.count = self.missing = 0
        self.min, self.max = float("inf"), float("-inf")
        self._sum, self._squares = ExactSum(), ExactSum()

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        values = doubles(column)
        self.missing += len(column) - len(values)
        self.count += len(values)
        if len(values):
            # + 0.0: of -0.0 and 0.0 whichever came first would win.
            self.min, self.max = (
                min(self.min, float(values.min()) + 0.0),
                max(self.max, float(values.max()) + 0.0),
            )
            self._sum.add(values)
            self._squares.add_squares(values)

    def merge(self, other: Moments) -> None:
        self.count += other.count
        self.missing += other.missing
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        self._sum.merge(other._sum)
        self._squares.merge(other._squares)

    def result(self) -> dict[str, Any]:
        if not self.count:
            return {
                "count": 0,
                "missing": self.missing,
                "min": None,
                "max": None,
                "mean": None,
                "std": None,
            }
        # In fractions: nothing cancels, even where the mean dwarfs the deviation.
        mean = self._sum.fraction() / self.count
        variance = max(self._squares.fraction() / self.count - mean * mean, Fraction(0))
        return {
            "count": self.count,
            "missing": self.missing,
            "min": self.min,
            "max": self.max,
            "mean": float(mean),
            "std": _root(variance),
        }


class Quantiles(Summary):
    """Quantiles from the `size` rows with the smallest row ids (Cohen and Kaplan 2007, bottom-k sketch).

    With size k the rank error is about √(q(1-q)/k): 0.35 % at the median for the default of 20,000.
    """

    def __init__(self, *, size: int = 20_000) -> None:
        self.size = size
        self.count = 0
        self._sample = BottomK(size)

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        present = present_numbers(column)
        # safe=False: whole numbers above 2^53 take the nearest double.
        values = pc.cast(column.filter(present), pa.float64(), safe=False)
        self.count += len(values)
        # Keys and values are of the same rows: those with a finite number.
        self._sample.add(sample_keys(row_ids.filter(present)), values)

    def merge(self, other: Quantiles) -> None:
        self.count += other.count
        self._sample.merge(other._sample)

    def values(self) -> np.ndarray:
        """The sampled values, ascending."""
        sample = self._sample.values()
        return np.empty(0, np.float64) if sample is None else np.sort(np.asarray(sample))

    def quantiles(self, at: np.ndarray) -> list[float]:
        """The values below which a share `at` of the sample lies (linear interpolation)."""
        values = self.values()
        return [float(v) for v in interpolated(values, at)] if len(values) else []

    def result(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "sampled": len(self.values()),
            # Each hundredth, the least and the greatest included.
            "quantiles": self.quantiles(np.linspace(0, 1, 101)),
        }


class Frequencies(Summary):
    """How often each value occurs.

    Exact; beyond `limit` distinct values, or `most_bytes` of their text, it keeps a bottom-k sample of rows
    instead.

    Past the limit, the counts are those of the sample scaled up, and `exact` is false.
    """

    def __init__(
        self, *, limit: int = 1_000_000, size: int = 200_000, most_bytes: int = MOST_BYTES
    ) -> None:
        self.limit, self.size, self.most_bytes = limit, size, most_bytes
        self.count = self.missing = 0
        self._counts: Counts | None = Counts(limit, most_bytes)
        self._sample = BottomK(size, most_bytes)

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        present = column.is_valid()
        values = column.filter(present)
        self.missing += len(column) - len(values)
        self.count += len(values)
        # One dictionary serves the counts and the sample.
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = values.dictionary_encode()
        if len(values):
            self._counted(_counted(values))
        self._sample.add(sample_keys(row_ids.filter(present)), values)

    def _counted(self, pairs: Iterable[tuple[Any, int]]) -> None:
        # Past the limit, exact counts are given up for good and the sample answers.
        if self._counts is not None and not self._counts.add(pairs):
            self._counts = None

    def merge(self, other: Frequencies) -> None:
        self.count += other.count
        self.missing += other.missing
        # If either side is past the limit, so is the whole.
        if other._counts is None:
            self._counts = None
        else:
            self._counted(other._counts.by_value.items())
        self._sample.merge(other._sample)

    def result(self) -> dict[str, Any]:
        """`values` as `[value, count]` pairs, commonest first, ties by value.

        Raises:
            ContractError: one value alone is larger than what is kept of all.
        """
        if self._counts is not None:
            counts, exact = self._counts.by_value, True
        else:
            sample = self._sample.values()
            if sample is None:
                raise ContractError(
                    f"has more than {self.most_bytes / 2**20:,.0f} MiB of different values in"
                    " one row, too many to count. Declare `type: text` if it is text, or leave it"
                    " out"
                )
            # Neither `count` nor the sample has nulls.
            scale = self.count / len(sample)
            counts = {
                # What was seen occurs at least once, however the scale rounds.
                entry["values"]: max(1, round(entry["counts"] * scale))
                for entry in pc.value_counts(sample).to_pylist()
            }
            exact = False
        # Ties by spelling: values of one column may be of types that do not compare.
        pairs = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
        return {
            "count": self.count,
            "missing": self.missing,
            "distinct": len(pairs),
            "exact": exact,
            "values": [list(pair) for pair in pairs],
        }


def _counted(values: pa.Array) -> list[tuple[Any, int]]:
    """Values with how often each occurs (a value may come twice); without nulls."""
    if isinstance(values, pa.DictionaryArray):
        # A dictionary may have words that no row uses.
        counts = np.bincount(
            np.asarray(values.indices.cast(pa.int64())), minlength=len(values.dictionary)
        )
        return [
            (value, count)
            for value, count in zip(
                values.dictionary.to_pylist(), counts.tolist(), strict=True
            )
            if count
        ]
    return [
        (entry["values"], entry["counts"])
        for entry in pc.value_counts(values).to_pylist()
    ]


class Together(Summary):
    """Several summaries of one column, by name."""

    def __init__(self, **parts: Summary) -> None:
        self.parts = parts

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        for part in self.parts.values():
            part.update(column, row_ids)

    def merge(self, other: Together) -> None:
        for name, part in self.parts.items():
            part.merge(other.parts[name])

    def result(self) -> dict[str, Any]:
        return {name: part.result() for name, part in self.parts.items()}


class Count(Summary):
    """Rows, and rows that are missing: for features that have nothing else to learn."""

    def __init__(self) -> None:
        self.count = self.missing = 0

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        self.missing += column.null_count
        self.count += len(column) - column.null_count

    def merge(self, other: Count) -> None:
        self.count += other.count
        self.missing += other.missing

    def result(self) -> dict[str, Any]:
        return {"count": self.count, "missing": self.missing}


def _rounded(value: Fraction) -> float:
    """The nearest double; infinity beyond them."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _root(value: Fraction) -> float:
    """The square root, also where `value` itself is too large or too small for a double."""
    if not value:
        return 0.0
    # Brought near 1 by a power of four, and back by its root, a power of two: both are
    # exact.
    half = (value.numerator.bit_length() - value.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(float(value / Fraction(4) ** half)), half)


def interpolated(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Quantiles of doubles by linear interpolation, also where the largest and the least lie further apart
    than a double can say (±1.8e308 stands for "none" in some data).

    Args:
        values: `[n]`, finite, at least one.
        at: shares from 0 to 1, `[m]`.

    Returns:
        The values below which these shares lie, `[m]`.
    """
    # Doubles may lie further apart than the largest double.
    with np.errstate(over="ignore"):
        spread = values.max() - values.min()
    if np.isfinite(spread):
        return np.asarray(np.quantile(values, at))
    # A quarter of each keeps the differences finite.
    return np.asarray(np.quantile(values / 4, at) * 4)


def present_numbers(column: pa.Array) -> pa.Array:
    """Where a column of numbers has a finite one, as booleans without nulls."""
    return pc.fill_null(pc.is_finite(pc.cast(column, pa.float64(), safe=False)), False)


def doubles(column: pa.Array) -> np.ndarray:
    """The finite numbers of a column as doubles (64-bit whole numbers at their nearest)."""
    return np.asarray(
        pc.cast(column.filter(present_numbers(column)), pa.float64(), safe=False)
    )


def sample_keys(row_ids: pa.Array) -> np.ndarray:
    """The first 64 bits of each md5 row id (32 hexadecimal digits) as whole numbers `[n]`; such numbers
    (uint64) stay as they are.
    """
    # Keys that were made once for several summaries.
    if pa.types.is_uint64(row_ids.type):
        return np.asarray(row_ids)
    return np.ascontiguousarray(id_halves(row_ids)[:, 0])


def lowest(keys: np.ndarray, share: float) -> np.ndarray:
    """Which keys are in the lowest `share` of all there can be, `[n]` of booleans: of rows, a uniform
    sample.
    """
    return (
        # The threshold fits 64 bits, since the share is below 1.
        np.ones(len(keys), bool) if share >= 1 else keys < np.uint64(int(share * 2**64))
    )


def id_halves(row_ids: pa.Array) -> np.ndarray:
    """The two halves of each md5 row id (32 hexadecimal digits, no nulls) as whole numbers, uint64 `[n, 2]`.

    Raises:
        ValueError: a row id is not one.
    """
    ids = row_ids if pa.types.is_string(row_ids.type) else pc.cast(row_ids, pa.string())
    if not len(ids):
        return np.empty((0, 2), np.uint64)
    # Straight from Arrow's buffers, without a Python object a row.
    _, offsets, text = ids.buffers()
    # A slice shares its parent's buffers, so it begins at its own offset.
    begin = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if text is None or ids.null_count or (np.diff(begin) != 32).any():
        raise ValueError("a row id is not 32 hexadecimal digits")
    raw = binascii.unhexlify(memoryview(text)[begin[0] : begin[-1]])
    # Big-endian: the first digits are the highest bits, so keys sort as ids do.
    return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(-1, 2)
