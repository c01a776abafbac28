"""A column whose values are of several types, in as many pieces, so that nothing is coerced across rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa


class Mixed:
    """A column whose values are of several types: one piece a type.

    Args:
        labels: which piece each row's value is in, `[n]`.
        pieces: the values of each piece, in the order of their rows.
    """

    def __init__(self, labels: np.ndarray, pieces: Sequence[pa.Array]) -> None:
        self.labels = labels
        self.pieces = list(pieces)
        # Where each row's value stands within its piece.
        self._rank = np.zeros(len(labels), np.int64)
        for label in range(len(self.pieces)):
            mine = labels == label
            self._rank[mine] = np.arange(int(mine.sum()))

    def take(self, rows: np.ndarray) -> pa.Array:
        """The values of `rows`, which must all be in one piece."""
        return self.pieces[int(self.labels[rows[0]])].take(pa.array(self._rank[rows]))

    def only(self, rows: np.ndarray) -> Mixed:
        """Return the same column for some of its rows, which must ascend."""
        return Mixed(
            self.labels[rows],
            [
                # The rows are ascending, so each piece keeps its order.
                piece.take(pa.array(self._rank[rows[self.labels[rows] == label]]))
                for label, piece in enumerate(self.pieces)
            ],
        )

    def joined(self, alike: Callable[[pa.Array], pa.Array]) -> pa.Array:
        """Join all pieces into one array in the order of rows; `alike` brings them to
        one type.
        """
        # Pieces stand one after another; sorting by row restores the order of rows.
        order = np.argsort(
            np.concatenate(
                [
                    np.flatnonzero(self.labels == label)
                    for label in range(len(self.pieces))
                ]
            ),
            kind="stable",
        )
        return pa.concat_arrays([alike(piece) for piece in self.pieces]).take(
            pa.array(order)
        )
