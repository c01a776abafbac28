"""How much rows that belong together are alike, beyond chance: rows of one group, and neighbours in the file.

    within(values, groups)   1 if rows of one group are equal, 0 if they are alike by chance
    next_to(values)          the same of each row and the one after it

Numbers are compared by their ranks, so that a far value does not decide; classes by how often two rows have
the same.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.inspect.raw_column import Look

_LEAST = 30
"""Rows, or pairs, below which nothing is said."""


def is_plain(look: Look) -> bool:
    """Whether each row has one value, which can be compared with others."""
    kind = look.type
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind))


def scores(look: Look) -> tuple[np.ndarray, bool]:
    """A column as numbers `[N]`, not a number where missing, and whether they have an order: ranks of
    numbers, codes of classes.
    """
    if look.numeric_share >= 0.9 and look.distinct > 2:
        return ranks(look.numbers), True
    return np.where(look.codes >= 0, look.codes, np.nan).astype(np.float64), False


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of the finite values, from 0 to 1, ties sharing their mean."""
    there = np.isfinite(values)
    out = np.full(len(values), np.nan)
    _, place, count = np.unique(values[there], return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    if len(place):
        out[there] = (ends - (count - 1) / 2)[place] / len(place)
    return out


def within(values: np.ndarray, groups: np.ndarray, *, ordered: bool) -> float:
    """The intra-class correlation of numbers, or the agreement of classes beyond chance.

    Args:
        values: of each row, not a number where missing `[N]`.
        groups: the group of each row, below 0 for none `[N]`.
        ordered: whether the values have an order.
    """
    there = np.isfinite(values) & (groups >= 0)
    values, (_, group) = values[there], np.unique(groups[there], return_inverse=True)
    sizes = np.bincount(group) if len(group) else np.empty(0)
    if len(values) < _LEAST or len(sizes) < 2 or (sizes > 1).sum() < 2:
        return 0.0
    if not ordered:
        return _agreement(values.astype(np.int64), group, sizes)
    n, k = len(values), len(sizes)
    means = np.bincount(group, weights=values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    inside = float(((values - means[group]) ** 2).sum()) / max(n - k, 1)
    typical = (n - (sizes**2).sum() / n) / (k - 1)
    total = between + (typical - 1) * inside
    return (between - inside) / total if total > 0 else 0.0


def _agreement(codes: np.ndarray, group: np.ndarray, sizes: np.ndarray) -> float:
    """How often two rows of one group have one class, beyond chance: 0 by chance, 1 always."""
    _, code = np.unique(codes, return_inverse=True)
    classes = int(code.max()) + 1
    _, together = np.unique(group * np.int64(classes) + code, return_counts=True)
    pairs = float((sizes * (sizes - 1)).sum())
    same = float((together * (together - 1)).sum()) / pairs
    share = np.bincount(code) / len(code)
    chance = float((share**2).sum())
    return (same - chance) / (1 - chance) if chance < 1 else 0.0


def next_to(values: np.ndarray, *, ordered: bool, lag: int = 1) -> float:
    """The correlation of each row with the one `lag` after it; of classes their agreement beyond chance."""
    one, other = values[:-lag], values[lag:]
    there = np.isfinite(one) & np.isfinite(other)
    one, other = one[there], other[there]
    if len(one) < _LEAST:
        return 0.0
    if not ordered:
        known = values[np.isfinite(values)]
        _, counts = np.unique(known, return_counts=True)
        chance = float(((counts / len(known)) ** 2).sum())
        return (float((one == other).mean()) - chance) / (1 - chance) if chance < 1 else 0
    a, b = one - one.mean(), other - other.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size else 0.0
