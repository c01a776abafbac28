"""Columns of a table as one matrix of numbers, which gradient boosting reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.optional import require
from penstock.encode.encoding import Encoding

CATEGORIES = 254
WIDEST = 512
"""A longer vector is left out: boosting over raw pixels is neither quick nor good."""
MEMBERS = 64
"""Members of a set, or items of a sequence, that get a column: the commonest."""
COMPONENTS = 32
"""Columns that a text becomes."""
_TERMS = 20_000
_WHY = "comparing with gradient boosting"


def width_of(encoding: Encoding, name: str, column: pa.Array) -> int | None:
    """Return about how many matrix columns an input becomes; None if it cannot be read."""
    if encoding.inputs[name].type == "text":
        return COMPONENTS
    return MEMBERS if _is_words(column) else _width(column)


def _width(column: pa.Array) -> int | None:
    """Return how many matrix columns a column becomes; None if it cannot be read."""
    kind = column.type
    if pa.types.is_temporal(kind):
        return 5 if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else None
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    ):
        return 1
    if (
        pa.types.is_fixed_size_list(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
    ):
        if not (
            pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
        ):
            return None
        lengths = pc.drop_null(pc.list_value_length(column))
        longest = pc.max(lengths).as_py() if len(lengths) else 0
        return longest if longest and longest <= WIDEST else None
    return None


class Matrix:
    """Converts canonical columns to doubles `[N, D]`, with what was learnt from the training rows: the codes
    of categories, the commonest members of sets, the components of texts.

    Args:
        encoding: whose inputs the columns are.
        names: the columns that are read.
        seed: of the components of texts.
    """

    def __init__(self, encoding: Encoding, names: list[str], *, seed: int) -> None:
        self.names = names
        self._encoding, self._seed = encoding, seed
        self._members: dict[str, pa.Array] = {}
        self._texts: dict[str, Any] = {}
        self.codes: dict[str, pa.Array] = {}
        self.lengths: dict[str, int] = {}
        self.categorical: list[bool] = []

    def fit(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Learn from the training rows, and return them."""
        for name in self.names:
            column = columns[name]
            width = _width(column) or 0
            if self._encoding.inputs[name].type == "text":
                self._texts[name] = components = self._components(column)
                self.categorical += [False] * (0 if components is None else COMPONENTS)
                continue
            if _is_words(column):
                often = Counter(
                    word for row in column.to_pylist() for word in row or () if word
                )
                # Of equally common ones the first by alphabet, whatever order the rows have.
                members = sorted(often, key=lambda word: (-often[word], word))[:MEMBERS]
                self._members[name] = pa.array(members, column.type.value_type)
                self.categorical += [False] * len(members)
                continue
            if _is_text(column):
                counts = pc.value_counts(column.drop_null())
                values, how_many = (
                    counts.field("values"),
                    np.asarray(counts.field("counts")),
                )
                self.codes[name] = values.take(
                    pa.array(np.argsort(-how_many, kind="stable")[:CATEGORIES])
                )
            elif pa.types.is_nested(column.type):
                self.lengths[name] = width
            self.categorical += [_is_text(column)] * (
                width if name not in self.codes else 1
            )
        return self.transform(columns)

    def _components(self, column: pa.Array) -> Any:
        """Fit TF-IDF weights and their main components (Deerwester et al. 1990); None without enough
        different words.
        """
        text = require("sklearn.feature_extraction.text", extra="train", why=_WHY)
        parts = require("sklearn.decomposition", extra="train", why=_WHY)
        pipeline = require("sklearn.pipeline", extra="train", why=_WHY)
        model = pipeline.make_pipeline(
            text.TfidfVectorizer(max_features=_TERMS, sublinear_tf=True),
            parts.TruncatedSVD(COMPONENTS, random_state=self._seed),
        )
        try:
            return model.fit(_texts(column))
        # No word at all, or fewer words than components.
        except ValueError:
            return None

    def transform(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Return rows as `[N, D]`, as the training rows are laid out."""
        return np.concatenate(
            [self._block(name, columns[name]) for name in self.names], axis=1
        )

    def _block(self, name: str, column: pa.Array) -> np.ndarray:
        if name in self._texts:
            model = self._texts[name]
            if model is None:
                return np.empty((len(column), 0))
            return np.asarray(model.transform(_texts(column)), np.float64)
        if name in self._members:
            return _counts(column, self._members[name])
        if name in self.codes:
            # All other values share one code.
            code = np.asarray(
                pc.fill_null(pc.index_in(column, value_set=self.codes[name]), CATEGORIES),
                np.float64,
            )
            return np.where(np.asarray(column.is_null()), np.nan, code)[:, None]
        if name in self.lengths:
            # Longer vectors are cut to what the training rows had.
            width = self.lengths[name]
            # Boosting reads NaN as missing, so shorter vectors need no filling.
            block = np.full((len(column), width), np.nan)
            for i, row in enumerate(column.to_pylist()):
                if row is not None:
                    block[i, : min(len(row), width)] = np.array(row[:width], np.float64)
            return block
        if pa.types.is_temporal(column.type):
            moment = pc.cast(
                column, pa.timestamp("us", tz=getattr(column.type, "tz", None))
            )
            # Microseconds become seconds.
            seconds = pc.divide(pc.cast(pc.cast(moment, pa.int64()), pa.float64()), 1e6)
            parts: list[Any] = [
                seconds,
                pc.month(moment),
                pc.day(moment),
                pc.day_of_week(moment),
                pc.hour(moment),
            ]
            return np.stack([_doubles(p) for p in parts], axis=1)
        return _doubles(column)[:, None]


def _is_text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _doubles(column: pa.Array) -> np.ndarray:
    number = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    return np.asarray(
        pc.fill_null(pc.cast(number, pa.float64()), float("nan")), np.float64
    )


def _is_words(column: pa.Array) -> bool:
    """Whether a column holds lists of words: a set, or a sequence of items."""
    kind = column.type
    return bool(
        (pa.types.is_list(kind) or pa.types.is_large_list(kind))
        and pa.types.is_string(kind.value_type)
    )


def _counts(column: pa.Array, members: pa.Array) -> np.ndarray:
    """Return how often each of `members` is in each row, `[N, members]`; NaN where a row is missing."""
    block = np.zeros((len(column), len(members)))
    # With the parents beside the values a slice of a longer array is read right.
    rows = np.asarray(pc.list_parent_indices(column))
    codes = pc.fill_null(pc.index_in(pc.list_flatten(column), value_set=members), -1)
    codes = np.asarray(codes, np.int64)
    known = codes >= 0
    np.add.at(block, (rows[known], codes[known]), 1.0)
    block[np.asarray(column.is_null())] = np.nan
    return block


def _texts(column: pa.Array) -> list[str]:
    return [value or "" for value in column.to_pylist()]
