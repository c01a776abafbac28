"""Rows as sparse numbers: every value of every column becomes a few places of a wide row, by hashing.

A number is the place of its bin (edges from the quantiles of a sample), a word of one or two a place of its
own, a longer text its words and their pairs, a list its members; a missing value is a value. So a column is
read without a dictionary, and any number of rows in bounded memory (Weinberger et al. 2009, feature hashing).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BINS = 32
_WORDS = 3
"""From so many words on a text is its words, not itself."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MISSING = zlib.crc32(b"\0missing")
_LONGEST = 2_000
"""Letters of a text that are read."""
_MEMBERS = 512
"""Members of a list that are read."""


@dataclass(frozen=True)
class Sparse:
    """Rows `[N, width]`: the places of each row, and the weights at them."""

    starts: np.ndarray
    """Where each row begins, and the last ends: int64 `[N + 1]`."""
    places: np.ndarray
    """int32 `[n]`."""
    weights: np.ndarray
    """float32 `[n]`."""


def reads(kind: pa.DataType) -> bool:
    """Whether a column of this type can be hashed."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_text(kind.value_type)
    return is_number(kind) or _is_text(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether a column is binned."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
    )


def numbers(column: pa.Array) -> pa.Array:
    """A column that is binned, as doubles; moments as what they count."""
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    return column.cast(pa.float64(), safe=False)


def hashed(
    columns: Mapping[str, pa.Array], edges: Mapping[str, np.ndarray], width: int
) -> Sparse:
    """Rows of columns as sparse numbers; every row has the place 0, a constant.

    Args:
        columns: at least one; the order does not matter.
        edges: of those that are numbers, ascending.
        width: how many places there are, a power of two.
    """
    rows = len(next(iter(columns.values())))
    owners = [np.arange(rows)]
    places = [np.zeros(rows, np.int64)]
    weights = [np.ones(rows, np.float32)]
    for name in sorted(columns):
        owner, code = _coded(columns[name], edges.get(name))
        # Of every column the same length, however many words it has.
        number = np.bincount(owner, minlength=rows)
        seed = np.uint64(zlib.crc32(name.encode()))
        mixed = (code.astype(np.uint64) ^ (seed << np.uint64(32))) * _MIX
        owners.append(owner)
        places.append(1 + (mixed >> np.uint64(33)).astype(np.int64) % (width - 1))
        weights.append((1 / np.sqrt(number[owner])).astype(np.float32))
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    starts = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=rows), out=starts[1:])
    place = np.concatenate(places)[order].astype(np.int32)
    return Sparse(starts, place, np.concatenate(weights)[order])


def _coded(column: pa.Array, edges: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The codes of a column, each with its row: at least one a row."""
    rows = len(column)
    if edges is not None:
        values = numbers(column)
        gone = np.asarray(pc.fill_null(pc.invert(pc.is_finite(values)), True))
        bins = np.searchsorted(edges, np.asarray(pc.fill_null(values, 0.0)), "right")
        return np.arange(rows), np.where(gone, _MISSING, bins)
    if _is_text(column.type):
        return _texts(column)
    parents = np.asarray(pc.list_parent_indices(column), np.int64)
    codes = _codes(pc.list_flatten(column))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)
    place = np.arange(len(parents)) - (np.cumsum(lengths) - lengths)[parents]
    return _filled(parents[place < _MEMBERS], codes[place < _MEMBERS], rows)


def _texts(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    texts = column.cast(pa.large_string())
    lowered = pc.utf8_lower(pc.utf8_slice_codeunits(texts, 0, _LONGEST))
    spaced = pc.utf8_trim_whitespace(
        # Punctuation marks are words of their own.
        pc.replace_substring_regex(lowered, r"([\p{P}\p{S}])", r" \1 ")
    )
    split = pc.utf8_split_whitespace(spaced)
    number = np.asarray(pc.fill_null(pc.list_value_length(split), 0), np.int64)
    is_long = number >= _WORDS
    whole = np.flatnonzero(~is_long)
    short = _codes(lowered.take(pa.array(whole)))
    words = pc.list_flatten(split)
    parents = np.asarray(pc.list_parent_indices(split), np.int64)
    within = is_long[parents]
    words, parents = words.filter(pa.array(within)), parents[within]
    singles = _codes(words)
    together = parents[1:] == parents[:-1]
    pairs = (singles[:-1] * np.int64(31) + singles[1:] + 7)[together] & 0x7FFFFFFF
    owner = np.concatenate([whole, parents, parents[1:][together]])
    return owner, np.concatenate([short, singles, pairs])


def _codes(values: pa.Array) -> np.ndarray:
    """A code for each text, `[n]`; each different one is hashed once."""
    encoded = values.dictionary_encode()
    words = [zlib.crc32(word.encode()) for word in encoded.dictionary.to_pylist()]
    places = np.asarray(pc.fill_null(encoded.indices, len(words)), np.int64)
    return np.array([*words, _MISSING], np.int64)[places]


def _filled(
    owner: np.ndarray, code: np.ndarray, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """With a code for rows that have none."""
    bare = np.flatnonzero(np.bincount(owner, minlength=rows) == 0)
    return np.concatenate([owner, bare]), np.concatenate(
        [code, np.full(len(bare), _MISSING)]
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
