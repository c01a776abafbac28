"""Ragged: rows of different lengths as one array of values and where each row ends.

What texts, sets and sequences wait in.

To a reader it is an object array of rows (`len`, iteration, one row, some rows); but it makes no object a
row, which is most of the cost of a batch of short texts. Numbers in, numbers out: this file knows no files
and no features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_LONG = 48
"""Values a row from which a slice a row costs less than an index a value."""


class Ragged:
    """Rows of values.

    They may lie anywhere in `values`, so that rows taken out of a memory map are read when they are used,
    once.

    Args:
        values: all rows' values, one row after another `[m]`.
        offsets: int64 `[n + 1]`: row `i` is `values[offsets[i] : offsets[i + 1]]`; it need not begin at 0.
    """

    __slots__ = ("lengths", "starts", "values")

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values, self.starts = values, offsets[:-1]
        self.lengths: np.ndarray = np.diff(offsets)
        """Values of each row, int64 `[n]`."""

    @classmethod
    def lying(cls, values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Rows where they lie: row `i` is `values[starts[i] : starts[i] + lengths[i]]`."""
        # `__init__` wants offsets, which rows that lie anywhere do not have.
        ragged = cls.__new__(cls)
        ragged.values, ragged.starts, ragged.lengths = values, starts, lengths
        return ragged

    @classmethod
    def of(cls, rows: Sequence[np.ndarray] | np.ndarray) -> Ragged:
        """Rows that are each an array of their own (an object array `[n]` of them, say)."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        return cls(
            np.concatenate(list(rows)) if len(rows) else np.empty(0), _ends(lengths)
        )

    @classmethod
    def taken(
        cls,
        sources: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]],
        rows: int,
    ) -> Ragged:
        """Rows out of several others; out of one they stay where they lie.

        Args:
            sources: of each its values, its offsets, which of its rows are taken, and which rows they become
                (None: all, in order).
            rows: how many there are in all.
        """
        if not sources:
            return cls(np.empty(0), np.zeros(rows + 1, np.int64))
        # Rows of one source stay in its memory map until they are read.
        if len(sources) == 1 and sources[0][3] is None:
            values, offsets, local, _ = sources[0]
            starts = offsets[local]
            return cls.lying(values, starts, offsets[local + 1] - starts)
        # Of each row: where it starts, how long it is, and the source it is in.
        starts, lengths, owner = (
            np.empty(rows, np.int64),
            np.empty(rows, np.int64),
            np.zeros(rows, np.int64),
        )
        for number, (_, offsets, local, places) in enumerate(sources):
            into: Any = slice(None) if places is None else places
            starts[into] = offsets[local]
            lengths[into] = offsets[local + 1] - offsets[local]
            owner[into] = number
        ends = _ends(lengths)
        total = int(ends[-1])
        # Long rows: a slice each costs less than an index for each value.
        if total > _LONG * rows:
            sliced = [source[0] for source in sources]
            pieces = [
                sliced[k][start : start + length]
                for k, start, length in zip(
                    owner.tolist(), starts.tolist(), lengths.tolist(), strict=True
                )
            ]
            return cls(np.concatenate(pieces), ends)
        index = _index(starts, ends, lengths)
        gathered = np.empty(total, sources[0][0].dtype)
        each = np.repeat(owner, lengths)
        # One `take` a source, so that a memory map is read in one go.
        for number, (values, *_) in enumerate(sources):
            mine = np.flatnonzero(each == number)
            gathered[mine] = values.take(index[mine])
        return cls(gathered, ends)

    @property
    def offsets(self) -> np.ndarray:
        """Where each row ends if they came one after another, after a 0: int64 `[n + 1]`."""
        return _ends(self.lengths)

    def compact(self) -> Ragged:
        """The same rows, one after another in values of their own."""
        ends = _ends(self.lengths)
        if int(ends[-1]) > _LONG * len(self):
            return Ragged(np.concatenate(list(self)), ends)
        return Ragged(
            self.values.take(_index(self.starts, ends, self.lengths))
            if ends[-1]
            else self.values[:0],
            ends,
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[np.ndarray]:
        values = self.values
        for start, stop in zip(
            self.starts.tolist(), (self.starts + self.lengths).tolist(), strict=True
        ):
            yield values[start:stop]

    def __getitem__(self, rows: Any) -> Any:
        """One row as an array; a slice or an index array of rows as a `Ragged`."""
        # `range` makes a negative row count from the end, and refuses one beyond it.
        if isinstance(rows, (int, np.integer)):
            row = range(len(self))[rows]
            return self.values[
                int(self.starts[row]) : int(self.starts[row] + self.lengths[row])
            ]
        return Ragged.lying(self.values, self.starts[rows], self.lengths[rows])

    @property
    def nbytes(self) -> int:
        """Bytes of its values and of where they lie."""
        return (
            int(self.lengths.sum()) * self.values.itemsize
            + self.starts.nbytes
            + self.lengths.nbytes
        )

    def objects(self) -> np.ndarray:
        """As an object array `[n]` of arrays."""
        arrays = np.empty(len(self), object)
        for row, values in enumerate(self):
            arrays[row] = values
        return arrays

    def padded(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """Side by side: values `[n, T]`, 0 where nothing is, and where something is (bool `[n, T]`); T is at
        least 1.
        """
        lengths = self.lengths
        longest = max(int(lengths.max()) if len(lengths) else 0, 1)
        columns = np.arange(longest)
        mask = columns < lengths[:, None]
        if not len(self.values) or not len(lengths):
            return np.zeros(mask.shape, dtype), mask
        # A window of so many columns slides over all values, and the rows are windows of it: one copy each,
        # with what comes after a short row behind it, which is then wiped out. (An assignment a row takes
        # twice as long.)
        last = len(self.values) - longest
        step = self.values.strides[0]
        windows = np.lib.stride_tricks.as_strided(
            self.values, (last + 1, longest), (step, step), writeable=False
        )
        # Rows near the end of the values would slide past it; they are read from the
        # last window, and again below.
        padded = windows[np.minimum(self.starts, last)]
        for row in np.flatnonzero(self.starts > last).tolist():
            padded[row, : int(lengths[row])] = self[row]
        # A product with 0 and 1 is quicker than an assignment by mask; only whole
        # numbers allow it.
        if padded.dtype.kind in "iu":
            padded *= mask
        else:
            padded[~mask] = 0  # 0 times what is not a number is not 0
        return padded.astype(dtype, copy=False), mask


def _ends(lengths: np.ndarray) -> np.ndarray:
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def _index(starts: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where each value of rows that come one after another is read."""
    index = np.repeat(starts - ends[:-1], lengths)
    index += np.arange(int(ends[-1]))
    return index
