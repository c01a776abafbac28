"""A moment in time, as cyclic parts and as time since.

`cyclic` has the sine and cosine of the hour of day, the day of week, the day of month and the day of year: of
those parts that vary in the training split, and whose period it spans at least once (a day of year seen in
one summer says nothing of winter). `since` is the time itself, standardised, and clipped like a number: one
training range beyond either end. All in UTC; a timestamp without a zone is taken to be in UTC.

Sines come from tables by whole second, day and so on: numpy's vectorised sine may differ in its last bit with
a value's place in the batch, and a row must encode alone as in a batch, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from penstock.contracts.features import NOBODY, Feature, Fitted, Refused, Stored
from penstock.contracts.part import mistakes
from penstock.contracts.summary import Moments, Summary
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError, Problem
from penstock.parts.features import _moments, _raw

# Unit → microseconds.
_UNITS = {"s": _moments.SECOND_US, "ms": 1_000, "us": 1}
_PERIODS = {
    "hour_of_day": (_moments.DAY, _moments.DAY),
    "day_of_week": (7, 7 * _moments.DAY),
    "day_of_month": (31, 31 * _moments.DAY),
    "day_of_year": (366, 365 * _moments.DAY),
}
"""Part → (steps in a turn, seconds that the data must span for the part to be learnt)."""


class Timestamp(Feature):
    """A moment: timestamps, dates, ISO 8601 text, text in a declared `format`, or numbers of a declared
    `unit` since 1970.
    """

    encoder: ClassVar[str] = "linear"
    canonical: ClassVar[pa.DataType] = _moments.CANONICAL

    format: str | None = None
    """How text is written, in the words of Python's strptime (`%d.%m.%Y %H:%M`); ISO 8601 unless given.

    Moments that come as such (Parquet, Arrow), and text in ISO 8601, mean the same moment beside it.
    """
    unit: Literal["s", "ms", "us"] | None = None
    """What numbers count since 1970 (and text that is a number); without it numbers are refused."""
    missing: Literal["flag", "error"] = "flag"
    """A missing moment: `flag` gives zeros and tells the model that it was missing; `error` refuses the
    row.
    """

    @model_validator(mode="after")
    def _one_reading(self) -> Timestamp:
        if self.format is None:
            return self
        if wrong := _moments.bad_format(self.format):
            raise mistakes(Problem(("format",), wrong))
        # With such a format a whole number is text, with `unit` a count: only one can
        # be meant.
        if self.unit and _moments.PROBES[0].strftime(self.format).isdigit():
            raise mistakes(
                Problem(
                    ("format",),
                    f"{self.format!r} and `unit: {self.unit}` both read whole numbers, each another way; give"
                    " one of them",
                )
            )
        return self

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        moments, refused = self._moments(_raw.one(columns))
        return moments, _raw.missing_refused(
            moments, refused
        ) if self.missing == "error" else refused

    def _moments(self, column: pa.Array) -> tuple[pa.Array, Refused]:
        column, undecoded = _raw.decoded(column)
        kind = column.type
        if pa.types.is_string(kind):
            text = _raw.stripped(column, self.na)
            moments, refused = self._in_text(text)
            return moments, _raw.together(undecoded, refused)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            moments, refused = _moments.from_arrow(column)
            # Text without a year cannot mean the same as a moment that has one.
            if self.format is None or _moments.has_year(self.format):
                return moments, refused
            dated = _raw.refusing(
                moments,
                _raw.present(moments),
                lambda value: (
                    f"{_raw.shown(str(value))} has a date, and text written as {self.format!r} has no year:"
                    " they cannot mean the same"
                ),
            )
            return pa.nulls(len(moments), _moments.CANONICAL), _raw.together(
                refused, dated
            )
        number = (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
        )
        # A file's reader takes `20240531` for a number; the format says that it is
        # text.
        if number and self.format is not None and not self.unit:
            return self._in_digits(column)
        if number and self.unit:
            values, refused = _raw.numbers(column)
            # Whole numbers stay whole: as doubles they lose microseconds above 2^53.
            moments, beyond = self._counted(
                values if not pa.types.is_integer(kind) else column, column
            )
            return moments, _raw.together(refused, beyond)
        hint = (
            "; declare `unit: s`, `ms` or `us` if it counts since 1970"
            if pa.types.is_integer(kind) or pa.types.is_floating(kind)
            else ""
        )
        return pa.nulls(len(column), _moments.CANONICAL), _raw.refusing(
            column,
            _raw.present(column),
            lambda value: f"{_raw.shown(value)} is not a moment in time{hint}",
        )

    def _in_text(self, text: pa.Array) -> tuple[pa.Array, Refused]:
        if self.format is not None:
            return _moments.with_format(text, self.format)
        moments, bad = _moments.from_iso(text)
        if not bad.any():
            return moments, NOBODY
        complaint = (
            "is neither an ISO 8601 date nor time, such as 2024-05-31T13:00:00Z; declare `format` if it is"
            " written otherwise"
        )
        # Numbers in text count by `unit`, but only where the text is no ISO 8601.
        if self.unit:
            values, _ = _raw.numbers(_raw.without(text, ~bad))
            counted, beyond = self._counted(values, text)
            moments = pc.coalesce(moments, counted)
            # What could be read as a number is not malformed; if it lies too far it has
            # a reason of its own.
            bad = bad & ~_raw.present(values)
            bad[beyond.rows] = False
            return moments, _raw.together(
                beyond,
                _raw.refusing(
                    text, bad, lambda value: f"{_raw.shown(value)} {complaint}"
                ),
            )
        return moments, _raw.refusing(
            text, bad, lambda value: f"{_raw.shown(value)} {complaint}"
        )

    def _in_digits(self, column: pa.Array) -> tuple[pa.Array, Refused]:
        """Whole numbers as the text that they are without a sign or a point: files read `20240531` as a
        number.
        """
        values = column if pa.types.is_integer(column.type) else _raw.numbers(column)[0]
        if not pa.types.is_integer(values.type):
            # Numbers with a fraction are no digits: null here, and refused below.
            values = _raw.without(
                values, ~(_raw.present(values) & _whole_numbers(values))
            ).cast(pa.int64())
        moments, refused = _moments.with_format(
            values.cast(pa.string()), self.format or ""
        )
        lost = _raw.present(column) & ~_raw.present(values)
        return moments, _raw.together(
            refused,
            _raw.refusing(
                column,
                lost,
                lambda value: (
                    f"{_raw.shown(value)} {_moments.not_of(self.format or '', str(value))}"
                ),
            ),
        )

    def _counted(self, values: pa.Array, original: pa.Array) -> tuple[pa.Array, Refused]:
        """Numbers of `unit` since 1970; whole numbers stay exact."""
        factor = _UNITS[self.unit or "s"]
        there = _raw.present(values)
        if pa.types.is_integer(values.type):
            whole = np.asarray(pc.fill_null(values, 0).to_numpy(zero_copy_only=False))
            # Compared before multiplying, which could overflow 64 bits.
            outside = (whole < _moments.FIRST // factor) | (
                whole > _moments.LAST // factor
            )
            micros = np.where(outside, 0, whole).astype(np.int64) * factor
        else:
            numbers = np.asarray(
                pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False), np.float64
            )
            # As a double the last microsecond rounds up to the year 10000, hence `>=`.
            outside = (numbers < _moments.FIRST / factor) | (
                numbers >= _moments.LAST / factor
            )
            # Rounded down, also before 1970, as nanoseconds are.
            micros = np.floor(np.where(outside, 0, numbers) * factor).astype(np.int64)
        return _moments.canonical(micros, there & ~outside), _raw.refusing(
            original,
            there & outside,
            lambda value: f"{_raw.shown(value)} lies outside the years 1 to 9999",
        )

    def summary(self) -> Summary:
        return _Moments()

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        if not result["count"]:
            raise ContractError(
                "is missing in every row of the training split: nothing can be learnt from it"
            )
        # In seconds.
        span = result["max"] - result["min"]
        parts = [
            name
            for name, (_, needed) in _PERIODS.items()
            # A part that never varies, or whose period is not spanned once, says
            # nothing.
            if result["parts"][name] and span >= needed
        ]
        notes = []
        if not span:
            notes.append(
                "is the same in every row of the training split, so the model cannot learn from it"
            )
        return {**result, "parts": parts, "target": target, "said": notes}

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        specs = {}
        if fitted["parts"]:
            specs["cyclic"] = TensorSpec(
                "float32",
                (2 * len(fitted["parts"]),),
                "values",
                axes=("part",),
                facts={"parts": fitted["parts"]},
            )
        specs["since"] = TensorSpec(
            "float32", role="values", facts={"mean": fitted["mean"], "std": fitted["std"]}
        )
        specs["missing"] = TensorSpec("float32", role="mask")
        return specs

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        there = _raw.present(column)
        micros = _moments.micros_of(column)
        stored: Stored = {}
        if fitted["parts"]:
            turns = _parts(micros)
            waves = [_circle(_PERIODS[name][0])[turns[name]] for name in fitted["parts"]]
            # Zeros are the middle of the circle, which no moment has.
            stored["cyclic"] = np.where(
                there[:, None], np.concatenate(waves, axis=1), np.float32(0)
            )
        # A missing moment takes the mean, which standardises to 0.
        seconds = np.where(there, micros / _moments.SECOND_US, fitted["mean"])
        # One training range beyond either end.
        low, high = 2 * fitted["min"] - fitted["max"], 2 * fitted["max"] - fitted["min"]
        since = (
            (np.clip(seconds, low, high) - fitted["mean"]) / fitted["std"]
            if fitted["std"]
            else np.zeros(len(micros))
        )
        return {
            **stored,
            "since": since.astype(np.float32),
            "missing": (~there).astype(np.float32),
        }


class _Moments(Summary):
    """Moments of the seconds since 1970, and which cyclic parts vary."""

    def __init__(self) -> None:
        self.seconds = Moments()
        # Least and greatest step seen; this empty range has no variation.
        self.spans = {name: (steps, -1) for name, (steps, _) in _PERIODS.items()}

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        there = column.filter(column.is_valid())
        micros = _moments.micros_of(there)
        # Nulls follow in a block: `Moments` counts them, and uses no row ids.
        seconds = pa.concat_arrays(
            [
                pa.array(micros / _moments.SECOND_US),
                pa.nulls(len(column) - len(there), pa.float64()),
            ]
        )
        self.seconds.update(seconds, row_ids)
        if len(micros):
            for name, turn in _parts(micros).items():
                self._see(name, int(turn.min()), int(turn.max()))

    def _see(self, name: str, low: int, high: int) -> None:
        least, most = self.spans[name]
        self.spans[name] = (min(least, low), max(most, high))

    def merge(self, other: Self) -> None:
        self.seconds.merge(other.seconds)
        for name, (low, high) in other.spans.items():
            self._see(name, low, high)

    def result(self) -> dict[str, Any]:
        return {
            **self.seconds.result(),
            "parts": {name: low < high for name, (low, high) in self.spans.items()},
        }


def _parts(micros: np.ndarray) -> dict[str, np.ndarray]:
    """Each cyclic part as a whole number from 0, int64 `[n]`."""
    # Floor division: moments before 1970 have parts from 0 as well.
    seconds = micros // _moments.SECOND_US
    days = seconds // _moments.DAY
    dates = days.astype("datetime64[D]")
    months, years = dates.astype("datetime64[M]"), dates.astype("datetime64[Y]")
    return {
        "hour_of_day": seconds - days * _moments.DAY,
        # Day 0 is a Thursday, so + 3 makes Monday 0.
        "day_of_week": (days + 3) % 7,
        "day_of_month": (dates - months.astype("datetime64[D]")).astype(np.int64),
        "day_of_year": (dates - years.astype("datetime64[D]")).astype(np.int64),
    }


@lru_cache
def _circle(steps: int) -> np.ndarray:
    """Sine and cosine of each step of a turn, float32 `[steps, 2]`."""
    angle = np.arange(steps) * (2 * np.pi / steps)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def _whole_numbers(values: pa.Array) -> np.ndarray:
    # 0.5 is not whole, so that a null is not taken for a whole number.
    numbers = np.asarray(
        pc.fill_null(values, 0.5).to_numpy(zero_copy_only=False), np.float64
    )
    return np.asarray((np.floor(numbers) == numbers) & (np.abs(numbers) < 2**53))
