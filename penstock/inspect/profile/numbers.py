"""A column of numbers or moments, measured over all rows: ends, mean, deviation, a histogram, and far values.

The edges of the histogram and the fences beyond which a value is far come from the sample; what lies in each
bin and beyond each fence is counted over all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.summary import interpolated
from penstock.inspect.profile.distinct import Distinct, number_hashes

BINS = 24
AT = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_FAR = 3.0
"""Times the distance of the quartiles from them: Tukey's outer fences."""
_LARGEST = 1e150
"""Mean and deviation are of numbers up to so large: the square of a larger one is no double."""


@dataclass(frozen=True)
class Scale:
    """What a sample says of a column of numbers, before all rows are counted."""

    edges: np.ndarray
    """Of equal bins, at most `BINS`, ascending; whole numbers where all values are."""
    fences: tuple[float, float]
    centre: float
    quantiles: dict[str, float]

    @classmethod
    def of(cls, values: np.ndarray) -> Scale | None:
        """Of the finite numbers of a sample `[N]`; None where there is none."""
        values = values[np.isfinite(values) & (np.abs(values) <= _LARGEST)]
        if not len(values):
            return None
        marks = interpolated(values, np.array(AT))
        q1, q3 = float(marks[2]), float(marks[4])
        far = _FAR * (q3 - q1)
        low, high = float(values.min()), float(values.max())
        # One far value must not squeeze all others into one bin.
        if far > 0:
            low, high = max(low, q1 - 2 * far), min(high, q3 + 2 * far)
        if high <= low:
            low, high = low - 0.5, low + 0.5
        is_whole = bool(np.all(values == np.floor(values))) and high - low < 2**53
        return cls(
            _whole_edges(low, high)
            if is_whole and high - low >= 1
            else np.linspace(low, high, BINS + 1),
            (q1 - far, q3 + far) if far > 0 else (-np.inf, np.inf),
            float(marks[3]),
            {f"{share:g}": float(v) for share, v in zip(AT, marks, strict=True)},
        )


def _whole_edges(low: float, high: float) -> np.ndarray:
    """Edges at whole numbers, so that each bin has equally many of them."""
    low, high = np.floor(low), np.floor(high)
    step = np.ceil((high - low + 1) / BINS)
    bins = int(np.ceil((high - low + 1) / step))
    return np.asarray(low + step * np.arange(bins + 1))


class Numbers:
    """Numbers of one column; moments are microseconds since 1970."""

    def __init__(self, scale: Scale | None) -> None:
        self.scale = scale
        self.count = self.missing = self.infinite = 0
        self.zeros = self.negative = self.far_low = self.far_high = 0
        self.is_whole = True
        self.min, self.max = float("inf"), float("-inf")
        self._count = 0 if scale is None else len(scale.edges) - 1
        self.bins = np.zeros(self._count + 2, np.int64)
        """Rows below the first edge, in each bin, above the last."""
        self.distinct = Distinct()
        self._sum = self._squares = 0.0
        self._usual = 0

    def update(self, column: pa.Array) -> None:
        """Take a batch."""
        values = as_doubles(column)
        finite = values[np.isfinite(values)]
        self.infinite += int(np.isinf(values).sum())
        self.missing += int(np.isnan(values).sum())
        self.count += len(finite)
        if not len(finite):
            return
        self.min = min(self.min, float(finite.min()) + 0.0)
        self.max = max(self.max, float(finite.max()) + 0.0)
        self.zeros += int((finite == 0).sum())
        self.negative += int((finite < 0).sum())
        self.is_whole = self.is_whole and bool((finite == np.floor(finite)).all())
        self.distinct.add(number_hashes(finite))
        self._spread(finite)

    def _spread(self, finite: np.ndarray) -> None:
        centre = self.scale.centre if self.scale is not None else 0.0
        usual = finite[np.abs(finite) <= _LARGEST] - centre
        self._usual += len(usual)
        self._sum += float(usual.sum())
        self._squares += float((usual * usual).sum())
        if self.scale is None:
            return
        edges = self.scale.edges
        with np.errstate(over="ignore"):
            place = np.floor((finite - edges[0]) / (edges[-1] - edges[0]) * self._count)
        # The last edge belongs to the last bin.
        place[finite == edges[-1]] = self._count - 1
        at = np.clip(place, -1, self._count).astype(np.int64) + 1
        self.bins += np.bincount(at, minlength=self._count + 2)
        low, high = self.scale.fences
        self.far_low += int((finite < low).sum())
        self.far_high += int((finite > high).sum())

    def merge(self, other: Numbers) -> None:
        """Add what `other`, of the same scale, has measured."""
        self.count += other.count
        self.missing += other.missing
        self.infinite += other.infinite
        self.zeros += other.zeros
        self.negative += other.negative
        self.far_low += other.far_low
        self.far_high += other.far_high
        self.is_whole &= other.is_whole
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        self.bins += other.bins
        self.distinct.merge(other.distinct)
        self._sum += other._sum
        self._squares += other._squares
        self._usual += other._usual

    def result(self) -> dict[str, Any]:
        """Plain data."""
        if not self.count:
            return {"min": None, "max": None, "mean": None, "std": None}
        scale = self.scale
        shift = self._sum / max(self._usual, 1)
        variance = max(self._squares / max(self._usual, 1) - shift * shift, 0.0)
        facts: dict[str, Any] = {
            "min": self.min,
            "max": self.max,
            "mean": float(f"{(scale.centre if scale else 0.0) + shift:.10g}"),
            "std": float(f"{variance**0.5:.10g}"),
            "zeros": self.zeros,
            "negative": self.negative,
            "infinite": self.infinite,
            "whole": self.is_whole,
        }
        if scale is not None:
            facts["quantiles"] = scale.quantiles
            facts["histogram"] = {
                "edges": [float(f"{edge:.10g}") for edge in scale.edges],
                "rows": self.bins[1:-1].tolist(),
                "below": int(self.bins[0]),
                "above": int(self.bins[-1]),
            }
            facts["outliers"] = {
                "low": self.far_low,
                "high": self.far_high,
                "fences": [x if np.isfinite(x) else None for x in scale.fences],
            }
        return facts


def as_doubles(column: pa.Array) -> np.ndarray:
    """Each row as a double, NaN where it is missing `[N]`; moments as microseconds since 1970."""
    kind = column.type
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        if pa.types.is_time(kind):
            column = column.cast(pa.time64("us")).cast(pa.int64())
        else:
            column = pc.cast(
                column, pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False
            )
            column = column.cast(pa.int64())
    elif pa.types.is_boolean(kind) or pa.types.is_duration(kind):
        column = column.cast(pa.int8() if pa.types.is_boolean(kind) else pa.int64())
    doubles = pc.cast(column, pa.float64(), safe=False)
    return np.asarray(pc.fill_null(doubles, float("nan")), np.float64)
