"""Moments as microseconds since 1970 in UTC, from whatever holds them: Arrow's timestamps and dates, ISO 8601
text, and text in a declared format.

A moment without a zone is taken to be in UTC. Python shows the years 1 to 9999; others are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.features import NOBODY, Refused
from penstock.parts.features import _raw

DAY = 86_400
SECOND_US = 1_000_000
# Microseconds since 1970 of the years that Python's datetime can show.
FIRST = int(np.datetime64("0001-01-01", "us").astype(np.int64))
LAST = int(np.datetime64("10000-01-01", "us").astype(np.int64)) - 1
CANONICAL = pa.timestamp("us", "UTC")
# A month may stand without a day, and a comma for the point of a fraction.
_ISO = (
    r"^(?P<y>[0-9]{4})-(?P<m>[0-9]{1,2})(?:-(?P<d>[0-9]{1,2}))?"
    r"(?:[T ](?P<H>[0-9]{1,2}):(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?)?"
    r" ?(?P<z>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?$"
)


def canonical(micros: np.ndarray, there: np.ndarray) -> pa.Array:
    """Microseconds as moments, null where `there` (bool `[n]`) is not."""
    return pa.array(micros, pa.int64(), mask=~there).cast(CANONICAL)


def micros_of(column: pa.Array) -> np.ndarray:
    """Moments as microseconds, int64 `[n]`; 0 where null."""
    return np.asarray(
        pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False),
        dtype=np.int64,
    )


def from_arrow(column: pa.Array) -> tuple[pa.Array, Refused]:
    """Timestamps and dates of any unit; nanoseconds are cut off, and years beyond 1–9999 are refused."""
    kind = column.type
    per_unit = (
        {"s": SECOND_US, "ms": 1_000, "us": 1, "ns": 1}[kind.unit]
        if pa.types.is_timestamp(kind)
        # date64 counts milliseconds, date32 days.
        else (1_000 if pa.types.is_date64(kind) else DAY * SECOND_US)
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
    outside = (counts < FIRST // per_unit) | (counts > LAST // per_unit)
    there = _raw.present(column)
    bad = there & outside
    reasons = ["lies outside the years 1 to 9999"] * int(
        bad.sum()
    )  # Python cannot show such a moment
    return canonical(np.where(outside, 0, counts) * per_unit, there & ~outside), (
        Refused(np.flatnonzero(bad), reasons) if reasons else NOBODY
    )


def from_iso(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
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
        (first + d - 1) * DAY + hour * 3_600 + (minute - offset_minutes) * 60 + second
    )
    # What is not a moment counts as 0 and is masked below.
    micros = np.where(ok, seconds, 0) * SECOND_US + np.where(ok, micro, 0)
    ok &= (micros >= FIRST) & (micros <= LAST)
    return canonical(micros, there & matched & ok), there & ~(matched & ok)


def _field(fields: pa.Array, name: str, matched: np.ndarray) -> pa.Array:
    """One group of the pattern as text, empty where the pattern or the group did not match."""
    return pc.if_else(pa.array(matched), fields.field(name), "")


def _whole(fields: pa.Array, name: str, matched: np.ndarray, default: int) -> np.ndarray:
    text = _field(fields, name, matched)
    filled = pc.if_else(pc.equal(text, ""), str(default), text)
    return np.asarray(pc.cast(filled, pa.int64()).to_numpy(zero_copy_only=False))


PROBES = (
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
def bad_format(pattern: str) -> str | None:
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
    for moment, between, clock in product(PROBES, ("T", " "), _CLOCKS):
        cut = datetime.strptime(moment.strftime(f"%Y-%m-%d {clock}"), f"%Y-%m-%d {clock}")
        text = moment.strftime(f"%Y-%m-%d{between}{clock}" if clock else "%Y-%m-%d")
        # A date without a clock has no zone.
        for zone, offset in _ZONES.items() if clock else [("", UTC)]:
            yield text + zone, cut.replace(tzinfo=offset).astimezone(UTC)


@lru_cache
def has_year(pattern: str) -> bool:
    """Whether text in this format says the year."""
    read = _read(PROBES[0].strftime(pattern), pattern)
    return read is not None and read.year == PROBES[0].year


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


_DIGITS = re.compile(r"[0-9]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_EXAMPLE = datetime(2024, 12, 31, 13, 45, 30, 250_000, tzinfo=UTC)


def not_of(pattern: str, text: str) -> str:
    """Why a text is no date of a format, with an example: it is no day, or it is written otherwise."""
    example = _EXAMPLE.strftime(pattern)
    # Digits and names in the same places: only what they say is wrong.
    if _outline(text.strip()) == _outline(example):
        return f"is no date or time that exists; the format is {pattern!r}, as in {example!r}"
    return f"does not match the format {pattern!r}, as in {example!r}"


def _outline(text: str) -> str:
    return _LETTERS.sub("a", _DIGITS.sub("0", text))


def with_format(text: pa.Array, pattern: str) -> tuple[pa.Array, Refused]:
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
            else (gap.days * DAY + gap.seconds) * SECOND_US + gap.microseconds
        )
    read = pa.array(micros, pa.int64()).cast(CANONICAL)
    # Without a year in the format ISO 8601 would mean something else, as in `Timestamp._moments`.
    if has_year(pattern) and read.null_count:
        read = pc.coalesce(read, from_iso(distinct.dictionary)[0])
    moments = read.take(distinct.indices)
    bad = _raw.present(text) & ~_raw.present(moments)
    return moments, _raw.refusing(
        text, bad, lambda value: f"{_raw.shown(value)} {not_of(pattern, str(value))}"
    )
