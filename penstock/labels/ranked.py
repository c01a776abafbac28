"""The worst of many rows, however they come: a ranked list of bounded length."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class Ranked:
    """The `limit` rows with the lowest scores; of equal ones those with the lower ids.

    Args:
        limit: rows that are listed at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        """Rows that came."""
        self._rows: dict[str, list[np.ndarray]] = {}
        self._waiting = 0

    def update(
        self, scores: np.ndarray, keys: np.ndarray, others: Mapping[str, np.ndarray]
    ) -> None:
        """Add rows.

        Args:
            scores: `[N]`.
            keys: halves of the row ids, `[N, 2]`.
            others: what else is told of each row, `[N]` each; always the same names.
        """
        self.count += len(scores)
        self._waiting += len(scores)
        columns = {"score": scores, "high": keys[:, 0], "low": keys[:, 1], **others}
        for name, values in columns.items():
            self._rows.setdefault(name, []).append(values)
        if self._waiting > 2 * self.limit + 65_536:
            self._shorten()

    def merge(self, other: Ranked) -> None:
        """Add the rows of another."""
        self.count += other.count
        for name, pieces in other._rows.items():
            self._rows.setdefault(name, []).extend(pieces)
        self._shorten()

    def rows(self) -> dict[str, np.ndarray]:
        """`score`, `high` and `low` (the halves of the ids) and the others; the worst first."""
        self._shorten()
        return {name: pieces[0] for name, pieces in self._rows.items()}

    def _shorten(self) -> None:
        whole = {name: np.concatenate(pieces) for name, pieces in self._rows.items()}
        if not whole:
            return
        order = np.lexsort((whole["low"], whole["high"], whole["score"]))[: self.limit]
        self._rows = {name: [values[order]] for name, values in whole.items()}
        self._waiting = len(order)
