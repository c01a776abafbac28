"""A column whose rows are sequences: lists or delimited texts of items, words, characters (DNA), or numbers.

    input    tokens int64 [B, T]       0 is padding, 1 unseen, values from 2, commonest first
    numbers  values float32 [B, T, 1]  standardised, 0 where missing
    target   labels int64 [B, T]       a class for each step of the input named by `over`

Beside each is a mask, bool [B, T].

Empty items are steps as well (`a,,b` has three, the second unseen): places matter here, unlike in a set. A
target has a label for every step of its input, no more and no fewer; a row of another length is refused. What
a target answers has as many labels as its input has steps, `length` of them at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Series
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from penstock.contracts.features import (
    NOBODY,
    CollatedFeature,
    Fitted,
    Refused,
    SequenceFeature,
    Stored,
    TargetFeature,
)
from penstock.contracts.summary import (
    Frequencies,
    Moments,
    Quantiles,
    Summary,
    sample_keys,
)
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError
from penstock.parts.features import _lists, _places, _raw, _words

LONGEST = 1_024
# A decoder has one output a label for every step.
MOST_CLASSES = 10_000


class Sequence(SequenceFeature, CollatedFeature, TargetFeature):
    """A list of items, words, characters or numbers in order; as a target, a label for each step of an
    input.
    """

    takes_ragged: ClassVar[bool] = True
    encoder: ClassVar[str] = "rnn"
    decoder: ClassVar[str] = "sequence"

    unit: Literal["items", "words", "characters", "numbers"] = "items"
    """What a step is: an item of a list or delimited text; a word or a character of a text; a number of a
    list or delimited text.
    """
    delimiter: str = Field(" ", min_length=1)
    """What stands between the items or numbers of a text; with a space, any white space."""
    over: str | None = None
    """For a target: the input whose steps it labels."""
    vocabulary: int = Field(30_000, ge=1)
    """For an input: the most values that are told apart."""
    min_count: int = Field(1, ge=1)
    """For an input: a value seen fewer times is taken as unseen."""
    lower: bool = False
    """Take capitals for small letters."""
    length: int | None = Field(None, ge=1)
    """The most steps that are read; the rest is cut off.

    Unless given: the longest row of the training split, 1,024 at most; a target has no limit of its own.
    """

    @property
    def canonical(self) -> pa.DataType:
        """The Arrow type in which rows hold the feature: lists of texts or of float64, or one text."""
        return {"items": pa.list_(pa.string()), "numbers": pa.list_(pa.float64())}.get(
            self.unit, pa.string()
        )

    def unfit(self, *, target: bool, sampled: bool) -> str | None:
        if target and self.unit == "numbers":
            return "has numbers for steps; only labels can be answered. Declare `type: series` for a forecast"
        if target and self.over is None:
            return "labels the steps of an input: name it in `over`"
        if not target and self.over is not None:
            return "is an input; `over` is for targets. Leave it out"
        return None

    def labels_steps_of(self) -> str | None:
        return self.over

    # -- a row's steps ---------------------------------------------------------------------------------------

    def accept(self, columns: Series[pa.Array]) -> tuple[pa.Array, Refused]:
        column, undecoded = _raw.decoded(_raw.one(columns))
        if self.unit in ("words", "characters"):
            text, refused = _raw.texts(column, self.na)
            return text, _raw.together(undecoded, refused)
        if _lists.is_list(column.type):
            lists, refused = self._lists(column)
        else:
            text, unreadable = _raw.texts(column, self.na)
            lists, refused = self._lists(self._parted(text))
            refused = _raw.together(unreadable, refused)
        refused = _raw.together(undecoded, refused)
        # A refused row is null, whatever of it could be read.
        return _raw.without(lists, np.isin(np.arange(len(lists)), refused.rows)), refused

    def _parted(self, text: pa.Array) -> pa.Array:
        return (
            # A run of white space separates once; any other delimiter separates
            # wherever it stands.
            pc.utf8_split_whitespace(text)
            if self.delimiter == " "
            else pc.split_pattern(text, self.delimiter)
        )

    def _lists(self, column: pa.Array) -> tuple[pa.Array, Refused]:
        there = _raw.present(column)
        # A list of lists has no one value at a step.
        if pa.types.is_nested(column.type.value_type):
            return pa.nulls(len(column), self.canonical), _raw.refusing(
                column,
                there,
                lambda value: (
                    f"expected a list of {self.unit}, found {_raw.shown(value)}"
                ),
            )
        flat = _raw.plain(pc.list_flatten(column))
        values, bad = _raw.numbers(flat) if self.unit == "numbers" else _raw.texts(flat)
        lengths = _lists.lengths(column)
        # Where each row's items end, `[n]`.
        ends = np.cumsum(lengths)
        lists = pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], ends]).astype(np.int32)), values
        )
        # Offsets cannot tell null from empty: both have length 0.
        lists = (
            pa.ListArray.from_arrays(lists.offsets, values, mask=pa.array(~there))
            if not there.all()
            else lists
        )
        if not len(bad.rows):
            return lists.cast(self.canonical), NOBODY
        # side="right": rows of length 0 own no item.
        owner = np.searchsorted(ends, bad.rows, side="right")
        reasons = {
            int(row): f"step {place - (ends[row] - lengths[row])}: {reason}"
            # Reversed, so that the reason of a row's first bad step stays.
            for row, place, reason in reversed(
                list(zip(owner.tolist(), bad.rows.tolist(), bad.reasons, strict=True))
            )
        }
        rows = sorted(reasons)
        return lists.cast(self.canonical), Refused(
            np.array(rows, np.int64), [reasons[row] for row in rows]
        )

    def _flat(self, column: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """All rows' steps one after another, and how many each row has."""
        if self.unit in ("items", "numbers"):
            flat = pc.list_flatten(column)
            if self.unit == "items":
                flat = pc.utf8_lower(flat) if self.lower else flat
                # A null item is a step without a value: the empty text, which no
                # vocabulary holds.
                flat = pc.fill_null(flat, "")
            return flat, _lists.lengths(column)
        # A missing text has no steps.
        texts = [text or "" for text in column.to_pylist()]
        steps: list[str] = (
            _words.words_of(texts, lower=self.lower)
            if self.unit == "words"
            else list(_words.normalised(texts, lower=self.lower))
        )
        whole = np.array([step != _words.NUL for step in steps], bool)
        # n texts have n - 1 marks, and the end; of no text at all there is no end
        # either.
        ends = np.append(np.flatnonzero(~whole), len(steps))[: len(texts)]
        return (
            pa.array([step for step in steps if step != _words.NUL], pa.string()),
            np.diff(ends, prepend=-1) - 1,
        )

    def steps(self, column: pa.Array) -> np.ndarray | None:
        return self._flat(column)[1]

    # -- what is learnt --------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        return _Steps(self)

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        if not result["rows"]:
            raise ContractError(
                "is missing in every row of the training split: nothing can be learnt from it"
            )
        if not result["steps"]["count"]:
            raise ContractError(
                "has no step in any row of the training split: nothing can be learnt from it"
            )
        # The last quantile is the longest of the sampled rows.
        longest = max(int(result["lengths"]["quantiles"][-1]), 1)
        fitted: Fitted = {
            "rows": result["rows"],
            "missing": result["missing"],
            "target": target,
            "over": self.over,
            "said": [],
        }
        if target:
            # A target has a label for each step of its input, so its own bound only
            # leaves room.
            length = self.length or max(longest, LONGEST)
            return {**fitted, **_classes(result["steps"]["values"]), "length": length}
        fitted["length"] = self.length or min(longest, LONGEST)
        if longest > fitted["length"]:
            fitted["said"].append(
                f"has rows of up to {longest:,} steps, of which the first {fitted['length']:,} are read"
            )
        if self.unit == "numbers":
            return {
                **fitted,
                **{word: result["steps"][word] for word in ("mean", "std", "min", "max")},
            }
        often = [
            (value, count)
            for value, count in result["steps"]["values"]
            # The empty item is no value: it is encoded as unseen.
            if count >= self.min_count and value
        ]
        top = often[: self.vocabulary]
        if len(often) > len(top) or not result["steps"]["exact"]:
            fitted["said"].append(
                f"has more than {len(top):,} different {self.unit}; the commonest {len(top):,} are told"
                " apart"
            )
        shortest = int(result["lengths"]["quantiles"][0])
        if _places.are_aligned(shortest, longest, len(top)):
            fitted["aligned"] = True
            fitted["said"].append(_places.sentence(fitted["length"]))
        return {
            **fitted,
            "values": [value for value, _ in top],
            "counts": [count for _, count in top],
        }

    def encoder_for(self, spec: Mapping[str, TensorSpec]) -> str:
        return _places.encoder_of(spec, self.encoder)

    def unknown(self, column: pa.Array, fitted: Fitted) -> Refused:
        flat, lengths = self._flat(column)
        strange = np.flatnonzero(
            ~np.asarray(
                pc.is_in(flat, value_set=self._values(fitted)).to_numpy(
                    zero_copy_only=False
                ),
                bool,
            )
        )
        if not len(strange):
            return NOBODY
        # `unique` keeps the first strange step of each row.
        rows, first = np.unique(
            np.searchsorted(np.cumsum(lengths), strange, side="right"), return_index=True
        )
        return Refused(
            rows.astype(np.int64),
            [
                f"{_raw.shown(flat[int(strange[i])].as_py())} is not among the {len(fitted['values'])} labels"
                " of the training split"
                for i in first
            ],
        )

    def _values(self, fitted: Fitted) -> pa.Array:
        values: pa.Array = _words.made_once_for(
            fitted["values"], "arrow", lambda: pa.array(fitted["values"], pa.string())
        )
        return values

    # -- arrays ----------------------------------------------------------------------------------------------

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        mask = TensorSpec("bool", (None,), "mask", ("time",))
        if fitted["target"]:
            facts = {
                "classes": fitted["values"],
                "counts": fitted["counts"],
                "over": fitted["over"],
            }
            return {
                "labels": TensorSpec(
                    "int64", (None,), "target", ("time",), len(fitted["values"]), facts
                ),
                "mask": mask,
            }
        if self.unit == "numbers":
            # One entry a variable.
            facts = {word: [fitted[word]] for word in ("mean", "std")}
            return {
                "values": TensorSpec(
                    "float32", (None, 1), "values", ("time", "variable"), facts=facts
                ),
                "mask": mask,
            }
        return {
            "tokens": TensorSpec(
                "int64",
                (None,),
                "index",
                ("time",),
                len(fitted["values"]) + 2,
                {
                    "counts": fitted["counts"],
                    "length": fitted["length"],
                    **_places.facts(fitted, fitted["values"], _words.UNKNOWN + 1),
                },
            ),
            "mask": mask,
        }

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        flat, lengths = self._flat(column)
        if self.unit == "numbers":
            values = _lists.doubles(flat)
            # like a number: one training range beyond either end
            inside = np.clip(
                values,
                2 * fitted["min"] - fitted["max"],
                2 * fitted["max"] - fitted["min"],
            )
            # A missing number is 0, the mean, after scaling; a constant column is 0
            # everywhere.
            scaled = np.nan_to_num((inside - fitted["mean"]) / (fitted["std"] or 1.0))
            return {
                "values": _words.rows_of(
                    _words.cut((scaled, lengths), fitted["length"]), "float32"
                )
            }
        # -1 for nulls and for what is not in the vocabulary.
        place = np.asarray(
            pc.fill_null(pc.index_in(flat, value_set=self._values(fitted)), -1).to_numpy(
                zero_copy_only=False
            ),
            np.int64,
        )
        if fitted["target"]:
            # Rows with a label that is not known are refused by `unknown`; 0 only fills
            # them.
            return {
                "labels": _words.rows_of(
                    _words.cut((np.maximum(place, 0), lengths), fitted["length"]), "int32"
                )
            }
        ids = np.where(place >= 0, place + 2, _words.UNKNOWN)
        return {
            "tokens": _words.rows_of(
                _words.cut((ids, lengths), fitted["length"]),
                _words.smallest(len(fitted["values"]) + 2),
            )
        }

    def augments(self) -> bool:
        return False

    def collate(
        self, stored: Stored, fitted: Fitted, keys: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        # An input stores `tokens` or `values`, a target `labels`: one array each.
        ((name, rows),) = stored.items()
        values, mask = _words.padded(rows, "float32" if name == "values" else "int64")
        # Values have an axis of variables, of length 1.
        return {name: values[..., None] if name == "values" else values, "mask": mask}

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        """Class indices `[n, T]`, -1 where there is no step; from stored rows or from a batch."""
        # A batch has them padded with a mask; stored rows are ragged.
        if "mask" in stored:
            labels, mask = stored["labels"], stored["mask"]
        else:
            labels, mask = _words.padded(stored["labels"], "int64")
        return np.where(mask, labels, -1)

    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        fitted: Fitted,
        decision: Mapping[str, Any],
    ) -> dict[str, pa.Array]:
        shares = np.asarray(arrays["probabilities"], np.float32)
        there = shares.sum(axis=2) > 0.5  # a step that is not there has no probabilities
        # int32 `[n + 1]`: where each row's labels end.
        ends = pa.array(
            np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
        )
        # A boolean index takes the steps row by row, as the offsets cut them.
        labels = self._values(fitted).take(pa.array(shares.argmax(axis=2)[there]))
        return {
            "": pa.ListArray.from_arrays(ends, labels),
            "probabilities": pa.ListArray.from_arrays(
                ends, pa.array(shares.max(axis=2)[there])
            ),
        }


class _Steps(Summary):
    """Rows, how long they are, and what their steps hold."""

    def __init__(self, feature: Sequence) -> None:
        self._feature = feature
        self.rows = self.missing = 0
        self.lengths = Quantiles()
        self.steps: Moments | Frequencies = (
            Moments() if feature.unit == "numbers" else Frequencies()
        )

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        there = column.is_valid()
        column, keys = column.filter(there), sample_keys(row_ids.filter(there))
        self.missing += len(there) - len(column)
        self.rows += len(column)
        # By the very cut that `encode` makes, so what is counted is what is encoded.
        flat, lengths = self._feature._flat(column)
        self.lengths.update(pa.array(lengths), pa.array(keys))
        # Each step carries the key of its row.
        self.steps.update(flat, pa.array(np.repeat(keys, lengths)))

    def merge(self, other: Self) -> None:
        self.rows += other.rows
        self.missing += other.missing
        self.lengths.merge(other.lengths)
        self.steps.merge(other.steps)  # type: ignore[arg-type]

    def result(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "missing": self.missing,
            "lengths": self.lengths.result(),
            "steps": self.steps.result(),
        }


def _classes(values: Series[tuple[Any, int]]) -> Fitted:
    """The labels of a target's steps, in their order, and how often each is there.

    Raises:
        ContractError: there are fewer than two, or too many.
    """
    # The empty item is no label.
    counts = {value: count for value, count in values if value}
    if len(counts) < 2:
        raise ContractError(
            f"is a target with {len(counts)} label{'s' if len(counts) != 1 else ''} in the training"
            " split: there is nothing to learn"
        )
    if len(counts) > MOST_CLASSES:
        raise ContractError(
            f"is a target with {len(counts):,} labels; at most {MOST_CLASSES:,} can be learnt"
        )
    # Sorted, so that indices do not depend on how common a label is.
    classes = sorted(counts)
    return {"values": classes, "counts": [counts[value] for value in classes]}
