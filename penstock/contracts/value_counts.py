"""What summaries keep of the values they saw, bounded in bytes as well as in counts: a long text costs what
it holds.

Both bounds are free of order. Which values are forgotten follows from all rows together, so halves merged
equal the whole; and where no bound is reached, nothing is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MOST_BYTES = 64 * 2**20
"""Text that one summary keeps of its column, for its counts and again for its sample."""


class Counts:
    """How often each value occurs, for so many different values as `most` and `most_bytes` allow.

    Args:
        most: different values.
        most_bytes: of their text, in UTF-8.
    """

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self.most, self.most_bytes = most, most_bytes
        self.by_value: dict[Any, Any] = {}
        self._bytes = 0

    def add(self, pairs: Iterable[tuple[Any, Any]]) -> bool:
        """Count values (`(value, how many)`).

        False if there was no room for one of them; those that were there before are counted still.
        """
        room = True
        for value, count in pairs:
            before = self.by_value.get(value)
            if before is not None:
                self.by_value[value] = before + count
                continue
            size = _size(value)
            # Both bounds at once: many short values fill the first, few long ones the
            # second.
            if len(self.by_value) >= self.most or self._bytes + size > self.most_bytes:
                room = False
                continue
            self.by_value[value] = count
            self._bytes += size
        return room


def _size(value: Any) -> int:
    if isinstance(value, str):
        return (
            # ASCII has a byte a character, which spares the encoding.
            len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        )
    # Numbers and booleans count as eight bytes.
    return len(value) if isinstance(value, bytes) else 8


class BottomK:
    """The values of the rows with the smallest keys, ties by value: at most `size` of them, and no more than
    hold `most_bytes` of different text. Kept lazily: sorted only once twice as much has come.

    Text is kept as codes: a long one that repeats is in memory once. Where the bytes end the sample, rows
    with the key that did not fit are left out together, and those of all later keys, whichever order they
    come in.
    """

    def __init__(self, size: int, most_bytes: int = MOST_BYTES) -> None:
        self.size, self.most_bytes = size, most_bytes
        self._keys: list[np.ndarray] = []
        self._values: list[pa.Array] = []
        self._held = self._bytes = 0
        self._most: np.uint64 | None = None
        """The largest key that may still be among `size`."""
        self._below: np.uint64 | None = None
        """The least key whose text did not fit."""

    def add(self, keys: np.ndarray, values: pa.Array) -> None:
        """Take in rows: keys `[n]` of uint64, and their values without nulls."""
        # Keys that can no longer be kept go before anything is copied.
        if self._most is not None or self._below is not None:
            near = np.flatnonzero(self._wanted(keys))
            keys, values = keys[near], values.take(pa.array(near))
        if len(keys):
            values = _coded(values)
            self._keys.append(keys)
            self._values.append(values)
            self._held += len(keys)
            # A word counts in every batch that has it, until `_settle` counts it once.
            self._bytes += (
                int(_weights(values).sum())
                if isinstance(values, pa.DictionaryArray)
                else 0
            )
        # At twice the bounds, so that rows are sorted seldom.
        if self._held > 2 * self.size or self._bytes > 2 * self.most_bytes:
            self._settle()

    def _wanted(self, keys: np.ndarray) -> np.ndarray:
        wanted = np.ones(len(keys), bool)
        if self._most is not None:
            wanted &= keys <= self._most
        if self._below is not None:
            wanted &= keys < self._below
        return wanted

    def _settle(self) -> None:
        if (
            len(self._keys) <= 1
            and self._held <= self.size
            and self._bytes <= self.most_bytes
        ):
            return
        keys, values = np.concatenate(self._keys), _joined(self._values)
        if isinstance(values, pa.DictionaryArray):
            by_value = np.argsort(
                np.asarray(pc.sort_indices(values.dictionary))
            )  # the rank of each
            # `lexsort` takes its last key first: by key, then by the word's rank.
            order = np.lexsort((by_value[np.asarray(values.indices)], keys))[: self.size]
            order = order[
                : self._fitting(
                    keys[order], np.asarray(values.indices)[order], _weights(values)
                )
            ]
            values = _compact(values.take(pa.array(order)))
            self._bytes = int(_weights(values).sum())
        else:
            sorted_by = [("key", "ascending"), ("value", "ascending")]
            order = np.asarray(
                pc.sort_indices(
                    pa.table({"key": keys, "value": values}), sort_keys=sorted_by
                )[: self.size]
            )
            values = values.take(pa.array(order))
        keys = keys[order]
        self._keys, self._values, self._held = [keys], [values], len(keys)
        # Full: no larger key can come in any more; an equal one may, by its value.
        if self._held == self.size:
            self._most = keys[-1]

    def _fitting(self, keys: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> int:
        """How many of the rows, sorted, hold no more text than allowed."""
        # A word costs its bytes where it first stands among the sorted rows.
        _, first = np.unique(codes, return_index=True)
        cost = np.zeros(len(codes), np.int64)
        cost[first] = weights[codes[first]]
        over = np.flatnonzero(np.cumsum(cost) > self.most_bytes)
        if not len(over):
            return len(codes)
        # All rows of that key go together, so that the order in which they came decides
        # nothing.
        self._below = keys[over[0]]
        return int(np.searchsorted(keys, self._below))

    def merge(self, other: BottomK) -> None:
        """Take in what `other` keeps, and what it could not keep."""
        if other._below is not None:
            self._below = (
                other._below if self._below is None else min(self._below, other._below)
            )
            # What is held is judged anew by the bound that now holds for both.
            mine, self._keys, self._values, self._held, self._bytes = (
                list(zip(self._keys, self._values, strict=True)),
                [],
                [],
                0,
                0,
            )
            for keys, values in mine:
                self.add(keys, values)
        for keys, values in zip(other._keys, other._values, strict=True):
            self.add(keys, values)

    def values(self) -> pa.Array | None:
        """What is kept; None if there is nothing."""
        self._settle()
        if not self._values or not len(self._values[0]):
            return None
        values = self._values[0]
        return (
            values.dictionary_decode()
            if isinstance(values, pa.DictionaryArray)
            else values
        )


def _coded(values: pa.Array) -> pa.Array:
    """Text as codes, in memory of its own."""
    if isinstance(values, pa.DictionaryArray):
        return _compact(values)
    kind = values.type
    of_text = (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )
    # Encoding copies the words, so that no batch stays in memory for a few of its rows.
    return values.dictionary_encode() if of_text else values


def _weights(values: pa.DictionaryArray) -> np.ndarray:
    """The bytes of each word, `[words]`."""
    kind = values.dictionary.type
    if pa.types.is_primitive(kind):
        return np.full(len(values.dictionary), kind.bit_width // 8, np.int64)
    return np.asarray(pc.fill_null(pc.binary_length(values.dictionary), 0), np.int64)


def _joined(parts: list[pa.Array]) -> pa.Array:
    """One array; of codes if any of them is."""
    if any(isinstance(part, pa.DictionaryArray) for part in parts):
        coded = [
            part if isinstance(part, pa.DictionaryArray) else part.dictionary_encode()
            for part in parts
        ]
        return pa.chunked_array(coded).unify_dictionaries().combine_chunks()
    return pa.concat_arrays(parts)


def _compact(values: pa.DictionaryArray) -> pa.DictionaryArray:
    """Without what no code means, in memory of its own; a word that the dictionary has twice is one."""
    used, codes = np.unique(np.asarray(values.indices), return_inverse=True)
    words = values.dictionary.take(pa.array(used)).dictionary_encode()
    # The first `take` may leave a word twice; encoding it again made it one.
    return pa.DictionaryArray.from_arrays(
        pa.array(np.asarray(words.indices)[codes].astype(np.int32)), words.dictionary
    )


__all__ = ["MOST_BYTES", "BottomK", "Counts"]
