"""For each label of a row, the share of the row's labels among all that are ranked at least as high, averaged
over the row's labels, then over rows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows


class LabelRankingAveragePrecision(Metric):
    """For each label of a row, the share of the row's labels among all that are ranked at least as high,
    averaged over the row's labels, then over rows; 1 for a row without labels (Tsoumakas, Katakis and
    Vlahavas 2010).
    """

    phrase: ClassVar[str] = (
        "how high a row's true labels are ranked among all labels; 1 is perfect"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("set",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 30

    def statistic(self, rows: Rows) -> np.ndarray:
        # Labels of equal scores all take the last of their ranks, as in scikit-learn.
        if not len(rows):
            return np.empty(0)
        order = np.argsort(-rows.answer, axis=1, kind="stable")
        score = np.take_along_axis(rows.answer, order, 1)
        there = np.take_along_axis(rows.truth, order, 1) > 0
        rank = np.arange(1, rows.classes + 1)
        # Where a run of equal scores ends.
        ends = np.concatenate(
            [score[:, :-1] != score[:, 1:], np.ones((len(score), 1), bool)], axis=1
        )
        # From the right, the nearest end is the last rank of each label's own run.
        last = np.minimum.accumulate(np.where(ends, rank, rows.classes)[:, ::-1], axis=1)[
            :, ::-1
        ]
        # How many of the row's labels are ranked up to there.
        hits = np.take_along_axis(np.cumsum(there, axis=1), last - 1, 1)
        count = there.sum(axis=1)
        shares = np.where(there, hits / last, 0.0).sum(axis=1)
        return np.where(count > 0, shares / np.maximum(count, 1), 1.0)
