"""Sums over numbers and their errors, shared by all metrics of numbers.

The variance comes from exact Σw, Σwy, Σwy², so that a large mean costs no digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from penstock.contracts.metric import Accumulator, Rows, Statistic, Totals
from penstock.metrics.exact import Cells
from penstock.metrics.means import divide, ratio

_LARGEST = float(np.finfo(np.float64).max) / 4


@dataclass(frozen=True)
class Errors(Statistic):
    """`mse`, `mae`, `mape` (mean of |error| / |truth|), `variance` of the truth, and `unit`, the variance
    that a standardised error is in units of.
    """

    def accumulator(self) -> Accumulator:
        return _Sums()

    def resampler(self, rows: Rows) -> Callable[[np.ndarray], Totals]:
        # Around 0, since a large mean would cost the variance its digits.
        centred = rows.truth - np.average(rows.truth, weights=rows.weight)
        relative, defined = relative_error(rows)
        with np.errstate(over="ignore"):
            error = rows.answer - rows.truth
            table = np.stack(
                [
                    error**2,
                    np.abs(error),
                    centred,
                    centred**2,
                    np.where(defined, relative, 0),
                    defined,
                ],
                axis=1,
            )
        unit = _unit(rows)

        def totals(weights: np.ndarray) -> Totals:
            with np.errstate(over="ignore", invalid="ignore"):
                squared, absolute, first, second, share, there = (weights @ table).T
                total = weights.sum(axis=1)
                variance = divide(second, total) - divide(first, total) ** 2
                # Rounding may leave a variance just below 0.
                variance = np.where(variance > 0, variance, 0)
            return {
                "mse": divide(squared, total),
                "mae": divide(absolute, total),
                "mape": divide(share, there),
                "variance": variance,
                "unit": variance if unit is None else np.full_like(variance, unit),
            }

        return totals


class _Sums(Accumulator):
    """Σw, Σw·e², Σw·|e|, Σw·y, Σw·y², and of rows whose truth is not 0: Σw, Σw·|e|/|y|."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.unit: float | None = None

    def update(self, rows: Rows) -> None:
        self.unit = _unit(rows)
        error, weight = rows.answer - rows.truth, rows.weight
        with np.errstate(over="ignore"):
            squared = weight * error * error
        # Squares of errors beyond 1e154 are out of a double's range.
        if not np.all(np.isfinite(squared)):
            squared = np.full_like(squared, _LARGEST)
        self.cells.add(0, weight)
        self.cells.add(1, squared)
        self.cells.add(2, weight * np.abs(error))
        # Exact products: the variance is a small difference of two large sums.
        self.cells.add_products(3, weight, rows.truth)
        self.cells.add_products(4, weight, rows.truth, rows.truth)
        relative, defined = relative_error(rows)
        self.cells.add(5, weight[defined])
        self.cells.add(6, np.minimum(weight * relative, _LARGEST)[defined])

    def merge(self, other: Self) -> None:
        self.cells.merge(other.cells)
        self.unit = other.unit if self.unit is None else self.unit

    def totals(self) -> Totals:
        total, squared, absolute, first, second, relative_weight, relative = (
            self.cells.fraction(i) for i in range(7)
        )
        # In fractions, so the difference of the two loses nothing.
        exact = second / total - (first / total) ** 2 if total else Fraction(0)
        variance = float(exact) if exact > 0 else 0.0
        totals = {
            "mse": ratio(squared, total),
            "mae": ratio(absolute, total),
            "mape": ratio(relative, relative_weight),
            "variance": variance,
            "unit": variance if self.unit is None else self.unit,
        }
        return {name: np.array([value]) for name, value in totals.items()}


def relative_error(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return |error| / |truth| `[N]`, and where it is defined (truth not 0)."""
    defined = rows.truth != 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = np.abs(rows.answer - rows.truth) / np.abs(rows.truth)
        return np.where(defined, share, 0.0), defined


def _unit(rows: Rows) -> float | None:
    """Return the squared deviation that was given; None if none was."""
    return float(rows.scale) ** 2 if isinstance(rows.scale, (int, float)) else None
