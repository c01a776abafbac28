"""The quick classical model for targets with a label for each step: a linear model of the step and its
neighbours.

Each step becomes a sparse row: its item, the items of up to two steps before and behind it, and pairs with
its neighbours. On these a logistic regression by stochastic gradients, a class against the rest.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.core.optional import require
from penstock.encode.encoding import Encoding
from penstock.evaluate.items import items_of
from penstock.evaluate.training import ReadRows

NAME = "a linear model of each step and its neighbours"
STEPS = 200_000
"""Steps that it learns from at most."""
_REACH = 2
_AT_ONCE = 2_000
"""Rows that are answered at once."""
_WHY = "comparing with a linear model"


@dataclass
class Tagger:
    """A fitted model of the steps of an input."""

    model: Any
    hasher: Any
    encoding: Encoding
    over: str
    classes: int

    def answers(self, rows: ReadRows) -> dict[str, np.ndarray]:
        """Answer rows: probabilities `[rows, steps, classes]`, 0 for steps that a row lacks."""
        column = rows.columns[self.over]
        items = items_of(self.encoding, self.over, column)
        lists = [] if items is None else items.to_pylist()
        longest = max((len(each or ()) for each in lists), default=0)
        answer = np.zeros((len(lists), longest, self.classes))
        for start in range(0, len(lists), _AT_ONCE):
            some = [_steps(each or []) for each in lists[start : start + _AT_ONCE]]
            lengths = [len(steps) for steps in some]
            if not sum(lengths):
                continue
            words = self.hasher.transform(step for steps in some for step in steps)
            shares = self.model.predict_proba(words)
            ends = np.cumsum(lengths)
            for row, (end, length) in enumerate(zip(ends, lengths, strict=True)):
                answer[start + row, :length, self.model.classes_] = shares[
                    end - length : end
                ].T
        return {"probabilities": answer}


def fit_tagger(
    encoding: Encoding,
    over: str,
    items: pa.Array,
    labels: np.ndarray,
    *,
    classes: int,
    seed: int,
) -> Tagger | str:
    """Fit on labelled sequences; returns why not where nothing can be learnt.

    Args:
        encoding: whose input `over` is labelled.
        over: the input's name.
        items: its steps, lists of texts, in random order.
        labels: their classes `[rows, steps]`, -1 where there is no step.
        classes: that there are.
    """
    linear = require("sklearn.linear_model", extra="train", why=_WHY)
    hashing = require("sklearn.feature_extraction", extra="train", why=_WHY)
    hasher = hashing.FeatureHasher(2**18, input_type="string", alternate_sign=False)
    words: list[list[str]] = []
    truth: list[int] = []
    for row, each in enumerate(items.to_pylist()):
        steps = _steps(each or [])
        known = min(len(steps), labels.shape[1])
        words += steps[:known]
        truth += labels[row, :known].tolist()
        if len(truth) >= STEPS:
            break
    y = np.array(truth, np.int64)
    if len(np.unique(y[y >= 0])) < 2:
        return "the training sample has one label only"
    model = linear.SGDClassifier(
        loss="log_loss", alpha=1e-6, max_iter=20, tol=1e-3, random_state=seed
    )
    with warnings.catch_warnings():
        # Twenty passes are enough for a floor, though scikit-learn warns that more would help.
        warnings.simplefilter("ignore")
        model.fit(hasher.transform(words)[np.flatnonzero(y >= 0)], y[y >= 0])
    return Tagger(model, hasher, encoding, over, classes)


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
