"""Rare spellings of a category are merged into the commoner value that they resemble.

Learnt on the training split: a value is merged into one that is `times` as common and at an edit distance
(Levenshtein 1966) of at most `distance` of its length. Where two are equally near, and where numbers
differ (`ward 1`, `ward 12`), nothing is merged. What was merged is told: in the dataset's facts, in
`changes.json` and by `penstock show`. Values are never merged on the way from one to the next: each goes to
a value that stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from penstock.contracts.data import BatchCleaner, EngineSession
from penstock.contracts.summary import Frequencies
from penstock.core.optional import require
from penstock.parts.cleaners._words import Names, each_text, texts_alone

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MOST = 20_000
"""Different values of a column that are compared, the commonest."""
_AT_ONCE = 256
"""Rare values whose distances are held at once."""
_LONGEST = 1_000
"""Characters of a value that is compared: longer ones are texts, not categories."""


class Spelling(BatchCleaner):
    """Merges rare spellings into the commoner value."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text", "times": 2, "distance": 0.5},
    )

    columns: Names = Field(min_length=1)
    """Columns of categories, as texts."""
    distance: float = Field(0.2, gt=0, le=0.5)
    """Edits for each character of the rarer value, at most."""
    times: float = Field(5.0, gt=1)
    """How many times as common the other value must be."""

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, table: ir.Table, session: EngineSession) -> dict[str, Any]:
        texts_alone("spelling", table, self.columns)
        summaries = {name: Frequencies() for name in self.columns}
        session.summarise(table, summaries)
        return {
            name: self._merged(
                [
                    (value, count)
                    for value, count in summary.result()["values"][:_MOST]
                    if len(value) <= _LONGEST
                ]
            )
            for name, summary in summaries.items()
        }

    def _merged(self, values: Sequence[tuple[str, int]]) -> dict[str, str]:
        """Rare value → what it becomes.

        Args:
            values: with their counts, the commonest first.
        """
        merged: dict[str, str] = {}
        texts, counts = [v for v, _ in values], np.array([n for _, n in values])
        for start in range(0, len(texts), _AT_ONCE):
            rare = texts[start : start + _AT_ONCE]
            # Only commoner ones, which the order puts before the last of these.
            most = counts[start : start + _AT_ONCE]
            common = texts[
                : int(np.searchsorted(-counts, -self.times * most[-1], "right"))
            ]
            if not common:
                continue
            far = _distances(rare, common, self.distance)
            for i, value in enumerate(rare):
                able = counts[: len(common)] >= self.times * most[i]
                near = far[i] <= int(self.distance * len(value))
                alike = [j for j in np.flatnonzero(able & near) if texts[j] not in merged]
                least = min((far[i][j] for j in alike), default=None)
                best = [j for j in alike if far[i][j] == least]
                if len(best) == 1 and not _other_number(value, texts[best[0]]):
                    merged[value] = texts[best[0]]
        return merged

    def notes(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {"merged": dict(facts)}

    def repair(
        self, columns: Mapping[str, pa.Array], facts: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        return {
            name: each_text(column, lambda text, of=facts[name]: of.get(text, text))  # type: ignore[misc]
            for name, column in columns.items()
        }


def _distances(rare: Sequence[str], common: Sequence[str], most: float) -> np.ndarray:
    """Levenshtein distances, (rare, common); beyond what may be merged they are only known to be larger.

    Raises:
        MissingPackage: rapidfuzz is not installed.
    """
    why = "the cleaner `spelling` compares texts with rapidfuzz"
    distance = require("rapidfuzz.distance", extra="clean", why=why).Levenshtein.distance
    cdist = require("rapidfuzz.process", extra="clean", why=why).cdist
    limit = int(most * max(map(len, rare), default=0))
    return np.asarray(cdist(rare, common, scorer=distance, score_cutoff=limit, workers=1))


def _other_number(one: str, other: str) -> bool:
    """Whether the two may name different numbers: their digits differ, unless a sign that is no digit stands
    in `one` where `other` has a digit.
    """
    digits = ["".join(c for c in text if c.isdigit()) for text in (one, other)]
    is_overwritten = len(one) == len(other) and len(digits[0]) < len(digits[1])
    return digits[0] != digits[1] and not is_overwritten
