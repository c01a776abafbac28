"""BLEU by sacrebleu (Papineni et al. 2002; Post 2018), from counts that add up over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from penstock.contracts.metric import Accumulator, Kind, Metric, Rows, Statistic, Totals
from penstock.core.optional import require
from penstock.metrics.exact import Cells

COUNTS = 10
"""Of a row: lengths of answer and truth, n-grams that match (1 to 4), n-grams that there are."""


@dataclass(frozen=True)
class WordRuns(Statistic):
    """`counts`, the sums of what sacrebleu counts of each row, `[R, 10]`."""

    def counts(self, rows: Rows) -> np.ndarray:
        """What sacrebleu counts of each row, `[N, 10]`."""
        counts = np.zeros((len(rows), COUNTS))
        if len(rows):
            # sacrebleu's public calls give scores, which do not add up over rows;
            # counts do.
            counts[:] = _bleu()._extract_corpus_statistics(
                list(rows.answer), [list(rows.truth)]
            )
        return counts

    def accumulator(self) -> Accumulator:
        return _Sums(self)

    def resampler(self, rows: Rows) -> Callable[[np.ndarray], Totals]:
        counts = self.counts(rows)
        return lambda weights: {"counts": weights @ counts}


class _Sums(Accumulator):
    """Exact sums, a cell a count."""

    def __init__(self, runs: WordRuns) -> None:
        self.runs = runs
        self.cells = Cells()

    def update(self, rows: Rows) -> None:
        for i, column in enumerate(self.runs.counts(rows).T):
            self.cells.add(i, rows.weight * column)

    def merge(self, other: Self) -> None:
        self.cells.merge(other.cells)

    def totals(self) -> Totals:
        return {"counts": self.cells.floats(COUNTS)[None]}


class Bleu(Metric):
    """How many runs of 1 to 4 words of the answers are in the truths, over all rows together, short answers
    punished (sacrebleu, its `13a` words, exponential smoothing); a share of 1, not of 100.
    """

    phrase: ClassVar[str] = (
        "how many runs of one to four words the answers share with the truth; 1 is perfect"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("text",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 260
    undefined: ClassVar[str] = "no rows, or truths without a word"

    def sums(self, kind: Kind) -> Statistic | None:
        return WordRuns()

    def value(self, totals: Totals) -> np.ndarray:
        return np.array([_score(sums) for sums in totals["counts"]])


def _score(sums: np.ndarray) -> float:
    """BLEU from summed counts `[10]`, as a share of 1; not a number without a word of truth."""
    if not sums[1]:
        return float("nan")
    # only their ratio counts, and it must be of whole numbers
    answer, truth = (round(float(length) * 2**20) for length in sums[:2])
    score = _bleu().compute_bleu(
        correct=sums[2:6].tolist(),
        total=sums[6:].tolist(),
        sys_len=answer,
        ref_len=truth,
        smooth_method="exp",
    )
    return float(score.score) / 100


def _bleu() -> Any:
    return require(
        "sacrebleu.metrics", extra="text-metrics", why="judging generated texts"
    ).BLEU()
