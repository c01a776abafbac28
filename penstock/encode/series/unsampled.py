"""Series that are measured by nothing: those of a split that have no whole window with its horizon in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Unsampled:
    """How many series and steps of a split are in no sample."""

    series: int
    """That have a step in the split."""
    without: int
    """Of them, those that no sample of the split is of: too short, broken by gaps, or refused."""
    refused: int
    """Steps of the split that a feature refused; they are in no sample."""

    def sentences(self, rows: str) -> list[str]:
        """Sentences for the user; none where nothing is missing.

        Args:
            rows: what the rows are called, such as `the test split`.
        """
        sentences = []
        if self.without:
            sentences.append(
                f"{self.without:,} of {self.series:,} series of {rows} have no whole window with"
                " its horizon there (too few steps in a row, or steps that were refused), so nothing of them"
                " is measured"
            )
        if self.refused:
            sentences.append(
                f"{self.refused:,} steps of {rows} were refused by a feature and are in no sample"
            )
        return sentences


def count_series(
    files: Sequence[Path], entity: Sequence[str], split: tuple[str, int]
) -> int:
    """How many series have rows of a split, in files that are sorted by series.

    Args:
        split: the column that tells a row's split, and what it has there.
    """
    count, last = 0, None
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(columns=[*entity, split[0]]):
            mine = batch.filter(pc.equal(batch.column(split[0]), split[1]))
            # Without an entity, all rows are one series.
            if mine.num_rows and not entity:
                return 1
            keys: list[Any] = list(
                zip(*(mine.column(name).to_pylist() for name in entity), strict=True)
            )
            # Files are sorted by series, so each change of key is one more; `last`
            # carries over batches.
            count += sum(
                one != before for before, one in zip([last, *keys], keys, strict=False)
            )
            last = keys[-1] if keys else last
    return count
