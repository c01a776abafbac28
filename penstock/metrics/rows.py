"""Rows, made ready once for every meter: truth, answers, weights and what follows from them.

Rows of weight 0 are left out here, so that no meter has to think of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from penstock.core.errors import PenstockError
from penstock.metrics.names import ANSWER, Kind, kind_of

BINS = 15
"""Of the calibration error."""


@dataclass
class Rows:
    """N rows of one target."""

    kind: Kind
    truth: np.ndarray
    """int64 `[N]` class, or float64 `[N]`."""
    answer: np.ndarray
    """`[N]` probability of the positive class, `[N, K]` probabilities, or float64 `[N]` values."""
    weight: np.ndarray
    """float64 `[N]`, above 0."""
    predicted: np.ndarray
    """int64 `[N]` class answered; empty for numbers."""
    classes: int
    """K; 2 for binary, 0 for numbers."""
    broken: int
    """Rows whose answer or truth is not finite."""

    def correct(self) -> np.ndarray:
        """Whether each row is answered right, `[N]` float64."""
        return np.asarray(self.truth == self.predicted, np.float64)

    def log_loss(self) -> np.ndarray:
        """-log of the probability given to the truth, `[N]`; clipped at the answer's own precision (as scikit-learn does)."""
        least = float(np.finfo(self.answer.dtype).eps)
        if self.kind == "binary":
            given = np.where(self.truth == 1, self.answer, 1 - self.answer.astype(np.float64))
        else:
            given = self.answer[np.arange(len(self.truth)), self.truth].astype(np.float64)
        return np.asarray(-np.log(np.clip(given, least, 1 - least)))

    def error(self) -> np.ndarray:
        return np.asarray(self.answer - self.truth)

    def relative_error(self) -> tuple[np.ndarray, np.ndarray]:
        """|error| / |truth|, and where it is defined (truth not 0)."""
        defined = self.truth != 0
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(defined, np.abs(self.error()) / np.abs(self.truth), 0.0), defined

    def calibration(self) -> tuple[np.ndarray, np.ndarray]:
        """Each row's bin `[N]` and its probability minus what came true `[N]`.

        Binary: of the positive class; category: of the class answered (top-label calibration).
        """
        if self.kind == "binary":
            confidence, came_true = self.answer.astype(np.float64), self.truth.astype(np.float64)
        else:
            confidence, came_true = self.answer.max(axis=1).astype(np.float64) if len(self.truth) else np.empty(0), self.correct()
        bins = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
        return bins, confidence - came_true

    def ranked(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(score, positive) for each ranking to be judged: one for binary, one a class for a category."""
        if self.kind == "binary":
            return [(self.answer, self.truth == 1)]
        return [(self.answer[:, k], self.truth == k) for k in range(self.classes)]


def prepare(truth: np.ndarray, answers: Mapping[str, np.ndarray], weight: np.ndarray | None, *, threshold: float) -> Rows:
    """Check and align what is to be measured.

    Raises:
        PenstockError: lengths differ, a class is out of range, or a weight is negative or not a number: a defect upstream.
    """
    kind = kind_of(answers)
    answer = np.asarray(answers[ANSWER[kind]])
    if answer.dtype.kind != "f":
        answer = answer.astype(np.float64)
    truth = np.asarray(truth)
    if len(truth) != len(answer):
        raise PenstockError(f"{len(truth)} rows of truth and {len(answer)} answers cannot be compared")
    weights = np.ones(len(truth)) if weight is None else np.asarray(weight, np.float64)
    if weights.shape != (len(truth),) or not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise PenstockError(f"weights must be one finite number that is not negative for each of {len(truth)} rows; found shape {weights.shape}")
    if not np.all(weights > 0):
        truth, answer, weights = truth[weights > 0], answer[weights > 0], weights[weights > 0]
    if kind == "number":
        if answer.ndim > 1 or truth.ndim > 1:  # several numbers a row count as so many rows
            if answer.size != truth.size:
                raise PenstockError(f"truth {truth.shape} and values {answer.shape} cannot be compared")
            weights = np.repeat(weights, answer.size // max(len(answer), 1))
        truth, answer = truth.astype(np.float64).reshape(-1), answer.astype(np.float64).reshape(-1)
        broken = int((~(np.isfinite(truth) & np.isfinite(answer))).sum())
        return Rows(kind, truth, answer, weights, np.empty(0, np.int64), 0, broken)
    if kind == "binary":
        answer = answer.reshape(-1)
        predicted, classes = (answer >= threshold).astype(np.int64), 2
        broken = int((~np.isfinite(answer)).sum())
    else:
        if answer.ndim != 2 or answer.shape[1] == 0:
            raise PenstockError(f"probabilities must be [rows, classes]; found {answer.shape}")
        broken = int((~np.isfinite(answer).all(axis=1)).sum())
        predicted, classes = (np.argmax(answer, axis=1) if len(answer) else np.empty(0)).astype(np.int64), answer.shape[1]
    truth = truth.reshape(-1).astype(np.int64)
    if len(truth) and (truth.min() < 0 or truth.max() >= classes):
        raise PenstockError(f"classes must be 0 to {classes - 1}; found {int(truth.min())} to {int(truth.max())}")
    return Rows(kind, truth, answer, weights, predicted, classes, broken)
