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
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.features import Fitted, Refused, Stored, TargetFeature
from penstock.contracts.summary import Moments, Quantiles, Summary, Together, interpolated
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError
from penstock.parts.features import _raw

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

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        found, refused = _raw.numbers(_raw.one(columns), self.na)
        return found, _raw.missing_refused(
            found, refused
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
        said = []
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
            said.append(
                f"is {moments['min']:g} in every row of the training split, so the model cannot learn from it"
            )
        fitted = {
            **moments,
            "median": result["quantiles"]["median"],
            "target": target,
            "constant": constant,
            "said": said,
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

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        deviation = stored["value"].astype(np.float64) * fitted["std"]
        found = deviation + fitted["mean"]
        # What float32 cannot tell from zero is zero: relative errors are undefined there, not enormous.
        return np.where(np.abs(found) <= np.abs(deviation) * 2**-23, 0.0, found)


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
    found = np.unique(np.concatenate(edges))
    return [float(v) for v in found]


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
