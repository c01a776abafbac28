"""Sums without rounding, by cell, and areas under ranking curves.

`Cells` is core's exact sum (contracts.summary.ExactSum: integers by binary exponent, Kulisch 1971) for many
sums at once: associative and free of order, so a metric over shards equals the metric over the whole, to the
last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from penstock.contracts.summary import NOTHING, Binary, fraction, plus

_CHUNK = 1 << 22
_LOW = (1 << 26) - 1
_SPLITTER = float(2**27 + 1)
_MOST_EXPONENT = 1 << 12
"""Doubles have exponents from -1074 to 1023; products of three and their errors, a few times that."""


class Cells:
    """Exact sums of doubles, one a cell."""

    def __init__(self) -> None:
        self._sums: dict[int, Binary] = {}

    def add(self, cell: np.ndarray | int, values: np.ndarray) -> None:
        """Add finite doubles `[n]` to their cells (`[n]` whole numbers from 0, or one for all)."""
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK]
            where = (
                np.full(len(part), cell, np.int64)
                if isinstance(cell, int)
                else cell[start : start + _CHUNK].astype(np.int64)
            )
            # Each double is a whole number of 53 bits times a power of two.
            mantissa, exponent = np.frexp(part)
            whole = np.ldexp(mantissa, 53).astype(np.int64)
            base = int(exponent.min())
            span = int(exponent.max()) - base + 1
            # One key for each cell and exponent, whose whole numbers add up without
            # rounding.
            key = where * span + (exponent - base)
            # Small keys are places of a table, which spares sorting them.
            if int(key.max()) < 1 << 20:
                keys, slot = np.arange(int(key.max()) + 1), key
            else:
                keys, slot = np.unique(key, return_inverse=True)
            # exact: 2^27 · 2^22 rows < 2^53
            highs = np.bincount(slot, weights=(whole >> 26).astype(np.float64))
            lows = np.bincount(slot, weights=(whole & _LOW).astype(np.float64))
            for i in np.flatnonzero((highs != 0) | (lows != 0)):
                owner, step = divmod(int(keys[i]), span)
                self._sums[owner] = plus(
                    self._sums.get(owner, NOTHING),
                    ((int(highs[i]) << 26) + int(lows[i]), step + base - 53),
                )

    def add_products(self, cell: int, *factors: np.ndarray) -> None:
        """Add the exact products of two or three arrays of doubles `[n]` (Dekker 1971: a product as a sum of
        two).
        """
        first, second, *rest = factors
        for part in two_product(first, second):
            if rest:
                for piece in two_product(part, rest[0]):
                    self.add(cell, piece)
            else:
                self.add(cell, part)

    def merge(self, other: Cells) -> None:
        """Add what `other` has summed, cell by cell. The order of merges does not matter."""
        for key, value in other._sums.items():
            self._sums[key] = plus(self._sums.get(key, NOTHING), value)

    def state(self) -> dict[int, Binary]:
        """All sums, by cell, for `restore`."""
        return dict(self._sums)

    def restore(self, state: Mapping[int, Binary]) -> None:
        """Become what `state` described.

        Raises:
            ValueError: it describes no sums.
        """
        for cell, (whole, exponent) in state.items():
            # Wide enough for any sum of doubles; an exponent without a bound is memory without one.
            if type(cell) is not int or type(whole) is not int or cell < 0:
                raise ValueError(f"a sum of the cell {cell!r}")
            if type(exponent) is not int or abs(exponent) > _MOST_EXPONENT:
                raise ValueError(f"a sum with the exponent {exponent!r}")
        self._sums = {
            cell: (whole, exponent) for cell, (whole, exponent) in state.items()
        }

    def fraction(self, cell: int) -> Fraction:
        """Return a cell's exact sum; 0 where nothing was added."""
        return fraction(self._sums.get(cell, NOTHING))

    def highest(self) -> int:
        """Return the highest cell that holds anything; -1 if none does."""
        return max(self._sums, default=-1)

    def floats(self, cells: int) -> np.ndarray:
        """Return the first `cells` sums, each rounded once, `[cells]`."""
        result = np.zeros(cells)
        for owner, total in self._sums.items():
            result[owner] = float(fraction(total))
        return result


def two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `a · b` as the rounded product and its rounding error (exact unless it
    over- or underflows).
    """
    with np.errstate(all="ignore"):
        product = a * b
        a_high, a_low = _halves(a)
        b_high, b_low = _halves(b)
        error = a_low * b_low - (
            ((product - a_high * b_high) - a_low * b_high) - a_high * b_low
        )
    # A product that overflows has no rounding error to keep.
    return product, np.where(np.isfinite(error), error, 0.0)


def _halves(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Veltkamp's splitting: the upper 26 bits of a double, and the rest.
    big = _SPLITTER * a
    high = big - (big - a)
    return high, a - high


def grouped(
    score: np.ndarray, positive: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the weights of positive and of negative rows at each distinct score, lowest
    first: `[G]`, `[G]`.

    Rows are put in one order first (score, truth, weight), so that the sums do not depend on how they came.
    """
    # By weight, too: among equal scores and truths the sum then has one order.
    order = np.lexsort((weight, positive, score))
    starts = ties(score[order])
    of_positive = np.where(positive[order], weight[order], 0.0)
    return np.add.reduceat(of_positive, starts), np.add.reduceat(
        weight[order] - of_positive, starts
    )


def ties(ordered: np.ndarray) -> np.ndarray:
    """Return where each run of equal values starts in a sorted array, which must not be
    empty.
    """
    return np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])


def roc_area(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Compute the ROC AUC from weights by score, lowest first, `[…, G]`; NaN where a
    class is absent.

    Ties count half.
    """
    below = np.cumsum(negative, axis=-1)
    total = positive.sum(axis=-1) * below[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            total > 0,
            # Negatives below count whole, those at the same score half.
            ((below - negative / 2) * positive).sum(axis=-1) / total,
            np.nan,
        )


def precision_area(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Compute the average precision (Σ ΔR · P, not interpolated) from weights by score,
    lowest first, `[…, G]`; NaN without positives.
    """
    # From the highest score down: what a threshold there would take.
    hits = np.cumsum(positive[..., ::-1], axis=-1)
    taken = hits + np.cumsum(negative[..., ::-1], axis=-1)
    total = hits[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(taken > 0, hits / taken, 0.0)
        # One class present says nothing of ranking: not a number, like the ROC area.
        both = (total > 0) & (taken[..., -1] > total)
        return np.where(
            both, (positive[..., ::-1] * precision).sum(axis=-1) / total, np.nan
        )
