"""`Look`: a raw column, and what is known of it; `Finding`: what is proposed for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.inspect.spelling import NUMBER, Spelling, spelling_of
from penstock.inspect.wording import quoted

MARKERS = frozenset(
    {
        "?",
        "??",
        "na",
        "n/a",
        "n.a.",
        "#n/a",
        "null",
        "(null)",
        "\\n",
        "nan",
        "-",
        "--",
        "---",
        "missing",
        "not available",
        "unknown",
        "undefined",
        "empty",
        "not applicable",
    }
)
"""Texts that commonly stand for a missing value, in lower case.

"none" is not among them: it is often an answer.
"""

_ANSWERS = frozenset({"-", "--", "unknown", "missing", "undefined", "not available"})
"""Markers that are an answer where there is but one other value."""

_ID_NAME = re.compile(
    r"(^|[._\- ])\$?(id|oid|uid|uuid|guid|key|pk|index|row|url|uri|isbn|email|phone)$"
    r"|(?<=[a-z])(Id|ID|Key|Uuid|UUID)$"
    r"|^(id|uuid|key|rowid|row_id|unnamed: 0)$",
    re.IGNORECASE,
)
_CAMEL_ID = re.compile(r"[a-z](Id|ID|Key|UUID)$")

_RECURRING = 0.3
"""The share of the rows whose value is there three times that makes a column one of categories."""


@dataclass
class Finding:
    """What is proposed for a column."""

    column: str
    type: str | None
    """A feature's type; None leaves the column out."""
    why: str
    options: dict[str, Any] = field(default_factory=dict)
    loud: bool = False
    """Something the user must look at."""
    hint: str = ""
    """A line of a recipe that could be used instead."""
    role: str = ""
    """`identifier`, `constant`, `text`, `list`, `leak`, `duplicate`, … of what is left out; `code` of a
    category that is an id.
    """


class Look:
    """A raw column, and what is known of it, worked out once when asked for."""

    def __init__(
        self, name: str, column: pa.Array | pa.ChunkedArray, *, mark: str = ""
    ) -> None:
        """
        Args:
            mark: what stands before decimals in the rest of the table.
        """
        self.name = name
        self._mark = mark
        self.raw = _plain(column)
        self.rows = len(self.raw)

    @property
    def type(self) -> pa.DataType:
        """Of the raw column."""
        return self.raw.type

    @cached_property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return bool(pa.types.is_string(self.type))

    @cached_property
    def trimmed(self) -> pa.Array:
        """The raw column, without spaces around texts."""
        return pc.utf8_trim_whitespace(self.raw) if self.is_text else self.raw

    @cached_property
    def counts(self) -> Counter[Any]:
        """How often each value occurs, missing and empty ones left out (text: trimmed)."""
        counts: Counter[Any] = Counter()
        if pa.types.is_nested(self.type):
            # Arrow counts no lists and no structures.
            return Counter(str(v) for v in self.raw.to_pylist() if v is not None)
        for entry in pc.value_counts(self.trimmed).to_pylist():
            value = entry["values"]
            # NaN differs from itself, and is a missing number.
            if value not in (None, "") and value == value:
                # Added up: Arrow tells -0.0 from 0.0, and Python does not.
                counts[value] += entry["counts"]
        return counts

    @cached_property
    def spelling(self) -> Spelling | None:
        """How its texts spell numbers; None where they are none."""
        if not self.is_text:
            return None
        return spelling_of(
            {v: c for v, c in self.counts.items() if v.lower() not in MARKERS},
            mark=self._mark,
        )

    @cached_property
    def values(self) -> Mapping[str, float]:
        """By text: the number that it is; texts that are none are left out."""
        if self.spelling is not None:
            return self.spelling.values
        return {v: float(v) for v in self.counts if self.is_text and NUMBER.fullmatch(v)}

    @cached_property
    def markers(self) -> list[str]:
        """The spellings of a missing value that occur among its texts; one lone word among numbers is one as
        well.
        """
        if not self.is_text:
            return []
        # Compared in lower case, listed as they are written, since `na` is matched
        # exactly.
        known = [v for v in self.counts if v.lower() in MARKERS]
        others = [v for v in self.counts if v not in known]
        # Beside one other value a word or a sign is the other of two: + and -, yes and
        # unknown.
        if len(others) == 1 and len(known) == 1 and known[0].lower() in _ANSWERS:
            return []
        numeric = [v for v in others if v in self.values]
        # A single word among numbers most likely stands for what is missing.
        if (
            len(others) - len(numeric) == 1
            and len(numeric) >= 3
            and sum(self.counts[v] for v in numeric)
            >= sum(self.counts[v] for v in others) / 2
        ):
            # A plain number that the spelling does not read is a number nevertheless.
            known += [
                v for v in others if v not in self.values and not NUMBER.fullmatch(v)
            ]
        return sorted(known)

    @cached_property
    def present(self) -> Counter[Any]:
        """`counts` without the markers."""
        return (
            Counter({v: c for v, c in self.counts.items() if v not in self.markers})
            if self.markers
            else self.counts
        )

    @property
    def distinct(self) -> int:
        """How many different values there are, markers of a missing value left out."""
        return len(self.present)

    @cached_property
    def filled(self) -> int:
        """Rows that are not missing."""
        return sum(self.present.values())

    @cached_property
    def numeric_share(self) -> float:
        """The share of the filled rows that are a number."""
        if self.is_text:
            return sum(c for v, c in self.present.items() if v in self.values) / max(
                self.filled, 1
            )
        return float(
            pa.types.is_integer(self.type)
            or pa.types.is_floating(self.type)
            or pa.types.is_decimal(self.type)
        )

    @cached_property
    def numbers(self) -> np.ndarray:
        """Each row as a double, NaN where it is missing or none `[N]`."""
        if self.is_text:
            table = {v: n for v, n in self.values.items() if v in self.present}
            return np.array(
                [table.get(v, np.nan) for v in self.trimmed.to_pylist()], np.float64
            )
        column = self.raw.cast(pa.int8()) if pa.types.is_boolean(self.type) else self.raw
        # Moments as microseconds, whatever their unit.
        if pa.types.is_temporal(self.type):
            column = pc.cast(
                pc.cast(column, pa.timestamp("us", tz=getattr(self.type, "tz", None))),
                pa.int64(),
            )
        return np.asarray(
            pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan")),
            np.float64,
        )

    @cached_property
    def has_finite(self) -> bool:
        """Whether any of its numbers is finite."""
        return bool(np.isfinite(self.numbers).any())

    @cached_property
    def whole(self) -> bool:
        """Whether all its numbers are whole."""
        # A missing number is NaN, and does not make the others fractions.
        there = self.numbers[np.isfinite(self.numbers)]
        return bool(len(there)) and bool(np.all(there == np.floor(there)))

    @cached_property
    def codes(self) -> np.ndarray:
        """Each row's value as a whole number from 0, missing ones -1 `[N]`."""
        place = {v: i for i, v in enumerate(self.present)}
        return np.array(
            [place.get(v, -1) if v == v else -1 for v in self.trimmed.to_pylist()],
            np.int64,
        )

    @cached_property
    def named_id(self) -> bool:
        """Whether its name is that of an identifier."""
        return bool(_ID_NAME.search(self.name) or _CAMEL_ID.search(self.name))

    @cached_property
    def recurs(self) -> bool:
        """Whether many rows share their value with two others at least: users and items do, and identifiers
        of a row do not.
        """
        several = sum(count for count in self.present.values() if count >= 3)
        return several >= _RECURRING * self.filled > 0

    def missing_words(self) -> str:
        """How much is missing, to be put at the end of a reason."""
        gone = self.rows - self.filled
        return f", {gone / self.rows:.1%} missing" if gone else ""

    def na(self) -> dict[str, Any]:
        """The option `na` of a feature that reads this column."""
        return {"na": self.markers} if self.markers else {}

    def as_number(self) -> dict[str, Any]:
        """The options of a feature that reads it as numbers."""
        return {
            **(self.spelling.options if self.spelling is not None else {}),
            **self.na(),
        }

    def na_words(self) -> str:
        """Which texts stand for a missing value, to be put at the end of a reason."""
        return (
            f"; {', '.join(quoted(m) for m in self.markers)} {'stand' if len(self.markers) > 1 else 'stands'}"
            " for a missing value"
            if self.markers
            else ""
        )


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = (
            column.combine_chunks() if column.num_chunks else pa.array([], column.type)
        )
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        return _plain(column.dictionary_decode())
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    return column
