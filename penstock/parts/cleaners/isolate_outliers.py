"""Rows that are unlike the others, found by an isolation forest over columns of numbers.

Trees cut the numbers at random; a row that few cuts part from all others is odd (Liu, Ting and Zhou 2008,
Isolation forest, ICDM). The score is theirs: near 1 for a row that is parted at once, below 0.5 for a usual
one. Unlike `clip_outliers` it finds a combination that is odd though each of its numbers is usual.

The forest grows on a bounded sample of the training split, drawn by row id and seed, and judges every row by
itself, batch by batch: so the same rows are found on every engine. Rows of a given validation or test split
stay, odd or not: they are what the model is measured on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.digest import md5
from penstock.contracts.judge import (
    GIVEN,
    SPLIT,
    Columns,
    Judge,
    streamed,
    violation_rows,
    written,
)
from penstock.contracts.part import mistakes
from penstock.core.errors import ContractError, Problem
from penstock.core.optional import require
from penstock.parts.cleaners._words import Names, refuse_type

if TYPE_CHECKING:
    import ibis.expr.types as ir

_SCORE = 0.65
"""Where neither `score` nor `share` is given."""
_LARGEST = 1e38
"""The forest works with single precision."""


class IsolateOutliers(Judge):
    """Finds rows whose numbers, together, are unlike those of the training split."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": ["number", "whole"], "trees": 20},
        {"columns": "number", "share": 0.1, "trees": 20, "seed": 2},
    )

    columns: Names = Field(min_length=1)
    """Columns of numbers that are looked at together. A missing number counts as the median."""
    score: float | None = Field(None, gt=0, lt=1)
    """A row with a higher score is found; 0.65 unless given. 0.5 is a usual row, 1 as odd as can be."""
    share: float | None = Field(None, gt=0, le=0.5)
    """Instead of `score`: the score that this share of the sampled training rows exceeds. So many rows are
    found however clean the data is.
    """
    trees: int = Field(100, ge=1, le=1000)
    rows: int = Field(20_000, ge=2, le=200_000)
    """Training rows that are sampled at most; each tree grows on 256 of them."""
    seed: int = 0
    """Of the sample and the cuts."""

    @model_validator(mode="after")
    def _one_limit(self) -> IsolateOutliers:
        if self.score is not None and self.share is not None:
            raise mistakes(Problem(("share",), "give either `score` or `share`"))
        return self

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def runs_after_split(self) -> bool:
        return True

    def violations(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        for name in self.columns:
            kind = table[name].type()
            if not (kind.is_integer() or kind.is_floating() or kind.is_boolean()):
                raise refuse_type("isolate_outliers", table, name, "numbers")
        sample = self._sample(table, session)
        with np.errstate(all="ignore"):
            middle = np.nan_to_num(np.nanmedian(sample, axis=0))
        forest = require(
            "sklearn.ensemble", extra="train", why="the cleaner isolate_outliers"
        ).IsolationForest(
            n_estimators=self.trees,
            max_samples=min(256, len(sample)),
            random_state=self.seed % 2**32,
        )
        sample = _whole(sample, middle)
        forest.fit(sample)
        limit = _SCORE if self.score is None else self.score
        if self.share is not None:
            limit = float(np.quantile(_scores(forest, sample), 1 - self.share))

        def judged(columns: Columns) -> pa.Table:
            scores = _scores(forest, _whole(self._numbers(columns), middle))
            reasons: list[str | None] = [None] * len(scores)
            for row in np.flatnonzero(scores > limit):
                reasons[row] = (
                    f"is unlike the other rows in {', '.join(self.columns)}: its isolation score is"
                    f" {scores[row]:.3f}, the limit {limit:.3f}"
                )
            return violation_rows(columns[ROW_ID], {"": pa.array(reasons, pa.string())})

        ours = table.filter(~table[GIVEN]) if GIVEN in table.columns else table
        rows = streamed(session, ours.select(ROW_ID, *self.columns))
        return written(session, map(judged, rows))

    def _sample(self, table: ir.Table, session: EngineSession) -> np.ndarray:
        """The numbers of the sampled training rows, (rows, columns)."""
        train = table
        if SPLIT in table.columns:
            train = table.filter(table[SPLIT] == "train")
        drawn = train.select(ROW_ID, *self.columns).mutate(
            __p_chance=md5(train[ROW_ID] + f"|isolate:{self.seed}")
        )
        drawn = drawn.order_by("__p_chance").limit(self.rows)
        pieces = [self._numbers(columns) for columns in streamed(session, drawn)]
        sample = np.concatenate(pieces) if pieces else np.empty((0, len(self.columns)))
        if len(sample) < 2:
            raise ContractError(
                f"isolate_outliers: found {len(sample)} training rows; a forest needs at least 2. Look at"
                " what `where`, `expect` and the cleaners above it leave."
            )
        return sample

    def _numbers(self, columns: Columns) -> np.ndarray:
        """As doubles, (rows, columns); missing is NaN."""
        return np.column_stack(
            [
                np.asarray(
                    columns[name]
                    .cast(pa.float64(), safe=False)
                    .to_numpy(zero_copy_only=False),
                    np.float64,
                )
                for name in self.columns
            ]
        )


def _whole(numbers: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """As the forest takes numbers: none missing, none beyond single precision."""
    known = np.where(np.isnan(numbers), middle, numbers)
    return np.clip(known, -_LARGEST, _LARGEST).astype(np.float32)


def _scores(forest: Any, rows: np.ndarray) -> np.ndarray:
    return -np.asarray(forest.score_samples(rows))
