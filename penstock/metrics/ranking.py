"""Areas under ranking curves: ROC AUC and average precision.

Ranking needs all scores at once. Up to `RANKED_VALUES` scores they are kept and sorted: exact. Beyond, they
fall into bins that are even in the log-odds from -20 to 20, 2^16 of them (fewer with many classes, 2^21 in
all and 2^10 at least): rows within one bin count as ties, which moves an AUC by about 1e-5. Whether the limit
was passed depends on how many rows were seen, not on how they were cut, so halves merged still equal the
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from penstock.contracts.metric import Accumulator, Rows, Statistic, Totals
from penstock.metrics.exact import grouped, precision_area, roc_area, ties
from penstock.metrics.means import divide

RANKED_VALUES = 1 << 21
"""About 40 MB."""
AREAS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "roc": roc_area,
    "precision": precision_area,
}
"""From weights of positive and negative rows by score, lowest first `[…, G]`, to the area `[…]`."""


@dataclass(frozen=True)
class Ranking(Statistic):
    """The areas called `areas`, the mean over classes, each against the rest, where it is defined."""

    areas: frozenset[str]
    by_class = True

    def together(self, other: Statistic) -> Statistic | None:
        return Ranking(self.areas | other.areas) if isinstance(other, Ranking) else None

    def accumulator(self) -> Accumulator:
        return Scores(self.areas)

    def resampler(self, rows: Rows) -> Callable[[np.ndarray], Totals]:
        curves = []
        for score, positive in ranked(rows):
            # Sorted once: a resampling changes weights, never the order.
            order = np.argsort(score, kind="stable")
            curves.append((order, ties(score[order]), positive[order]))

        def totals(weights: np.ndarray) -> Totals:
            areas: dict[str, list[np.ndarray]] = {name: [] for name in self.areas}
            for order, starts, positive in curves:
                in_order = weights[:, order]
                of_positive = in_order * positive
                of_negative = in_order - of_positive
                # Without ties each row is a group of its own, and there is nothing to
                # add up.
                if len(starts) < len(order):
                    of_positive = np.add.reduceat(of_positive, starts, axis=1)
                    of_negative = np.add.reduceat(of_negative, starts, axis=1)
                for name, values in areas.items():
                    values.append(AREAS[name](of_positive, of_negative))
            return {
                name: _mean_defined(np.stack(values)) for name, values in areas.items()
            }

        return totals


class Scores(Accumulator):
    """Keeps all scores while they are few, and counts them in bins once they are many
    (see the head of this file).
    """

    def __init__(self, areas: frozenset[str], *, limit: int = RANKED_VALUES) -> None:
        self.areas, self.limit = areas, limit
        self.values = 0
        self._kept: list[Rows] = []
        self._bins: np.ndarray | None = None  # [rankings, bins, (negative, positive)]

    @property
    def exact(self) -> bool:
        """Whether every score is still kept as it is."""
        return self._bins is None

    def update(self, rows: Rows) -> None:
        self.values += rows.answer.size
        # 32 bits hold any class, in half the memory.
        truth = rows.truth if rows.kind == "set" else rows.truth.astype(np.int32)
        # A ranking reads no predictions, so none are kept.
        self._kept.append(replace(rows, predicted=np.empty(0, np.int64), truth=truth))
        self._spill()

    def merge(self, other: Self) -> None:
        self.values += other.values
        self._kept += other._kept
        if other._bins is not None:
            self._bins = (
                other._bins.copy() if self._bins is None else self._bins + other._bins
            )
        self._spill()

    def _spill(self) -> None:
        """Count the scores in bins and drop them, once there are too many."""
        # Once there are bins, all later rows go into them, too.
        if self.values <= self.limit and self._bins is None:
            return
        for rows in self._kept:
            rankings = ranked(rows)
            bins = max(
                min(1 << 16, 1 << int(np.log2((1 << 21) / len(rankings)))), 1 << 10
            )
            if self._bins is None:
                self._bins = np.zeros((len(rankings), bins, 2))
            for i, (score, positive) in enumerate(rankings):
                # Log-odds of a float32 close to 1 would lose most of their digits.
                probability = score.astype(np.float64)
                with np.errstate(divide="ignore"):
                    odds = np.clip(
                        # Probabilities of 0 and 1 fall into the outermost bins.
                        np.log(probability) - np.log1p(-np.minimum(probability, 1.0)),
                        -20,
                        20,
                    )
                slot = np.minimum(((odds + 20) / 40 * bins).astype(np.int64), bins - 1)
                # Negatives are at even places, positives at odd ones.
                self._bins[i] += np.bincount(
                    slot * 2 + positive, weights=rows.weight, minlength=2 * bins
                ).reshape(bins, 2)
        self._kept = []

    def totals(self) -> Totals:
        curves = (
            # Counts are stored as (negative, positive); areas take the positives first.
            [(b[:, 1], b[:, 0]) for b in self._bins]
            if self._bins is not None
            else self._sorted()
        )
        return {name: np.array([self._area(name, curves)]) for name in self.areas}

    def _area(self, name: str, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        areas = [float(AREAS[name](*curve)) for curve in curves]
        defined = [area for area in areas if not np.isnan(area)]
        return float(np.mean(defined)) if defined else float("nan")

    def _sorted(self) -> list[tuple[np.ndarray, np.ndarray]]:
        batches = [rows for rows in self._kept if len(rows)]
        if not batches:
            return []
        weight = np.concatenate([rows.weight for rows in batches])
        parts = [ranked(rows) for rows in batches]
        return [
            grouped(
                np.concatenate([p[i][0] for p in parts]),
                np.concatenate([p[i][1] for p in parts]),
                weight,
            )
            for i in range(len(parts[0]))
        ]


def ranked(rows: Rows) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (score, positive) `[N]` of each ranking: one for binary, one a class for a
    category or set.
    """
    if rows.kind == "binary":
        return [(rows.answer, rows.truth == 1)]
    if rows.kind == "set":
        return [(rows.answer[:, k], rows.truth[:, k] == 1) for k in range(rows.classes)]
    return [(rows.answer[:, k], rows.truth == k) for k in range(rows.classes)]


def _mean_defined(table: np.ndarray) -> np.ndarray:
    """Average over classes `[K, R]` what is defined, `[R]`."""
    there = ~np.isnan(table)
    return divide(np.where(there, table, 0).sum(axis=0), there.sum(axis=0))
