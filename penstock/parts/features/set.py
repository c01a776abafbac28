"""A column with any number of labels a row: a list, a text of labels between delimiters, or columns of 0 and
1.

The canonical form is the list of a row's different labels in their own order (numbers by size, then words by
spelling; by `names` where those are given). A row without labels is an answer too ("none of them"), unlike a
row where nothing is known: an empty list is none; an empty text or cell is missing unless `empty: none` says
otherwise.

    input    members int64 [B, T]  0 is padding, 1 unseen, labels from 2, commonest first;  mask bool [B, T]
    target   labels float32 [B, K]  1 for each label of the row, classes in sorted order

A target is answered label by label: a label is given where its probability reaches its threshold. Thresholds
are decided on the validation split, each for the F1 of its label; of a label with few examples there the best
threshold is mostly chance, so in the log-odds it is drawn towards the one that serves all labels together.

`names` may be read from a file by the recipe: `names: {lines_of: labels.txt}`; a label is then a name, or its
place from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from penstock.contracts.features import (
    NOBODY,
    CollatedFeature,
    DecidingFeature,
    Fitted,
    Refused,
    Stored,
)
from penstock.contracts.part import mistakes
from penstock.contracts.summary import Frequencies, Summary, sample_keys
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError, Problem
from penstock.formats import bracketed
from penstock.parts.features import _labels, _lists, _raw, _words
from penstock.parts.features._thresholds import thresholds

_LONGEST_LABEL = 200
"""A longer one is compared with no other."""
# A target stores a byte for every label of every row (`encode`), so their number is
# bounded.
MOST_CLASSES = 10_000
# Up to so many labels, probabilities are a structure with a field for each; beyond, a
# list.
MOST_NAMED = 100
# How many of the likeliest labels such a list has.
LISTED = 10


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Set(CollatedFeature, DecidingFeature):
    """Several labels a row, as a list, a delimited text, or columns of 0 and 1."""

    takes_ragged: ClassVar[bool] = True
    encoder: ClassVar[str] = "bag"
    decoder: ClassVar[str] = "set"
    canonical: ClassVar[pa.DataType] = _labels.CANONICAL

    delimiter: str = Field(",", min_length=1)
    """What stands between the labels of a text."""
    brackets: bool = False
    """Whether a text is a list in brackets, as JSON and Python write it: `["a", "b"]`, `['a', 'b']`."""
    columns_: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        (), alias="columns"
    )
    """The columns of 0 and 1 that are its labels, where it is not one column."""
    names: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """The labels' names, where the column has their places from 0: `{lines_of: labels.txt}` reads them from a
    file.
    """
    empty: Literal["missing", "none"] = "missing"
    """What an empty or missing value means: nothing is known, or the row has no label.

    (A CSV file cannot tell the two apart.)
    """
    rare: int | None = Field(None, ge=1)
    """For an input: labels in fewer rows than this are pooled with the unseen; 2 unless given."""
    limit: int = Field(50_000, ge=1)
    """For an input: the most labels that are told apart."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        problems = []
        if self.columns_ and self.column:
            problems.append(
                Problem(
                    ("column",),
                    "is one column of labels; `columns` names one for each label. Leave one of them out",
                )
            )
        if self.columns_ and self.names:
            problems.append(
                Problem(
                    ("names",),
                    "has no meaning with `columns`, whose names are the labels'. Leave it out",
                )
            )
        for word, given in (("columns", self.columns_), ("names", self.names)):
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice:
                problems.append(
                    Problem((word,), f"has {', '.join(map(repr, twice[:5]))} twice")
                )
        if problems:
            raise mistakes(*problems)
        return self

    def to_dict(self) -> dict[str, Any]:
        whole = super().to_dict()
        # Left out where it says nothing: features declared before there was this word keep their ids.
        return {k: v for k, v in whole.items() if k != "brackets" or v}

    def columns(self, name: str) -> tuple[str, ...]:
        return self.columns_ or (self.column or name,)

    def unfit(self, *, target: bool, sampled: bool) -> str | None:
        return (
            "is a target, whose labels are never pooled: `rare` has no meaning there. Leave it out"
            if target and self.rare is not None
            else None
        )

    # -- a row's labels --------------------------------------------------------------------------------------

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        # Marks of 0 and 1 say of each label whether it is there, so `empty` has no part
        # in it.
        if self.columns_:
            return _labels.side_by_side(columns, self.columns_, self.na)
        column, undecoded = _raw.decoded(_raw.one(columns))
        # A list keeps its labels apart, so a delimiter inside one of them splits
        # nothing.
        if _lists.is_list(column.type):
            return _labels.from_lists(
                column, self.names, self.na, null_is_none=self.empty == "none"
            )
        text, refused = _raw.texts(column, self.na)
        # Empty text is null by now: stripping made it so, and CSV cannot tell the two
        # apart.
        if self.empty == "none":
            text = pc.fill_null(text, "")
        labels, unknown = _labels.from_texts(text, self.names, self._parted)
        return labels, _raw.together(undecoded, refused, unknown)

    def _parted(self, text: str) -> Sequence[str | None] | None:
        """The labels of a text; None where it is no list in brackets, and should be."""
        if not self.brackets:
            return text.split(self.delimiter)
        # What `empty: none` takes for a row without labels.
        return bracketed.items(text) if text else []

    # -- what is learnt --------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        return _Labels()

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        if not result["rows"]:
            raise ContractError(
                "is missing in every row of the training split: nothing can be learnt from it"
            )
        counts = dict(result["labels"]["values"])
        if not counts:
            raise ContractError(
                "has no label in any row of the training split: nothing can be learnt from it"
            )
        fitted: Fitted = {
            "rows": result["rows"],
            "missing": result["missing"],
            "labels_a_row": result["labels"]["count"] / result["rows"],
            "target": target,
            "said": [],
        }
        if target:
            return self._fit_target(fitted, counts)
        return self._fit_input(fitted, result["labels"], counts)

    def _fit_input(
        self, fitted: Fitted, labels: dict[str, Any], counts: dict[Any, int]
    ) -> Fitted:
        """The commonest labels; what is rare, or too much, is taken as unseen."""
        # 2, so that labels seen once train the id of the unseen.
        rare = 2 if self.rare is None else self.rare
        often = [(value, count) for value, count in labels["values"] if count >= rare]
        top = often[: self.limit]
        # Inexact counts come from a sample of rows, which may lack rare labels.
        if len(often) > len(top) or not labels["exact"]:
            fitted["said"].append(
                f"has more than {len(top):,} labels; the commonest {len(top):,} are told apart and the"
                " rest are taken as unseen"
            )
        if not top:
            fitted["said"].append(
                f"has {len(counts):,} labels, none of them in {rare} rows: the model cannot learn from it"
            )
        return {
            **fitted,
            "values": [value for value, _ in top],
            "counts": [count for _, count in top],
        }

    def _fit_target(self, fitted: Fitted, counts: dict[Any, int]) -> Fitted:
        """Every label, in an order that does not depend on how often each is there."""
        # Declared labels are classes even if training has none of them: the model's
        # outputs follow from the recipe, not from the split.
        known = self.names or (
            sorted(self.columns_, key=_labels.order_of)
            if self.columns_
            else sorted(counts, key=_labels.order_of)
        )
        if len(known) > MOST_CLASSES:
            raise ContractError(
                f"is a target with {len(known):,} labels; at most {MOST_CLASSES:,} can be learnt"
            )
        never = [name for name in known if name not in counts]
        always = [name for name in known if counts.get(name) == fitted["rows"]]
        for names, what in ((never, "in no row"), (always, "in every row")):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                them = "them" if len(names) > 1 else "it"
                fitted["said"].append(
                    f"has {', '.join(map(repr, names[:5]))}{more} {what} of the training split,"
                    f" so that nothing can be learnt about {them}"
                )
        return {
            **fitted,
            "values": list(known),
            "counts": [counts.get(name, 0) for name in known],
        }

    def unknown(self, column: pa.Array, fitted: Fitted) -> Refused:
        # A label that no output stands for cannot be counted as absent: the row is
        # refused.
        places = _places(fitted["values"])
        reasons = {
            row: next(label for label in labels if label not in places)
            for row, labels in enumerate(column.to_pylist())
            if labels is not None and any(label not in places for label in labels)
        }
        return (
            Refused(
                np.array(list(reasons), np.int64),
                [
                    f"{_raw.shown(label)} is not among the {len(places)} labels of the training"
                    f" split.{_alike(label, fitted['values'])}"
                    for label in reasons.values()
                ],
            )
            if reasons
            else NOBODY
        )

    # -- arrays ----------------------------------------------------------------------------------------------

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        if fitted["target"]:
            facts = {
                "classes": fitted["values"],
                "counts": fitted["counts"],
                "rows": fitted["rows"],
            }
            # Each of the K labels is one of two values, hence cardinality 2.
            return {
                "labels": TensorSpec(
                    "float32", (len(fitted["values"]),), "target", ("label",), 2, facts
                )
            }
        # Ids 0 (padding) and 1 (unseen) come before those of labels.
        facts = {"counts": fitted["counts"]}
        return {
            "members": TensorSpec(
                "int64", (None,), "index", ("member",), len(fitted["values"]) + 2, facts
            ),
            "mask": TensorSpec("bool", (None,), "mask", ("member",)),
        }

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        lengths = _lists.lengths(column)
        places = _places(fitted["values"])
        # Of a target, ids begin at 0 and -1 is unknown; of an input they begin at 2 and
        # 1 is unseen.
        first, unseen = (0, -1) if fitted["target"] else (2, 1)
        flat = np.array(
            [
                places.get(label, unseen - first) + first
                for label in pc.list_flatten(column).to_pylist()
            ],
            np.int64,
        )
        if not fitted["target"]:
            return {
                "members": _words.rows_of(
                    (flat, lengths), _words.smallest(len(places) + 2)
                )
            }
        # uint8 [n, K] in the shards; a batch alone has them as float32.
        labels = np.zeros((len(column), len(places)), np.uint8)
        # -1 would set the last label.
        known = flat >= 0
        labels[np.repeat(np.arange(len(column)), lengths)[known], flat[known]] = 1
        return {"labels": labels}

    def augments(self) -> bool:
        return False

    def collate(
        self, stored: Stored, fitted: Fitted, keys: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        if fitted["target"]:
            return {"labels": stored["labels"].astype(np.float32)}
        # T is the longest row of this batch.
        members, mask = _words.padded(stored["members"], "int64")
        return {"members": members, "mask": mask}

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        """1 for each label of the row, uint8 `[n, K]`."""
        return np.asarray(stored["labels"], np.uint8)

    # -- answers ---------------------------------------------------------------------------------------------

    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        fitted: Fitted,
        decision: Mapping[str, Any],
    ) -> dict[str, pa.Array]:
        shares, names = np.asarray(arrays["probabilities"], np.float32), fitted["values"]
        # A label without a decided threshold is given from a probability of 0.5.
        decided = decision.get("thresholds", {})
        # In single precision on both sides: a double could tell a share from an equal
        # threshold.
        given = shares >= np.array([decided.get(name, 0.5) for name in names], np.float32)
        words = pa.array(names, pa.string())
        # `nonzero` goes row by row, so that labels lie as the offsets cut them.
        label = np.nonzero(given)[1]
        ends = np.concatenate([[0], np.cumsum(given.sum(axis=1))]).astype(np.int32)
        answer = pa.ListArray.from_arrays(pa.array(ends), words.take(pa.array(label)))
        if len(names) <= MOST_NAMED:
            return {
                "": answer,
                "probabilities": pa.StructArray.from_arrays(
                    [
                        pa.array(np.ascontiguousarray(shares[:, i]))
                        for i in range(len(names))
                    ],
                    names=names,
                ),
            }
        # Stable: equal probabilities stand in the order of the labels.
        best = np.argsort(-shares, axis=1, kind="stable")[:, :LISTED]
        entries = pa.StructArray.from_arrays(
            [
                words.take(pa.array(best.ravel())),
                pa.array(np.take_along_axis(shares, best, 1).ravel()),
            ],
            names=["label", "probability"],
        )
        return {
            "": answer,
            "probabilities": pa.ListArray.from_arrays(
                pa.array(np.arange(len(shares) + 1, dtype=np.int32) * best.shape[1]),
                entries,
            ),
        }

    def decide(
        self,
        answers: Mapping[str, np.ndarray],
        truth: np.ndarray,
        weight: np.ndarray | None,
        fitted: Fitted,
    ) -> dict[str, Any]:
        """Each label's threshold, by name."""
        chosen = thresholds(
            np.asarray(answers["probabilities"]), np.asarray(truth, bool), weight
        )
        return {
            "thresholds": {
                # Six places are finer than the grid of thresholds anywhere.
                name: round(float(value), 6)
                for name, value in zip(fitted["values"], chosen, strict=True)
            }
        }


class _Labels(Summary):
    """Rows, and how many of them have each label."""

    def __init__(self) -> None:
        self.rows = self.missing = 0
        self.labels = Frequencies()

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        self.missing += column.null_count
        self.rows += len(column) - column.null_count
        lengths = _lists.lengths(column)
        # Each label carries the key of its row, so the sample is one of rows, whatever
        # the batches.
        self.labels.update(
            pc.list_flatten(column), pa.array(np.repeat(sample_keys(row_ids), lengths))
        )

    def merge(self, other: Self) -> None:
        self.rows += other.rows
        self.missing += other.missing
        self.labels.merge(other.labels)

    def result(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "missing": self.missing,
            "labels": self.labels.result(),
        }


def _places(values: list[str]) -> dict[str, int]:
    # Kept by the fitted list's identity: a request does not build it again.
    places: dict[str, int] = _words.made_once_for(
        values, "places", lambda: {value: i for i, value in enumerate(values)}
    )
    return places


def _alike(label: str, values: list[str]) -> str:
    """A label that differs in case, spaces or punctuation alone: one look-up, since this is asked for every
    row. A comparison with each label would take hours where a large file has labels of its own.
    """
    # Reversed, so that of labels that fold alike the first is offered.
    folded: dict[str, str] = _words.made_once_for(
        values, "folded", lambda: {_folded(value): value for value in reversed(values)}
    )
    near = folded.get(_folded(label)) if len(label) <= _LONGEST_LABEL else None
    return "" if near is None else f" Did you mean {near!r}?"


def _folded(label: str) -> str:
    return "".join(letter for letter in label.casefold() if letter.isalnum())
