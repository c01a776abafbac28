"""A column of texts, measured: how often each occurs, how long they are, and what is suspicious in them.

A batch comes as different texts with their counts, so that a text that a million rows have is looked at once
a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.inspect.profile.distinct import Distinct, text_hashes
from penstock.inspect.profile.suspicions import suspicions

_COUNTED = 100_000
"""Different texts whose counts are held; beyond twice as many, the rarest are forgotten."""
_LONGEST = 200
"""Characters of a text that are held as its name."""
TOP = 20
_EDGES = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 2**62])
"""Edges of the bins of lengths, in characters."""


class Words:
    """Texts of one column."""

    def __init__(self) -> None:
        self.count = self.missing = 0
        self.distinct = Distinct()
        self.rows_of: dict[str, int] = {}
        """By suspicion, how many rows."""
        self.examples: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self.is_exact = True
        """Whether no text was forgotten."""
        self.lengths = np.zeros(len(_EDGES) - 1, np.int64)
        self._characters = 0
        self._shortest, self._longest = 2**62, 0

    def update(self, column: pa.Array) -> None:
        """Take a batch of texts, with a dictionary or without."""
        self.missing += column.null_count
        words, counts = different(column)
        if not len(words):
            return
        self.count += int(counts.sum())
        self.distinct.add(text_hashes(words))
        lengths = np.asarray(pc.utf8_length(words), np.int64)
        self._characters += int((lengths * counts).sum())
        self._shortest = min(self._shortest, int(lengths.min()))
        self._longest = max(self._longest, int(lengths.max()))
        at = np.searchsorted(_EDGES, lengths, "right") - 1
        self.lengths += np.bincount(
            at, weights=counts, minlength=len(self.lengths)
        ).astype(np.int64)
        for kind, flags in suspicions(words).items():
            self.rows_of[kind] = self.rows_of.get(kind, 0) + int(counts[flags].sum())
            if kind not in self.examples:
                self.examples[kind] = words[int(np.argmax(flags))].as_py()[:_LONGEST]
        self._count(words, counts)

    def _count(self, words: pa.Array, counts: np.ndarray) -> None:
        texts = pc.utf8_slice_codeunits(words, 0, _LONGEST).to_pylist()
        counted = self._counts
        for text, count in zip(texts, counts.tolist(), strict=True):
            counted[text] = counted.get(text, 0) + count
        if len(counted) > 2 * _COUNTED:
            self.is_exact = False
            # Ties by the text itself, so that the order of rows decides nothing more than it must.
            ranked = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
            self._counts = dict(ranked[:_COUNTED])

    def merge(self, other: Words) -> None:
        """Add what `other` has measured."""
        self.count += other.count
        self.missing += other.missing
        self.distinct.merge(other.distinct)
        for kind, rows in other.rows_of.items():
            self.rows_of[kind] = self.rows_of.get(kind, 0) + rows
            self.examples.setdefault(kind, other.examples[kind])
        for text, count in other._counts.items():
            self._counts[text] = self._counts.get(text, 0) + count
        self.is_exact &= other.is_exact
        self.lengths += other.lengths
        self._characters += other._characters
        self._shortest = min(self._shortest, other._shortest)
        self._longest = max(self._longest, other._longest)

    def counts(self) -> dict[str, int]:
        """How often each text occurs, the commonest first; the rarest may be missing (`is_exact`)."""
        ranked = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return dict(ranked)

    def result(self) -> dict[str, Any]:
        """Plain data; `top` is of values that occur more than once."""
        top = [
            [text, rows] for text, rows in list(self.counts().items())[:TOP] if rows > 1
        ]
        bins = [
            [int(_EDGES[i]), int(_EDGES[i + 1]), int(rows)]
            for i, rows in enumerate(self.lengths)
        ]
        used = [i for i, each in enumerate(bins) if each[2]]
        return {
            "top": top,
            "top_exact": self.is_exact,
            "length": {
                "min": self._shortest if self.count else 0,
                "mean": round(self._characters / self.count, 3) if self.count else 0.0,
                "max": self._longest,
                "bins": bins[used[0] : used[-1] + 1] if used else [],
            },
            "suspicions": dict(sorted(self.rows_of.items())),
        }


def different(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The different texts of a batch, without null, and how many rows have each `[N]`."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    codes = column.indices.drop_null().to_numpy(zero_copy_only=False)
    counts = np.bincount(codes, minlength=len(column.dictionary))
    there = np.flatnonzero(counts)
    words = column.dictionary.take(pa.array(there))
    if not pa.types.is_string(words.type):
        words = words.cast(pa.string())
    return words, counts[there]
