"""Gradient boosting (Friedman 2001) in the quick form of LightGBM (Ke et al. 2017), scikit-learn's.

It is untuned: a floor, not a rival at its best. It runs on one thread (`classical`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.contracts.metric import Kind
from penstock.core.optional import require
from penstock.encode.encoding import Encoding
from penstock.evaluate.matrix import Matrix
from penstock.evaluate.target_means import TargetMeans
from penstock.evaluate.training import ReadRows

NAME = "gradient boosting"
CLASSES = 100
"""More classes are too many for a tree a class a round."""
_FEW_CLASSES = 10


@dataclass
class Boosted:
    """A fitted model of one target."""

    model: Any
    matrix: Matrix
    means: TargetMeans
    kind: Kind
    classes: int

    def answers(self, rows: ReadRows) -> dict[str, np.ndarray]:
        """Answer rows."""
        pieces = [self._answered(piece) for piece in rows.pieces()]
        answered = (
            np.concatenate(pieces) if pieces else np.empty((0, max(self.classes, 1)))
        )
        if self.kind == "number":
            return {"value": answered}
        if self.kind == "binary":
            return {"probability": answered[:, 1]}
        return {"probabilities": answered}

    def _answered(self, rows: ReadRows) -> np.ndarray:
        x = np.concatenate(
            [self.matrix.transform(rows), self.means.transform(rows)], axis=1
        )
        if self.kind == "number":
            return np.asarray(self.model.predict(x), np.float64)
        # A class that the training sample lacks has the probability 0.
        probabilities = np.zeros((len(x), self.classes))
        probabilities[:, self.model.classes_] = self.model.predict_proba(x)
        return probabilities


def fit_boosting(
    encoding: Encoding,
    names: list[str],
    rows: ReadRows,
    target: str,
    kind: Kind,
    *,
    classes: int,
    seed: int,
) -> Boosted | str:
    """Fit a model of one target; returns why not where nothing can be learnt.

    Args:
        names: the inputs that it reads.
        classes: of the target; 0 for a number.
    """
    truth = rows.truth[target]
    if classes > CLASSES:
        return f"{classes:,} classes are too many for a quick model"
    if kind != "number" and len(np.unique(truth)) < 2:
        return "the training sample has one class only"
    matrix = Matrix(encoding, names, seed=seed)
    means = TargetMeans(names, kind, seed=seed)
    base = matrix.fit(rows)
    by_target = means.fit(rows, truth)
    x = np.concatenate([base, by_target], axis=1)
    if not x.shape[1] or not _varies(x):
        return "no input tells one row from another"
    model = _model(
        x, truth, kind, [*matrix.categorical, *[False] * by_target.shape[1]], seed
    )
    y = truth.astype(np.float64 if kind == "number" else np.int64)
    model.fit(x, y, sample_weight=rows.weight)
    return Boosted(model, matrix, means, kind, classes)


def _varies(x: np.ndarray) -> bool:
    """Whether any column has two values."""
    first = x[:1]
    return bool(((x != first) & ~(np.isnan(x) & np.isnan(first))).any())


def _model(
    x: np.ndarray, truth: np.ndarray, kind: Kind, categorical: list[bool], seed: int
) -> Any:
    ensemble = require(
        "sklearn.ensemble", extra="train", why="comparing with gradient boosting"
    )
    rows = len(x)
    options = {
        "categorical_features": categorical,
        # Few leaves for small data, which have no rows to stop early on.
        "max_leaf_nodes": 31 if rows >= 2_000 else 8,
        "random_state": seed,
    }
    if kind == "number":
        return ensemble.HistGradientBoostingRegressor(
            max_iter=200,
            # Early stopping sets rows aside, which small data cannot spare.
            early_stopping=rows >= 2_000,
            **options,
        )
    counts = np.unique(truth, return_counts=True)[1]
    return ensemble.HistGradientBoostingClassifier(
        max_iter=200 if len(counts) <= _FEW_CLASSES else 50,
        # Early stopping splits by class, so each class must have rows to split.
        early_stopping=rows >= 5_000 and int(counts.min()) >= 20,
        **options,
    )
