"""How well one column alone tells the target.

`init` asks it of a sample, and the report of the test split, so both judge by the same rule. A row is
answered by the other rows alone: those with the same value, or those next to it in order. So a column
with many values cannot shine by memory. Where rows belong to groups (a patient's visits), a row is
answered by other groups. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_ROWS = 40
"""Fewer judged rows say nothing."""
SLACK = 0.02
"""Of the errors of always answering the commonest class, a column that almost perfectly tells the target
leaves at most this share.
"""
FEW_CELLS = 20
"""A column of so few values that fits without an error is believed from `LEAST_FEW` rows of the rarer
classes; others, of which many thresholds could be tried, from `LEAST_MANY`.
"""
LEAST_FEW, LEAST_MANY = 5, 12
APART = 0.9995
"""ROC AUC from which two classes count as ranked apart."""


@dataclass(frozen=True)
class Telling:
    """How many rows a column alone answers rightly."""

    rows: int
    """Judged."""
    errors: float
    """Among them; half an error where two answers are equally likely."""
    to_undo: int
    """Errors of always answering the commonest class."""

    @property
    def score(self) -> float:
        """The share of the trivial answer's errors that is undone: 1 where no error is left."""
        return max(0.0, 1 - self.errors / self.to_undo) if self.to_undo else 0.0

    @property
    def right(self) -> float:
        """The share of the rows answered rightly."""
        return 1 - self.errors / max(self.rows, 1)

    @property
    def base(self) -> float:
        """The share of the commonest class."""
        return 1 - self.to_undo / max(self.rows, 1)

    def almost_perfect(self, *, cells: int) -> bool:
        """Whether so few errors are left that only the target itself explains it.

        Args:
            cells: how many different values the column has.
        """
        least = LEAST_FEW if cells <= FEW_CELLS else LEAST_MANY
        return (
            self.rows >= LEAST_ROWS
            and self.to_undo >= least
            and self.errors <= SLACK * self.to_undo
        )

    @property
    def words(self) -> str:
        """The figures, for a reason."""
        return (
            f"alone it foretells {self.right:.1%} of {self.rows:,} held-out rows (the commonest class:"
            f" {self.base:.1%})"
        )


NOTHING = Telling(0, 0.0, 0)


def telling(hits: np.ndarray, truth: np.ndarray) -> Telling:
    """Sum up answers of rows.

    Args:
        hits: `[n]` 1 where right, 0 where wrong, 0.5 where two answers are equally likely; NaN where no other
            row says anything, which the commonest class answers.
        truth: `[n]` classes from 0.
    """
    if not len(truth):
        return NOTHING
    counts = np.bincount(truth)
    common = int(counts.argmax())
    answered = np.where(np.isnan(hits), truth == common, hits)
    return Telling(
        len(truth), float((1 - answered).sum()), len(truth) - int(counts[common])
    )


def by_value(
    cells: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Answer each row by the commonest class of the other rows with its value.

    Args:
        cells: `[n]` values as whole numbers from 0.
        truth: `[n]` classes from 0.
        groups: `[n]` whole numbers from 0; rows of one group do not answer for each other.

    Returns:
        `[n]` hits, as `telling` takes them.
    """
    if not len(truth):
        return np.empty(0)
    count = int(truth.max()) + 1
    pairs, pair, often = np.unique(
        cells * count + truth, return_inverse=True, return_counts=True
    )
    cell = pairs // count
    # Pairs of a cell side by side, the commonest class first.
    order = np.lexsort((-often, cell))
    first = np.r_[True, cell[order][1:] != cell[order][:-1]]
    starts = np.flatnonzero(first)
    which = np.cumsum(first) - 1
    top = often[order][starts]
    following = np.minimum(starts + 1, len(order) - 1)
    has_second = (starts + 1 < len(order)) & ~first[following]
    second = np.where(has_second, often[order][following], 0)
    cell_of_pair = np.empty(len(pairs), np.int64)
    cell_of_pair[order] = which
    is_top = np.zeros(len(pairs), bool)
    is_top[order[starts]] = True
    taken: np.ndarray | int = 1
    if groups is not None:
        _, part, within = np.unique(
            pair * (int(groups.max()) + 1) + groups,
            return_inverse=True,
            return_counts=True,
        )
        taken = within[part]
    own = often[pair] - taken
    other = np.where(is_top, second[cell_of_pair], top[cell_of_pair])[pair]
    hits = np.where(own > other, 1.0, np.where(own == other, 0.5, 0.0))
    return np.asarray(np.where(own + other > 0, hits, np.nan))


def by_order(
    values: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Answer each row by the two rows below and the two above it, in the order of a number.

    Where two classes meet, the rows on both sides cannot be told by their neighbours; one such place for each
    further class is free, since a threshold would lie there.

    Args:
        values: `[n]` finite numbers.
        truth: `[n]` classes from 0.
        groups: as of `by_value`.

    Returns:
        `[n]` hits, as `telling` takes them.
    """
    rows = len(truth)
    if rows < 5:
        return np.full(rows, np.nan)
    # Equal numbers in an order that owes nothing to that of the file.
    mixed = np.random.default_rng(0).permutation(rows)
    order = mixed[np.argsort(values[mixed], kind="stable")]
    ordered = truth[order]
    before, after = np.arange(rows) - 1, np.arange(rows) + 1
    if groups is not None:
        member = groups[order]
        change = np.flatnonzero(np.r_[True, member[1:] != member[:-1], True])
        run = np.searchsorted(change, np.arange(rows), side="right") - 1
        before, after = change[run] - 1, change[run + 1]
    votes = np.zeros(rows)
    asked = np.zeros(rows)
    for place in (before, before - 1, after, after + 1):
        there = (place >= 0) & (place < rows)
        asked += there
        votes += there & (ordered[np.clip(place, 0, rows - 1)] == ordered)
    share = np.divide(votes, asked, out=np.full(rows, np.nan), where=asked > 0)
    answered = np.where(share > 0.5, 1.0, np.where(share == 0.5, 0.5, 0.0))
    answered[np.isnan(share)] = np.nan
    undecided = np.flatnonzero(answered == 0.5)
    answered[undecided[: 2 * (len(np.unique(truth)) - 1)]] = 1.0
    hits = np.empty(rows)
    hits[order] = answered
    return hits


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks `[n]`, equal values sharing their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray((ends - (count - 1) / 2)[place])


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; 0 where either side never varies."""
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size else 0.0


def roc_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """The Mann-Whitney statistic, equal scores counting half; 0.5 where a class is absent."""
    place = ranks(score)
    yes = int(positive.sum())
    no = len(positive) - yes
    if not yes or not no:
        return 0.5
    return (float(place[positive == 1].sum()) - yes * (yes + 1) / 2) / (yes * no)
