"""Columns that an order goes by: what `train.order.mix` and `train.order.weights` name, stored with each
encoded row.

They need be no features, and what they hold is no feature's business: a value's group is a hash of its text,
so that rows can be written in any order and by anybody, and a feed does not change with the weights of a
mixture. `Loader` takes both out of a batch again; their names cannot be a feature's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import Feature
from penstock.core.errors import ContractError, Problem
from penstock.core.near import did_you_mean
from penstock.encode.encoding import whole_column
from penstock.recipe.schema import Recipe

# No feature's name may have angle brackets, so neither can be an array of one.
MIX, WEIGHTS = "<mix>", "<weights>"
NO_VALUE = 0
"""The group of a row whose value is missing."""


@dataclass(frozen=True)
class OrderColumns:
    """The columns that `train.order` reads, if any: of groups (`mix`) and of odds (`weights`)."""

    mix: str | None = None
    weights: str | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> OrderColumns:
        """The columns that a recipe's `train.order` goes by."""
        order = recipe.train.order
        return cls(order.mix.by if order.mix else None, order.weights)

    @property
    def columns(self) -> list[str]:
        """The names of those that are given."""
        return [column for column in (self.mix, self.weights) if column is not None]

    def to_dict(self) -> dict[str, str]:
        """As plain data; empty where an order goes by no column."""
        return {
            word: column
            for word, column in (("mix", self.mix), ("weights", self.weights))
            if column is not None
        }

    def problems(self, known: list[str]) -> list[Problem]:
        """Columns that the data lacks."""
        paths = {
            "mix": ("train", "order", "mix", "by"),
            "weights": ("train", "order", "weights"),
        }
        return [
            Problem(
                paths[word],
                f"is the column {column!r}, which the data lacks.{did_you_mean(column, known)}",
            )
            for word, column in self.to_dict().items()
            if column not in known
        ]

    def arrays(
        self, table: pa.Table, refused: Iterable[int], split: str
    ) -> dict[str, np.ndarray]:
        """The arrays stored of rows not refused, as far as named: `MIX` int64 `[n]`, `WEIGHTS` float32 `[n]`.

        Raises:
            ContractError: a training row has no weight, or one that cannot be drawn by.
        """
        if not self.columns:
            return {}
        # The same rows that the encoding keeps, so that arrays stay side by side.
        gone = np.fromiter(refused, np.int64)
        if len(gone):
            table = table.take(pa.array(np.setdiff1d(np.arange(len(table)), gone)))
        arrays = {}
        if self.mix is not None:
            arrays[MIX] = _groups(whole_column(table, self.mix))
        if self.weights is not None:
            arrays[WEIGHTS] = self._odds(whole_column(table, self.weights), split)
        return arrays

    def _odds(self, raw: pa.Array, split: str) -> np.ndarray:
        # Read as a number feature reads, so that text in CSV counts as the number it
        # is.
        number: Any = Feature.load({"type": "number"})
        column, _ = number.accept([raw])
        values = np.asarray(
            pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64
        )
        # What float32 cannot hold becomes infinite, and is refused below.
        with np.errstate(over="ignore"):
            weights = values.astype(np.float32)
        # A missing weight is NaN here, thus not finite.
        bad = ~(np.isfinite(weights) & (weights >= 0))
        if split != "train":  # nobody draws from it
            return np.where(bad, np.float32(0), weights)
        if bad.any():
            raise ContractError(
                f"train.order.weights: {int(bad.sum())} of {len(bad)} rows have no number"
                f" from 0 in the column {self.weights!r}; the first is"
                f" {raw[int(np.argmax(bad))].as_py()!r}. Rows cannot be drawn by it. Set"
                f" `expect: {{{self.weights}: {{type: number, min: 0, not_null: true}}}}` to"
                " quarantine them, or correct them with `derive`"
            )
        return weights


def group_of(value: str) -> int:
    """The number that stands for a value in the shards: an int64, never `NO_VALUE`."""
    # A hash of the text: a value keeps its group in every feed, whatever else the
    # column holds.
    return (
        int.from_bytes(
            hashlib.md5(value.encode(), usedforsecurity=False).digest()[:8],
            "big",
            signed=True,
        )
        or 1
    )


def _groups(raw: pa.Array) -> np.ndarray:
    # Read as a category, so that 3 and 3.0 are one group.
    category: Any = Feature.load({"type": "category"})
    column, _ = category.accept([raw])
    coded = (
        column if isinstance(column, pa.DictionaryArray) else pc.dictionary_encode(column)
    )
    # The place behind the last value stands for null.
    numbers = np.array(
        [group_of(value) for value in coded.dictionary.to_pylist()] + [NO_VALUE], np.int64
    )
    codes: np.ndarray = numbers[
        np.asarray(pc.fill_null(coded.indices, len(numbers) - 1), np.int64)
    ]
    return codes
