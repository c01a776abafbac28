"""What the target was where a category occurred (Micci-Barreca 2001), for categories of many values.

A row's own target must not be among what it is told, or a rare category would give it away. So the training
rows are divided into five folds, and each is told what the other four say; new rows are told what all say.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.metric import Kind
from penstock.evaluate.items import is_text
from penstock.evaluate.training import ReadRows

FEWEST = 20
"""Different values from which on a category is described so."""
FOLDS = 5
_SMOOTHING = 5.0
"""So many rows of the overall mean are added to each category."""
MOST_CLASSES = 12
"""Of a target; the commonest, one column each."""


class TargetMeans:
    """Learns and tells the target's mean (or class shares) by category.

    Args:
        names: inputs that may be described, where they are texts of many values.
        kind: of the target.
        seed: of the folds.
    """

    def __init__(self, names: list[str], kind: Kind, *, seed: int) -> None:
        self._names, self._kind = names, kind
        self._random = np.random.default_rng(seed)
        self._known: dict[str, pa.Array] = {}
        self._means: dict[str, np.ndarray] = {}
        self._counts: dict[str, np.ndarray] = {}

    def fit(self, rows: ReadRows, truth: np.ndarray) -> np.ndarray:
        """Learn from the training rows, and return them as `[N, D]`."""
        weight = np.ones(len(truth)) if rows.weight is None else rows.weight
        shares = self._shares(truth)
        fold = self._random.integers(0, FOLDS, len(truth))
        pieces = [np.empty((len(truth), 0))]
        for name in self._names:
            column = rows.columns.get(name)
            if column is None or not is_text(column):
                continue
            known = pc.unique(column.drop_null())
            if len(known) < FEWEST:
                continue
            self._known[name] = known
            code = self._codes(name, column)
            sums = np.stack(
                [
                    _sums(code, shares, np.where(fold == f, weight, 0), len(known))
                    for f in range(FOLDS)
                ]
            )
            whole = sums.sum(axis=0)
            block = np.empty((len(truth), shares.shape[1]))
            for f in range(FOLDS):
                block[fold == f] = _means(whole - sums[f])[code[fold == f]]
            self._means[name] = _means(whole)
            # A value that never occurred is counted 0 times.
            self._counts[name] = np.log1p(np.bincount(code, minlength=len(known) + 1))
            self._counts[name][-1] = 0.0
            pieces += [block, self._counts[name][code][:, None]]
        return np.concatenate(pieces, axis=1)

    def transform(self, rows: ReadRows) -> np.ndarray:
        """Return rows as `[N, D]`, by what all training rows said."""
        pieces = [np.empty((len(rows), 0))]
        for name in self._known:
            code = self._codes(name, rows.columns[name])
            pieces += [self._means[name][code], self._counts[name][code][:, None]]
        return np.concatenate(pieces, axis=1)

    def _codes(self, name: str, column: pa.Array) -> np.ndarray:
        """Return each value's number; the last one for what is missing or never occurred."""
        known = self._known[name]
        return np.asarray(
            pc.fill_null(pc.index_in(column, value_set=known), len(known)), np.int64
        )

    def _shares(self, truth: np.ndarray) -> np.ndarray:
        """Return what is averaged, `[N, columns]`: the number, or for classes whether it is each of them."""
        if self._kind == "number":
            return truth.astype(np.float64)[:, None]
        values, counts = np.unique(truth, return_counts=True)
        commonest = values[np.argsort(-counts, kind="stable")[:MOST_CLASSES]]
        # Of two classes one share says both.
        commonest = commonest[:1] if len(values) == 2 else commonest
        return np.asarray(truth[:, None] == commonest, np.float64)


def _sums(
    code: np.ndarray, shares: np.ndarray, weight: np.ndarray, known: int
) -> np.ndarray:
    """Return by category the weight and the weighted sum of each share, `[known + 1, 1 + columns]`."""
    columns = [weight, *(shares * weight[:, None]).T]
    return np.stack([np.bincount(code, each, known + 1) for each in columns], axis=1)


def _means(sums: np.ndarray) -> np.ndarray:
    """Return by category the mean, drawn to that of all rows where there are few."""
    total = sums.sum(axis=0)
    overall = total[1:] / max(total[0], 1e-12)
    means: np.ndarray = (sums[:, 1:] + _SMOOTHING * overall) / (sums[:, :1] + _SMOOTHING)
    return means
