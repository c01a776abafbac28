"""A uniform sample of a stream of rows, bounded in rows and in bytes; chosen by the
hash of the row id, so that every pass finds the same rows.
"""

from __future__ import annotations

from typing import Generic, Protocol, Self, TypeVar

FEWEST = 100
"""Rows that are kept whatever they take."""


class Piece(Protocol):
    """Some rows in memory."""

    @property
    def rows(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def below(self, share: float) -> Self:
        """Return the rows whose keys are in the lowest `share` of all keys."""


P = TypeVar("P", bound=Piece)


class Sample(Generic[P]):
    """Collects pieces, and thins them as they grow.

    Args:
        share: of all rows, at most.
        most_bytes: where they would take more, the share is halved, until they do not or FEWEST rows are
            left.
    """

    def __init__(self, share: float, most_bytes: int) -> None:
        self.pieces: list[P] = []
        self._share, self._most, self._bytes = share, most_bytes, 0

    @property
    def share(self) -> float:
        """The share of all rows that is taken at present."""
        return self._share

    def add(self, piece: P) -> None:
        """Add the rows of a batch that belong to the sample.

        Once all rows together are over the bytes that were allowed, the share of rows is halved until they
        fit, and the pieces that are there already are thinned likewise.
        """
        self.pieces.append(piece.below(self._share))
        self._bytes += self.pieces[-1].nbytes
        while self._bytes > self._most and sum(p.rows for p in self.pieces) > FEWEST:
            self.halve()

    def halve(self) -> None:
        """Take half of the rows from now on, of those that are there already as well."""
        # A share above 1 keeps every row, so halving begins at all of them.
        self._share = min(self._share, 1.0) / 2
        for i, one in enumerate(self.pieces):
            # One by one, so that memory never holds all pieces twice.
            self.pieces[i] = one.below(self._share)
        self._bytes = sum(p.nbytes for p in self.pieces)
