"""A row of numbers of a fixed length, such as an embedding made elsewhere: a list, or several columns side by
side.

Each component is standardised on its own. A component that is missing is filled; `missing` is 1 for a row in
which any was. The length is declared, not learnt: a row must be accepted or refused without knowing any
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from penstock.contracts.features import NOBODY, Feature, Fitted, Refused, Stored
from penstock.contracts.part import mistakes
from penstock.contracts.summary import Moments, Summary
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError, Problem
from penstock.parts.features import _lists, _raw

_CANONICAL = pa.list_(pa.float64())


class Vector(Feature):
    """Numbers of a fixed length: one column of lists (`length`), or several columns (`columns`)."""

    encoder: ClassVar[str] = "linear"
    canonical: ClassVar[pa.DataType] = _CANONICAL

    length: int | None = Field(None, ge=1)
    """How many numbers each list has; a list of another length is refused."""
    columns_: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = Field((), alias="columns")
    """The columns that are its components, in order, where it is not a column of lists."""
    delimiter: str | None = Field(None, min_length=1)
    """What stands between the numbers of a text, such as `40.7,-74.0` or `(40.7, -74.0)`; with a space, any
    white space. Unless given, lists alone are read.
    """
    missing: Literal["mean", "zero", "error"] = "mean"
    """What a missing component is filled with: its mean over the training split, or 0 in its own units;
    `error` refuses the row.
    """

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.columns_ and self.column:
            raise mistakes(
                Problem(
                    ("column",),
                    "goes with a column of lists; `columns` names the components. Leave one of them out",
                )
            )
        if self.columns_ and self.length not in (None, len(self.columns_)):
            raise mistakes(
                Problem(
                    ("length",),
                    f"is {self.length}, but `columns` names {len(self.columns_)}. Leave `length` out",
                )
            )
        if self.columns_ and self.delimiter:
            raise mistakes(
                Problem(
                    ("delimiter",),
                    "goes with a column of texts; `columns` names the components. Leave one of them out",
                )
            )
        if not self.columns_ and self.length is None:
            raise mistakes(
                Problem(
                    ("length",),
                    "is required for a column of lists: how many numbers each has (or name several"
                    " `columns`)",
                )
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        whole = super().to_dict()
        # Left out where it says nothing: features declared before there was this word keep their ids.
        return {k: v for k, v in whole.items() if k != "delimiter" or v is not None}

    @property
    def size(self) -> int:
        """How many components it has."""
        return len(self.columns_) or int(self.length or 0)

    def columns(self, name: str) -> tuple[str, ...]:
        return self.columns_ or (self.column or name,)

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        lists, refused = (
            self._side_by_side(columns)
            if self.columns_
            else self._lists(self._parted(_raw.one(columns)))
        )
        if self.missing == "error":
            # bool [n]: a row with any gap, a null row among them.
            gaps = np.flatnonzero(_matrix(lists, self.size)[1].any(axis=1))
            refused = _raw.together(
                refused,
                Refused(
                    gaps,
                    [
                        "is missing, or has a missing component, and `missing: error` was declared"
                    ]
                    * len(gaps),
                ),
            )
        # A refused row is null, whatever of it could be read.
        return _raw.without(lists, np.isin(np.arange(len(lists)), refused.rows)), refused

    def _side_by_side(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        read = [_raw.numbers(_raw.plain(column), self.na) for column in columns]
        refused = _raw.together(
            *(
                Refused(some.rows, [f"{name}: {reason}" for reason in some.reasons])
                for name, (_, some) in zip(self.columns_, read, strict=True)
            )
        )
        # [n, size], NaN where missing.
        matrix = np.stack([_lists.doubles(values) for values, _ in read], axis=1)
        flat = pa.array(matrix.ravel(), mask=np.isnan(matrix.ravel()))
        return _lists.in_lists_of(flat, self.size), refused

    def _parted(self, column: pa.Array) -> pa.Array:
        """Delimited texts as lists of texts; any other column as it is."""
        if self.delimiter is None or not pa.types.is_string(column.type):
            return column
        text = pc.replace_substring_regex(
            _raw.stripped(column, self.na), r"^[\[({]\s*|\s*[\])}]$", ""
        )
        return (
            pc.utf8_split_whitespace(text)
            if self.delimiter == " "
            else pc.split_pattern(text, self.delimiter)
        )

    def _lists(self, column: pa.Array) -> tuple[pa.Array, Refused]:
        there = _raw.present(column)
        kind = column.type
        # a column that is missing in every row has no type of its own
        if pa.types.is_string(kind) and not there.any():
            return pa.nulls(len(column), _CANONICAL), NOBODY
        if not _lists.is_list(kind):
            return pa.nulls(len(column), _CANONICAL), _raw.refusing(
                column,
                there,
                lambda value: (
                    f"expected a list of {self.size} numbers, found {_raw.shown(value)}"
                ),
            )
        lengths = _lists.lengths(column)
        wrong = there & (lengths != self.size)
        right = there & ~wrong
        # Lists of the right length alone, so that items are `[r · size]` without gaps.
        flat, bad = _raw.numbers(_raw.plain(_lists.items(column, right)), self.na)
        rows = np.flatnonzero(right)
        # An item's place gives its row and its component.
        spoilt = Refused(
            rows[bad.rows // self.size],
            [
                f"component {place % self.size}: {reason}"
                for place, reason in zip(bad.rows.tolist(), bad.reasons, strict=True)
            ],
        )
        # Where each row stands among those that were read; -1 becomes null.
        places = np.full(len(column), -1, np.int64)
        places[rows] = np.arange(len(rows))
        lists = _lists.in_lists_of(flat, self.size).take(
            pa.array(places, mask=places < 0)
        )
        uneven = Refused(
            np.flatnonzero(wrong),
            [
                f"has {n} components, expected {self.size}"
                for n in lengths[wrong].tolist()
            ],
        )
        return lists, _raw.together(uneven, spoilt)

    def summary(self) -> Summary:
        return _Components(self.size)

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        # A component without any value has no mean to be filled with.
        if not all(part["count"] for part in result["components"]):
            empty = [
                i for i, part in enumerate(result["components"]) if not part["count"]
            ]
            which = (
                ""
                if len(empty) == self.size
                else f" in component {', '.join(map(str, empty[:10]))}"
            )
            raise ContractError(
                f"is missing in every row of the training split{which}: nothing can be learnt from it"
            )
        notes = []
        constant = sum(part["min"] == part["max"] for part in result["components"])
        if constant:
            notes.append(
                f"has {constant} of {self.size} components that are the same in every row of the training"
                " split, so the model cannot learn from them"
            )
        return {
            **{
                word: [part[word] for part in result["components"]]
                for word in ("mean", "std", "min", "max", "missing")
            },
            "count": result["count"],
            "target": target,
            "said": notes,
        }

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        facts = {word: fitted[word] for word in ("mean", "std", "min", "max")}
        return {
            "value": TensorSpec(
                "float32", (self.size,), "values", axes=("component",), facts=facts
            ),
            "missing": TensorSpec("float32", role="mask"),
        }

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        values, gaps = _matrix(column, self.size)
        mean, std, low, high = (
            np.array(fitted[word], np.float64) for word in ("mean", "std", "min", "max")
        )
        # 0 in the component's own units is standardised like any other value.
        values = np.where(gaps, 0.0 if self.missing == "zero" else mean, values)
        with np.errstate(over="ignore"):
            # like a number: one training range beyond either end
            inside = np.clip(values, 2 * low - high, 2 * high - low)
            # A component that never varies has no deviation to divide by: it is 0.
            scaled = np.where(std > 0, (inside - mean) / np.where(std > 0, std, 1), 0.0)
        return {
            # Within single precision, whose largest number is 3.4e38.
            "value": np.clip(scaled, -1e30, 1e30).astype(np.float32),
            "missing": np.asarray(gaps.any(axis=1), np.float32),
        }


class _Components(Summary):
    """Moments of each component."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.components = [Moments() for _ in range(size)]

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        # The columns of `[n, size]` are summed one by one, gaps as nulls.
        values, gaps = _matrix(column, len(self.components))
        self.count += len(column)
        for i, moments in enumerate(self.components):
            moments.update(pa.array(values[:, i], mask=gaps[:, i]), row_ids)

    def merge(self, other: Self) -> None:
        self.count += other.count
        for mine, theirs in zip(self.components, other.components, strict=True):
            mine.merge(theirs)

    def result(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "components": [moments.result() for moments in self.components],
        }


def _matrix(column: pa.Array, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A canonical column as doubles `[n, size]`, 0 where missing, and where that is (bool `[n, size]`)."""
    there = _raw.present(column)
    values = np.full((len(column), size), np.nan)
    # `list_flatten` skips null rows; the rest fills the rows that are there.
    values[there] = _lists.doubles(pc.list_flatten(column)).reshape(-1, size)
    gaps = np.isnan(values)
    return np.where(gaps, 0.0, values), gaps
