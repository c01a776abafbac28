"""What stands where in a sequence: items by their place from both ends, and how often each run of items
occurs.

A sequence is a list of items, the words or characters of a `sequence`, or the characters of texts that are no
prose (codes, DNA): those without white space, of at most 64 different characters.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.encode.encoding import Encoding

PLACES = 256
"""Places that get a column where all rows are equally long; otherwise ENDS from either end."""
ENDS = 48
RUNS = 96
"""Runs of items that are counted: the commonest."""
LONGEST_RUN = 4
ITEMS = 250
"""Items that are told apart: the commonest."""
_LONGEST = 512
"""Steps that are read of a row."""
_ALPHABET = 64
_ASKED = 1_000
_AT_ONCE = 10_000


def items_of(encoding: Encoding, name: str, column: pa.Array) -> pa.Array | None:
    """Return an input's steps as lists of texts; None where it is no sequence."""
    feature = encoding.inputs[name]
    unit = getattr(feature, "unit", "") if feature.type == "sequence" else ""
    if is_words(column):
        return column
    if not is_text(column):
        return None
    if unit == "words":
        return pc.utf8_split_whitespace(column)
    if unit == "characters" or (feature.type == "text" and _is_code(column)):
        rows = column.to_pylist()
        return pa.array(
            [None if row is None else list(row[:_LONGEST]) for row in rows],
            pa.list_(pa.string()),
        )
    return None


def is_text(column: pa.Array) -> bool:
    """Whether a column holds texts."""
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def is_words(column: pa.Array) -> bool:
    """Whether a column holds lists of texts: a set, or a sequence of items."""
    kind = column.type
    return bool(
        (pa.types.is_list(kind) or pa.types.is_large_list(kind))
        and (
            pa.types.is_string(kind.value_type)
            or pa.types.is_large_string(kind.value_type)
        )
    )


def _is_code(column: pa.Array) -> bool:
    """Whether texts are strings of letters rather than prose."""
    some = column.drop_null().slice(0, _ASKED).to_pylist()
    letters = set().union(*some) if some else set()
    is_prose = any(letter.isspace() for letter in letters)
    return bool(letters) and not is_prose and len(letters) <= _ALPHABET


class Places:
    """Learns the items and the runs of a sequence, and says which stand where.

    Args:
        items: the training rows' steps, lists of texts.
    """

    def __init__(self, items: pa.Array) -> None:
        often = pc.value_counts(pc.drop_null(pc.list_flatten(items)))
        values = often.field("values").to_pylist()
        counts = often.field("counts").to_pylist()
        order = sorted(range(len(values)), key=lambda i: (-counts[i], values[i]))
        self.values = pa.array([values[i] for i in order[:ITEMS]], pa.string())
        lengths = np.asarray(pc.fill_null(pc.list_value_length(items), 0))
        self.longest = int(min(lengths.max(initial=0), _LONGEST))
        self.is_even = self.longest <= PLACES and bool(
            (lengths == self.longest).mean() > 0.99
        )
        self.ends = self.longest if self.is_even else min(ENDS, self.longest)
        self.runs = self._commonest_runs(items)

    @property
    def places(self) -> int:
        """How many columns say what stands at a place."""
        return self.ends if self.is_even else 2 * self.ends

    def codes(self, items: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return items as numbers from 1, 0 for those that are not told apart, -1 behind the end: int64 `[N,
        longest]`; and each row's length.
        """
        lengths = np.asarray(pc.fill_null(pc.list_value_length(items), 0)).astype(
            np.int64
        )
        codes = np.full((len(items), max(self.longest, 1)), -1, np.int64)
        flat = pc.fill_null(
            pc.index_in(pc.list_flatten(items).cast(pa.string()), value_set=self.values),
            -1,
        )
        rows = np.asarray(pc.list_parent_indices(items))
        place = np.arange(len(rows)) - (np.cumsum(lengths) - lengths)[rows]
        inside = place < codes.shape[1]
        codes[rows[inside], place[inside]] = np.asarray(flat, np.int64)[inside] + 1
        return codes, np.minimum(lengths, codes.shape[1])

    def at_places(self, codes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return what stands at each place from the beginning and, where rows are not equally long, from the
        end, int64 `[N, places]`; -1 where there is nothing.
        """
        ahead = codes[:, : self.ends]
        if self.is_even or not self.ends:
            return ahead
        back = lengths[:, None] - 1 - np.arange(self.ends)
        behind = np.take_along_axis(codes, np.maximum(back, 0), axis=1)
        return np.concatenate([ahead, np.where(back >= 0, behind, -1)], axis=1)

    def counts(self, codes: np.ndarray) -> np.ndarray:
        """Return how often each run occurs, float64 `[N, runs]`."""
        counts = np.zeros((len(codes), len(self.runs)))
        if not len(self.runs):
            return counts
        for rows, run in self._runs(codes):
            at = np.searchsorted(self.runs, run)
            at = np.minimum(at, len(self.runs) - 1)
            known = self.runs[at] == run
            np.add.at(counts, (rows[known], at[known]), 1.0)
        return counts

    def _commonest_runs(self, items: pa.Array) -> np.ndarray:
        often: Counter[int] = Counter()
        for start in range(0, len(items), _AT_ONCE):
            codes, _ = self.codes(items.slice(start, _AT_ONCE))
            for _, run in self._runs(codes):
                values, counts = np.unique(run, return_counts=True)
                often.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            # Rare runs are let go of, so that memory is bounded; they are not among the commonest.
            if len(often) > 1_000_000:
                often = Counter(dict(often.most_common(100_000)))
        commonest = sorted(often, key=lambda run: (-often[run], run))[:RUNS]
        return np.array(sorted(commonest), np.int64)

    def _runs(self, codes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the runs of one to four items: in which row, and a number for the run."""
        base = ITEMS + 2
        runs = []
        number = np.zeros_like(codes)
        for length in range(1, min(LONGEST_RUN, codes.shape[1]) + 1):
            # A run of one more item begins with a run; it is over where there is no item.
            number = number[:, : codes.shape[1] - length + 1] * base
            number = number + codes[:, length - 1 :] + 1
            rows, at = np.nonzero(codes[:, length - 1 :] >= 0)
            runs.append((rows, number[rows, at]))
        return runs
