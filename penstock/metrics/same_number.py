"""Whether one column of numbers is another in disguise: scaled, shifted, rounded, binned, logged.

A strong correlation is no disguise: what is asked is whether the one follows from the other up to rounding.
numpy only.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from penstock.metrics.one_column import correlation, ranks

LEAST_ROWS = 40
FITS = 0.98
"""The share of the rows in which a relation holds that counts as exact; the others may be slips."""
# Of the target's deviation: what counts as nothing.
_NOISE = 0.002
# A relation is only believed if rounding blurs less of the target's deviation than this.
_BLUR = 0.2
_ORDERED = 0.99
# Rank correlations: of what follows from the target, and of what has lost its sign.
_FOLLOWS, _UNSIGNED = 0.8, 0.7
# A gap between two bins that is wider than this share of the range divides clusters, and was there before
# the bins.
_GAP = 0.25


def grid(values: np.ndarray) -> float:
    """The decimal step that finite values are rounded to; 0 where they are not."""
    for digits in range(5):
        scaled = values * 10.0**digits
        if np.all(
            np.abs(scaled - np.round(scaled)) <= 1e-6 * np.maximum(1, np.abs(values))
        ):
            return float(10.0**-digits)
    return 0.0


def follows(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether `y` is `a·x + b` up to its rounding, in nearly every row (finite numbers `[n]`)."""
    spread = float(y.std())
    if len(y) < LEAST_ROWS or not spread or not x.std():
        return False
    # Slips must not bend the line, so it is fitted again without them.
    inside = np.ones(len(y), bool)
    for _ in range(3):
        if inside.sum() < LEAST_ROWS / 2 or not x[inside].std():
            return False
        centre_x, centre_y = x[inside].mean(), y[inside].mean()
        shift = x[inside] - centre_x
        slope = float((shift * (y[inside] - centre_y)).sum() / (shift * shift).sum())
        rest = np.abs(y - centre_y - slope * (x - centre_x))
        inside = rest <= max(5 * float(np.median(rest)), 1e-12 * spread)
    rounding = 0.55 * grid(y)
    if rounding > _BLUR * spread:
        # So coarse a target is only believed to the letter.
        return bool(np.mean(rest <= 1e-6 * max(1.0, float(np.abs(y).max()))) >= FITS)
    return bool(np.mean(rest <= rounding + _NOISE * spread) >= FITS)


def in_order(x: np.ndarray, y: np.ndarray, rank: float) -> bool:
    """Whether `x` only grows (or only falls) with `y`: the same order, or bins of it.

    Args:
        x, y: finite numbers `[n]`.
        rank: their rank correlation.
    """
    # Two bins of unequal size hardly correlate with what they bin.
    if len(y) < LEAST_ROWS or abs(rank) < 0.3:
        return False
    bins = len(np.unique(x))
    if bins < 2 or len(np.unique(y)) < 3 or (bins > 10 and abs(rank) < 0.95):
        return False
    if rank < 0:
        x = -x
    order = np.lexsort((y, x))
    share = _longest_ordered(y[order]) / len(y)
    needed = _ORDERED if len(y) >= 100 else 1.0
    return share >= needed and _without_gaps(x[order], y[order])


def _longest_ordered(values: np.ndarray) -> int:
    """The length of the longest subsequence that never falls (patience sorting)."""
    tails: list[float] = []
    for value in values.tolist():
        place = bisect_right(tails, value)
        if place == len(tails):
            tails.append(value)
        else:
            tails[place] = value
    return len(tails)


def _without_gaps(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether few bins lie side by side, each with some rows; clusters with empty space between may be
    told apart by an honest column.
    """
    bins, first, count = np.unique(x, return_index=True, return_counts=True)
    if len(bins) > 10:
        return True
    if (count.min() < 3 and len(bins) < 4) or len(y) - count.max() < 20:
        return False
    low, high = np.quantile(y, [0.01, 0.99])
    ends = np.array(
        [
            np.quantile(y[s : s + c], [0.01, 0.99])
            for s, c in zip(first, count, strict=True)
        ]
    )
    return bool((ends[1:, 0] - ends[:-1, 1]).max() <= _GAP * max(high - low, 1e-300))


@dataclass(frozen=True)
class Likeness:
    """How one column of numbers is like another."""

    how: str = ""
    """In which way it is the other; empty where it is not."""
    rank: float = 0.0
    """Their rank correlation."""


def likeness(x: np.ndarray, y: np.ndarray) -> Likeness:
    """Compare two columns of numbers `[n]`; rows where either is not finite are left out."""
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    if len(y) < LEAST_ROWS:
        return Likeness()
    rank = correlation(ranks(x), ranks(y))
    return Likeness(_how(x, y, rank), rank)


def same_number(x: np.ndarray, y: np.ndarray) -> str:
    """In which way `x` is `y`; empty where it is not. As of `likeness`."""
    return likeness(x, y).how


def _how(x: np.ndarray, y: np.ndarray, rank: float) -> str:
    # Whatever follows from the target goes with it, but for its sign.
    if abs(rank) > _FOLLOWS:
        if follows(x, y):
            return "it is the target up to scale, shift and rounding"
        if x.min() > 0 and y.min() > 0 and follows(np.log(x), np.log(y)):
            return "it is a power of the target"
    if in_order(x, y, rank):
        bins = len(np.unique(x))
        return (
            f"its {bins} values are bins of the target"
            if bins <= max(10, len(y) / 20)
            else "it puts the rows in the same order as the target"
        )
    if y.min() < 0 < y.max() and abs(rank) < _UNSIGNED:
        size = np.abs(y)
        if in_order(x, size, correlation(ranks(x), ranks(size))):
            return "it is the target without its sign"
    return ""
