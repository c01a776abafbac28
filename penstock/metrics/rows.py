"""Rows, made ready once for every meter: truth, answers, weights and what follows from them.

Rows of weight 0 are left out here, so that no meter has to think of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.contracts.tensors import open_axes_alike
from penstock.core.errors import PenstockError
from penstock.metrics.forecast import FORECAST, Forecasting, statistics
from penstock.metrics.names import ANSWER, Kind, kind_of
from penstock.metrics.texts import TEXT
from penstock.metrics.texts import statistics as text_statistics

BINS = 15
"""Of the calibration error."""
ROW_MEANS = ("accuracy", "subset_accuracy", "log_loss", "label_ranking_average_precision", *FORECAST, *TEXT)
"""Measures that are the mean of a statistic of each row (`Rows.statistic`)."""


@dataclass
class Rows:
    """N rows of one target; of a sequence, N steps of all rows."""

    kind: Kind
    truth: np.ndarray
    """int64 `[N]` class, or float64 `[N]`; of a set uint8 `[N, K]`."""
    answer: np.ndarray
    """`[N]` probability of the positive class, `[N, K]` probabilities, or float64 `[N]` values."""
    weight: np.ndarray
    """float64 `[N]`, above 0."""
    predicted: np.ndarray
    """int64 `[N]` class answered (K: none was, for a step beyond what the model read); of a set bool `[N,
    K]`; empty for numbers.
    """
    classes: int
    """K; 2 for binary, 0 for numbers."""
    broken: int
    """Rows whose answer or truth is not finite."""
    owner: np.ndarray | None = None
    """Of a sequence: which row each step belongs to, int64 `[N]`, ascending; of a series, which block of rows
    each belongs to.
    """
    owners: int = 0
    """Of a sequence: how many rows there are, those without a step included."""
    statistics: Mapping[str, np.ndarray] | None = None
    """Of a series or a text: what each measure averages over rows, `[N]`; `truth` and `answer` are not kept
    then.
    """

    @property
    def resampled(self) -> int:
        """How many rows a resampling draws: the steps of a row go together."""
        return len(self.truth) if self.owner is None else self.owners

    def spread(self, by_row: np.ndarray) -> np.ndarray:
        """What is known of each row `[…, rows]`, for each of the N."""
        return by_row if self.owner is None else by_row[..., self.owner]

    def correct(self) -> np.ndarray:
        """Whether each row is answered right (of a set: wholly), `[N]` float64."""
        right = self.truth == self.predicted
        return np.asarray(right.all(axis=1) if self.kind == "set" else right, np.float64)

    def statistic(self, name: str) -> np.ndarray:
        """What a measure averages over rows, `[N]`."""
        if self.statistics is not None:
            return self.statistics[name]
        if name in ("accuracy", "subset_accuracy"):
            return self.correct()
        return self.label_ranking() if name == "label_ranking_average_precision" else self.log_loss()

    def label_ranking(self) -> np.ndarray:
        """A set's label ranking average precision by row `[N]` (Tsoumakas, Katakis and Vlahavas 2010): 1 for
        a row without labels.

        Labels of equal scores all take the last of their ranks, as in scikit-learn.
        """
        if not len(self.truth):
            return np.empty(0)
        order = np.argsort(-self.answer, axis=1, kind="stable")
        score, there = np.take_along_axis(self.answer, order, 1), np.take_along_axis(self.truth, order, 1) > 0
        rank = np.arange(1, self.classes + 1)
        ends = np.concatenate([score[:, :-1] != score[:, 1:], np.ones((len(score), 1), bool)], axis=1)
        last = np.minimum.accumulate(np.where(ends, rank, self.classes)[:, ::-1], axis=1)[:, ::-1]
        hits = np.take_along_axis(np.cumsum(there, axis=1), last - 1, 1)
        count = there.sum(axis=1)
        return np.where(count > 0, np.where(there, hits / last, 0.0).sum(axis=1) / np.maximum(count, 1), 1.0)

    def hits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, class) pairs that are true, that are answered, and that are both: three int64 `[2, n]`."""
        if self.kind == "set":
            true, said = self.truth > 0, self.predicted > 0
            return np.stack(np.nonzero(true)), np.stack(np.nonzero(said)), np.stack(np.nonzero(true & said))
        rows = np.arange(len(self.truth))
        answered, right = self.predicted < self.classes, self.truth == self.predicted
        return (
            np.stack([rows, self.truth]),
            np.stack([rows[answered], self.predicted[answered]]),
            np.stack([rows[right], self.truth[right]]),
        )

    def log_loss(self) -> np.ndarray:
        """-log of the probability given to the truth, `[N]`; clipped at the answer's own precision (as
        scikit-learn does).
        """
        least = float(np.finfo(self.answer.dtype).eps)
        if self.kind in ("binary", "set"):
            given = np.where(self.truth == 1, self.answer, 1 - self.answer.astype(np.float64))
        else:
            given = self.answer[np.arange(len(self.truth)), self.truth].astype(np.float64)
        lost = np.asarray(-np.log(np.clip(given, least, 1 - least)))
        return lost.mean(axis=1) if self.kind == "set" else lost

    def error(self) -> np.ndarray:
        """Of numbers, the answer minus the truth `[N]`."""
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
            confidence, came_true = (
                (self.answer.max(axis=1).astype(np.float64) if len(self.truth) else np.empty(0)),
                self.correct(),
            )
        bins = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
        return bins, confidence - came_true

    def ranked(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(score, positive) for each ranking to be judged: one for binary, one a class for a category or
        set.
        """
        if self.kind == "binary":
            return [(self.answer, self.truth == 1)]
        if self.kind == "set":
            return [(self.answer[:, k], self.truth[:, k] == 1) for k in range(self.classes)]
        return [(self.answer[:, k], self.truth == k) for k in range(self.classes)]


Threshold = float | Sequence[float] | np.ndarray
"""The least probability that is answered: one, or one a label `[K]`."""


Scale = float | Forecasting | None
"""What errors are in units of: of a number its deviation in the training split, of a series each variable's
and more; None: the truth's own.
"""


def prepare(
    truth: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weight: np.ndarray | None,
    *,
    threshold: Threshold,
    scale: Scale = None,
) -> Rows:
    """Check and align what is to be measured.

    Raises:
        PenstockError: lengths differ, a class is out of range, or a weight is negative or not a number: a
            defect upstream.
    """
    truth = np.asarray(truth)
    kind = kind_of(answers, truth)
    answer = np.asarray(answers[ANSWER[kind]])
    if answer.dtype.kind != "f" and kind != "text":
        answer = answer.astype(np.float64)
    if len(truth) != len(answer):
        raise PenstockError(f"{len(truth)} rows of truth and {len(answer)} answers cannot be compared")
    weights = _weights(weight, len(truth))
    keep = weights > 0
    if not keep.all():
        truth, answer, weights = truth[keep], answer[keep], weights[keep]
        answers = {name: values[keep] for name, values in answers.items()} if kind == "series" else answers
    if kind == "number":
        return _numbers(truth, answer, weights)
    if kind == "series":
        return _series(truth, answer, answers, weights, scale if isinstance(scale, Forecasting) else None)
    if kind == "text":
        return _texts(truth, answer, weights)
    if kind == "set":
        return _sets(truth, answer, weights, threshold)
    if kind == "sequence":
        return _steps(truth, answer, weights)
    return _classes(kind, truth, answer, weights, threshold)


def _weights(weight: np.ndarray | None, rows: int) -> np.ndarray:
    """float64 `[rows]`; 1 where none are given."""
    weights = np.ones(rows) if weight is None else np.asarray(weight, np.float64)
    if weights.shape != (rows,) or not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise PenstockError(
            f"weights must be one finite number that is not negative for each of {rows} rows; found"
            f" shape {weights.shape}"
        )
    return weights


def _numbers(truth: np.ndarray, answer: np.ndarray, weights: np.ndarray) -> Rows:
    """One number a row, or several, which count as so many rows."""
    if answer.ndim > 1 or truth.ndim > 1:
        if answer.size != truth.size:
            raise PenstockError(f"truth {truth.shape} and values {answer.shape} cannot be compared")
        weights = np.repeat(weights, answer.size // max(len(answer), 1))
    truth, answer = truth.astype(np.float64).reshape(-1), answer.astype(np.float64).reshape(-1)
    broken = int((~(np.isfinite(truth) & np.isfinite(answer))).sum())
    return Rows("number", truth, answer, weights, np.empty(0, np.int64), 0, broken)


def _series(
    truth: np.ndarray,
    answer: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weights: np.ndarray,
    scale: Forecasting | None,
) -> Rows:
    """Truth and values `[rows, steps, variables]`: only the statistics of rows that have any go on."""
    if truth.shape != answer.shape or truth.ndim != 3:
        raise PenstockError(
            f"a series' truth {truth.shape} and values {answer.shape} must both be [rows, steps, variables]"
        )
    by_row, there, broken = statistics(truth, answers, scale)
    count = int(there.sum())
    # Neighbouring windows share what they forecast: a resampling that drew them one by one would take them
    # for independent, and its intervals would be too narrow.
    owner = np.arange(count) // (scale.block if scale is not None else 1)
    nothing = np.zeros(count)
    return Rows(
        "series",
        nothing,
        nothing,
        weights[there],
        np.empty(0, np.int64),
        classes=0,
        broken=int(broken.sum()),
        owner=owner,
        owners=int(owner[-1]) + 1 if count else 0,
        statistics={name: values[there] for name, values in by_row.items()},
    )


def _texts(truth: np.ndarray, answer: np.ndarray, weights: np.ndarray) -> Rows:
    """Texts `[rows]`: only each row's statistics go on."""
    nothing = np.zeros(len(truth))
    by_row = text_statistics(truth, answer)
    return Rows(
        "text",
        nothing,
        nothing,
        weights,
        np.empty(0, np.int64),
        classes=0,
        broken=0,
        statistics=by_row,
    )


def _sets(truth: np.ndarray, answer: np.ndarray, weights: np.ndarray, threshold: Threshold) -> Rows:
    """Truth and probabilities `[rows, labels]`."""
    if truth.shape != answer.shape or not answer.shape[1]:
        raise PenstockError(
            f"a set's truth {truth.shape} and probabilities {answer.shape} must both be [rows, labels]"
        )
    broken = int((~np.isfinite(answer).all(axis=1)).sum())
    predicted = answer >= np.asarray(threshold, np.float64)
    return Rows("set", (truth > 0).astype(np.uint8), answer, weights, predicted, answer.shape[1], broken)


def _classes(
    kind: Kind, truth: np.ndarray, answer: np.ndarray, weights: np.ndarray, threshold: Threshold
) -> Rows:
    """A class a row: `[rows]` probabilities of the positive one, or `[rows, classes]`."""
    if kind == "binary":
        answer = answer.reshape(-1)
        predicted, classes = (answer >= threshold).astype(np.int64), 2
        broken = int((~np.isfinite(answer)).sum())
    else:
        if answer.ndim != 2 or answer.shape[1] == 0:
            raise PenstockError(f"probabilities must be [rows, classes]; found {answer.shape}")
        broken = int((~np.isfinite(answer).all(axis=1)).sum())
        predicted = (np.argmax(answer, axis=1) if len(answer) else np.empty(0)).astype(np.int64)
        classes = answer.shape[1]
    truth = truth.reshape(-1).astype(np.int64)
    if len(truth) and (truth.min() < 0 or truth.max() >= classes):
        raise PenstockError(
            f"classes must be 0 to {classes - 1}; found {int(truth.min())} to {int(truth.max())}"
        )
    return Rows(kind, truth, answer, weights, predicted, classes, broken)


def _steps(truth: np.ndarray, answer: np.ndarray, weights: np.ndarray) -> Rows:
    """Every step that has a truth (it is -1 where there is no step).

    A step whose probabilities are all 0 was not answered: it is wrong.
    """
    if truth.ndim != 2:
        raise PenstockError(
            f"a sequence's truth must be [rows, steps], -1 where there is none; found {truth.shape}"
        )
    classes, steps = answer.shape[2], truth.shape[1]
    _, answer = open_axes_alike([np.zeros((0, steps, classes), answer.dtype), answer])
    owner, step = np.nonzero(truth >= 0)
    flat, given = truth[owner, step].astype(np.int64), answer[owner, step]
    if len(flat) and flat.max() >= classes:
        raise PenstockError(f"classes must be 0 to {classes - 1}; found up to {int(flat.max())}")
    predicted = (
        np.where(given.sum(axis=1) > 0, given.argmax(axis=1), classes).astype(np.int64)
        if len(flat)
        else np.empty(0, np.int64)
    )
    broken = len(np.unique(owner[~np.isfinite(given).all(axis=1)]))
    return Rows("sequence", flat, given, weights[owner], predicted, classes, broken, owner, len(truth))
