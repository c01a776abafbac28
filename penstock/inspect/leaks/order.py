"""Moments: which comes after the fact, and whether the time between two is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from penstock.inspect.leaks.evidence import (
    Clues,
    Column,
    Leak,
    Question,
    percent,
    words_of,
)
from penstock.inspect.leaks.names import BEFORE
from penstock.metrics.same_number import follows

_MOST = 24
"""Columns of moments that are compared in pairs."""
_ALWAYS = 0.99
_LATER = 0.5
_LEAST = 40
_AFTER = frozenset(
    """
    closed resolved resolution completed completion finished discharge discharged
    paid repaid settled settlement refunded returned cancelled canceled terminated
    termination churned exit exited left death died deceased decision decided
    verdict outcome result sold delivered released solved answered fulfilled
    diagnosed confirmed converted defaulted
    """.split()
)


def told_by_order(columns: Sequence[Column], question: Question) -> Clues:
    """Judge moments by their names and by each other."""
    dated = [column for column in columns if column.is_moment][:_MOST]
    clues = Clues()
    for column in dated:
        words = set(words_of(column.name))
        if words & _AFTER and not words & BEFORE and (why := _later(column, dated)):
            clues.leaks.append(Leak(column.name, why, 0.45))
    out = {leak.column for leak in clues.leaks}
    for one, other in combinations(dated, 2):
        if one.name in out or other.name in out:
            continue
        if leak := _between(one, other, question):
            clues.leaks.append(leak)
            out.add(leak.column)
    return clues


def _later(column: Column, dated: Sequence[Column]) -> str:
    """The reason, where the moment never comes before another one."""
    for other in dated:
        if other is column:
            continue
        at = np.isfinite(column.numbers) & np.isfinite(other.numbers)
        rows = int(at.sum())
        if rows < _LEAST:
            continue
        apart = column.numbers[at] - other.numbers[at]
        if (apart >= 0).mean() >= _ALWAYS and (apart > 0).mean() >= _LATER:
            return (
                f"by its name it comes after the fact, and it is never before {other.name!r}"
                f" ({percent((apart >= 0).mean())} of {rows:,} rows)"
            )
    return ""


def _later_of(one: Column, other: Column, apart: np.ndarray) -> tuple[Column, Column]:
    """Which of two comes after the fact, and which before: what was only planned came before."""
    planned = [bool(set(words_of(c.name)) & BEFORE) for c in (one, other)]
    if planned[0] != planned[1]:
        return (other, one) if planned[0] else (one, other)
    return (other, one) if np.median(apart) >= 0 else (one, other)


def _between(one: Column, other: Column, question: Question) -> Leak | None:
    """The later of two moments, where the time between them is the target, or tells it."""
    at = np.flatnonzero(np.isfinite(one.numbers) & np.isfinite(other.numbers))
    if len(at) < _LEAST or len(at) < 0.2 * len(question.rows):
        return None
    apart = other.numbers - one.numbers
    later, earlier = _later_of(one, other, apart[at])
    numbers = question.numbers
    is_amount = question.is_number or question.count > 4
    if np.isfinite(numbers).all() and is_amount and follows(apart[at], numbers[at]):
        why = f"the time between {earlier.name!r} and it is the target ({len(at):,} rows)"
        return Leak(later.name, why, 0.7)
    if question.is_number:
        return None
    for judged in (
        question.by_order(apart),
        question.by_value(np.sign(apart[at]).astype(np.int64) + 1, at=at),
    ):
        if judged.almost_perfect(cells=100):
            why = f"the time between {earlier.name!r} and it tells the target; {judged.words}"
            return Leak(later.name, why, 0.7)
    return None
