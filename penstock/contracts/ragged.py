"""Ragged: rows of different lengths as one array of values and where each row ends. What texts, sets and sequences wait in.

To a reader it is an object array of rows (`len`, iteration, one row, some rows); but it makes no object a row, which is most of
the cost of a batch of short texts. Numbers in, numbers out: this file knows no files and no features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

_LONG = 48
"""Values a row from which a slice a row costs less than an index a value."""


class Ragged:
    """Rows of values.

    Args:
        values: all rows' values, one row after another `[m]`.
        offsets: int64 `[n + 1]`: row `i` is `values[offsets[i] : offsets[i + 1]]`; it need not begin at 0.
    """

    __slots__ = ("offsets", "values")

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values, self.offsets = values, offsets

    @classmethod
    def of(cls, rows: Sequence[np.ndarray] | np.ndarray) -> Ragged:
        """Rows that are each an array of their own (an object array `[n]` of them, say)."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        return cls(np.concatenate(list(rows)) if len(rows) else np.empty(0), _ends(lengths))

    @classmethod
    def taken(cls, sources: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]], rows: int) -> Ragged:
        """Rows out of several others.

        Args:
            sources: of each its values, its offsets, which of its rows are taken, and which rows they become (None: all, in order).
            rows: how many there are in all.
        """
        starts, lengths, owner = np.empty(rows, np.int64), np.empty(rows, np.int64), np.zeros(rows, np.int64)
        for number, (_, offsets, local, places) in enumerate(sources):
            into: Any = slice(None) if places is None else places
            starts[into] = offsets[local]
            lengths[into] = offsets[local + 1] - offsets[local]
            owner[into] = number
        ends = _ends(lengths)
        total = int(ends[-1])
        if not sources:
            return cls(np.empty(0), ends)
        if total > _LONG * rows:
            values = [source[0] for source in sources]
            pieces = [values[k][start : start + length] for k, start, length in zip(owner.tolist(), starts.tolist(), lengths.tolist(), strict=True)]
            return cls(np.concatenate(pieces), ends)
        index = np.repeat(starts - ends[:-1], lengths)
        index += np.arange(total)
        if len(sources) == 1:
            return cls(sources[0][0].take(index), ends)
        found = np.empty(total, sources[0][0].dtype)
        each = np.repeat(owner, lengths)
        for number, (values_, *_) in enumerate(sources):
            mine = np.flatnonzero(each == number)
            found[mine] = values_.take(index[mine])
        return cls(found, ends)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        for start, stop in pairwise(self.offsets.tolist()):
            yield self.values[start:stop]

    def __getitem__(self, rows: Any) -> Any:
        """One row as an array; a slice (of step 1) or an index array of rows as a `Ragged`."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return Ragged(self.values, self.offsets[start : max(stop, start) + 1])
            rows = np.arange(start, stop, step)
        if isinstance(rows, (int, np.integer)):
            row = range(len(self))[rows]
            return self.values[int(self.offsets[row]) : int(self.offsets[row + 1])]
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return Ragged.taken([(self.values, self.offsets, rows, None)], len(rows))

    @property
    def lengths(self) -> np.ndarray:
        """Values of each row, int64 `[n]`."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of its values and offsets."""
        return int(self.offsets[-1] - self.offsets[0]) * self.values.itemsize + self.offsets.nbytes

    def objects(self) -> np.ndarray:
        """As an object array `[n]` of arrays."""
        found = np.empty(len(self), object)
        for row, values in enumerate(self):
            found[row] = values
        return found

    def padded(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """Side by side: values `[n, T]`, 0 where nothing is, and where something is (bool `[n, T]`); T is at least 1."""
        lengths = self.lengths
        longest = max(int(lengths.max()) if len(lengths) else 0, 1)
        mask = np.arange(longest) < lengths[:, None]
        values = np.zeros((len(self), longest), dtype)
        flat = self.values[self.offsets[0] : self.offsets[-1]]
        if len(flat) > _LONG * len(self):
            for row, part in enumerate(self):
                values[row, : len(part)] = part
        elif len(flat):
            values[mask] = flat
        return values, mask


def _ends(lengths: np.ndarray) -> np.ndarray:
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends
