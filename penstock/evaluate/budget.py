"""Fits a model on as many rows as its time allows.

Time is that of the process on its cores, so that a busy machine changes no figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from penstock.evaluate.training import ReadRows

M = TypeVar("M")

SMALL = 4_000_000
"""Work (rows times what each costs) that takes about a second: it is done without a trial."""
_TRIAL = 20
"""A trial learns from this part of the rows."""
_FEWEST = 500
_MARGIN = 1.3
"""The whole takes longer than so many trials: caches miss, trees are deeper."""


def fit_within(
    fit: Callable[[ReadRows], M], rows: ReadRows, *, seconds: float, cost: int
) -> tuple[M, int]:
    """Fit on all rows, or on as many as are likely to be learnt in `seconds`; returns the model and how many.

    Where there is much to do, a part of the rows is fitted first, to see how long that takes. Time is taken
    to grow as the rows do.

    Args:
        fit: fits a model on rows.
        rows: in random order, so that the first of them are a sample.
        seconds: that it should take at most.
        cost: about how many cells each row fills, times how often they are gone through.
    """
    count = len(rows)
    if count * cost <= SMALL:
        return fit(rows), count
    trial = max(count // _TRIAL, _FEWEST)
    if trial >= count:
        return fit(rows), count
    started = time.process_time()
    model = fit(rows.first(trial))
    spent = time.process_time() - started
    likely = spent * count / trial * _MARGIN
    if likely > seconds - spent:
        count = int(count * max(seconds - spent, 0) / likely)
    if count < 2 * trial:
        return model, trial
    return fit(rows.first(count)), count
