"""A moment in time, as cyclic parts and as time since.

`cyclic` has the sine and cosine of the hour of day, the day of week, the day of month and the day of year: of
those parts that vary in the training split, and whose period it spans at least once (a day of year seen in
one summer says nothing of winter). `since` is the time itself, standardised, and clipped like a number: one
training range beyond either end. All in UTC; a timestamp without a zone is taken to be in UTC.

Sines come from tables by whole second, day and so on: numpy's vectorised sine may differ in its last bit with
a value's place in the batch, and a row must encode alone as in a batch, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from itertools import product
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
from penstock.parts.features import _raw

_DAY = 86_400
_SECOND_US = 1_000_000
# Unit → microseconds.
_UNITS = {"s": _SECOND_US, "ms": 1_000, "us": 1}
_PERIODS = {
    "hour_of_day": (_DAY, _DAY),
    "day_of_week": (7, 7 * _DAY),
    "day_of_month": (31, 31 * _DAY),
    "day_of_year": (366, 365 * _DAY),
}
"""Part → (steps in a turn, seconds that the data must span for the part to be learnt)."""
# Microseconds since 1970 of the years that Python's datetime can show.
_FIRST = int(np.datetime64("0001-01-01", "us").astype(np.int64))
_LAST = int(np.datetime64("10000-01-01", "us").astype(np.int64)) - 1
_CANONICAL = pa.timestamp("us", "UTC")
# A month may stand without a day, and a comma for the point of a fraction.
_ISO = (
    r"^(?P<y>[0-9]{4})-(?P<m>[0-9]{1,2})(?:-(?P<d>[0-9]{1,2}))?"
    r"(?:[T ](?P<H>[0-9]{1,2}):(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?)?"
    r" ?(?P<z>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?$"
)


class Timestamp(Feature):
    """A moment: timestamps, dates, ISO 8601 text, text in a declared `format`, or numbers of a declared
    `unit` since 1970.
    """

    encoder: ClassVar[str] = "linear"
    canonical: ClassVar[pa.DataType] = _CANONICAL

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
        if wrong := _bad_format(self.format):
            raise mistakes(Problem(("format",), wrong))
        # With such a format a whole number is text, with `unit` a count: only one can
        # be meant.
        if self.unit and _PROBES[0].strftime(self.format).isdigit():
            raise mistakes(
                Problem(
                    ("format",),
                    f"{self.format!r} and `unit: {self.unit}` both read whole numbers, each another way; give"
                    " one of them",
                )
            )
        return self

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        found, refused = self._moments(_raw.one(columns))
        return found, _raw.missing_refused(
            found, refused
        ) if self.missing == "error" else refused

    def _moments(self, column: pa.Array) -> tuple[pa.Array, Refused]:
        column, undecoded = _raw.decoded(column)
        kind = column.type
        if pa.types.is_string(kind):
            text = _raw.stripped(column, self.na)
            found, refused = self._in_text(text)
            return found, _raw.together(undecoded, refused)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            found, refused = _from_arrow(column)
            # Text without a year cannot mean the same as a moment that has one.
            if self.format is None or _has_year(self.format):
                return found, refused
            dated = _raw.refusing(
                found,
                _raw.present(found),
                lambda value: (
                    f"{_raw.shown(str(value))} has a date, and text written as {self.format!r} has no year:"
                    " they cannot mean the same"
                ),
            )
            return pa.nulls(len(found), _CANONICAL), _raw.together(refused, dated)
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
            found, beyond = self._counted(
                values if not pa.types.is_integer(kind) else column, column
            )
            return found, _raw.together(refused, beyond)
        hint = (
            "; declare `unit: s`, `ms` or `us` if it counts since 1970"
            if pa.types.is_integer(kind) or pa.types.is_floating(kind)
            else ""
        )
        return pa.nulls(len(column), _CANONICAL), _raw.refusing(
            column,
            _raw.present(column),
            lambda value: f"{_raw.shown(value)} is not a moment in time{hint}",
        )

    def _in_text(self, text: pa.Array) -> tuple[pa.Array, Refused]:
        if self.format is not None:
            return _with_format(text, self.format)
        found, bad = _from_iso(text)
        if not bad.any():
            return found, NOBODY
        complaint = (
            "is neither an ISO 8601 date nor time, such as 2024-05-31T13:00:00Z; declare `format` if it is"
            " written otherwise"
        )
        # Numbers in text count by `unit`, but only where the text is no ISO 8601.
        if self.unit:
            values, _ = _raw.numbers(_raw.without(text, ~bad))
            counted, beyond = self._counted(values, text)
            found = pc.coalesce(found, counted)
            # What could be read as a number is not malformed; if it lies too far it has
            # a reason of its own.
            bad = bad & ~_raw.present(values)
            bad[beyond.rows] = False
            return found, _raw.together(
                beyond,
                _raw.refusing(
                    text, bad, lambda value: f"{_raw.shown(value)} {complaint}"
                ),
            )
        return found, _raw.refusing(
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
        found, refused = _with_format(values.cast(pa.string()), self.format or "")
        lost = _raw.present(column) & ~_raw.present(values)
        return found, _raw.together(
            refused,
            _raw.refusing(
                column,
                lost,
                lambda value: f"{_raw.shown(value)} is not written as {self.format!r}",
            ),
        )

    def _counted(self, values: pa.Array, original: pa.Array) -> tuple[pa.Array, Refused]:
        """Numbers of `unit` since 1970; whole numbers stay exact."""
        factor = _UNITS[self.unit or "s"]
        there = _raw.present(values)
        if pa.types.is_integer(values.type):
            whole = np.asarray(pc.fill_null(values, 0).to_numpy(zero_copy_only=False))
            # Compared before multiplying, which could overflow 64 bits.
            outside = (whole < _FIRST // factor) | (whole > _LAST // factor)
            micros = np.where(outside, 0, whole).astype(np.int64) * factor
        else:
            numbers = np.asarray(
                pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False), np.float64
            )
            # As a double the last microsecond rounds up to the year 10000, hence `>=`.
            outside = (numbers < _FIRST / factor) | (numbers >= _LAST / factor)
            # Rounded down, also before 1970, as nanoseconds are.
            micros = np.floor(np.where(outside, 0, numbers) * factor).astype(np.int64)
        return _canonical(micros, there & ~outside), _raw.refusing(
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
        said = []
        if not span:
            said.append(
                "is the same in every row of the training split, so the model cannot learn from it"
            )
        return {**result, "parts": parts, "target": target, "said": said}

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
        micros = _micros(column)
        stored: Stored = {}
        if fitted["parts"]:
            turns = _parts(micros)
            waves = [_circle(_PERIODS[name][0])[turns[name]] for name in fitted["parts"]]
            # Zeros are the middle of the circle, which no moment has.
            stored["cyclic"] = np.where(
                there[:, None], np.concatenate(waves, axis=1), np.float32(0)
            )
        # A missing moment takes the mean, which standardises to 0.
        seconds = np.where(there, micros / _SECOND_US, fitted["mean"])
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
        self.seen = {name: (steps, -1) for name, (steps, _) in _PERIODS.items()}

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        there = column.filter(column.is_valid())
        micros = _micros(there)
        # Nulls follow in a block: `Moments` counts them, and uses no row ids.
        seconds = pa.concat_arrays(
            [
                pa.array(micros / _SECOND_US),
                pa.nulls(len(column) - len(there), pa.float64()),
            ]
        )
        self.seconds.update(seconds, row_ids)
        if len(micros):
            for name, turn in _parts(micros).items():
                self._see(name, int(turn.min()), int(turn.max()))

    def _see(self, name: str, low: int, high: int) -> None:
        least, most = self.seen[name]
        self.seen[name] = (min(least, low), max(most, high))

    def merge(self, other: Self) -> None:
        self.seconds.merge(other.seconds)
        for name, (low, high) in other.seen.items():
            self._see(name, low, high)

    def result(self) -> dict[str, Any]:
        return {
            **self.seconds.result(),
            "parts": {name: low < high for name, (low, high) in self.seen.items()},
        }


def _canonical(micros: np.ndarray, there: np.ndarray) -> pa.Array:
    return pa.array(micros, pa.int64(), mask=~there).cast(_CANONICAL)


def _micros(column: pa.Array) -> np.ndarray:
    return np.asarray(
        pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False),
        dtype=np.int64,
    )


def _parts(micros: np.ndarray) -> dict[str, np.ndarray]:
    """Each cyclic part as a whole number from 0, int64 `[n]`."""
    # Floor division: moments before 1970 have parts from 0 as well.
    seconds = micros // _SECOND_US
    days = seconds // _DAY
    dates = days.astype("datetime64[D]")
    months, years = dates.astype("datetime64[M]"), dates.astype("datetime64[Y]")
    return {
        "hour_of_day": seconds - days * _DAY,
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


def _from_arrow(column: pa.Array) -> tuple[pa.Array, Refused]:
    """Timestamps and dates of any unit; nanoseconds are cut off, and years beyond 1–9999 are refused."""
    kind = column.type
    per_unit = (
        {"s": _SECOND_US, "ms": 1_000, "us": 1, "ns": 1}[kind.unit]
        if pa.types.is_timestamp(kind)
        # date64 counts milliseconds, date32 days.
        else (1_000 if pa.types.is_date64(kind) else _DAY * _SECOND_US)
    )
    # Arrow casts date32 to 32 bits alone.
    counts = np.asarray(
        pc.fill_null(
            column.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64()), 0
        ).to_numpy(zero_copy_only=False),
        dtype=np.int64,
    )
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        counts = counts // 1_000
    # Compared before multiplying, which could overflow 64 bits.
    outside = (counts < _FIRST // per_unit) | (counts > _LAST // per_unit)
    there = _raw.present(column)
    bad = there & outside
    reasons = ["lies outside the years 1 to 9999"] * int(
        bad.sum()
    )  # Python cannot show such a moment
    return _canonical(np.where(outside, 0, counts) * per_unit, there & ~outside), (
        Refused(np.flatnonzero(bad), reasons) if reasons else NOBODY
    )


def _from_iso(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """ISO 8601 text as moments, and where it is not ISO 8601 (bool `[n]`). No zone means UTC."""
    fields = pc.extract_regex(text, _ISO)
    there = _raw.present(text)
    matched = _raw.present(fields)
    # int64 [n] each; parts that the text leaves out take the least value.
    y, m, d, hour, minute, second = (
        _whole(fields, name, matched, default)
        for name, default in (
            ("y", 1970),
            ("m", 1),
            ("d", 1),
            ("H", 0),
            ("M", 0),
            ("S", 0),
        )
    )
    # Padded to six digits, then cut: nanoseconds are dropped.
    fraction = pc.utf8_slice_codeunits(
        pc.utf8_rpad(_field(fields, "f", matched), 6, "0"), 0, 6
    )
    micro = np.asarray(pc.cast(fraction, pa.int64()).to_numpy(zero_copy_only=False))
    zone = _field(fields, "z", matched)
    # `Z` and no zone have no digits and become 0000; `+05` becomes 0500, `+05:30` 0530.
    digits = pc.replace_substring_regex(zone, "[^0-9]", "")
    offset = np.asarray(
        pc.cast(pc.utf8_rpad(digits, 4, "0"), pa.int64()).to_numpy(zero_copy_only=False)
    )
    offset_minutes = np.where(
        np.asarray(pc.starts_with(zone, "-").to_numpy(zero_copy_only=False), bool), -1, 1
    ) * (offset // 100 * 60 + offset % 100)
    # The pattern admits year 0000, which Python has not.
    month_ok = (m >= 1) & (m <= 12) & (y >= 1)
    # Months since 1970, of a valid month wherever this one is not, so that dates can be
    # made.
    month = (np.where(month_ok, y, 1970) - 1970) * 12 + np.where(month_ok, m, 1) - 1
    first = month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    next_first = (
        (month + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    )
    ok = (
        month_ok
        & (d >= 1)
        # The days from one month's first to the next, so leap years need no rule here.
        & (d <= next_first - first)
        & (hour <= 23)
        & (minute <= 59)
        # Seconds end at 59: a leap second is no moment that Python can show.
        & (second <= 59)
        & (offset // 100 <= 23)
        & (offset % 100 <= 59)
    )
    seconds = (
        # The offset says how far local time is ahead of UTC.
        (first + d - 1) * _DAY + hour * 3_600 + (minute - offset_minutes) * 60 + second
    )
    # What is not a moment counts as 0 and is masked below.
    micros = np.where(ok, seconds, 0) * _SECOND_US + np.where(ok, micro, 0)
    ok &= (micros >= _FIRST) & (micros <= _LAST)
    return _canonical(micros, there & matched & ok), there & ~(matched & ok)


def _field(fields: pa.Array, name: str, matched: np.ndarray) -> pa.Array:
    """One group of the pattern as text, empty where the pattern or the group did not match."""
    return pc.if_else(pa.array(matched), fields.field(name), "")


def _whole(fields: pa.Array, name: str, matched: np.ndarray, default: int) -> np.ndarray:
    text = _field(fields, name, matched)
    filled = pc.if_else(pc.equal(text, ""), str(default), text)
    return np.asarray(pc.cast(filled, pa.int64()).to_numpy(zero_copy_only=False))


_PROBES = (
    datetime(2003, 4, 5, 6, 7, 8, tzinfo=UTC),
    datetime(2003, 4, 5, 12, 7, 8, tzinfo=UTC),
)
"""Moments whose parts can all be taken for one another."""
_CLOCKS = ("", "%H", "%H:%M", "%H:%M:%S", "%H:%M:%S.%f")
_ZONES = {
    "": UTC,
    "Z": UTC,
    "+01": timezone(timedelta(hours=1)),
    "+0100": timezone(timedelta(hours=1)),
    "+01:00": timezone(timedelta(hours=1)),
}


@lru_cache
def _bad_format(pattern: str) -> str | None:
    """Why text cannot be read by a format: strptime does not know it, or it reads ISO 8601 as another moment.

    Text in ISO 8601 becomes a moment wherever a whole column has it, so that what a value meant would depend
    on its neighbours.
    """
    # An empty text merely does not match; a wrong directive says so.
    try:
        datetime.strptime("", pattern)
    except ValueError as error:
        if "directive" in str(error) or "stray" in str(error):
            return f"{pattern!r} is not understood: {error}"
    for text, moment in _iso_spellings():
        read = _read(text, pattern)
        if read is not None and read != moment:
            return (
                f"{pattern!r} reads {text!r} as {read:%Y-%m-%d %H:%M:%S} (UTC), which ISO 8601 reads"
                " otherwise, and so do files. Make the moments by `derive`, with strptime(column,"
                f" {pattern!r}), and say `types: {{column: text}}` of the source"
            )
    return None


def _iso_spellings() -> Iterator[tuple[str, datetime]]:
    """Texts that readers of files take for moments, with these."""
    for moment, between, clock in product(_PROBES, ("T", " "), _CLOCKS):
        cut = datetime.strptime(moment.strftime(f"%Y-%m-%d {clock}"), f"%Y-%m-%d {clock}")
        text = moment.strftime(f"%Y-%m-%d{between}{clock}" if clock else "%Y-%m-%d")
        # A date without a clock has no zone.
        for zone, offset in _ZONES.items() if clock else [("", UTC)]:
            yield text + zone, cut.replace(tzinfo=offset).astimezone(UTC)


@lru_cache
def _has_year(pattern: str) -> bool:
    read = _read(_PROBES[0].strftime(pattern), pattern)
    return read is not None and read.year == _PROBES[0].year


@lru_cache
def _of_weeks(pattern: str) -> bool:
    """Whether a format names a week of ISO 8601 and no day in it, such as `%GW%V` (2021W38)."""
    return "%V" in pattern and not any(day in pattern for day in ("%u", "%w", "%a", "%A"))


def _read(text: str, pattern: str) -> datetime | None:
    """A text by strptime, in UTC; None where it is not written so.

    Digits alone must be written in full: `1112024` has lost a zero, and may be the first or the eleventh.
    """
    # A week begins on its Monday; strptime asks for a day of it.
    day = " 1" if _of_weeks(pattern) else ""
    try:
        moment = datetime.strptime(text + day, pattern + (" %u" if day else ""))
        # strptime takes fewer digits than the format writes; such a number is
        # ambiguous.
        if text.isascii() and text.isdigit():
            written = moment.strftime(pattern)
            # `%f` writes six digits, of which zeros at the end mean nothing.
            cut = "0" if pattern.endswith("%f") else ""
            if written != text and (not cut or written.rstrip(cut) != text.rstrip(cut)):
                return None
        return (
            moment.replace(tzinfo=UTC)
            if moment.tzinfo is None
            else moment.astimezone(UTC)
        )
    # Beyond the years 1 to 9999 once moved to UTC.
    except (ValueError, OverflowError):
        return None


def _with_format(text: pa.Array, pattern: str) -> tuple[pa.Array, Refused]:
    """Text in a declared format, read by Python's strptime (Arrow's knows neither fractions nor zones), once
    a distinct text. What is not written so may be in ISO 8601, as a moment is where its column holds text as
    well.
    """
    # strptime runs once for each different text.
    distinct = text.dictionary_encode()
    micros: list[int | None] = []
    for value in distinct.dictionary.to_pylist():
        moment = _read(value, pattern)
        gap = None if moment is None else moment - datetime(1970, 1, 1, tzinfo=UTC)
        micros.append(
            None
            if gap is None
            # From whole numbers: `total_seconds` is a double and may lose a
            # microsecond.
            else (gap.days * _DAY + gap.seconds) * _SECOND_US + gap.microseconds
        )
    read = pa.array(micros, pa.int64()).cast(_CANONICAL)
    # Without a year in the format ISO 8601 would mean something else, as in `_moments`.
    if _has_year(pattern) and read.null_count:
        read = pc.coalesce(read, _from_iso(distinct.dictionary)[0])
    found = read.take(distinct.indices)
    bad = _raw.present(text) & ~_raw.present(found)
    return found, _raw.refusing(
        text, bad, lambda value: f"{_raw.shown(value)} is not written as {pattern!r}"
    )


def _whole_numbers(values: pa.Array) -> np.ndarray:
    # 0.5 is not whole, so that a null is not taken for a whole number.
    numbers = np.asarray(
        pc.fill_null(values, 0.5).to_numpy(zero_copy_only=False), np.float64
    )
    return np.asarray((np.floor(numbers) == numbers) & (np.abs(numbers) < 2**53))
