"""Nearest neighbours (Cover and Hart 1967) on the simple features of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.contracts.metric import Kind
from penstock.evaluate.matrix import moments_of
from penstock.evaluate.training import ReadRows

NAME = "nearest neighbours on simple features"
NEIGHBOURS = 10
ROWS = 20_000
"""Rows that are compared with: each question looks at all of them."""
CLASSES = 1_000
_COMPONENTS = 96
_AT_ONCE = 512


@dataclass
class Neighbours:
    """The training rows, in the space in which they are compared."""

    names: list[str]
    mean: np.ndarray
    std: np.ndarray
    axes: np.ndarray
    """The main components of the standardised features, `[D, components]`."""
    points: np.ndarray
    """`[rows, components]`."""
    values: np.ndarray
    """What is averaged over neighbours: numbers, or one column a class or label, `[rows, K]`."""
    kind: Kind

    def answers(self, rows: ReadRows) -> dict[str, np.ndarray]:
        """Answer rows by the mean of their neighbours, the nearer the more."""
        points = _placed(rows, self.names, self.mean, self.std) @ self.axes
        squares = (self.points**2).sum(axis=1)
        count = min(NEIGHBOURS, len(self.points))
        means = np.empty((len(points), self.values.shape[1]))
        for start in range(0, len(points), _AT_ONCE):
            some = points[start : start + _AT_ONCE]
            far = squares - 2 * some @ self.points.T + (some**2).sum(axis=1)[:, None]
            near = np.argpartition(far, count - 1, axis=1)[:, :count]
            distance = np.sqrt(np.maximum(np.take_along_axis(far, near, axis=1), 0))
            weight = 1 / (distance + 1e-6 + 0.1 * distance.mean(axis=1, keepdims=True))
            weight /= weight.sum(axis=1, keepdims=True)
            means[start : start + _AT_ONCE] = (weight[..., None] * self.values[near]).sum(
                axis=1
            )
        if self.kind == "number":
            return {"value": means[:, 0]}
        if self.kind == "binary":
            return {"probability": means[:, 1]}
        return {"probabilities": means}


def fit_neighbours(
    names: list[str], rows: ReadRows, target: str, kind: Kind, *, classes: int
) -> Neighbours:
    """Place the training rows by the features of the pictures called `names`."""
    rows = rows.first(ROWS)
    truth = rows.truth[target]
    values = np.concatenate([rows.pictures[name] for name in names], axis=1)
    mean, std = moments_of(values)
    x = _placed(rows, names, mean, std)
    # The components of the covariance, which is small whatever the rows are.
    _, axes = np.linalg.eigh(x.T @ x)
    axes = axes[:, ::-1][:, :_COMPONENTS]
    if kind == "number":
        wanted = truth.astype(np.float64)[:, None]
    elif kind == "set":
        wanted = truth.astype(np.float64)
    else:
        wanted = np.eye(classes)[truth.astype(np.int64)]
    return Neighbours(names, mean, std, axes, x @ axes, wanted, kind)


def _placed(
    rows: ReadRows, names: list[str], mean: np.ndarray, std: np.ndarray
) -> np.ndarray:
    values = np.concatenate([rows.pictures[name] for name in names], axis=1)
    return np.asarray(np.nan_to_num((values - mean) / std))
