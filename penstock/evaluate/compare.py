"""The verdict: is the model better than the trivial answer and than the classical one, beyond chance?

Differences are taken on the same resamplings of the same rows (a paired bootstrap), which sees a difference
long before two separate intervals part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.core.identity import derive_seed
from penstock.evaluate.answers import Judged
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.forecast import Naive
from penstock.evaluate.trivial import Trivial
from penstock.metrics import better, measure, percentiles, resampled

JUDGED_BY = {
    "binary": ("roc_auc", "log_loss"),
    "category": ("accuracy", "log_loss"),
    "number": ("r2", "mae"),
    "set": ("average_precision", "log_loss"),
    "sequence": ("accuracy", "log_loss"),
    "series": ("mse_standardised", "mae_standardised"),
    "text": ("bleu", "rouge_l"),
}
"""What decides, and what is asked if that sees nothing."""
_WHY_ALONE = (
    "evaluate.baselines is false",
    "evaluate.baselines is false, or no input holds its variables",
)
FEW = 100
_MOST = 50_000
"""Rows resampled for a difference: so many tell any that matters."""


@dataclass
class Difference:
    """The difference between two models by one metric; above 0 is an advantage, whether
    more or less is better.
    """

    metric: str
    ours: float | None
    theirs: float | None
    low: float | None = None
    high: float | None = None

    @property
    def better(self) -> bool:
        """Whether the first model is better, beyond chance where there is an interval."""
        # With an interval, only a difference that excludes 0 counts.
        if self.low is not None:
            return self.low > 0
        return (
            self.ours is not None
            and self.theirs is not None
            and self._sign * (self.ours - self.theirs) > 0
        )

    @property
    def worse(self) -> bool:
        """Whether the first model is worse, beyond chance where there is an interval."""
        if self.high is not None:
            return self.high < 0
        return (
            self.ours is not None
            and self.theirs is not None
            and self._sign * (self.ours - self.theirs) < 0
        )

    @property
    def _sign(self) -> float:
        return 1.0 if better(self.metric) == "higher" else -1.0

    def __str__(self) -> str:
        text = f"{self.metric} {figure(self.ours)} against {figure(self.theirs)}"
        if self.low is not None and self.high is not None:
            text += (
                f", better by {figure(self.low)} to {figure(self.high)}"
                if self.low > 0
                else f", advantage between {figure(self.low)} and {figure(self.high)}"
            )
        return text


def verdict(
    judged: Judged,
    trivial: Mapping[str, Trivial | Naive],
    classical: Classical,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> str:
    """Write the verdict: a line for each target."""
    if not judged.rows:
        return "nothing was measured: there are no rows to judge by."
    return "\n".join(
        _one(
            judged,
            name,
            trivial.get(name),
            classical,
            resamples,
            confidence,
            derive_seed(seed, "verdict", name),
        )
        for name in judged.kinds
    )


def _one(
    judged: Judged,
    name: str,
    trivial: Trivial | Naive | None,
    classical: Classical,
    resamples: int,
    confidence: float,
    seed: int,
) -> str:
    if name in judged.broken:
        return f"{name}: cannot be judged, for the model answered numbers that are not finite."
    # The second is asked only where the first sees no difference.
    metric, second = JUDGED_BY[judged.kinds[name]]
    rows = f" (only {judged.rows:,} rows were judged)" if judged.rows < FEW else ""
    if trivial is None:
        ours = judged.metrics()[name][metric]
        why = _WHY_ALONE[judged.kinds[name] == "series"]
        return f"{name}: {metric} {figure(ours)}{rows}; compared with nothing ({why})."
    constant = trivial.answers(judged.sample_rows, judged.columns)
    chance = (
        " (not tested against chance: evaluate.bootstrap is 0)" if not resamples else ""
    )
    difference = _difference(judged, name, constant, metric, resamples, confidence, seed)
    boosted = classical.answers.get(name)
    against = (
        None
        if boosted is None
        else _difference(judged, name, boosted, metric, resamples, confidence, seed)
    )
    # No better by the first metric: a weak signal, a missed one, or none.
    if not difference.better:
        by_second = _difference(
            judged, name, constant, second, resamples, confidence, seed
        )
        if by_second.better:
            return (
                f"{name}: weak signal: the model is no better than {trivial.text} by {metric} ({difference}),"
                f" but it is by {second} ({by_second}){rows}.{_of_classical(against, classical)}{chance}"
            )
        # Whether there is a signal at all: the classical model against the trivial
        # answer.
        if (
            boosted is not None
            and _difference(
                judged, name, constant, metric, resamples, confidence, seed, ours=boosted
            ).better
        ):
            return (
                f"{name}: the model has not found the signal that is there: it does not beat {trivial.text}"
                f" beyond chance ({difference}), while {classical.model} reaches {metric}"
                f" {figure(against.theirs if against else None)}{rows}.{chance}"
            )
        return (
            f"{name}: no signal: the model does not beat {trivial.text} beyond chance"
            f" ({difference}){rows}.{chance}"
        )
    return (
        f"{name}: the model beats {trivial.text}"
        f" ({difference}){rows}.{_of_classical(against, classical)}{chance}"
    )


def _of_classical(against: Difference | None, classical: Classical) -> str:
    if against is None:
        return (
            f" It was not compared with {classical.model}:"
            f" {classical.said or 'it has no answer to this target'}."
        )
    if against.better:
        return f" Deep learning pays: it also beats {classical.model} ({against})."
    if against.worse:
        return f" Deep learning does not pay here yet: {classical.model} is better ({against})."
    return f" Deep learning does not pay clearly: {classical.model} is as good within chance ({against})."


def _difference(
    judged: Judged,
    name: str,
    theirs: Mapping[str, np.ndarray],
    metric: str,
    resamples: int,
    confidence: float,
    seed: int,
    *,
    ours: Mapping[str, np.ndarray] | None = None,
) -> Difference:
    truth, weight = judged.truth[name], judged.weight
    mine: Mapping[str, np.ndarray] = judged.answers[name] if ours is None else ours
    sides: list[tuple[Mapping[str, np.ndarray], dict[str, Any]]] = [
        (
            mine,
            {
                "threshold": judged.thresholds[name] if ours is None else 0.5,
                "scale": judged.scales.get(name),
            },
        ),
        # None of the deciding metrics looks at a threshold of the rival's.
        (theirs, {"scale": judged.scales.get(name)}),
    ]
    values = [
        measure([metric], truth, answers, weight, **options)[metric]
        for answers, options in sides
    ]
    # Over all rows; the interval below may rest on fewer.
    found = Difference(metric, *values)
    if resamples and None not in values:
        # rows come in the order of their ids' hash or of the files; the sample was drawn by hash
        some = slice(0, _MOST)
        draws = [
            resampled(
                [metric],
                truth[some],
                {k: v[some] for k, v in answers.items()},
                None if weight is None else weight[some],
                resamples=resamples,
                seed=seed,
                **options,
            )[metric]
            for answers, options in sides
        ]
        # One seed draws the same rows for both sides, so the spread that they share
        # cancels.
        interval = percentiles(found._sign * (draws[0] - draws[1]), confidence)
        if interval:
            centre = found._sign * (values[0] - values[1])
            # The spread falls with the root of the rows, so that of the first _MOST is
            # shrunk to all of them.
            if len(truth) > _MOST:
                middle, shrink = (
                    float(np.nanmedian(found._sign * (draws[0] - draws[1]))),
                    (_MOST / len(truth)) ** 0.5,
                )
                interval = [centre + (edge - middle) * shrink for edge in interval]
            found.low, found.high = interval
    return found


def figure(value: float | None) -> str:
    """Format a number for people; `undefined` for None."""
    if value is None:
        return "undefined"
    size = abs(value)
    if size and (size >= 1e6 or size < 1e-4):
        return f"{value:.2e}"
    return (
        f"{value:,.0f}"
        if size >= 10_000
        else f"{value:.4g}"
        if size >= 10
        else f"{value:.3f}"
        if size >= 0.01 or not size
        else f"{value:.4f}"
    )
