"""Columns held against each other, in the sample: numbers by their ranks, words by Cramér's V.

Cramér's V is corrected for bias (Bergsma 2013), so that many classes of few rows show nothing by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.inspect.raw_column import Finding, Look
from penstock.metrics.one_column import ranks

LEAST = 0.8
"""Below it two columns are not called correlated."""
_MOST = 60
"""Columns that are compared: pairs grow with the square."""
_ROWS = 30
_CLASSES = 100


def correlated(columns: list[tuple[Look, Finding]]) -> list[dict[str, Any]]:
    """Pairs of columns that say much the same: `a`, `b`, `measure`, `value`; the strongest first.

    Args:
        columns: what was seen of each, with its feature; only numbers, categories and flags are compared.
    """
    numbers = [x for x, f in columns if f.type == "number" and x.has_finite][:_MOST]
    words = [
        x
        for x, f in columns
        if f.type in ("category", "binary") and 2 <= x.distinct <= _CLASSES
    ][:_MOST]
    pairs = _by_rank(numbers) + _by_class(words)
    strong = [pair for pair in pairs if abs(pair["value"]) >= LEAST]
    return sorted(strong, key=lambda pair: -abs(pair["value"]))


def _by_rank(looks: list[Look]) -> list[dict[str, Any]]:
    pairs = []
    for i, first in enumerate(looks):
        for second in looks[i + 1 :]:
            there = np.isfinite(first.numbers) & np.isfinite(second.numbers)
            if there.sum() < _ROWS:
                continue
            a, b = ranks(first.numbers[there]), ranks(second.numbers[there])
            if np.ptp(a) and np.ptp(b):
                value = float(np.corrcoef(a, b)[0, 1])
                pairs.append(_pair(first, second, "Spearman's rho", value))
    return pairs


def _by_class(looks: list[Look]) -> list[dict[str, Any]]:
    pairs = []
    for i, first in enumerate(looks):
        for second in looks[i + 1 :]:
            value = cramers_v(first.codes, second.codes)
            if value is not None:
                pairs.append(_pair(first, second, "Cramér's V", value))
    return pairs


def _pair(first: Look, second: Look, measure: str, value: float) -> dict[str, Any]:
    return {
        "a": first.name,
        "b": second.name,
        "measure": measure,
        "value": round(value, 4),
    }


def cramers_v(a: np.ndarray, b: np.ndarray) -> float | None:
    """How well one class tells the other, 0 to 1; None of too few rows.

    Args:
        a: the class of each row from 0, negative where missing `[N]`.
        b: the other's `[N]`.
    """
    there = (a >= 0) & (b >= 0)
    rows = int(there.sum())
    if rows < _ROWS:
        return None
    _, left = np.unique(a[there], return_inverse=True)
    _, right = np.unique(b[there], return_inverse=True)
    height, width = int(left.max()) + 1, int(right.max()) + 1
    if height < 2 or width < 2:
        return None
    table = np.bincount(left * width + right, minlength=height * width).reshape(
        height, width
    )
    chance = np.outer(table.sum(1), table.sum(0)) / rows
    phi2 = float(((table - chance) ** 2 / chance).sum()) / rows
    phi2 = max(0.0, phi2 - (height - 1) * (width - 1) / (rows - 1))
    least = (
        min(
            height - (height - 1) ** 2 / (rows - 1), width - (width - 1) ** 2 / (rows - 1)
        )
        - 1
    )
    return float(min(1.0, (phi2 / least) ** 0.5)) if least > 0 else None


def target_shares(classes: Mapping[str, int]) -> dict[str, float]:
    """By class its share of the rows."""
    rows = sum(classes.values()) or 1
    return {name: round(count / rows, 4) for name, count in classes.items()}
