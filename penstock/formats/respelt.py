"""Cells of text as numbers and dates are spelt everywhere else, by the words of a source that say how its
files write them: `decimal`, `thousands`, `date_format`.

A column takes part if all of its texts are written so. A column of numbers of which some are not is refused:
its texts would mean one thing in this file, and another in a file that has the others alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.formats.written import Written


@dataclass(frozen=True)
class Respelling:
    """How a column's texts are written."""

    decimal: str | None = None
    thousands: str | None = None
    date_format: str | None = None

    @staticmethod
    def of(words: Mapping[str, Any], column: str) -> Respelling | None:
        """What the words of a source say of a column; None where they say nothing."""
        given = [words.get(word) for word in ("decimal", "thousands", "date_format")]
        mine = [v.get(column) if isinstance(v, Mapping) else v for v in given]
        return Respelling(*mine) if any(value is not None for value in mine) else None

    @cached_property
    def written(self) -> Written | None:
        """How its numbers are written; None: as everywhere."""
        if self.decimal is None and self.thousands is None:
            return None
        decimal = self.decimal or ("," if self.thousands == "." else ".")
        return Written(decimal, self.thousands)

    def read(self, texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """Texts `[n]` in plain spelling, those that are not written so as they are; and where they are
        written so (bool `[n]`; a missing one is).
        """
        plain = pa.nulls(len(texts), pa.string())
        if self.written is not None:
            plain = self.written.plain(texts)
        if self.date_format is not None:
            plain = pc.coalesce(plain, _iso(texts, self.date_format))
        fits = pc.or_(plain.is_valid(), texts.is_null())
        return pc.coalesce(plain, texts), np.asarray(
            fits.to_numpy(zero_copy_only=False), bool
        )

    def plain(self, texts: pa.Array) -> pa.Array:
        """Texts `[n]` in plain spelling; others as they are."""
        return self.read(pc.utf8_trim_whitespace(texts))[0]

    def words(self) -> str:
        """The words of a recipe that say so."""
        given = [
            f"`{word}: '{value}'`"
            for word, value in (
                ("decimal", self.decimal),
                ("thousands", self.thousands),
                ("date_format", self.date_format),
            )
            if value is not None
        ]
        return ", ".join(given)


def _iso(texts: pa.Array, format: str) -> pa.Array:
    """Texts of a format of strptime as ISO 8601; null where they are not written so."""
    # Each distinct text is read once.
    coded = texts.dictionary_encode()
    words = [_moment(text, format) for text in coded.dictionary.to_pylist()]
    return pa.array(words, pa.string()).take(coded.indices)


@lru_cache
def bad_format(format: str) -> str | None:
    """Why no text can be read by a format of strptime, or None."""
    # An empty text merely does not match; a wrong directive says so.
    try:
        datetime.strptime("", format)
    except ValueError as error:
        if "directive" in str(error) or "stray" in str(error):
            return f"{format!r} is not understood: {error}"
    moment = datetime(2003, 4, 5, 6, 7, 8)
    if "%" not in format or moment.strftime(format) == format:
        return f"{format!r} names no part of a date, such as %Y"
    return None


def _moment(text: str, format: str) -> str | None:
    try:
        moment = datetime.strptime(text, format)
    except ValueError:
        return None
    # strptime takes fewer digits than the format writes; of digits alone that is
    # ambiguous.
    if text.isascii() and text.isdigit() and moment.strftime(format) != text:
        return None
    return moment.isoformat()
