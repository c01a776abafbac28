"""Cleaners of a user's own that judge rows, one of each form."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.judge import BatchJudge


class FarAbove(BatchJudge):
    """Finds numbers over twice the mean of all rows: two passes."""

    column: str
    after: bool = False
    """Judge the training split alone, after the split."""
    judges: ClassVar[str] = "train"

    def needs(self):
        return (self.column,)

    def runs_after_split(self):
        return self.after

    def gather(self, batches, facts):
        total, rows = 0.0, 0
        for columns in batches:
            total += pc.sum(columns[self.column]).as_py() or 0.0
            rows += len(columns[self.column])
        return total / max(rows, 1)

    def judge(self, columns, facts, gathered):
        values = columns[self.column].to_pylist()
        texts = [
            f"found {v:g}, over twice the mean"
            if v is not None and v > 2 * gathered
            else None
            for v in values
        ]
        return {self.column: pa.array(texts, pa.string())}
