"""Texts and whole numbers that are moments: which format reads a column.

The feature itself reads the texts, so what is proposed is what will be read. Where formats mix, the one that
reads most is proposed, if that is 99 rows in 100; the finding says how many it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.features import Feature
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.wording import shown

# ISO 8601 as the timestamp feature reads it.
_ISO = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)? ?([Zz]|[+-]\d{2}(:?\d{2})?)?"
    r"|(1[6-9]|2[01])\d{2}-(0[1-9]|1[0-2])"
)
READS = 0.99
"""The share of the rows that a format must read."""
_MOST = 2_000
"""Different texts that a format is tried on."""
_LONGEST = 45
_FIRST_TRIED = 30
# In the order in which they are proposed where two read the same texts: day and month
# may be either way round.
_DAYS = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %m %Y"),
    *("%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d", "%Y%m%d", "%Y %m %d", "%Y-%b-%d"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%y"),
    *("%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%d %b %y", "%d/%b/%Y", "%d%b%Y"),
    *("%d-%B-%Y", "%d. %B %Y", "%d %b, %Y", "%d %B, %Y", "%b %d, %Y", "%B %d, %Y"),
    *("%b %d %Y", "%B %d %Y", "%b. %d, %Y", "%b-%d-%Y", "%A, %B %d, %Y", "%A, %d %B %Y"),
    *("%a, %d %b %Y", "%a %d %b %Y", "%a %b %d %Y", "%a, %b %d, %Y", "%A %d %B %Y"),
)
_MONTHS = ("%b %Y", "%B %Y", "%b-%Y", "%B-%Y", "%b-%y", "%m/%Y", "%Y/%m", "%b, %Y")
_WEEKS = ("%GW%V", "%G-W%V")
_CLOCKS = (
    (re.compile(r"\d:\d{2}:\d{2}\.\d+"), ("%H:%M:%S.%f",)),
    (
        re.compile(r"\d:\d{2}:\d{2} ?[AaPp]\.?[Mm]"),
        ("%I:%M:%S %p", "%I:%M:%S%p"),
    ),
    (re.compile(r"\d:\d{2} ?[AaPp]\.?[Mm]"), ("%I:%M %p", "%I:%M%p")),
    (re.compile(r"\d:\d{2}:\d{2}"), ("%H:%M:%S",)),
    (re.compile(r"\d:\d{2}"), ("%H:%M",)),
)
_BETWEEN = re.compile(r"( at | - |, |[T ])\d{1,2}:\d{2}")
_ZONE = re.compile(r"[+-]\d{2}:?\d{2}$|Z$")
_WHOLE = (
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S UTC %Y",
    "%a %b %d %H:%M:%S GMT %Y",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%d %b %Y %H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S %z",
    "%Y%m%d%H%M%S",
    "%Y%m%dT%H%M%S",
    "%Y%m%dT%H%M%SZ",
    "%Y%m%d %H%M%S",
    "%H:%M %d/%m/%Y",
    "%H:%M %d.%m.%Y",
)


def moments(look: Look, texts: Sequence[str]) -> Finding | None:
    """Texts as moments in time; None where they are none."""
    if not look.is_text or not texts:
        return None
    # Markers of a missing value are not in `present`.
    dated = sum(look.present[v] for v in texts if _ISO.fullmatch(v))
    if dated and dated >= READS * look.filled:
        return Finding(
            look.name,
            "timestamp",
            f"ISO 8601 dates and times as text, {min(texts)[:19]} to"
            f" {max(texts)[:19]}{look.missing_words()}{look.na_words()}",
            look.na(),
        )
    best = _best(look, texts)
    if best is None:
        return None
    format, rest = best
    later = _later(look, texts, format) if "%y" in format else ""
    clock = format in ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p")
    what = "times of day" if clock else "weeks" if format in _WEEKS else "dates"
    doubt = f"; {rest} would fit as well: look at it" if rest else ""
    if clock:
        doubt = "; the day is not known, so 23:59 is far from 00:01"
    if later:
        doubt += (
            f"; {shown(later)} is read as a day to come, since 69 to 99 are read as 1969 to 1999 and all else"
            " as 2000 to 2068: write years with four digits"
        )
    return Finding(
        look.name,
        "timestamp",
        f"{what} such as {shown(texts[0])}{doubt}{look.missing_words()}{look.na_words()}",
        {"format": format, **look.na()},
        loud=bool(rest or later),
        role="clock" if clock else "later" if later else "",
    )


def _later(look: Look, texts: Sequence[str], format: str) -> str:
    """The commonest text that a format reads as a moment later than tomorrow; empty where there is none."""
    tomorrow = np.datetime64(datetime.now(UTC).date(), "us") + np.timedelta64(1, "D")
    read = pc.cast(_read(format, texts), pa.int64())
    is_later = pc.fill_null(pc.greater(read, int(tomorrow.astype(np.int64))), False)
    late = pa.array(texts, pa.string()).filter(is_later).to_pylist()
    return min(late, key=lambda text: (-look.present[text], text), default="")


def days(look: Look) -> Finding | None:
    """Whole numbers as days, such as 20210925; None where one of them is no day of a calendar."""
    values = np.unique(look.numbers[np.isfinite(look.numbers)])
    if not len(values):
        return None
    fitting = [
        format
        for unit, format in ((1, "%Y%m%d"), (10**6, "%Y%m%d%H%M%S"))
        if 1900_01_01 * unit <= values[0] <= values[-1] < 2101_00_00 * unit
    ]
    if not fitting:
        return None
    (format,) = fitting
    tried = pa.array(values[:: max(1, len(values) // _MOST)].astype(np.int64))
    read, refused = _feature(format).accept([tried])
    if read.null_count or len(refused.rows):
        return None
    first, last = f"{values[0]:.0f}", f"{values[-1]:.0f}"
    return Finding(
        look.name,
        "timestamp",
        f"days as whole numbers, {first} to {last}{look.missing_words()}{look.na_words()}",
        {"format": format, **look.na()},
    )


def _best(look: Look, texts: Sequence[str]) -> tuple[str, str | None] | None:
    """The format that reads enough of the rows, and another that reads as many; None where none does."""
    # The commonest first, since they decide.
    order = sorted(texts, key=lambda text: (-look.present[text], text))
    few = order[:: max(1, len(order) // _FIRST_TRIED)][:_FIRST_TRIED]
    if sum(_could_be(text) for text in few) < 0.8 * len(few):
        return None
    # One slip in thirty must not rule the right format out.
    likely = [f for f in _candidates(few) if _share(f, few, [1] * len(few)) >= 0.8]
    tried = order[:: max(1, len(order) // _MOST)]
    weights = [look.present[text] for text in tried]
    shares = [(_share(f, tried, weights), f) for f in likely]
    most = max((share for share, _ in shares), default=0.0)
    if most < READS:
        return None
    fitting = [f for share, f in shares if share == most]
    others = [f for f in fitting[1:] if _differs(fitting[0], f, tried)]
    return fitting[0], others[0] if others else None


def _could_be(text: str) -> bool:
    return 4 <= len(text) <= _LONGEST and any(c.isdigit() for c in text)


def _candidates(texts: Sequence[str]) -> Iterator[str]:
    for pattern, clocks in _CLOCKS:
        if sum(bool(pattern.search(text)) for text in texts) < 0.8 * len(texts):
            continue
        yield from clocks
        between = {match[1] for text in texts if (match := _BETWEEN.search(text))}
        zones = ("", " %z", "%z") if _ZONE.search(texts[0]) else ("",)
        # Months without a day have no clock.
        for clock, mark, zone in product(clocks, sorted(between), zones):
            yield from (f"{day}{mark}{clock}{zone}" for day in _DAYS)
        break
    else:
        yield from (*_DAYS, *_MONTHS, *_WEEKS)
    yield from _WHOLE


def _feature(format: str) -> Feature:
    return Feature.load({"type": "timestamp", "format": format})


def _read(format: str, texts: Sequence[str]) -> pa.Array:
    return _feature(format).accept([pa.array(texts, pa.string())])[0]


def _share(format: str, texts: Sequence[str], weights: Sequence[int]) -> float:
    """The share of the rows that a format reads, by the feature itself."""
    # One text spares most formats the rest.
    if len(texts) > 5 and _read(format, texts[:5]).null_count == 5:
        return 0.0
    there = np.asarray(_read(format, texts).is_valid())
    return float(np.dot(there, weights) / max(sum(weights), 1))


def _differs(one: str, other: str, texts: Sequence[str]) -> bool:
    """Whether two formats read a text as different moments."""
    return not _read(one, texts).equals(_read(other, texts))
