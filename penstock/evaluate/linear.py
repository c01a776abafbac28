"""The quick linear model: TF-IDF, one-hot categories and standardised numbers (`sparse`) with a logistic
regression or, for numbers, a ridge regression (Joachims 1998).

With few columns one logistic regression answers all classes. With many (texts) it is fitted by stochastic
gradients, one class or label against the rest. A set's thresholds are decided on the validation split, as the
deep model's are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.contracts.features import DecidingFeature
from penstock.contracts.metric import Kind
from penstock.core.optional import require
from penstock.encode.encoding import Encoding
from penstock.evaluate.sparse import Sparse
from penstock.evaluate.training import ReadRows

MOST_CLASSES = 300
_WORK = 60_000_000
"""Filled cells times classes, up to which one regression answers all classes."""
_FEW_COLUMNS = 5_000
_WHY = "comparing with a linear model"


@dataclass
class Linear:
    """A fitted model of one target."""

    models: list[Any]
    """One for all classes or numbers, or one for each class or label against the rest."""
    matrix: Sparse
    kind: Kind
    classes: int
    against_rest: bool

    def answers(self, rows: ReadRows) -> dict[str, np.ndarray]:
        """Answer rows."""
        pieces = [self._answered(self.matrix.transform(piece)) for piece in rows.pieces()]
        answered = (
            np.concatenate(pieces) if pieces else np.empty((0, max(self.classes, 1)))
        )
        if self.kind == "number":
            return {"value": answered}
        if self.kind == "binary":
            return {"probability": answered[:, -1]}
        return {"probabilities": answered}

    def _answered(self, x: Any) -> np.ndarray:
        if self.kind == "number":
            return np.asarray(self.models[0].predict(x), np.float64)
        if not self.against_rest:
            probabilities = np.zeros((x.shape[0], self.classes))
            probabilities[:, self.models[0].classes_] = self.models[0].predict_proba(x)
            return probabilities
        shares = np.stack([_probability(model, x) for model in self.models], axis=1)
        if self.kind == "set":
            return shares
        if self.classes == 2:
            return np.concatenate([1 - shares, shares], axis=1)
        # Models against the rest know nothing of each other, so their probabilities need
        # not sum to 1.
        return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))


def linear_name(encoding: Encoding, names: list[str]) -> str:
    """Return what the model is called, by what it reads."""
    types = {encoding.inputs[name].type for name in names}
    if "text" in types:
        return "TF-IDF and a linear model"
    return "n-grams and a linear model" if "sequence" in types else "a linear model"


def fit_linear(
    encoding: Encoding,
    names: list[str],
    rows: ReadRows,
    target: str,
    kind: Kind,
    *,
    classes: int,
    seed: int,
) -> Linear | str:
    """Fit a model of one target; returns why not where nothing can be learnt.

    Args:
        names: the inputs that it reads.
        classes: or labels of the target; 0 for a number.
    """
    linear = require("sklearn.linear_model", extra="train", why=_WHY)
    truth = rows.truth[target]
    if classes > MOST_CLASSES:
        return f"{classes:,} classes are too many for a quick model"
    if kind in ("binary", "category") and len(np.unique(truth)) < 2:
        return "the training sample has one class only"
    matrix = Sparse(encoding, names)
    x = matrix.fit(rows)
    if not x.shape[1] or not x.nnz:
        return "no input tells one row from another"
    if kind == "number":
        # `lsqr` works on the sparse matrix as it is.
        model = linear.Ridge(alpha=1.0, solver="lsqr", random_state=seed)
        model.fit(x, truth.astype(np.float64), sample_weight=rows.weight)
        return Linear([model], matrix, kind, classes, against_rest=False)
    if kind == "set":
        models = [_one(linear, x, label, rows.weight, seed) for label in truth.T]
        return Linear(models, matrix, kind, classes, against_rest=True)
    y = truth.astype(np.int64)
    if x.shape[1] <= _FEW_COLUMNS and x.nnz * classes <= _WORK:
        model = linear.LogisticRegression(C=1.0, max_iter=100, random_state=seed)
        with warnings.catch_warnings():
            # Enough for a floor, though scikit-learn warns that more would help.
            warnings.simplefilter("ignore")
            model.fit(x, y, sample_weight=rows.weight)
        return Linear([model], matrix, kind, classes, against_rest=False)
    # Of two classes one model answers for both.
    each = range(classes) if classes > 2 else (1,)
    models = [_one(linear, x, y == k, rows.weight, seed) for k in each]
    return Linear(models, matrix, kind, classes, against_rest=True)


def _one(linear: Any, x: Any, y: np.ndarray, weight: np.ndarray | None, seed: int) -> Any:
    """Fit a logistic regression of yes or no; returns a constant where all rows have
    one answer.
    """
    y = y.astype(np.int64)
    if y.min() == y.max():
        return float(y[0])
    # The `alpha` of a logistic regression with C = 4, since SGD averages the loss over
    # rows.
    model = linear.SGDClassifier(
        loss="log_loss",
        alpha=1 / (4 * len(y)),
        max_iter=20,
        tol=1e-3,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Twenty passes are enough for a floor, though scikit-learn warns that more
        # would help.
        warnings.simplefilter("ignore")
        return model.fit(x, y, sample_weight=weight)


def _probability(model: Any, x: Any) -> np.ndarray:
    """Return a model's probability of yes, `[N]`."""
    if isinstance(model, float):
        return np.full(x.shape[0], model)
    return np.asarray(model.predict_proba(x)[:, 1], np.float64)


def decided_thresholds(
    encoding: Encoding,
    target: str,
    validation: ReadRows,
    answers: dict[str, np.ndarray],
    labels: list[str],
) -> np.ndarray | None:
    """Decide a set's thresholds by label on the validation split, as the feature does;
    None without such rows.
    """
    feature = encoding.targets[target]
    if not isinstance(feature, DecidingFeature) or not len(validation):
        return None
    decided = feature.decide(
        answers, validation.truth[target], validation.weight, encoding.fitted[target]
    )
    thresholds = decided.get("thresholds", {})
    return np.array([thresholds.get(name, 0.5) for name in labels])
