"""Rows of the training split whose label is probably wrong, by confident learning (penstock.labels).

A quick model answers each row that it has not seen. Where it is sure of another class, and more often than
the labels of the two classes explain, the row is found. The training split alone is learnt from and judged:
labels that a model is tested on stay as they are. Learning follows the order of the row ids, so every engine
finds the same rows. `penstock labels` shows beforehand what would be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.judge import COLUMN, REASON, Judge
from penstock.contracts.part import mistakes
from penstock.core.errors import Problem
from penstock.labels import Options, find_label_errors
from penstock.parts.cleaners._words import Names

if TYPE_CHECKING:
    import ibis.expr.types as ir


class LabelErrors(Judge):
    """Finds training rows whose label is probably wrong."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"target": "flag", "using": ["number", "text"]},
        {"target": "text", "using": "whole", "folds": 3, "seed": 7, "share": 0.1},
    )
    judges: ClassVar[str] = "train"

    target: str
    """The column with the labels: one class a row."""
    using: Names = Field(min_length=1)
    """Columns that tell the class: numbers, truth values, times, texts, lists of texts. None that gives it
    away, or no error is found.
    """
    folds: int = Field(5, ge=2, le=20)
    """Each row is judged by a model that learnt from the other folds."""
    seed: int = Field(0, ge=0)
    """Of the folds."""
    rank: Literal["self_confidence", "normalised_margin"] = "self_confidence"
    """Of `share`: which rows are the worst: those whose label is least probable, or lies farthest behind the
    likeliest other.
    """
    share: float | None = Field(None, gt=0, le=1)
    """At most this share of the training rows, the worst first; all that are found unless given."""

    @model_validator(mode="after")
    def _others(self) -> LabelErrors:
        if self.target in self.using:
            raise mistakes(
                Problem(
                    ("using",),
                    f"has {self.target!r}, the labels themselves: name the columns that tell the class",
                )
            )
        return self

    def needs(self) -> tuple[str, ...]:
        return (self.target, *self.using)

    def runs_after_split(self) -> bool:
        return True

    def violations(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        import ibis

        narrow = table.select(ROW_ID, *self.needs())

        def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
            return session.batches(narrow.select(ROW_ID, *columns).order_by(ROW_ID))

        kinds = {field.name: field.type for field in narrow.schema().to_pyarrow()}
        options = Options(
            self.target, self.using, self.folds, self.seed, self.rank, listed=0
        )
        errors = find_label_errors(read, kinds, options, session.folder())
        suspects = session.read([errors.file])
        if self.share is not None:
            most = int(self.share * errors.rows)
            suspects = suspects.order_by([self.rank, ROW_ID]).limit(most)
        # How far the given label lies before the likeliest other goes from -1 to 1.
        lead = 2 * suspects.normalised_margin - 1
        reason = ibis.literal("labelled ").concat(
            suspects.given,
            ": the quick model, which has not seen the row, gives that ",
            _percent(suspects.self_confidence),
            " and ",
            suspects.suggested,
            " ",
            _percent(suspects.self_confidence - lead),
        )
        return suspects.select(
            suspects[ROW_ID], ibis.literal(self.target).name(COLUMN), reason.name(REASON)
        )


def _percent(share: Any) -> Any:
    return (share * 100).round().cast("int64").cast("string").concat(" %")
