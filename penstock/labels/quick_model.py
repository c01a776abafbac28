"""Multinomial logistic regressions over hashed rows, one a fold, learnt side by side in one pass.

The model of a fold learns from all rows but those of the fold, and answers them alone. Steps are AdaGrad's
(Duchi, Hazan and Singer 2011), on some hundred rows at a time in the order in which they come, which is that
of the row ids, hence random and the same everywhere. Rows are visited again while there are few.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.core.optional import require
from penstock.labels.hashed import Sparse

AT_ONCE = 256
"""Rows of a step."""
_RATE = 0.1
_MOST_BYTES = 160 << 20
"""Of all weights and what AdaGrad notes of them."""
_MOST_WIDTH, _LEAST_WIDTH = 2**18, 2**10
_SMALL = 1e-8


def width_for(classes: int, folds: int) -> int:
    """How many places a hashed row has: as many as fit."""
    width = _MOST_WIDTH
    while width > _LEAST_WIDTH and width * classes * folds * 8 > _MOST_BYTES:
        width //= 2
    return width


class FoldModels:
    """One model a fold.

    Args:
        width: of a hashed row.
        classes: K.
        folds: F.

    Raises:
        MissingPackage: scipy is not installed.
    """

    def __init__(self, width: int, classes: int, folds: int) -> None:
        self._sparse = require("scipy.sparse", extra="clean", why="finding wrong labels")
        self.classes, self.folds = classes, folds
        self._weights = np.zeros((width, folds * classes), np.float32)
        self._squares = np.full_like(self._weights, _SMALL)

    def learn(self, rows: Sparse, given: np.ndarray, fold: np.ndarray) -> None:
        """Learn from rows.

        Args:
            given: their labels, `[N]`.
            fold: the fold of each, whose model does not see it, `[N]`.
        """
        for start in range(0, len(given), AT_ONCE):
            self._step(*self._piece(rows, start), given[start:], fold[start:])

    def answer(self, rows: Sparse, fold: np.ndarray) -> np.ndarray:
        """Each row's probabilities by the model of its fold, float32 `[N, K]`."""
        answers = np.empty((len(fold), self.classes), np.float32)
        for start in range(0, len(fold), AT_ONCE):
            matrix, places = self._piece(rows, start)
            shares = self._shares(matrix, self._weights[places])
            own = fold[start : start + AT_ONCE]
            answers[start : start + AT_ONCE] = shares[np.arange(len(own)), own]
        return answers

    def _piece(self, rows: Sparse, start: int) -> tuple[Any, np.ndarray]:
        """Some rows as a matrix over the places that they have, and these."""
        starts = rows.starts[start : start + AT_ONCE + 1]
        span = slice(starts[0], starts[-1])
        places, inner = np.unique(rows.places[span], return_inverse=True)
        matrix = self._sparse.csr_matrix(
            (rows.weights[span], inner, starts - starts[0]),
            shape=(len(starts) - 1, len(places)),
        )
        return matrix, places

    def _shares(self, matrix: Any, weights: np.ndarray) -> np.ndarray:
        """Probabilities, `[N, F, K]`."""
        scores = (matrix @ weights).reshape(-1, self.folds, self.classes)
        scores -= scores.max(axis=2, keepdims=True)
        shares = np.exp(scores)
        shares /= shares.sum(axis=2, keepdims=True)
        return np.asarray(shares)

    def _step(
        self, matrix: Any, places: np.ndarray, given: np.ndarray, fold: np.ndarray
    ) -> None:
        rows = matrix.shape[0]
        given, fold = given[:rows], fold[:rows]
        weights = self._weights[places]
        errors = self._shares(matrix, weights)
        own = np.arange(rows)
        errors[own, :, given] -= 1
        # The model of a fold learns nothing from its rows.
        errors[own, fold] = 0
        errors /= rows
        gradients = np.asarray(matrix.T @ errors.reshape(rows, -1))
        squares = self._squares[places] + gradients**2
        self._squares[places] = squares
        self._weights[places] = weights - _RATE * gradients / np.sqrt(squares)
