"""How figures are written for people: counts with their noun, durations, ages and references.

Pure: data in, text out. Clocks and zones are given by the caller.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_RECENT_DAYS = 30
"""Older moments are given by their date."""
_SHORT = 8
"""Characters of a content id that a list shows; more where these are shared."""
_SHORT_RUN = 10
"""Of a run's id: its first ten characters are the millisecond of its making."""
_REFERENCE = re.compile(r"(?:(?P<name>.*@)|bundle-|(?P<run>run-))?(?P<id>[0-9a-z]+)")

_VALUE = re.compile(
    r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?<=found ).*|-?\d[\d.,:e+-]*"
)
"""A row's own value within a reason: what is quoted, what was found, and numbers."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: `1 row`, `1,234 rows`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Return a duration in the units that suit it: `0.4 s`, `52 s`, `4 min 12 s`, `3 h 5 min`, `2 d 4 h`."""
    # Rounded to the smaller unit first, so that 59.9 minutes are an hour.
    whole, minutes, hours = (round(seconds / unit) for unit in (1, _MINUTE, _HOUR))
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _pair(whole, 60, "min", "s")
    return _pair(minutes, 60, "h", "min") if hours < 48 else _pair(hours, 24, "d", "h")


def _pair(count: int, size: int, large: str, small: str) -> str:
    many, rest = divmod(count, size)
    return f"{many} {large}" + (f" {rest} {small}" if rest else "")


def age(moment: str, now: datetime) -> str:
    """Return how long ago a moment was (ISO 8601, with its zone): `2 minutes ago`.

    After a month it is the date, in the zone of `now`. What is no moment is returned as it is.

    Args:
        now: the moment to count from, with its zone.
    """
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    if then.tzinfo is None:
        return moment
    seconds = (now - then).total_seconds()
    minutes, hours, days = (round(seconds / unit) for unit in (_MINUTE, _HOUR, _DAY))
    # A clock of another machine may be a little ahead.
    if seconds < 45:
        return "just now"
    if minutes < 60:
        return f"{counted(max(minutes, 1), 'minute')} ago"
    if hours < 24:
        return f"{counted(max(hours, 1), 'hour')} ago"
    if days <= _RECENT_DAYS:
        return f"{counted(max(days, 1), 'day')} ago"
    return f"{then.astimezone(now.tzinfo):%Y-%m-%d}"


def short(reference: str, known: Collection[str]) -> str:
    """Return the beginning of a reference that no other of `known` shares, to be shown in a list.

    Every command takes it in place of the whole: `adult@0123abcd`, `bundle-0123abcd`, `run-01kb3x9v2m`.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        return reference
    least = match.start("id") + (_SHORT_RUN if match["run"] else _SHORT)
    others = [other for other in known if other != reference]
    for end in range(least, len(reference)):
        if not any(other.startswith(reference[:end]) for other in others):
            return reference[:end]
    return reference


def of_100(share: float) -> str:
    """Return a share as so many of a hundred; never 0 or 100 where it is not exactly so."""
    percent = 100 * share
    whole = round(percent)
    if share in (0.0, 1.0) or 0 < whole < 100:
        return str(whole)
    # Asked of the text, since a share next to a boundary may be rounded either way.
    text = f"{percent:.1f}"
    return {"0.0": "fewer than 0.1", "100.0": "more than 99.9"}.get(text, text)


def without_values(reason: str) -> str:
    """Return the reason of a refusal without the row's own values, so that like ones are counted together."""
    return _VALUE.sub("…", reason)
