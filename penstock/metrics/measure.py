"""Meters: update, merge, result; and `measure`, the same in one go.

Each meter is a per-row statistic times a mergeable sum, so training (one rank's batches), evaluation (a split
that does not fit in memory) and a stream (for ever) use the same code. Sums are exact, hence free of order
(`exact.Cells`).

Ranking (ROC AUC, average precision) needs all scores at once. Up to `RANKED_VALUES` scores they are kept and
sorted: exact. Beyond, they fall into bins that are even in the log-odds from -20 to 20, 2^16 of them (fewer
with many classes, 2^21 in all and 2^10 at least): rows within one bin count as ties, which moves an AUC by
about 1e-5. Whether the limit was passed depends on how many rows were seen, not on how they were cut, so
halves merged still equal the whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Self

import numpy as np

from penstock.metrics.exact import Cells, grouped, precision_area, roc_area
from penstock.metrics.forecast import Forecasting
from penstock.metrics.names import Kind, chosen, kind_of
from penstock.metrics.rows import BINS, ROW_MEANS, Rows, Scale, Threshold, prepare
from penstock.metrics.texts import COUNTS, bleu

RANKED_VALUES = 1 << 21
"""About 40 MB."""
ERRORS = ("mse", "mae", "mse_standardised")
"""Means over rows of a series; of numbers, part of one meter with the others."""
MATRIX_CLASSES = 1_000
"""Beyond so many classes the confusion matrix is null: nobody reads it, and it would not fit."""


class Meter(ABC):
    """One or several measures that share what they sum.

    Laws: `merge` is associative and commutative; halves merged equal the whole.
    """

    @abstractmethod
    def update(self, rows: Rows) -> None:
        """Take in rows."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in all that `other` has seen."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """Each measure: a float, a list, or None where it is undefined."""


class _Sums(Meter):
    """A meter whose whole state is exact sums."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.classes = 0

    def merge(self, other: Self) -> None:
        self.cells.merge(other.cells)
        self.classes = max(self.classes, other.classes)


class Share(_Sums):
    """A per-row statistic's weighted mean (`Rows.statistic`): accuracy, log_loss."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def update(self, rows: Rows) -> None:
        values = rows.statistic(self.name)
        if np.isnan(values).any():  # a measure that this target has not: no naive forecast to compare with
            return
        self.cells.add(0, rows.weight)
        self.cells.add(1, np.minimum(rows.weight * values, np.finfo(np.float64).max / 4))

    def result(self) -> dict[str, Any]:
        return {self.name: _ratio(self.cells.fraction(1), self.cells.fraction(0))}


class Errors(_Sums):
    """What is measured of numbers. Variance from exact Σw, Σwy, Σwy², so a large mean costs no digits."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.scale = scale

    def update(self, rows: Rows) -> None:
        error, weight = rows.error(), rows.weight
        with np.errstate(over="ignore"):
            squared = weight * error * error
        if not np.all(np.isfinite(squared)):  # errors beyond 1e154: squares are out of a double's range
            squared = np.full_like(squared, np.finfo(np.float64).max / 4)
        self.cells.add(0, weight)
        self.cells.add(1, squared)
        self.cells.add(2, weight * np.abs(error))
        self.cells.add_products(3, weight, rows.truth)
        self.cells.add_products(4, weight, rows.truth, rows.truth)
        relative, defined = rows.relative_error()
        self.cells.add(5, weight[defined])
        self.cells.add(6, np.minimum(weight * relative, np.finfo(np.float64).max / 4)[defined])

    def result(self) -> dict[str, Any]:
        total, squared, absolute, first, second, relative_weight, relative = (
            self.cells.fraction(i) for i in range(7)
        )
        mse = _ratio(squared, total)
        variance = second / total - (first / total) ** 2 if total else Fraction(0)
        own = float(variance) if variance > 0 else 0.0
        scale = own if self.scale is None else self.scale**2
        return {
            "mse": mse,
            "rmse": None if mse is None else mse**0.5,
            "mae": _ratio(absolute, total),
            "mape": _ratio(relative, relative_weight),
            "r2": None if mse is None or own == 0 else 1 - mse / own,
            "mse_standardised": None if mse is None or scale == 0 else mse / scale,
        }


class Bleu(_Sums):
    """BLEU of all rows together."""

    def update(self, rows: Rows) -> None:
        for i, name in enumerate(COUNTS):
            self.cells.add(i, rows.weight * rows.statistic(name))

    def result(self) -> dict[str, Any]:
        return {"bleu": bleu(self.cells.floats(len(COUNTS)))}


class Classes(_Sums):
    """What follows from how often each class is true, answered, and both: precision, recall and the f1
    family.
    """

    def update(self, rows: Rows) -> None:
        self.classes = rows.classes
        for what, (row, label) in enumerate(rows.hits()):
            if len(row):
                self.cells.add(label * 3 + what, rows.weight[row])

    def result(self) -> dict[str, Any]:
        true, answered, both = self.cells.floats(3 * self.classes).reshape(-1, 3).T
        result = class_scores(true[None], answered[None], both[None])
        each = [_number(v) for v in result.pop("f1_per_class")[0]]
        return {
            **{name: _number(values[0]) for name, values in result.items()},
            "f1_per_class": each,
            "f1_per_label": each,
        }


class Matrix(_Sums):
    """The confusion matrix."""

    def update(self, rows: Rows) -> None:
        self.classes = rows.classes
        if self.classes <= MATRIX_CLASSES:
            self.cells.add(rows.truth * rows.classes + rows.predicted, rows.weight)

    def result(self) -> dict[str, Any]:
        if not 0 < self.classes <= MATRIX_CLASSES:
            return {"confusion_matrix": None}
        counts = self.cells.floats(self.classes**2).reshape(self.classes, self.classes)
        whole = bool(np.all(counts == np.floor(counts)))
        return {"confusion_matrix": [[int(v) if whole else float(v) for v in row] for row in counts]}


class Calibration(_Sums):
    """Expected calibration error: Σ over bins |Σ w (probability - came true)| / Σ w."""

    def update(self, rows: Rows) -> None:
        bins, gap = rows.calibration()
        self.cells.add(bins, rows.weight * gap)
        self.cells.add(BINS, rows.weight)

    def result(self) -> dict[str, Any]:
        return {
            "ece": _ratio(
                sum((abs(self.cells.fraction(i)) for i in range(BINS)), Fraction(0)),
                self.cells.fraction(BINS),
            )
        }


class Ranking(Meter):
    """ROC AUC and average precision; the head of this file tells how."""

    def __init__(self, *, limit: int = RANKED_VALUES) -> None:
        self.limit = limit
        self.values = 0
        self.classes = 0
        self._kept: list[Rows] = []
        self._bins: np.ndarray | None = None  # [rankings, bins, (negative, positive)]

    @property
    def exact(self) -> bool:
        return self._bins is None

    def update(self, rows: Rows) -> None:
        self.values += rows.answer.size
        self.classes = rows.classes
        self._kept.append(
            replace(
                rows,
                predicted=np.empty(0, np.int64),
                truth=rows.truth if rows.kind == "set" else rows.truth.astype(np.int32),
            )
        )
        self._spill()

    def merge(self, other: Self) -> None:
        self.values += other.values
        self.classes = max(self.classes, other.classes)
        self._kept += other._kept
        if other._bins is not None:
            self._bins = other._bins.copy() if self._bins is None else self._bins + other._bins
        self._spill()

    def _spill(self) -> None:
        if self.values <= self.limit and self._bins is None:
            return
        for rows in self._kept:
            rankings = rows.ranked()
            bins = max(min(1 << 16, 1 << int(np.log2((1 << 21) / len(rankings)))), 1 << 10)
            if self._bins is None:
                self._bins = np.zeros((len(rankings), bins, 2))
            for i, (score, positive) in enumerate(rankings):
                probability = score.astype(np.float64)
                with np.errstate(divide="ignore"):
                    odds = np.clip(np.log(probability) - np.log1p(-np.minimum(probability, 1.0)), -20, 20)
                slot = np.minimum(((odds + 20) / 40 * bins).astype(np.int64), bins - 1)
                self._bins[i] += np.bincount(
                    slot * 2 + positive, weights=rows.weight, minlength=2 * bins
                ).reshape(bins, 2)
        self._kept = []

    def result(self) -> dict[str, Any]:
        curves = [(b[:, 1], b[:, 0]) for b in self._bins] if self._bins is not None else self._sorted()
        return {
            "roc_auc": _mean_defined([roc_area(*c) for c in curves]),
            "average_precision": _mean_defined([precision_area(*c) for c in curves]),
        }

    def _sorted(self) -> list[tuple[np.ndarray, np.ndarray]]:
        kept = [rows for rows in self._kept if len(rows.truth)]
        if not kept:
            return []
        weight = np.concatenate([rows.weight for rows in kept])
        parts = [rows.ranked() for rows in kept]
        return [
            grouped(
                np.concatenate([p[i][0] for p in parts]), np.concatenate([p[i][1] for p in parts]), weight
            )
            for i in range(len(parts[0]))
        ]


def class_scores(true: np.ndarray, answered: np.ndarray, both: np.ndarray) -> dict[str, np.ndarray]:
    """Measures by class counts `[R, K]`, for each of R (re)samples; not a number where undefined.

    A class that is neither true nor answered anywhere is no class here: it is left out of the averages.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(true + answered > 0, 2 * both / (true + answered), np.nan)
        there = ~np.isnan(f1)
        filled, rows = np.nan_to_num(f1), true.sum(axis=1)
        scores = {
            "f1_macro": np.where(there.any(axis=1), filled.sum(axis=1) / there.sum(axis=1), np.nan),
            "f1_micro": np.where(rows > 0, 2 * both.sum(axis=1) / (rows + answered.sum(axis=1)), np.nan),
            "f1_weighted": np.where(rows > 0, (filled * true).sum(axis=1) / rows, np.nan),
            "f1_per_class": f1,
        }
        if true.shape[1] == 2:
            positive, said, hits = true[:, 1], answered[:, 1], both[:, 1]
            scores["precision"] = np.where(said > 0, hits / said, np.where(positive > 0, 0.0, np.nan))
            scores["recall"] = np.where(positive > 0, hits / positive, np.nan)
            scores["f1"] = f1[:, 1]
    return scores


class Measures:
    """All measures asked for of one target: update, merge, result."""

    def __init__(self, names: Sequence[str], *, threshold: Threshold = 0.5, scale: Scale = None) -> None:
        """
        Args:
            names: metrics (`penstock.metrics.METRICS`).
            threshold: the least probability that is answered as positive; of a set one for all labels, or one
                a label `[K]`.
            scale: the deviation that `mse_standardised` is in units of; the training split's, or None for the
                truth's own.
        """
        self.names, self.threshold, self.scale = tuple(names), threshold, scale
        self.rows = 0
        self.broken = 0
        """Rows whose answer was not finite; with any, every measure is None."""
        self._meters: dict[str, Meter] = {}

    def update(
        self, truth: np.ndarray, answers: Mapping[str, np.ndarray], weight: np.ndarray | None = None
    ) -> None:
        """Take in rows.

        Args:
            truth: class indices `[N]` (0 or 1; 0 … K-1), or numbers `[N]` in the user's units; of a set 1 for
                each label `[N, K]`; of a sequence class indices `[N, T]`, -1 where there is no step.
            answers: `{"probability": [N]}`, `{"probabilities": [N, K]}` (of a sequence `[N, T, K]`) or
                `{"value": [N]}`.
            weight: how much each row counts `[N]`; all alike unless given.

        Raises:
            RecipeError: a name is unknown or does not suit the target.
        """
        if not self._meters:
            kind = kind_of(answers, np.asarray(truth))
            self._meters = self._needed(chosen(self.names, kind), kind)
        rows = prepare(truth, answers, weight, threshold=self.threshold, scale=self.scale)
        self.rows += len(np.asarray(truth))
        self.broken += rows.broken
        if not self.broken:
            for meter in self._meters.values():
                meter.update(rows)

    def _needed(self, names: Sequence[str], kind: Kind) -> dict[str, Meter]:
        meters: dict[str, Meter] = {}
        for name in names:
            if name in ROW_MEANS and (kind == "series" or name not in ERRORS):
                meters.setdefault(name, Share(name))
            elif name == "bleu":
                meters.setdefault(name, Bleu())
            elif name in ("roc_auc", "average_precision"):
                meters.setdefault("ranking", Ranking())
            elif name == "ece":
                meters.setdefault(name, Calibration())
            elif name == "confusion_matrix":
                meters.setdefault(name, Matrix())
            elif name in ("precision", "recall") or name.startswith("f1"):
                meters.setdefault("classes", Classes())
            else:
                meters.setdefault(
                    "errors", Errors(None if isinstance(self.scale, Forecasting) else self.scale)
                )
        return meters

    def merge(self, other: Measures) -> None:
        """Take in all that `other` (of the same names, threshold and scale) has seen; `other` is used up."""
        self.rows += other.rows
        self.broken += other.broken
        for name, meter in other._meters.items():
            if name in self._meters:
                self._meters[name].merge(meter)
            else:
                self._meters[name] = meter

    def result(self) -> dict[str, Any]:
        """Each metric by name; None (JSON null) where it is undefined: no rows, one class, an answer that is
        not finite.
        """
        if self.broken or not self.rows:
            return dict.fromkeys(self.names)
        found: dict[str, Any] = {}
        for meter in self._meters.values():
            found |= meter.result()
        return {name: found.get(name) for name in self.names}


def measure(
    names: Sequence[str],
    truth: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weight: np.ndarray | None = None,
    *,
    threshold: Threshold = 0.5,
    scale: Scale = None,
) -> dict[str, Any]:
    """`Measures` in one go; arguments and errors are theirs.

    >>> measure(["accuracy", "roc_auc"], np.array([0, 1, 1]), {"probability": np.array([0.2, 0.4, 0.9])})
    {'accuracy': 0.6666666666666666, 'roc_auc': 1.0}
    """
    measures = Measures(names, threshold=threshold, scale=scale)
    measures.update(truth, answers, weight)
    return measures.result()


def _ratio(above: Fraction, below: Fraction) -> float | None:
    return float(above / below) if below else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean_defined(values: Sequence[np.ndarray]) -> float | None:
    defined = [float(v) for v in values if not np.isnan(v)]
    return float(np.mean(defined)) if defined else None
