"""Checks and aligns truth and answers, once for every metric.

Rows of weight 0 are left out here, so that no metric has to think of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from penstock.contracts.metric import ANSWER, Forecasting, Kind, Rows, Scale, Threshold
from penstock.contracts.tensors import open_axes_alike
from penstock.core.errors import PenstockError
from penstock.metrics.names import kind_of


def prepare(
    truth: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weight: np.ndarray | None,
    *,
    threshold: Threshold,
    scale: Scale = None,
) -> Rows:
    """Check and align truth, answers and weights.

    Raises:
        PenstockError: lengths differ, a class is out of range, or a weight is negative or not a number: a
            defect upstream.
    """
    truth = np.asarray(truth)
    kind = kind_of(answers, truth)
    answer = np.asarray(answers[ANSWER[kind]])
    # Metrics compute in floats; of texts nothing is computed here.
    if answer.dtype.kind != "f" and kind != "text":
        answer = answer.astype(np.float64)
    if len(truth) != len(answer):
        raise PenstockError(
            f"{len(truth)} rows of truth and {len(answer)} answers cannot be compared"
        )
    weights = _weights(weight, len(truth))
    keep = weights > 0
    if not keep.all():
        truth, answer, weights = truth[keep], answer[keep], weights[keep]
        # A series may have quantiles beside its values, which must lose the same rows.
        answers = (
            {name: values[keep] for name, values in answers.items()}
            if kind == "series"
            else answers
        )
    if kind == "number":
        return _numbers(truth, answer, weights, scale)
    if kind == "series":
        return _series(
            truth,
            answer,
            answers,
            weights,
            scale if isinstance(scale, Forecasting) else None,
        )
    if kind == "text":
        return Rows("text", truth, answer, weights, _NOTHING, classes=0)
    if kind == "set":
        return _sets(truth, answer, weights, threshold)
    if kind == "sequence":
        return _steps(truth, answer, weights)
    return _classes(kind, truth, answer, weights, threshold)


def _weights(weight: np.ndarray | None, rows: int) -> np.ndarray:
    """Return the weights, float64 `[rows]`; 1 where none are given."""
    weights = np.ones(rows) if weight is None else np.asarray(weight, np.float64)
    if (
        weights.shape != (rows,)
        or not np.all(np.isfinite(weights))
        or np.any(weights < 0)
    ):
        raise PenstockError(
            f"weights must be one finite number that is not negative for each of {rows} rows; found"
            f" shape {weights.shape}"
        )
    return weights


_NOTHING = np.empty(0, np.int64)
"""What was predicted, where there are no classes."""


def _numbers(
    truth: np.ndarray, answer: np.ndarray, weights: np.ndarray, scale: Scale
) -> Rows:
    """Prepare numbers: one a row, or several, which count as so many rows."""
    if answer.ndim > 1 or truth.ndim > 1:
        if answer.size != truth.size:
            raise PenstockError(
                f"truth {truth.shape} and values {answer.shape} cannot be compared"
            )
        # Each number of a row counts as much as the row.
        weights = np.repeat(weights, answer.size // max(len(answer), 1))
    truth, answer = (
        truth.astype(np.float64).reshape(-1),
        answer.astype(np.float64).reshape(-1),
    )
    broken = int((~(np.isfinite(truth) & np.isfinite(answer))).sum())
    return Rows("number", truth, answer, weights, _NOTHING, 0, broken, scale=scale)


def _series(
    truth: np.ndarray,
    answer: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weights: np.ndarray,
    scale: Forecasting | None,
) -> Rows:
    """Prepare a series' truth and values `[rows, steps, variables]`; rows of which
    nothing was observed are dropped.
    """
    if truth.shape != answer.shape or truth.ndim != 3:
        raise PenstockError(
            f"a series' truth {truth.shape} and values {answer.shape} must both be [rows, steps, variables]"
        )
    truth, answer = (
        truth.astype(np.float64, copy=False),
        answer.astype(np.float64, copy=False),
    )
    broken = int((~np.isfinite(answer).all(axis=(1, 2))).sum())
    quantiles = answers.get("quantiles")
    # Where nothing was observed there is nothing to compare with.
    there = np.isfinite(truth).any(axis=(1, 2))
    if not there.all():
        truth, answer, weights = truth[there], answer[there], weights[there]
        quantiles = None if quantiles is None else quantiles[there]
    # Neighbouring windows share what they forecast: a resampling that drew them one by one would take them
    # for independent, and its intervals would be too narrow.
    owner = np.arange(len(truth)) // (scale.block if scale is not None else 1)
    return Rows(
        "series",
        truth,
        answer,
        weights,
        _NOTHING,
        classes=0,
        broken=broken,
        owner=owner,
        owners=int(owner[-1]) + 1 if len(truth) else 0,
        scale=scale,
        quantiles=quantiles,
    )


def _sets(
    truth: np.ndarray, answer: np.ndarray, weights: np.ndarray, threshold: Threshold
) -> Rows:
    """Prepare a set's truth and probabilities `[rows, labels]`."""
    if truth.shape != answer.shape or not answer.shape[1]:
        raise PenstockError(
            f"a set's truth {truth.shape} and probabilities {answer.shape} must both be [rows, labels]"
        )
    broken = int((~np.isfinite(answer).all(axis=1)).sum())
    # One threshold, or one a label `[labels]`.
    predicted = answer >= np.asarray(threshold, np.float64)
    return Rows(
        "set",
        (truth > 0).astype(np.uint8),
        answer,
        weights,
        predicted,
        answer.shape[1],
        broken,
    )


def _classes(
    kind: Kind,
    truth: np.ndarray,
    answer: np.ndarray,
    weights: np.ndarray,
    threshold: Threshold,
) -> Rows:
    """Prepare a class a row: probabilities `[rows]` of the positive one, or `[rows,
    classes]`.
    """
    if kind == "binary":
        answer = answer.reshape(-1)
        predicted, classes = (answer >= threshold).astype(np.int64), 2
        broken = int((~np.isfinite(answer)).sum())
    else:
        if answer.ndim != 2 or answer.shape[1] == 0:
            raise PenstockError(
                f"probabilities must be [rows, classes]; found {answer.shape}"
            )
        broken = int((~np.isfinite(answer).all(axis=1)).sum())
        predicted = (np.argmax(answer, axis=1) if len(answer) else np.empty(0)).astype(
            np.int64
        )
        classes = answer.shape[1]
    truth = truth.reshape(-1).astype(np.int64)
    if len(truth) and (truth.min() < 0 or truth.max() >= classes):
        raise PenstockError(
            f"classes must be 0 to {classes - 1}; found {int(truth.min())} to {int(truth.max())}"
        )
    return Rows(kind, truth, answer, weights, predicted, classes, broken)


def _steps(truth: np.ndarray, answer: np.ndarray, weights: np.ndarray) -> Rows:
    """Prepare every step of a sequence that has a truth (it is -1 where there is no
    step).

    A step whose probabilities are all 0 was not answered: it is wrong.
    """
    if truth.ndim != 2:
        raise PenstockError(
            f"a sequence's truth must be [rows, steps], -1 where there is none; found {truth.shape}"
        )
    classes, steps = answer.shape[2], truth.shape[1]
    # The model may have read fewer steps than the truth has: the others are filled with
    # 0.
    _, answer = open_axes_alike([np.zeros((0, steps, classes), answer.dtype), answer])
    # In order of rows, so that `owner` ascends.
    owner, step = np.nonzero(truth >= 0)
    flat, given = truth[owner, step].astype(np.int64), answer[owner, step]
    if len(flat) and flat.max() >= classes:
        raise PenstockError(
            f"classes must be 0 to {classes - 1}; found up to {int(flat.max())}"
        )
    # The number beyond the last class stands for no answer, and is never right.
    predicted = (
        np.where(given.sum(axis=1) > 0, given.argmax(axis=1), classes).astype(np.int64)
        if len(flat)
        else np.empty(0, np.int64)
    )
    # A row counts as broken once, however many of its steps are.
    broken = len(np.unique(owner[~np.isfinite(given).all(axis=1)]))
    return Rows(
        "sequence",
        flat,
        given,
        weights[owner],
        predicted,
        classes,
        broken,
        owner,
        len(truth),
    )
