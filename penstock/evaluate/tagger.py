"""The quick classical model for targets with a label for each step: a linear model of the step and its
neighbours.

Each step becomes a sparse row: its item, the items of up to two steps before and behind it, and pairs with
its neighbours. On these a logistic regression by stochastic gradients, a class against the rest.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.core.optional import require

NAME = "a linear model of each step and its neighbours"
STEPS = 200_000
"""Steps that it learns from at most."""
_REACH = 2
_WHY = "comparing with a linear model"


def tag(
    train: pa.Array,
    labels: np.ndarray,
    judged: pa.Array,
    *,
    shape: tuple[int, int, int],
    seed: int,
) -> np.ndarray | None:
    """Fit on labelled sequences and answer others; None where there are less than two labels to learn.

    Args:
        train: lists of items.
        labels: their classes `[rows, steps]`, -1 where there is no step.
        judged: the lists to be answered.
        shape: of the answer: rows, steps, classes. Steps that a row lacks have the probability 0 for all.
    """
    linear = require("sklearn.linear_model", extra="train", why=_WHY)
    hashing = require("sklearn.feature_extraction", extra="train", why=_WHY)
    hasher = hashing.FeatureHasher(2**18, input_type="string", alternate_sign=False)
    words: list[list[str]] = []
    truth: list[int] = []
    for row, items in enumerate(train.to_pylist()):
        steps = _steps(items or [])
        known = min(len(steps), labels.shape[1])
        words += steps[:known]
        truth += labels[row, :known].tolist()
        if len(truth) >= STEPS:
            break
    y = np.array(truth, np.int64)
    if len(np.unique(y[y >= 0])) < 2:
        return None
    model = linear.SGDClassifier(
        loss="log_loss", alpha=1e-6, max_iter=20, tol=1e-3, random_state=seed
    )
    with warnings.catch_warnings():
        # Twenty passes are enough for a floor, though scikit-learn warns that more would help.
        warnings.simplefilter("ignore")
        model.fit(hasher.transform(words)[np.flatnonzero(y >= 0)], y[y >= 0])
    return _answer(model, hasher, judged, shape)


def _answer(
    model: Any, hasher: Any, judged: pa.Array, shape: tuple[int, int, int]
) -> np.ndarray:
    answer = np.zeros(shape)
    for row, items in enumerate(judged.to_pylist()):
        steps = _steps(items or [])[: shape[1]]
        if steps:
            shares = model.predict_proba(hasher.transform(steps))
            answer[row, : len(steps), model.classes_] = shares.T
    return answer


def _steps(items: list[Any]) -> list[list[str]]:
    """Describe each step by words: its item, its neighbours', and pairs of them."""
    padded = ["^"] * _REACH + [str(item) for item in items] + ["$"] * _REACH
    steps = []
    for i in range(_REACH, len(padded) - _REACH):
        near = {at: padded[i + at] for at in range(-_REACH, _REACH + 1)}
        steps.append(
            [f"{at}={word}" for at, word in near.items()]
            + [f"-1={near[-1]} 0={near[0]}", f"0={near[0]} 1={near[1]}"]
            # The end of a word says its sort, as in tagging parts of speech.
            + [f"ends={near[0][-3:]}"]
        )
    return steps
