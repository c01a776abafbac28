"""What is remembered of how data was read, so that whatever comes later is read likewise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa


@dataclass(frozen=True)
class Learnt:
    """How data was read that something was learnt from; whatever comes later is read likewise."""

    schema: pa.Schema
    """Its columns, by the names that a recipe uses, with their types."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """The words with which the recipe's source said how files are read, without paths."""
    commas: frozenset[str] = frozenset()
    """Columns of text that a feature reads as numbers with a decimal comma: a number of a file that becomes
    text in one of them is spelt so.
    """

    def types(self) -> dict[str, str]:
        """The types that the recipe forced."""
        types = self.reading.get("types") or {}
        return dict(types) if isinstance(types, Mapping) else {}

    def na(self) -> tuple[str, ...]:
        """The texts that stood for a missing value."""
        texts = self.reading.get("na") or ()
        # A recipe may give one text without a list.
        return (texts,) if isinstance(texts, str) else tuple(map(str, texts))


class Alike:
    """What a source can be asked for when rows must be read as others were.

    By default it is read as it is, which is right where types do not follow from values.
    """

    def typed(self, columns: pa.Schema) -> Self:
        """The source with these columns in these types, whatever its rows look like; a value that is not of
        its column's type is null.
        """
        return self

    def like(self, learnt: Learnt) -> Self:
        """The source, read as the data was that something was learnt from: its types, names and words stand,
        whatever these rows by themselves look like.
        """
        return self
