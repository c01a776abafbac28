"""`Measures`: update, merge, result; and `measure`, the same in one go.

Each metric is a statistic of rows times a mergeable sum, so training (one rank's batches), evaluation (a
split that does not fit in memory) and a stream (for ever) use the same code. Sums are exact, hence free of
order (`exact.Cells`). Metrics that add up the same share it (`means.grouped`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.contracts.metric import (
    Accumulator,
    Kind,
    Metric,
    Scale,
    Statistic,
    Threshold,
)
from penstock.metrics.means import blaming, grouped, totals_of
from penstock.metrics.names import Named, chosen, kind_of
from penstock.metrics.rows import prepare


class Measures:
    """All metrics of one target, added up over batches: update, merge, result."""

    def __init__(
        self,
        names: Sequence[Named],
        *,
        threshold: Threshold = 0.5,
        scale: Scale = None,
        where_fit: Sequence[Metric] = (),
    ) -> None:
        """
        Args:
            names: metrics, or names of those that come with Penstock (`penstock.metrics.known`).
            threshold: the least probability that is answered as positive; of a set one for all labels, or one
                a label `[K]`.
            scale: the deviation that `mse_standardised` is in units of; the training split's, or None for the
                truth's own.
            where_fit: metrics that are measured if they judge this kind of target, and left out if not.
        """
        self.names, self.threshold, self.scale, self.where_fit = (
            tuple(names),
            threshold,
            scale,
            where_fit,
        )
        self.rows = 0
        self.broken = 0
        """Rows whose answer was not finite; with any, every metric is None."""
        self._kind: Kind | None = None
        """What is judged; None until something was seen."""
        self._metrics: dict[str, Metric] = {}
        self._groups: list[tuple[Statistic, list[Metric]]] = []
        self._sums: list[Accumulator] = []

    def update(
        self,
        truth: np.ndarray,
        answers: Mapping[str, np.ndarray],
        weight: np.ndarray | None = None,
    ) -> None:
        """Add a batch of rows.

        Args:
            truth: class indices `[N]` (0 or 1; 0 … K-1), or numbers `[N]` in the user's units; of a set 1 for
                each label `[N, K]`; of a sequence class indices `[N, T]`, -1 where there is no step.
            answers: `{"probability": [N]}`, `{"probabilities": [N, K]}` (of a sequence `[N, T, K]`) or
                `{"value": [N]}`.
            weight: how much each row counts `[N]`; all alike unless given.

        Raises:
            RecipeError: a name is unknown or does not suit the target.
        """
        # The kind of target, and so the metrics, follow from the first answers.
        if not self._sums:
            self._begin(kind_of(answers, np.asarray(truth)))
        rows = prepare(truth, answers, weight, threshold=self.threshold, scale=self.scale)
        self.rows += len(np.asarray(truth))
        self.broken += rows.broken
        # One broken answer leaves every metric undefined, so nothing more is added up.
        if self.broken:
            return
        for (_, members), accumulator in zip(self._groups, self._sums, strict=True):
            with blaming(members[0], f"on {len(rows):,} rows of a {rows.kind}"):
                accumulator.update(rows)

    def _begin(self, kind: Kind) -> None:
        self._kind = kind
        # The kind is known now, so those of another kind drop out.
        fitting = [metric for metric in self.where_fit if kind in metric.kinds]
        self._metrics = chosen([*self.names, *fitting], kind)
        self._groups = grouped(list(self._metrics.values()), kind)
        self._sums = [statistic.accumulator() for statistic, _ in self._groups]

    def merge(self, other: Measures) -> None:
        """Add everything that `other` has seen (of the same names, threshold and
        scale); `other` is used up.
        """
        self.rows += other.rows
        self.broken += other.broken
        if not self._sums:  # nothing was seen here
            self._kind, self._metrics = other._kind, other._metrics
            self._groups, self._sums = other._groups, other._sums
        elif other._sums:
            for mine, theirs in zip(self._sums, other._sums, strict=True):
                mine.merge(theirs)

    def empty(self) -> Measures:
        """One with the same names, threshold and scale that has seen nothing."""
        return Measures(
            self.names,
            threshold=self.threshold,
            scale=self.scale,
            where_fit=self.where_fit,
        )

    def state(self) -> dict[str, Any]:
        """What was seen, in the words of `Accumulator.state`: for `restore` of one with the same names,
        threshold and scale, perhaps in another process.
        """
        return {
            "kind": self._kind,
            "rows": self.rows,
            "broken": self.broken,
            "sums": [accumulator.state() for accumulator in self._sums],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` described; nothing was seen before.

        Raises:
            ValueError: it describes other metrics.
        """
        if state["kind"] is not None:
            self._begin(state["kind"])
        self.rows, self.broken = int(state["rows"]), int(state["broken"])
        for accumulator, its_state in zip(self._sums, state["sums"], strict=True):
            accumulator.restore(its_state)

    def result(self) -> dict[str, Any]:
        """Return each metric by name; None (JSON null) where it is undefined: no rows,
        one class, an answer that is not finite.
        """
        titles = self._metrics or [
            n if isinstance(n, str) else n.title for n in self.names
        ]
        results: dict[str, Any] = dict.fromkeys(titles)
        if self.broken or not self.rows:
            return results
        for (statistic, members), accumulator in zip(
            self._groups, self._sums, strict=True
        ):
            totals = accumulator.totals()
            for metric in members:
                own = totals_of(metric, statistic, totals)
                with blaming(metric, "on its totals"), np.errstate(all="ignore"):
                    # A statistic may have no totals, as the matrix of too many classes.
                    results[metric.title] = metric.result(own) if own else None
        return results


def measure(
    names: Sequence[Named],
    truth: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weight: np.ndarray | None = None,
    *,
    threshold: Threshold = 0.5,
    scale: Scale = None,
) -> dict[str, Any]:
    """Measure one batch of rows; arguments and errors are those of `Measures`.

    >>> measure(["accuracy", "roc_auc"], np.array([0, 1, 1]), {"probability": np.array([0.2, 0.4, 0.9])})
    {'accuracy': 0.6666666666666666, 'roc_auc': 1.0}
    """
    measures = Measures(names, threshold=threshold, scale=scale)
    measures.update(truth, answers, weight)
    return measures.result()
