"""A real-valued column, standardised by the training split's mean and deviation.

As an input it gives `value` and `missing`, so that the model may see that a value was not there. A value
further from the training range than the range is wide is taken as if it lay at just that distance: a network
knows nothing out there, and one absurd request (1e300) must not overflow into its neighbours. A constant
column gives zeros and says so.

As a target it gives `value` alone, not clipped; the decoder turns it back into the user's units with `mean`
and `std`.

`edges` are what a piecewise-linear encoder (Gorishniy et al. 2022, arXiv:2203.05556) cuts the column at.
Quantiles of a column that is mostly one value (a capital gain, mostly 0) collapse into that value; so a value
that would fill several bins gets one edge of its own, and the rest of the column shares the others, at least
8 sampled rows a bin.

A text is read as a number is spelt in files and JSON, or, with `decimal`, `thousands` or `unit`, as people
write it (`penstock.formats.written`). A number that comes as one is that number, whatever is declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, model_validator

from penstock.contracts.features import Fitted, Refused, Stored, TargetFeature
from penstock.contracts.part import mistakes
from penstock.contracts.summary import Moments, Quantiles, Summary, Together, interpolated
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError, Problem
from penstock.formats.written import Written, units
from penstock.parts.features import _raw

_WRITTEN = ("decimal", "thousands", "unit")
"""The words that say how texts are written."""
# The most bins of a piecewise-linear encoder; its edges are one more.
BINS = 64


class Number(TargetFeature):
    """A real-valued column: numbers, booleans (as 0 and 1), or text that is a number."""

    encoder: ClassVar[str] = "piecewise"
    decoder: ClassVar[str] = "number"
    answers: ClassVar[tuple[str, ...]] = ("",)
    canonical: ClassVar[pa.DataType] = pa.float64()

    missing: Literal["mean", "median", "zero", "error"] = "mean"
    """What a missing input is filled with (the model also sees that it was missing): the training split's
    mean or median, or 0 in the column's own units; `error` refuses the row. A missing target is always
    quarantined.
    """
    decimal: Literal[".", ","] | None = None
    """What stands before the decimals of a text: `.` unless given, or `,` where `thousands` is `.`.

    With this word, `thousands` or `unit`, a text is read as people write numbers: a sign before or behind
    it, any minus of Unicode, and brackets for a negative (`(1,200)`). Without them `-1200.5` and `1e3` are
    all that is read.
    """
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    """What stands between groups of three digits (`1.234,50`); a number may leave it out. A space stands for
    any white space, `'` for `’` as well.
    """
    unit: Annotated[dict[str, float] | None, BeforeValidator(units)] = None
    """The texts that may stand before or behind a number: `€`, `[kg, kilo]`; or what each multiplies it by:
    `{k: 1000, M: 1000000}`. A number without any is read as well; `45%` with `unit: "%"` is 45.
    """

    @model_validator(mode="after")
    def _one_meaning(self) -> Number:
        if self.thousands is not None and self.thousands == (self.decimal or ""):
            raise mistakes(
                Problem(("thousands",), f"is {self.thousands!r}, and so is `decimal`")
            )
        wrong = [
            text
            for text, factor in (self.unit or {}).items()
            if not text.strip() or text.strip()[0] in "0123456789+-()" or not factor
        ]
        if wrong:
            raise mistakes(
                Problem(
                    ("unit",),
                    f"{wrong[0]!r} is no unit: give a text that begins with no digit, sign or bracket, and"
                    " a factor other than 0",
                )
            )
        return self

    @cached_property
    def _written(self) -> Written | None:
        if all(getattr(self, word) is None for word in _WRITTEN):
            return None
        decimal = self.decimal or ("," if self.thousands == "." else ".")
        return Written(decimal, self.thousands, self.unit or {})

    def has_comma(self) -> bool:
        return self._written is not None and self._written.decimal == ","

    def to_dict(self) -> dict[str, Any]:
        whole = super().to_dict()
        # Left out where they say nothing, so that features declared before there were these words keep
        # their ids.
        return {k: v for k, v in whole.items() if k not in _WRITTEN or v is not None}

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        values, refused = _raw.numbers(_raw.one(columns), self.na, self._written)
        return values, _raw.missing_refused(
            values, refused
        ) if self.missing == "error" else refused

    def summary(self) -> Summary:
        return Together(moments=Moments(), quantiles=_Edges())

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        moments = result["moments"]
        if not moments["count"]:
            raise ContractError(
                "is missing in every row of the training split: nothing can be learnt from it"
            )
        constant = moments["min"] == moments["max"]
        notes = []
        # A constant input only says so; a constant target leaves nothing to learn.
        if constant and target:
            raise ContractError(
                f"is {moments['min']:g} in every row of the training split: there is nothing to learn"
            )
        if target and self.missing in ("median", "zero"):
            raise ContractError(
                f"a target's missing values cannot be filled (`missing: {self.missing}`): their rows are"
                " quarantined. Leave `missing` out"
            )
        largest = max(abs(moments["min"]), abs(moments["max"]))
        # Single precision ends at 3.4e38, and the answer is in the user's units.
        if target and largest > 1e37:
            raise ContractError(
                f"has values up to {largest:g}; a target is answered in single precision, up to 1e37. Derive"
                " it in larger units, or bound it under `expect`"
            )
        if largest >= 1e150:  # the squares are no doubles, so neither is the deviation
            moments = {**moments, "std": moments["max"] / 2 - moments["min"] / 2}
        if constant:
            notes.append(
                f"is {moments['min']:g} in every row of the training split, so the model cannot learn from it"
            )
        fitted = {
            **moments,
            "median": result["quantiles"]["median"],
            "target": target,
            "constant": constant,
            "said": notes,
        }
        low, high = _bounds(fitted)
        # Edges lie where the encoder sees values: standardised and within the same
        # bounds.
        edges = np.clip(
            standardised(np.array(result["quantiles"]["edges"]), fitted), low, high
        )
        return {
            **fitted,
            # Edges that coincide in single precision would be a bin of no width.
            "edges": [float(edge) for edge in np.unique(edges.astype(np.float32))],
        }

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        facts = {
            word: fitted[word]
            for word in ("mean", "std", "min", "max", "median", "edges")
        }
        if fitted["target"]:
            return {"value": TensorSpec("float32", role="target", facts=facts)}
        return {
            "value": TensorSpec("float32", role="values", facts=facts),
            "missing": TensorSpec("float32", role="mask"),
        }

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        there = _raw.present(column)
        # In the column's units, thus before standardising.
        fill = (
            0.0
            if self.missing == "zero"
            else fitted["median" if self.missing == "median" else "mean"]
        )
        values = standardised(
            np.asarray(
                pc.fill_null(column, fill).to_numpy(zero_copy_only=False), np.float64
            ),
            fitted,
        )
        # Not clipped, or the truth could not be had back from what is stored.
        if fitted["target"]:
            return {"value": values.astype(np.float32)}
        return {
            "value": np.clip(values, *_bounds(fitted)).astype(np.float32),
            "missing": (~there).astype(np.float32),
        }

    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        fitted: Fitted,
        decision: Mapping[str, Any],
    ) -> dict[str, pa.Array]:
        # Already in the user's units: the decoder scales back within the program.
        return {"": pa.array(np.asarray(arrays["value"], np.float64))}

    def doubt(self, values: np.ndarray, fitted: Fitted) -> pa.Array:
        # In standard deviations within the program, where all that is compared is of the order of 1.
        return pa.array(np.asarray(values, np.float64) * fitted["std"])

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        deviation = stored["value"].astype(np.float64) * fitted["std"]
        values = deviation + fitted["mean"]
        # What float32 cannot tell from zero is zero: relative errors are undefined there, not enormous.
        return np.where(np.abs(values) <= np.abs(deviation) * 2**-23, 0.0, values)


class _Edges(Quantiles):
    """A sample's median, and where to cut it into at most `BINS` bins."""

    def result(self) -> dict[str, Any]:
        return {
            "median": next(iter(self.quantiles(np.array([0.5]))), None),
            "edges": edges_of(self.values()),
        }


def edges_of(values: np.ndarray, *, bins: int = BINS, least: int = 8) -> list[float]:
    """At most `bins + 1` ascending edges for sorted `values`, the least and greatest among them (see the
    file's head).
    """
    if not len(values):
        return []
    distinct, counts = np.unique(values, return_counts=True)
    # So few different values that each may be an edge.
    if len(distinct) <= min(bins, max(len(values) // least, 1)) + 1:
        return [float(v) for v in distinct]
    heavy = np.zeros(len(distinct), bool)
    left, rows = bins, len(values)
    while (
        left > 1
    ):  # a value that fills more than an even share of the bins left gets an edge of its own
        # `least` keeps chance values of a small sample from being heavy.
        more = ~heavy & (counts > max(rows / left, least))
        if not more.any():
            break
        heavy |= more
        # Without the heavy values the even share is smaller, so more may count as
        # heavy.
        left, rows = bins - int(heavy.sum()), int(counts[~heavy].sum())
    rest = np.repeat(distinct[~heavy], counts[~heavy])
    edges = [distinct[heavy], distinct[[0, -1]]]
    # No bin with fewer than `least` sampled rows.
    cuts = min(max(left, 1), len(rest) // least) - 1
    if cuts > 0:
        # Inner quantiles only; both ends are edges already.
        edges.append(interpolated(rest, np.arange(1, cuts + 1) / (cuts + 1)))
    inner = np.unique(np.concatenate(edges))
    return [float(v) for v in inner]


def standardised(values: np.ndarray, fitted: Fitted) -> np.ndarray:
    """Doubles in the user's units → deviations from the mean, in doubles that a float32 can hold; zeros if
    the column is constant.
    """
    if not fitted["std"]:
        return np.zeros_like(values)
    # A far value overflows to infinity here, which the clip brings back.
    with np.errstate(over="ignore"):
        return np.asarray(np.clip((values - fitted["mean"]) / fitted["std"], -1e30, 1e30))


def _bounds(fitted: Fitted) -> tuple[float, float]:
    # One training range beyond either end: `low - (high - low)`.
    low, high = standardised(np.array([fitted["min"], fitted["max"]]), fitted)
    return float(2 * low - high), float(2 * high - low)
