"""How good a classical model is on the validation split, by which the best one is chosen, and on the judged
rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.evaluate.answers import Judged
from penstock.evaluate.classical_answers import Tried
from penstock.evaluate.compare import JUDGED_BY
from penstock.evaluate.training import ReadRows
from penstock.metrics import better, measure


def score(
    tried: Tried,
    judged: Judged,
    target: str,
    rows: ReadRows | None,
    answers: Mapping[str, np.ndarray] | None,
) -> None:
    """Note how good answers are.

    Args:
        tried: where it is noted.
        judged: for the kind and scale of the target, and the truth of judged rows.
        target: which is answered.
        rows: of the validation split; None: the answers are of the judged rows.
        answers: None where there are no such rows.
    """
    if not answers:
        return
    truth = judged.truth[target] if rows is None else rows.truth[target]
    weight = judged.weight if rows is None else rows.weight
    names = list(JUDGED_BY[judged.kinds[target]])
    values: dict[str, Any] = measure(
        names, truth, answers, weight, scale=judged.scales.get(target)
    )
    first = values[names[0]]
    if rows is None:
        tried.judged = first
    else:
        tried.validation, tried.second = first, values[names[1]]


def best_of(tried: Sequence[Tried]) -> int:
    """Return which is the best on the validation split; without its figures the first, which is preferred."""

    def rank(each: Tried) -> tuple[float, float]:
        names = JUDGED_BY[_KINDS[each.metric]] if each.metric in _KINDS else ("", "")
        return (
            _loss(each.metric, each.validation),
            _loss(names[1], each.second) if names[1] else 0.0,
        )

    return min(range(len(tried)), key=lambda place: rank(tried[place]))


def _loss(metric: str, value: float | None) -> float:
    """Return a figure of which less is better; infinite where there is none."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if better(metric) == "higher" else value


_KINDS = {names[0]: kind for kind, names in JUDGED_BY.items()}
