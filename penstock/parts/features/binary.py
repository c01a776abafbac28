"""A column with two values, one of them the positive one.

Which value is positive is never an accident of spelling: it is declared, or else chosen by a rule that is
said aloud: the word that means yes, otherwise the rarer value (what is looked for is usually rare).

Where the two words are a yes and a no, every other spelling of yes and no is understood as well, so that
`true` in a JSON request is the `"True"` of a CSV file. Any other third value refuses its row, as an input
and as a target; put what stands for a missing value under `na`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.features import NOBODY, Fitted, Refused, Stored, TargetFeature
from penstock.contracts.summary import Frequencies, Summary
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError
from penstock.core.near import did_you_mean
from penstock.parts.features import _raw

# Compared in lower case.
YES = ("1", "true", "yes", "y", "t", "on", "ja", "oui", "si", "sí", "sim")
_SLIPS = 0.02
"""The share of the rows up to which values beside the two commonest are slips."""
NO = ("0", "false", "no", "n", "f", "off", "nein", "non", "nej", "nee")


class Binary(TargetFeature):
    """A column with two values: booleans, numbers or text."""

    encoder: ClassVar[str] = "linear"
    decoder: ClassVar[str] = "binary"

    positive: str | int | float | bool | None = None
    """The value whose probability is given; chosen aloud unless declared."""
    missing: Literal["flag", "error"] = "flag"
    """A missing input: `flag` gives the model 0.5 and tells it that the value was missing; `error` refuses
    the row.
    """

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        labels, refused = _raw.words(columns, self.na)
        return labels, _raw.missing_refused(
            labels, refused
        ) if self.missing == "error" else refused

    def summary(self) -> Summary:
        # Two values are wanted; a thousand suffice to say what else is there.
        return Frequencies(limit=1_000, size=1_000)

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        values, notes = _folded(result["values"])
        if not values:
            raise ContractError(
                "is missing in every row of the training split: nothing can be learnt from it"
            )
        values, odd = _without_odd(values, self.positive)
        notes += odd
        if len(values) > 2:
            some = ", ".join(f"{value!r} ({count})" for value, count in values[:5])
            more = f" and {len(values) - 5} more" if len(values) > 5 else ""
            raise ContractError(
                f"has {len(values)} values where a binary has two: {some}{more}. Declare `type: category`, or"
                " put what stands for a missing value under `na`"
            )
        # As an input, one value does no harm and is only said aloud.
        if len(values) == 1 and target:
            raise ContractError(
                f"is a target with one class, {values[0][0]!r}, in all {values[0][1]} rows of the training"
                " split: there is nothing to learn. Check `where` and the split"
            )
        total = sum(count for _, count in values)
        words = [value for value, _ in values]
        positive, why = self._positive(values, total)
        if why:
            notes.append(why)
        if len(words) == 1:
            notes.append(
                f"is {words[0]!r} in every row of the training split, so the model cannot learn from it"
            )
        # None where training has one value alone.
        negative = next((value for value in words if value != positive), None)
        counts = dict(values)
        return {
            "positive": positive,
            "negative": negative,
            "counts": [
                counts.get(word, 0) if word is not None else 0
                for word in (negative, positive)
            ],
            "count": total,
            "missing": result["missing"],
            "target": target,
            # Inputs that were fitted earlier lack the word: in them a third value is
            # taken as missing.
            **({} if target else {"third": "refused"}),
            "said": notes,
        }

    def _positive(
        self, values: list[tuple[str, int]], total: int
    ) -> tuple[str, str | None]:
        words = [value for value, _ in values]
        if self.positive is not None:
            wanted = _raw.word(self.positive)
            # The declared word itself, and only without it another spelling of the same
            # yes or no.
            alike = [w for w in words if w == wanted] or [
                w
                for w in words
                if _meaning(w) is not None and _meaning(w) == _meaning(wanted)
            ]
            # The one value of the training split is then the negative.
            if len(words) == 1 and not alike:
                return wanted, None
            if not alike:
                raise ContractError(
                    f"never has the declared positive value {wanted!r}; its values are"
                    f" {', '.join(f'{v!r} ({c})' for v, c in values)}.{did_you_mean(wanted, words)}"
                )
            return alike[0], None
        truthy = [w for w in words if _meaning(w) is True]
        if len(truthy) == 1:
            return (
                truthy[0],
                f"positive is {truthy[0]!r}, the word that means yes; declare `positive` to choose otherwise",
            )
        if len(words) == 1:
            return words[0], None
        # Of two equally common values the later in spelling, in whichever order they
        # came.
        chosen = min(values, key=lambda pair: (pair[1], [-ord(c) for c in pair[0]]))
        share = f"{100 * chosen[1] / total:.1f} % of the training split"
        how = (
            "the rarer value"
            if values[0][1] != values[1][1]
            else "the later of two equally common values"
        )
        return (
            chosen[0],
            f"positive is {chosen[0]!r}, {how} ({share}); declare `positive` to choose otherwise",
        )

    def unknown(self, column: pa.Array, fitted: Fitted) -> Refused:
        strange = (_sides(column, fitted) < 0) & _raw.present(column)
        if not strange.any():
            return NOBODY
        return _raw.refusing(
            column,
            strange,
            lambda value: (
                f"{_raw.shown(value)} is neither {fitted['negative']!r} nor {fitted['positive']!r}, the two"
                " classes of the training split"
            ),
        )

    def strange(self, column: pa.Array, fitted: Fitted) -> Refused:
        # With one value alone in training nobody knows what the other one is.
        if fitted.get("third") != "refused" or fitted["negative"] is None:
            return NOBODY
        strange = (_sides(column, fitted) < 0) & _raw.present(column)
        if not strange.any():
            return NOBODY
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        return _raw.refusing(
            column,
            strange,
            lambda value: (
                f"{_raw.shown(value)} is neither {fitted['negative']!r} nor {fitted['positive']!r}, the two"
                " values of the training split"
            ),
        )

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        if fitted["target"]:
            facts = {
                "classes": [fitted["negative"], fitted["positive"]],
                "counts": fitted["counts"],
            }
            return {"label": TensorSpec("float32", role="target", facts=facts)}
        return {
            "value": TensorSpec("float32", role="values"),
            "missing": TensorSpec("float32", role="mask"),
        }

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        # int8 [n]: 1, 0, or -1 for what is missing or unseen.
        sides = _sides(column, fitted)
        if fitted["target"]:
            return {"label": (sides == 1).astype(np.float32)}
        return {
            # Halfway between the two values; `missing` tells the model that nothing was
            # there.
            "value": np.where(sides < 0, 0.5, sides).astype(np.float32),
            "missing": (sides < 0).astype(np.float32),
        }

    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        fitted: Fitted,
        decision: Mapping[str, Any],
    ) -> dict[str, pa.Array]:
        probability = np.asarray(arrays["probability"], np.float32)
        # In single precision on both sides, as the program answers.
        chosen = probability >= np.float32(decision.get("threshold", 0.5))
        negative, positive = fitted["negative"], fitted["positive"]
        # Typed, since `negative` may be None, whose own type is null.
        words = pc.if_else(
            pa.array(chosen), pa.scalar(positive), pa.scalar(negative, pa.string())
        )
        shares = pa.StructArray.from_arrays(
            [pa.array(np.float32(1) - probability), pa.array(probability)],
            names=[negative, positive],
        )
        return {"": words, "probabilities": shares}

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        return stored["label"].astype(np.int64)


def _meaning(text: str) -> bool | None:
    """Whether a word means yes (True), no (False) or neither (None)."""
    lower = text.lower()
    return True if lower in YES else False if lower in NO else None


def _folded(values: list[list[Any]]) -> tuple[list[tuple[str, int]], list[str]]:
    """Values with counts, commonest first; if all are spellings of yes and no, one spelling of each."""
    pairs = [(str(value), int(count)) for value, count in values]
    # At most two values, and not one word in two cases: they stand as they are.
    if len(pairs) <= 2 and len({value.lower() for value, _ in pairs}) == len(pairs):
        return pairs, []
    # One word that means neither: all are taken as written.
    if any(_meaning(value) is None for value, _ in pairs):
        return pairs, []
    folded: dict[bool | None, tuple[str, int]] = {}
    for value, count in pairs:
        # Values come commonest first, so the commonest spelling stands for the rest.
        first, so_far = folded.get(_meaning(value), (value, 0))
        folded[_meaning(value)] = (first, so_far + count)
    return sorted(folded.values(), key=lambda pair: (-pair[1], pair[0])), [
        f"takes all of {', '.join(repr(v) for v, _ in pairs)} as spellings of yes and no"
    ]


def _without_odd(
    values: list[tuple[str, int]], positive: Any
) -> tuple[list[tuple[str, int]], list[str]]:
    """The two values that nearly all rows have, and a sentence on the others, whose rows are quarantined.

    All of them where the others are too many to be slips, or the declared positive value is among these.
    """
    two, others = values[:2], values[2:]
    rows = sum(count for _, count in others)
    if not others or rows > _SLIPS * sum(count for _, count in values):
        return values, []
    if positive is not None and _raw.word(positive) in dict(others):
        return values, []
    some = ", ".join(f"{value!r} ({count})" for value, count in others[:5])
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return two, [
        f"takes {two[0][0]!r} and {two[1][0]!r} for its two values; rows with {some}{more} are quarantined"
    ]


def _sides(column: pa.Array, fitted: Fitted) -> np.ndarray:
    """1 for the positive value, 0 for the negative, -1 for anything else `[n]`."""
    return _raw.by_word(column, lambda words: _sides_of(words, fitted), -1)


def _sides_of(column: pa.Array, fitted: Fitted) -> np.ndarray:
    positive, negative = fitted["positive"], fitted["negative"]
    sides = np.full(len(column), -1, np.int8)
    sides[_is(column, [positive])] = 1
    if negative is not None:
        sides[_is(column, [negative])] = 0
    # Other spellings are understood only where the two learnt words are a yes and a no:
    # "y" beside "x" is a letter.
    if _meaning(positive) is not None and (
        negative is None or _meaning(negative) is (not _meaning(positive))
    ):
        left = sides < 0
        if left.any():
            lower = pc.utf8_lower(column)
            sides[left & _is(lower, YES)] = int(bool(_meaning(positive)))
            sides[left & _is(lower, NO)] = int(not _meaning(positive))
    return sides


def _is(column: pa.Array, words: Sequence[str]) -> np.ndarray:
    return np.asarray(
        pc.is_in(column, value_set=pa.array(list(words))).to_numpy(zero_copy_only=False),
        dtype=bool,
    )
