"""Whether a column's values are several labels each: lists, or texts with a delimiter.

Counts in, counts out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

DELIMITERS = (",", ";", "|", "/", " ")
_MOST = 2_000
"""More different labels than this are words, not labels."""
_SEVERAL = 0.02
"""At least this share of the rows has several."""
_RECUR = 5
"""A label is there this often on average; words of a sentence after a comma are not."""


def delimited(present: Mapping[Any, int], filled: int) -> tuple[str, Counter[str]] | None:
    """The delimiter, and rows by label; None if the texts are no labels side by side.

    A label has few words, and different rows combine the same labels differently.
    """
    texts = {value: count for value, count in present.items() if isinstance(value, str)}
    # Values of other types beside texts are no labels side by side.
    if len(texts) < 3 or len(texts) != len(present):
        return None
    for delimiter in DELIMITERS:
        labels: Counter[str] = Counter()
        several = 0
        for text, count in texts.items():
            # A label that stands twice in a text counts once.
            parts = {part.strip() for part in text.split(delimiter)} - {""}
            several += count * (len(parts) > 1)
            for part in parts:
                labels[part] += count
        if several < max(_SEVERAL * filled, 2) or not 2 <= len(labels) <= _MOST:
            continue
        longest = max(len(label.split()) for label in labels)
        # Different rows combine the same labels, so there are fewer labels than texts.
        recurring = sum(labels.values()) >= _RECUR * len(labels) and len(labels) < len(
            texts
        )
        if (
            recurring
            and longest <= 4
            and (
                # A space stands between words as well: only codes and numbers are
                # believed.
                delimiter != " "
                or (
                    len(labels) <= 64
                    and all(label.isdigit() or label.isupper() for label in labels)
                )
            )
        ):
            return delimiter, labels
    return None


def listed(column: pa.Array) -> Counter[str] | None:
    """Rows by label, where lists of texts or whole numbers repeat the same few; None where they do not."""
    flat = pc.list_flatten(column).drop_null()
    if not len(flat):
        return None
    counts = Counter(
        {
            str(entry["values"]): entry["counts"]
            for entry in pc.value_counts(flat).to_pylist()
        }
    )
    return counts if 2 <= len(counts) <= _MOST and len(flat) >= 2 * len(counts) else None
