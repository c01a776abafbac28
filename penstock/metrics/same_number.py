"""Whether one column of numbers is another in disguise: scaled, shifted, rounded, binned, logged.

A strong correlation is no disguise: what is asked is whether the one follows from the other up to rounding.
numpy only.
"""

from __future__ import annotations

from bisect import bisect_right

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


def in_order(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether `x` only grows (or only falls) with `y`: the same order, or bins of it (finite numbers
    `[n]`).
    """
    if len(y) < LEAST_ROWS or len(np.unique(y)) < 3 or len(np.unique(x)) < 2:
        return False
    up = correlation(ranks(x), ranks(y))
    # Two bins of unequal size hardly correlate with what they bin.
    if abs(up) < (0.95 if len(np.unique(x)) > 10 else 0.3):
        return False
    if up < 0:
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


def same_number(x: np.ndarray, y: np.ndarray) -> str:
    """In which way `x` is `y`; empty where it is not.

    Args:
        x, y: `[n]` numbers; rows where either is not finite are left out.
    """
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    if len(y) < LEAST_ROWS or not x.std() or not y.std():
        return ""
    if follows(x, y):
        return "it is the target up to scale, shift and rounding"
    if x.min() > 0 and y.min() > 0 and follows(np.log(x), np.log(y)):
        return "it is a power of the target"
    if in_order(x, y):
        bins = len(np.unique(x))
        return (
            f"its {bins} values are bins of the target"
            if bins <= max(10, len(y) / 20)
            else "it puts the rows in the same order as the target"
        )
    if y.min() < 0 < y.max() and in_order(x, np.abs(y)):
        return "it is the target without its sign"
    return ""
