"""A column with one of several values: an index into the values of the training split.

As an input, 0 is missing and 1 is unseen; the values follow from 2, commonest first. Values seen fewer than
`rare` times are pooled with the unseen: what occurred once in training is the best example there is of what
will occur for the first time later (Good 1953), so that the index 1 is trained and not left as it was
initialised.

As a target, the classes are in sorted order from 0, and a class that the training split lacks is refused.
With `pool`, the classes with fewer rows are one, the last, and so is whatever training never saw: it is rarer
still.

A value is text without surrounding white space; the numbers 3 and 3.0 are both "3".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from penstock.contracts.features import NOBODY, Fitted, Refused, Stored, TargetFeature
from penstock.contracts.summary import Frequencies, Summary
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError
from penstock.parts.features import _raw

# A decoder has one output a class.
MOST_CLASSES = 10_000
MOST_NAMED = 100
"""Up to so many classes have their probabilities answered as a structure by name; beyond, the likeliest are
listed.
"""
# How many classes are listed beyond `MOST_NAMED`.
LISTED = 10


class Category(TargetFeature):
    """A column with one of several values: text, whole numbers or booleans."""

    encoder: ClassVar[str] = "embedding"
    decoder: ClassVar[str] = "category"

    rare: int | None = Field(None, ge=1)
    """For an input: values seen fewer times than this in the training split are pooled with the unseen; 2
    unless given.
    """
    limit: int = Field(50_000, ge=1)
    """For an input: the most values that are told apart; the rarer ones beyond are pooled with the unseen,
    said aloud.
    """
    pool: int | None = Field(None, ge=2)
    """For a target: classes with fewer rows than this in the training split are learnt, judged and answered
    as one.
    """
    pooled: str = Field("other", min_length=1)
    """What that one class is called."""
    missing: Literal["flag", "error"] = "flag"
    """A missing input: `flag` gives it an index of its own; `error` refuses the row."""

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        values, refused = _raw.words(columns, self.na)
        return values, _raw.missing_refused(
            values, refused
        ) if self.missing == "error" else refused

    def summary(self) -> Summary:
        return Frequencies()

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        if not result["values"]:
            raise ContractError(
                "is missing in every row of the training split: nothing can be learnt from it"
            )
        return self._fit_target(result) if target else self._fit_input(result)

    def _fit_input(self, result: dict[str, Any]) -> Fitted:
        if self.pool is not None:
            raise ContractError(
                "is an input, and `pool` is for targets. An input's rare values are pooled by `rare`"
            )
        # 2, so that values seen once train the index of the unseen.
        rare = 2 if self.rare is None else self.rare
        often = [(value, count) for value, count in result["values"] if count >= rare]
        top, notes = often[: self.limit], []
        # Inexact counts come from a sample of rows, which may lack rare values.
        if len(often) > self.limit or not result["exact"]:
            notes.append(
                f"has more than {len(top):,} values; the commonest {len(top):,} are told apart and the rest"
                " are taken as unseen"
            )
        if not top:
            notes.append(
                f"has {result['distinct']:,} values, none of them seen {rare} times: it looks like an"
                " identifier, and the model cannot learn from it"
            )
        elif len(top) == 1 and result["distinct"] == 1 and not result["missing"]:
            notes.append(
                f"is {top[0][0]!r} in every row of the training split, so the model cannot learn from it"
            )
        counts = [count for _, count in top]
        return {
            "values": [value for value, _ in top],
            # By index: missing, then unseen with all that is pooled there, then the
            # values from 2.
            "counts": [result["missing"], result["count"] - sum(counts), *counts],
            "count": result["count"],
            "missing": result["missing"],
            "distinct": result["distinct"],
            "target": False,
            "said": notes,
        }

    def _fit_target(self, result: dict[str, Any]) -> Fitted:
        distinct, count = result["distinct"], result["count"]
        if self.rare is not None:
            raise ContractError(
                "is a target, and `rare` is for inputs. A target's rare classes are pooled by `pool`"
            )
        if distinct == 1:
            raise ContractError(
                f"is a target with one class, {result['values'][0][0]!r}, in all {count} rows of the training"
                " split: there is nothing to learn. Check `where` and the split"
            )
        counts = {value: n for value, n in result["values"] if n >= (self.pool or 1)}
        # In sorted order, so that a class's index does not depend on how common it is.
        classes = sorted(counts, key=_order)
        if len(classes) > MOST_CLASSES:
            raise ContractError(
                f"is a target with {len(classes):,} classes; at most {MOST_CLASSES:,} can be learnt. If it is"
                " a quantity, declare `type: number`"
            )
        # Up to 100 classes may be a small data set; more of them with hardly two rows
        # each are no classes.
        if len(classes) > 100 and len(classes) > count / 2:
            raise ContractError(
                f"is a target with {distinct:,} classes in {count:,} rows, nearly one class a row: it cannot"
                " be learnt. If it is a quantity, declare `type: number`"
            )
        notes, rest = [], count - sum(counts.values())
        if rest:
            # The pooled class would take a class's own name, and the answer could mean
            # either.
            if self.pooled in counts:
                raise ContractError(
                    f"has a class {self.pooled!r} of its own, with {counts[self.pooled]} rows, beside the"
                    " rare ones that `pool` would call so. Name those otherwise with `pooled`"
                )
            if not classes:
                raise ContractError(
                    f"has {distinct:,} classes, none of them with the {self.pool} rows that `pool` asks for:"
                    " nothing is left to tell apart"
                )
            notes.append(
                f"has {distinct - len(classes):,} classes with fewer than {self.pool} rows, {rest:,} rows in"
                f" all; they are learnt and answered as {self.pooled!r}"
            )
            # `encode` looks for the pooled class at the end.
            classes, counts = [*classes, self.pooled], {**counts, self.pooled: rest}
        return {
            "values": classes,
            "counts": [counts[value] for value in classes],
            "count": count,
            "missing": result["missing"],
            "distinct": distinct,
            "target": True,
            "pools": bool(rest),
            "said": notes,
        }

    def unknown(self, column: pa.Array, fitted: Fitted) -> Refused:
        # What training never saw belongs to the pooled class.
        if fitted.get("pools"):
            return NOBODY
        strange = (_index(column, fitted["values"]) < 0) & _raw.present(column)
        return _raw.refusing(
            column,
            strange,
            lambda value: (
                f"{_raw.shown(value)} is not among the {len(fitted['values'])} classes of the training split"
            ),
        )

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        if fitted["target"]:
            return {
                "index": TensorSpec(
                    "int64",
                    role="target",
                    cardinality=len(fitted["values"]),
                    facts={"classes": fitted["values"], "counts": fitted["counts"]},
                )
            }
        return {
            "index": TensorSpec(
                "int64",
                role="index",
                # Two more than values: indices 0 and 1.
                cardinality=len(fitted["values"]) + 2,
                facts={"counts": fitted["counts"]},
            )
        }

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        index = _index(column, fitted["values"])
        if fitted["target"]:
            return {
                "index": np.where(
                    index >= 0,
                    index,
                    # Without a pooled class 0 only fills the rows that `unknown`
                    # refuses.
                    len(fitted["values"]) - 1 if fitted.get("pools") else 0,
                )
            }
        # Of what is not found, a null is 0 (missing) and a value 1 (unseen).
        return {
            "index": np.where(
                index >= 0, index + 2, _raw.present(column).astype(np.int64)
            )
        }

    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        fitted: Fitted,
        decision: Mapping[str, Any],
    ) -> dict[str, pa.Array]:
        shares = np.asarray(arrays["probabilities"], np.float32)
        words, _ = _lookup(fitted["values"])
        answer = words.take(pa.array(np.argmax(shares, axis=1)))
        if len(words) <= MOST_NAMED:
            named = pa.StructArray.from_arrays(
                [pa.array(np.ascontiguousarray(shares[:, i])) for i in range(len(words))],
                names=fitted["values"],
            )
            return {"": answer, "probabilities": named}
        # Stable: equal probabilities stand in the order of the classes.
        best = np.argsort(-shares, axis=1, kind="stable")[:, :LISTED]
        entries = pa.StructArray.from_arrays(
            [
                words.take(pa.array(best.ravel())),
                pa.array(np.take_along_axis(shares, best, 1).ravel()),
            ],
            names=["class", "probability"],
        )
        return {
            "": answer,
            "probabilities": pa.ListArray.from_arrays(
                # Every row lists equally many.
                pa.array(np.arange(len(shares) + 1, dtype=np.int32) * best.shape[1]),
                entries,
            ),
        }

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        return stored["index"]


def _order(value: str) -> tuple[int, float, str]:
    """Numbers by size before words by spelling, so that class "10" follows "2"."""
    try:
        number = float(value)
    except ValueError:
        return (1, 0.0, value)
    # NaN compares with nothing and would leave the order open, so it is a word.
    return (0, number, value) if number == number else (1, 0.0, value)


# By a fitted list's identity: the list, its Arrow array, each value's place.
_known: dict[int, tuple[list[str], pa.Array, dict[str, int]]] = {}


def _lookup(values: list[str]) -> tuple[pa.Array, dict[str, int]]:
    """The values as an Arrow array and as a mapping to their index, made once for each fitted list.

    Kept by the list's identity; the entry holds the list, so that its identity is not given to another.
    """
    entry = _known.get(id(values))
    if entry is None or entry[0] is not values:
        # A bound on what a long-lived process holds.
        if len(_known) >= 1_000:
            _known.clear()
        entry = _known[id(values)] = (
            values,
            pa.array(values, pa.string()),
            {value: i for i, value in enumerate(values)},
        )
    return entry[1], entry[2]


def _index(column: pa.Array, values: list[str]) -> np.ndarray:
    """Where each of a column's values stands among `values`, int64 `[n]`; -1 for the others and for null."""
    return _raw.by_word(column, lambda words: _places(words, values), -1)


def _places(column: pa.Array, values: list[str]) -> np.ndarray:
    words, places = _lookup(values)
    # a request against a large vocabulary: hashing it again would cost more
    if len(column) * 16 < len(words):
        return np.array(
            [
                -1 if value is None else places.get(value, -1)
                for value in column.to_pylist()
            ],
            np.int64,
        )
    return np.asarray(
        pc.fill_null(pc.index_in(column, value_set=words), -1).to_numpy(
            zero_copy_only=False
        ),
        dtype=np.int64,
    )
