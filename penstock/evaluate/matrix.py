"""Inputs of any kind as one matrix of numbers, which gradient boosting reads.

Numbers as they are, categories as codes (those of many values also as what the target was where they
occurred, `target_means`), moments as seconds and parts of the calendar, members of sets counted, items of
sequences by their place and by runs, texts by components of their TF-IDF weights, pictures by components of
simple features, vectors and windows of series spread out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.optional import require
from penstock.encode.encoding import Encoding
from penstock.evaluate.items import RUNS, Places, is_text, items_of
from penstock.evaluate.spread import doubles, is_spread, spread_out
from penstock.evaluate.training import ReadRows

CATEGORIES = 254
WIDEST = 512
"""A longer vector becomes components: boosting over raw pixels is neither quick nor good."""
MEMBERS = 64
"""Members of a set that get a column: the commonest."""
COMPONENTS = 32
"""Columns that a text, or a picture, becomes."""
_TERMS = 20_000
TEXT_CHARACTERS = 16_000_000
"""Characters of a text column that are read, all rows together: longer texts are cut alike."""
_WHY = "comparing with gradient boosting"

Transform = Callable[[Any], np.ndarray]


@dataclass
class _Block:
    """How one input becomes columns, as learnt from the training rows."""

    transform: Transform
    """A canonical column (of a picture its features) → `[N, D]`."""
    categorical: list[bool] = field(default_factory=list)
    """By column; its length is D."""


def dense_width(encoding: Encoding, name: str, rows: ReadRows) -> int:
    """Return about how many matrix columns an input becomes; 0 if it cannot be read."""
    if name in rows.pictures:
        return COMPONENTS
    column = rows.columns[name]
    kind = column.type
    if encoding.inputs[name].type == "text":
        return COMPONENTS + (0 if items_of(encoding, name, column) is None else 3 * RUNS)
    if items_of(encoding, name, column) is not None:
        return MEMBERS if encoding.inputs[name].type == "set" else 3 * RUNS
    if is_spread(kind):
        some = spread_out(encoding, name, column.slice(0, 100))
        return min(WIDEST, max(int(some.shape[1]), 1))
    if pa.types.is_temporal(kind):
        return 6 if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else 0
    is_plain = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    )
    return 1 if is_plain or is_text(column) else 0


class Matrix:
    """Converts inputs to doubles `[N, D]`, with what was learnt from the training rows.

    Args:
        encoding: whose inputs are read.
        names: the inputs that are read.
        seed: of the components of texts and pictures.
    """

    def __init__(self, encoding: Encoding, names: list[str], *, seed: int) -> None:
        self.names = names
        self._encoding, self._seed = encoding, seed
        self._blocks: dict[str, list[_Block]] = {}

    @property
    def categorical(self) -> list[bool]:
        """Whether each column holds codes of categories."""
        return [
            each
            for blocks in self._blocks.values()
            for block in blocks
            for each in block.categorical
        ]

    def fit(self, rows: ReadRows) -> np.ndarray:
        """Learn from the training rows, and return them."""
        for name in self.names:
            picture = rows.pictures.get(name)
            blocks = (
                [_components(picture, self._seed)]
                if picture is not None
                else self._fitted(name, rows.columns[name])
            )
            self._blocks[name] = [block for block in blocks if block.categorical]
        return self.transform(rows)

    def transform(self, rows: ReadRows) -> np.ndarray:
        """Return rows as `[N, D]`, as the training rows are laid out."""
        pieces = [np.empty((len(rows), 0))]
        for name, blocks in self._blocks.items():
            values = rows.pictures[name] if name in rows.pictures else rows.columns[name]
            pieces += [block.transform(values) for block in blocks]
        return np.concatenate(pieces, axis=1)

    def _fitted(self, name: str, column: pa.Array) -> list[_Block]:
        encoding, feature = self._encoding, self._encoding.inputs[name]
        items = items_of(encoding, name, column)
        if feature.type == "set" and items is not None:
            return [_members(items)]
        blocks = []
        if feature.type == "text":
            blocks.append(_text(column, self._seed))
        if items is not None:
            blocks += _places(items, lambda some: items_of(encoding, name, some))
            return blocks
        if feature.type == "text":
            return blocks
        if is_spread(column.type):
            return [_vector(encoding, name, column, self._seed)]
        if pa.types.is_temporal(column.type):
            return [_Block(_moments, [False] * 6)]
        if is_text(column):
            return [_codes(column)]
        return [_Block(lambda some: doubles(some)[:, None], [False])]


def _codes(column: pa.Array) -> _Block:
    """Code the commonest categories; all others share one code."""
    counts = pc.value_counts(column.drop_null())
    often = np.asarray(counts.field("counts"))
    known = counts.field("values").take(
        pa.array(np.argsort(-often, kind="stable")[:CATEGORIES])
    )

    def transform(some: pa.Array) -> np.ndarray:
        code = pc.fill_null(pc.index_in(some, value_set=known), CATEGORIES)
        return np.where(np.asarray(some.is_null()), np.nan, np.asarray(code, np.float64))[
            :, None
        ]

    return _Block(transform, [True])


def _members(items: pa.Array) -> _Block:
    """Count the commonest members of a set, and all of them."""
    often = Counter(word for row in items.to_pylist() for word in row or () if word)
    # Of equally common ones the first by alphabet, whatever order the rows have.
    commonest = sorted(often, key=lambda word: (-often[word], word))[:MEMBERS]
    known = pa.array(commonest, pa.string())

    def transform(some: pa.Array) -> np.ndarray:
        block = np.zeros((len(some), len(known) + 1))
        # With the parents beside the values a slice of a longer array is read right.
        rows = np.asarray(pc.list_parent_indices(some))
        codes = pc.index_in(pc.list_flatten(some).cast(pa.string()), value_set=known)
        codes = np.asarray(pc.fill_null(codes, -1), np.int64)
        there = codes >= 0
        np.add.at(block, (rows[there], codes[there]), 1.0)
        np.add.at(block[:, -1], rows, 1.0)
        block[np.asarray(some.is_null())] = np.nan
        return block

    return _Block(transform, [False] * (len(known) + 1))


def _places(items: pa.Array, read: Callable[[pa.Array], Any]) -> list[_Block]:
    """Return what stands where in a sequence, its runs, and its length."""
    places = Places(items)

    def at_places(some: pa.Array) -> np.ndarray:
        standing = places.at_places(*places.codes(_items(some))).astype(np.float64)
        standing[standing < 0] = np.nan
        return standing

    def counts(some: pa.Array) -> np.ndarray:
        codes, lengths = places.codes(_items(some))
        return np.concatenate([places.counts(codes), lengths[:, None]], axis=1)

    def _items(some: pa.Array) -> pa.Array:
        read_items = read(some)
        # Judged rows alone may look like prose; they are read as the training rows were.
        return _letters(some) if read_items is None else read_items

    return [
        _Block(at_places, [True] * places.places),
        _Block(counts, [False] * (len(places.runs) + 1)),
    ]


def _letters(column: pa.Array) -> pa.Array:
    rows = column.to_pylist()
    return pa.array(
        [None if row is None else list(row[:WIDEST]) for row in rows],
        pa.list_(pa.string()),
    )


def _text(column: pa.Array, seed: int) -> _Block:
    """Fit TF-IDF weights and their main components (Deerwester et al. 1990); without enough different words
    only the length is left.
    """
    text = require("sklearn.feature_extraction.text", extra="train", why=_WHY)
    parts = require("sklearn.decomposition", extra="train", why=_WHY)
    pipeline = require("sklearn.pipeline", extra="train", why=_WHY)
    most = max(TEXT_CHARACTERS // max(len(column), 1), 200)
    model = pipeline.make_pipeline(
        text.TfidfVectorizer(max_features=_TERMS, sublinear_tf=True),
        parts.TruncatedSVD(COMPONENTS, random_state=seed),
    )
    try:
        model.fit(texts_of(column, most))
    # No word at all, or fewer words than components.
    except ValueError:
        model = None

    def transform(some: pa.Array) -> np.ndarray:
        length = np.asarray(pc.fill_null(pc.utf8_length(some), 0), np.float64)[:, None]
        if model is None:
            return length
        components = np.asarray(model.transform(texts_of(some, most)), np.float64)
        return np.concatenate([components, length], axis=1)

    return _Block(transform, [False] * (1 if model is None else COMPONENTS + 1))


def texts_of(column: pa.Array, most: int) -> list[str]:
    """Return texts, each cut to `most` characters; a missing one is empty."""
    return [value or "" for value in pc.utf8_slice_codeunits(column, 0, most).to_pylist()]


def _vector(encoding: Encoding, name: str, column: pa.Array, seed: int) -> _Block:
    """Spread out a vector or a window; a wide one becomes components."""
    values = spread_out(encoding, name, column)
    width = values.shape[1]
    if width <= WIDEST:
        return _Block(
            lambda some: spread_out(encoding, name, some, width), [False] * width
        )
    block = _components(values, seed)
    return _Block(
        lambda some: block.transform(spread_out(encoding, name, some, width)),
        block.categorical,
    )


def _components(values: np.ndarray, seed: int) -> _Block:
    """Fit the main components of standardised features (of at most 5,000 rows)."""
    parts = require("sklearn.decomposition", extra="train", why=_WHY)
    mean, std = moments_of(values)
    some = np.nan_to_num((values[:5_000] - mean) / std)
    count = min(COMPONENTS, *some.shape)
    model = parts.PCA(count, random_state=seed, svd_solver="randomized").fit(some)
    return _Block(
        lambda more: np.asarray(model.transform(np.nan_to_num((more - mean) / std))),
        [False] * count,
    )


def moments_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the deviation of each column `[D]`, NaN left out; 1 for a constant's deviation."""
    there = np.isfinite(values)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, values, 0).sum(axis=0, dtype=np.float64) / count
    square = (
        np.where(there, (values - mean) ** 2, 0).sum(axis=0, dtype=np.float64) / count
    )
    std = np.sqrt(square)
    return mean, np.where(std > 1e-9, std, 1.0)


def _moments(column: pa.Array) -> np.ndarray:
    """Return seconds, and the parts of the calendar."""
    moment = pc.cast(column, pa.timestamp("us", tz=getattr(column.type, "tz", None)))
    # Microseconds become seconds.
    seconds = pc.divide(pc.cast(pc.cast(moment, pa.int64()), pa.float64()), 1e6)
    parts: list[Any] = [
        seconds,
        pc.month(moment),
        pc.day(moment),
        pc.day_of_week(moment),
        pc.hour(moment),
        pc.day_of_year(moment),
    ]
    return np.stack([doubles(part) for part in parts], axis=1)
