"""What is measured of forecasts: by row (a window's whole horizon) one number a measure, so that all of them
are means over rows.

A row's number is the mean over the steps and variables that were observed; a row of which nothing was
observed is left out. Windows that overlap are nearly the same row many times: a resampling therefore draws
blocks of neighbouring rows (Künsch 1989), each as long as the horizon, and intervals are as wide as they
should be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FORECAST = ("mse_standardised", "mae_standardised", "mse", "mae", "smape", "mase", "pinball")


@dataclass(frozen=True)
class Forecasting:
    """What errors of a forecast are in units of."""

    std: tuple[float, ...]
    """Each variable's deviation in the training split."""
    naive: tuple[float | None, ...] = ()
    """Each variable's mean absolute change over one season in the training split: the seasonal naive
    forecast's error.
    """
    levels: tuple[float, ...] = ()
    """The quantiles that are answered."""
    block: int = 1
    """How many neighbouring rows a resampling draws together."""

    @classmethod
    def of(cls, facts: Mapping[str, Any], *, block: int = 1) -> Forecasting | None:
        """From a target's facts, or None if it is no series."""
        if "variables" not in facts or "std" not in facts:
            return None
        return cls(
            tuple(facts["std"]), tuple(facts.get("naive") or ()), tuple(facts.get("quantiles") or ()), block
        )


def statistics(
    truth: np.ndarray, answers: Mapping[str, np.ndarray], scale: Forecasting | None
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(measure → `[N]`, whether anything was observed `[N]`, whether an answer is not finite `[N]`).

    Args:
        truth: `[N, H, V]` in the user's units, not a number where nothing was observed.
        answers: `values [N, H, V]`, and `quantiles [N, H, V, Q]` if there are any.
        scale: None: the truth's own deviations, and no MASE.
    """
    truth, values = np.asarray(truth, np.float64), np.asarray(answers["values"], np.float64)
    there = np.isfinite(truth)
    known = np.where(there, truth, 0.0)
    broken = ~np.isfinite(values).all(axis=(1, 2))
    values = np.where(np.isfinite(values), values, 0.0)
    std = np.array(scale.std) if scale else _deviations(known, there)
    error = np.where(there, values - known, 0.0)
    count = np.maximum(there.sum(axis=(1, 2)), 1)

    def mean(each: np.ndarray) -> np.ndarray:
        return np.asarray(each.sum(axis=(1, 2)) / count)

    size, scaled = np.abs(error), error / std
    spread = np.abs(values) + np.abs(known)
    found = {
        "mse": mean(error**2),
        "mae": mean(size),
        "mse_standardised": mean(scaled**2),
        "mae_standardised": mean(np.abs(scaled)),
        "smape": mean(np.where(spread > 0, 2 * size / np.where(spread > 0, spread, 1.0), 0.0)),
        "mase": _against_naive(size, there, scale),
        "pinball": mean(_pinball(known, values, there, answers.get("quantiles"), std, scale)),
    }
    return found, np.asarray(there.any(axis=(1, 2))), np.asarray(broken)


def _deviations(known: np.ndarray, there: np.ndarray) -> np.ndarray:
    count = np.maximum(there.sum(axis=(0, 1)), 1)
    mean = known.sum(axis=(0, 1)) / count
    std = np.sqrt((np.where(there, known - mean, 0.0) ** 2).sum(axis=(0, 1)) / count)
    return np.where(std > 0, std, 1.0)


def _against_naive(size: np.ndarray, there: np.ndarray, scale: Forecasting | None) -> np.ndarray:
    """Mean absolute scaled error (Hyndman and Koehler 2006), over the variables that move at all."""
    naive: Sequence[float | None] = scale.naive if scale else ()
    moves = np.array([bool(n) for n in naive], bool)
    if not moves.any():
        return np.full(len(size), np.nan)
    scaled = size[:, :, moves] / np.array([n for n in naive if n])
    count = there[:, :, moves].sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, scaled.sum(axis=(1, 2)) / np.maximum(count, 1), 0.0))


def _pinball(
    known: np.ndarray,
    values: np.ndarray,
    there: np.ndarray,
    quantiles: np.ndarray | None,
    std: np.ndarray,
    scale: Forecasting | None,
) -> np.ndarray:
    """Twice the pinball loss, mean over the levels, in deviations: of the median alone it is the absolute
    error.

    A forecast without quantiles is taken as sure of itself: its value at every level.
    """
    levels = (scale.levels if scale else ()) or (0.5,)
    total = np.zeros_like(known)
    for i, level in enumerate(levels):
        said = values if quantiles is None else np.nan_to_num(np.asarray(quantiles[..., i], np.float64))
        under = np.where(there, known - said, 0.0) / std
        total += 2 * np.maximum(level * under, (level - 1) * under)
    return total / len(levels)
