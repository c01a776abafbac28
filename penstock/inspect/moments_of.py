"""Columns as moments: numbers that rise with time, whatever they are written as."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from penstock.contracts.features import Feature
from penstock.inspect.alike import is_plain
from penstock.inspect.raw_column import Finding, Look

_COUNTING = re.compile(
    r"^(year|yr|jahr|month_?(no|index|number)?|week_?(no|index|number)?|day_?(no|index|number)?"
    r"|hour_?(no|index)"
    r"|time|t|step|time_?step|tick|period|epoch|round|cycle|time_?idx|time_?index|date_?(block)?_?num)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Moments:
    """A column of moments."""

    column: str
    values: np.ndarray
    """Microseconds, or counts, as doubles; not a number where missing `[N]`."""
    timed: bool
    """Whether these are microseconds."""
    words: str | None
    """SQL that makes a timestamp of the column; None where the engine reads it as it is."""

    @property
    def missing(self) -> float:
        """The share of the rows without one."""
        return float(np.mean(~np.isfinite(self.values))) if len(self.values) else 1.0


def moments_of(look: Look, finding: Finding | None) -> Moments | None:
    """The moments of a column; None where it has none.

    Args:
        finding: what was proposed for it; None for a column that nothing was proposed for.
    """
    kind = look.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Moments(look.name, look.numbers, True, None)
    if finding is not None and finding.type == "timestamp":
        # A time of day tells no rows' order, nor do years whose century is a guess.
        if finding.role in ("clock", "later"):
            return None
        return _read(look, finding)
    if not is_plain(look):
        return None
    if look.numeric_share == 1 and look.whole and _COUNTING.match(look.name.strip()):
        return Moments(look.name, look.numbers, False, _as_number(look))
    return None


def _read(look: Look, finding: Finding) -> Moments | None:
    feature = Feature.load({"type": "timestamp", **finding.options})
    column, _ = feature.accept([look.raw])
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())
    if not pa.types.is_integer(column.type):
        return None
    values = np.asarray(
        column.cast(pa.float64(), safe=False).fill_null(float("nan")), np.float64
    )
    format, unit = finding.options.get("format"), finding.options.get("unit")
    if unit is not None:
        # Counts since 1970 rise as they are.
        return Moments(look.name, values, True, None)
    if format is None:
        return Moments(look.name, values, True, None)
    if "%V" in format:
        return None
    name = '"' + look.name.replace('"', '""') + '"'
    text = name if look.is_text else f"CAST({name} AS VARCHAR)"
    words = f"try_strptime({text}, '{format}')" if "'" not in format else None
    return Moments(look.name, values, True, words) if words else None


def _as_number(look: Look) -> str | None:
    if not look.is_text:
        return None
    return 'TRY_CAST("' + look.name.replace('"', '""') + '" AS BIGINT)'
