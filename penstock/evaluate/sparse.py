"""Inputs of any kind as one sparse matrix, which linear models read.

Texts become TF-IDF weights of words and pairs (Salton and Buckley 1988) and, where they are short, of runs of
characters within words; lists of words or labels likewise of their members, sequences of their runs, and of
what stands at each place with its neighbour; numbers are standardised, categories one-hot. Terms are
hashed, so that no vocabulary grows with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.optional import require
from penstock.encode.encoding import Encoding
from penstock.evaluate.items import Places, is_text, items_of
from penstock.evaluate.matrix import TEXT_CHARACTERS, moments_of, texts_of
from penstock.evaluate.spread import doubles, is_spread, spread_out
from penstock.evaluate.training import ReadRows

TERMS = 100_000
"""Words and pairs, and runs of characters, that are told apart: the commonest of each."""
CATEGORIES = 1_000
WIDEST = 4_096
"""Columns that a vector, or a picture's features, become at most."""
_WIDE = 50
"""Columns that weigh one each; of a wider vector they weigh as much as so many together."""
_HASHES = 2**20
_CHARACTERS = 6_000_000
"""Texts of more characters, all rows together, are read by words alone."""
_PER_TEXT = 300
"""Texts that are longer on the average are read by words alone: characters help where words are few."""
_WHY = "comparing with a linear model"

Transform = Callable[[Any], Any]


class Sparse:
    """Converts inputs to a sparse matrix `[N, D]`, as learnt from the training rows.

    Args:
        encoding: whose inputs are read.
        names: the inputs that are read.
    """

    def __init__(self, encoding: Encoding, names: Iterable[str]) -> None:
        self._encoding, self._names = encoding, list(names)
        self._blocks: dict[str, list[Transform]] = {}
        self._sparse = require("scipy.sparse", extra="train", why=_WHY)

    def fit(self, rows: ReadRows) -> Any:
        """Learn from the training rows, and return them."""
        for name in self._names:
            if name in rows.pictures:
                self._blocks[name] = [self._standardised(rows.pictures[name])]
            else:
                self._blocks[name] = self._fitted(name, rows.columns[name])
        return self.transform(rows)

    def transform(self, rows: ReadRows) -> Any:
        """Return rows as `[N, D]`, as the training rows are laid out."""
        pieces = [self._sparse.csr_matrix((len(rows), 0))]
        for name, blocks in self._blocks.items():
            values = rows.pictures[name] if name in rows.pictures else rows.columns[name]
            pieces += [block(values) for block in blocks]
        return self._sparse.hstack(pieces, format="csr")

    def _fitted(self, name: str, column: pa.Array) -> list[Transform]:
        encoding, feature = self._encoding, self._encoding.inputs[name]
        items = items_of(encoding, name, column)
        if feature.type == "set" and items is not None:
            return self._terms(items, _members)
        if items is not None:
            blocks = self._places(name, items)
            return blocks + (self._texts(column) if feature.type == "text" else [])
        if feature.type == "text":
            return self._texts(column)
        if is_spread(column.type):
            values = spread_out(encoding, name, column)[:, :WIDEST]
            scale = self._standardised(values)
            width = values.shape[1]
            return [lambda some: scale(spread_out(encoding, name, some, width))]
        if is_text(column):
            return [self._one_hot(column)]
        scale = self._standardised(doubles(column)[:, None])
        return [lambda some: scale(doubles(some)[:, None])]

    def _standardised(self, values: np.ndarray) -> Transform:
        """Standardise numbers; a missing one is the mean, with a flag beside it where any is missing."""
        mean, std = moments_of(values)
        gaps = ~np.isfinite(values).all(axis=0)
        # Many columns together must not drown the terms of a text beside them.
        share = min(1.0, (_WIDE / max(values.shape[1], 1)) ** 0.5)

        def transform(some: np.ndarray) -> Any:
            gone = ~np.isfinite(some)
            # One outlier must not rule the gradients.
            scaled = share * np.clip(np.where(gone, 0, (some - mean) / std), -5, 5)
            return self._sparse.csr_matrix(
                np.concatenate([scaled, gone[:, gaps].astype(np.float64)], axis=1)
            )

        return transform

    def _one_hot(self, column: pa.Array) -> Transform:
        counts = pc.value_counts(column.drop_null())
        # The stable order keeps ties as they came, so that one sample gives one model.
        often = np.argsort(-np.asarray(counts.field("counts")), kind="stable")
        known = counts.field("values").take(pa.array(often[:CATEGORIES]))

        def transform(some: pa.Array) -> Any:
            code = pc.fill_null(pc.index_in(some, value_set=known), -1)
            return self._ones(np.asarray(code, np.int64)[:, None], max(len(known), 1))

        return transform

    def _ones(self, codes: np.ndarray, width: int) -> Any:
        """Return rows with a one at each of their codes `[N, C]`; a negative one is none."""
        rows, at = np.nonzero(codes >= 0)
        # An unseen or missing category is a row of zeros.
        return self._sparse.csr_matrix(
            (np.ones(len(rows)), (rows, codes[rows, at])), shape=(len(codes), width)
        )

    def _places(self, name: str, items: pa.Array) -> list[Transform]:
        """Return runs of a sequence as terms; and what stands at each place, alone and with its neighbour."""
        places = Places(items)
        encoding = self._encoding
        # Far more items than letters make too many pairs.
        base = min(len(places.values), 40) + 2

        def read(some: pa.Array) -> pa.Array:
            again = items_of(encoding, name, some)
            return (
                pa.array([list(v or "") for v in some.to_pylist()])
                if again is None
                else again
            )

        def standing(some: pa.Array) -> Any:
            at = places.at_places(*places.codes(read(some))) + 1
            at = np.where(at >= base, 1, at)
            alone = np.where(at > 0, at + base * np.arange(at.shape[1]), -1)
            one = self._ones(alone, base * max(at.shape[1], 1))
            if at.shape[1] < 2:
                return one
            pair = at[:, :-1] * base + at[:, 1:]
            pair = np.where((at[:, :-1] > 0) & (at[:, 1:] > 0), pair, -1)
            shift = base * base * np.arange(pair.shape[1])
            two = self._ones(
                np.where(pair >= 0, pair + shift, -1), base * base * pair.shape[1]
            )
            return self._sparse.hstack([one, two], format="csr")

        # What is learnt from are items already; what is answered later is read likewise.
        runs = self._terms(
            items, _runs, lambda some: _lists(some if is_list(some) else read(some))
        )
        return [*runs, standing] if places.places else runs

    def _texts(self, column: pa.Array) -> list[Transform]:
        most = max(TEXT_CHARACTERS * 2 // max(len(column), 1), 200)
        blocks = self._terms(column, _words, lambda some: texts_of(some, most))
        characters = pc.sum(pc.utf8_length(column)).as_py() or 0
        if characters <= min(_CHARACTERS, _PER_TEXT * len(column)):
            blocks += self._terms(column, _letters, lambda some: texts_of(some, most))
        return blocks

    def _terms(
        self, column: pa.Array, options: dict[str, Any], read: Transform | None = None
    ) -> list[Transform]:
        """Fit TF-IDF weights of hashed terms: of the commonest, those of one row left out where rows are
        many.
        """
        text = require("sklearn.feature_extraction.text", extra="train", why=_WHY)
        hashing = text.HashingVectorizer(
            n_features=_HASHES, alternate_sign=False, norm=None, **options
        )
        read = read or _lists
        counts = hashing.transform(read(column))
        rows = np.bincount(counts.indices, minlength=_HASHES)
        # Among many rows, a term that occurs in one tells nothing and costs a column.
        known = np.flatnonzero(rows >= (2 if len(column) > 1_000 else 1))
        if not len(known):
            return []
        known = np.sort(known[np.argsort(-rows[known], kind="stable")[:TERMS]])
        weights = text.TfidfTransformer(sublinear_tf=True).fit(counts[:, known])
        return [lambda some: weights.transform(hashing.transform(read(some))[:, known])]


def is_list(column: pa.Array) -> bool:
    """Whether a column holds lists."""
    return bool(pa.types.is_list(column.type) or pa.types.is_large_list(column.type))


def _lists(column: pa.Array) -> list[list[str]]:
    return [
        [str(word) for word in row or () if word is not None]
        for row in column.to_pylist()
    ]


def _themselves(words: list[str]) -> list[str]:
    return words


def _runs_of(words: list[str]) -> list[str]:
    """Return the runs of one to four items of a sequence."""
    words = [str(word) for word in words or () if word is not None]
    return [
        " ".join(words[i : i + length])
        for length in range(1, 5)
        for i in range(len(words) - length + 1)
    ]


_members = {"analyzer": _themselves}
_runs = {"analyzer": _runs_of}
# Punctuation marks are terms of their own.
_words = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b|[^\w\s]"}
_letters = {"analyzer": "char_wb", "ngram_range": (2, 5)}
