"""The few figures that a sentence can be made of, by target: how near half of the numbers are, how many
labels of a hundred are found.

Of classes and of two values the metrics themselves say it (`accuracy`, `recall`, `precision`); the others are
counted here, on the rows of the sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.contracts.metric import Forecasting, Kind, Threshold
from penstock.evaluate.answers import Judged
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.forecast import Naive
from penstock.evaluate.trivial import Trivial

Answers = Mapping[str, np.ndarray]


def plain_facts(
    judged: Judged, trivial: Mapping[str, Trivial | Naive], classical: Classical
) -> dict[str, dict[str, Any]]:
    """Return by target: `kind`, `unanswered` rows, and by who answers (`model`, `trivial`, `classical`)
    figures by name; where rows are unanswered, `whole` has the accuracy that counts them as wrong.
    """
    return {
        name: {
            "kind": kind,
            "unanswered": judged.unanswered_rows[name],
            **_variables(judged, name, kind),
            **_whole(judged, name),
            **(
                _by_whom(judged, name, kind, trivial.get(name), classical)
                if judged.sample_rows and name not in judged.broken
                else {}
            ),
        }
        for name, kind in judged.kinds.items()
    }


def _variables(judged: Judged, name: str, kind: Kind) -> dict[str, Any]:
    """Return how many variables a series has: with several, errors are counted in deviations."""
    if kind != "series" or not judged.sample_rows:
        return {}
    return {"variables": int(judged.truth[name].shape[2])}


def _whole(judged: Judged, name: str) -> dict[str, Any]:
    """Return the accuracy over all rows whose truth is known, where some could not be answered."""
    accuracy = judged.measures[name].result().get("accuracy")
    missed = judged.unanswered_weight[name]
    # Of a sequence it is an accuracy of steps, which says nothing of rows.
    if not missed or accuracy is None or judged.kinds[name] == "sequence":
        return {}
    return {"whole": {"accuracy": accuracy * judged.weights / (judged.weights + missed)}}


def _by_whom(
    judged: Judged,
    name: str,
    kind: Kind,
    trivial: Trivial | Naive | None,
    classical: Classical,
) -> dict[str, dict[str, float]]:
    sides: dict[str, tuple[Answers, Threshold]] = {
        "model": (judged.answers[name], judged.thresholds[name])
    }
    if trivial is not None:
        sides["trivial"] = (trivial.answers(judged.truth[name], judged.columns), 0.5)
    if name in classical.answers:
        sides["classical"] = (classical.answers[name], classical.threshold(name))
    return {
        side: _figures(
            kind,
            judged.truth[name],
            answers,
            judged.weight,
            threshold=threshold,
            scale=judged.scales.get(name),
        )
        for side, (answers, threshold) in sides.items()
    }


def _figures(
    kind: Kind,
    truth: np.ndarray,
    answers: Answers,
    weight: np.ndarray | None,
    *,
    threshold: Threshold,
    scale: Any,
) -> dict[str, float]:
    weights = np.ones(len(truth)) if weight is None else weight
    if kind == "number":
        return _within(np.abs(truth.astype(np.float64) - answers["value"]), weights)
    if kind == "series":
        error = np.abs(truth.astype(np.float64) - answers["values"])
        # Several variables have units of their own, so their errors are counted in deviations.
        if error.shape[2] > 1 and isinstance(scale, Forecasting):
            error = error / np.maximum(np.array(scale.std), 1e-300)
        steps = np.broadcast_to(weights[:, None, None], error.shape)
        return _within(error.ravel(), steps.ravel())
    if kind == "set":
        named = answers["probabilities"] >= np.asarray(threshold)
        both = float(weights @ (named & (truth > 0)).sum(axis=1))
        there, named_all = weights @ (truth > 0).sum(axis=1), weights @ named.sum(axis=1)
        return {
            **({"found": both / float(there)} if there else {}),
            **({"right": both / float(named_all)} if named_all else {}),
        }
    if kind == "text":
        exact = np.array(
            [one == other for one, other in zip(truth, answers["text"], strict=True)]
        )
        return {"exact": float(weights @ exact / weights.sum())} if len(truth) else {}
    return {}


def _within(error: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Return how far half, and nine in ten, of the answers are off at most."""
    known = np.isfinite(error) & (weight > 0)
    if not known.any():
        return {}
    order = np.argsort(error[known], kind="stable")
    values, weights = error[known][order], weight[known][order]
    shares = np.cumsum(weights) / weights.sum()
    return {
        word: float(values[min(int(np.searchsorted(shares, share)), len(values) - 1)])
        for word, share in (("half_within", 0.5), ("most_within", 0.9))
    }
