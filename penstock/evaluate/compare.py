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
from penstock.core.wording import counted
from penstock.evaluate.answers import Judged
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.forecast import Naive
from penstock.evaluate.trivial import Trivial
from penstock.metrics import better, known, measure, percentiles, resampled

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
_WHY_ALONE = {
    "series": "`evaluate.baselines` is false, or no input holds its variables",
    "sequence": "`evaluate.baselines` is false, or its steps have no items",
}
_NO_MARGIN = " The margin of error is unknown, because `evaluate.bootstrap` is 0."
FEW = 100
"""Figures of fewer rows are rough."""
FEW_POSITIVES = 10
"""Fewer rows of the rarer value, or beside the commonest class, tell nothing beyond chance: a resampling of
them shows too narrow an interval.
"""
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
        if self.ours is None or self.theirs is None:
            known_one = self.theirs if self.ours is None else self.ours
            return f"{self.metric} {figure(known_one)}, which the other has no value of"
        text = f"{self.metric} {figure(self.ours)} against {figure(self.theirs)}"
        if self.low is not None and self.high is not None:
            low, high = figure(self.low), figure(self.high)
            if low == high:
                return f"{text}, {f'better by {low}' if self.low > 0 else f'difference {low}'}"
            text += (
                f", better by {low} to {high}"
                if self.low > 0
                else f", difference {low} to {high}"
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
    leads: Mapping[str, str] | None = None,
) -> str:
    """Write the verdict: a line for each target.

    Args:
        leads: by target, the metric that training watched: it decides in the place of the usual one.
    """
    if not judged.rows:
        return "Nothing was measured: there are no rows to judge by."
    return "\n".join(
        _one(
            judged,
            name,
            trivial.get(name),
            classical,
            resamples,
            confidence,
            derive_seed(seed, "verdict", name),
            (leads or {}).get(name),
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
    lead: str | None,
) -> str:
    if name in judged.broken:
        return f"{name}: cannot be judged, because the model gave answers that are not finite numbers."
    # The second is asked only where the first sees no difference, or has no value.
    (metric, second), left_out = _deciding(judged, name, lead)
    rows = _few(judged)
    if judged.metrics()[name].get(metric) is None:
        why = known()[metric].undefined
        return f"{name}: cannot be judged on these rows: {metric} has no value where {why}.{rows}"
    boosted = classical.answers.get(name)
    against = (
        None
        if boosted is None
        else _difference(judged, name, boosted, metric, resamples, confidence, seed)
    )
    notes = f"{left_out}{rows}{'' if resamples else _NO_MARGIN}"
    if trivial is None:
        return f"{name}: {_alone(judged, name, metric, against, classical)}{notes}"
    constant = trivial.answers(judged.truth[name], judged.columns)
    beside = _of_classical(name, against, classical)
    beside += _no_better_itself(judged, name, boosted, constant, metric)
    few = _too_few(judged, name)
    if few:
        figures = _difference(judged, name, constant, metric, 0, confidence, seed)
        return f"{name}: {few} Against {trivial.text}: {figures}.{notes}"
    difference = _difference(judged, name, constant, metric, resamples, confidence, seed)
    if difference.better:
        return (
            f"{name}: the network is clearly better than {trivial.text}"
            f" ({difference}).{beside}{notes}"
        )
    # No better by the first metric: a weak signal, a missed one, or none.
    than = f"{_not_better(difference)} {trivial.text} ({difference})"
    by_second = _difference(judged, name, constant, second, resamples, confidence, seed)
    if second != metric and by_second.better:
        return (
            f"{name}: the signal is weak. By {metric} the network {than}; by {second} it is clearly better"
            f" ({by_second}).{beside}{notes}"
        )
    # Whether there is a signal at all: the classical model against the trivial answer.
    if (
        boosted is not None
        and _difference(
            judged, name, constant, metric, resamples, confidence, seed, ours=boosted
        ).better
    ):
        return (
            f"{name}: the network misses a signal that is in the data. It {than}, while"
            f" {classical.named(name)} reaches {metric} {figure(against.theirs if against else None)}.{notes}"
        )
    # What a naive repeat answers is a signal, and so is what no rival looked for.
    if difference.worse and (boosted is None or judged.kinds[name] == "series"):
        against_classical = _of_classical(name, against, classical, also="")
        return f"{name}: the network {than}.{against_classical}{notes}"
    return f"{name}: no signal was found. The network {than}.{notes}"


def _not_better(difference: Difference) -> str:
    return "is clearly worse than" if difference.worse else "is not clearly better than"


def _too_few(judged: Judged, name: str) -> str:
    """Say that too few rows are beside the commonest class to compare by; empty where enough are."""
    if judged.kinds[name] not in ("binary", "category"):
        return ""
    truth = judged.truth[name]
    _, counts = np.unique(truth, return_counts=True)
    beside = len(truth) - int(counts.max())
    if beside >= FEW_POSITIVES:
        return ""
    rows = counted(len(truth), "row")
    which = (
        f"{beside} of {rows} {'is' if beside == 1 else 'are'} of another class than the commonest"
        if beside
        else f"only one class occurs in {rows}"
    )
    return (
        f"there are too few rows to compare by, since {which}; with fewer than {FEW_POSITIVES} a difference"
        " may be chance."
    )


def _few(judged: Judged) -> str:
    if judged.rows >= FEW:
        return ""
    return (
        f" Only {counted(judged.rows, 'row')} could be judged, so the figures are rough."
    )


def _alone(
    judged: Judged,
    name: str,
    metric: str,
    against: Difference | None,
    classical: Classical,
) -> str:
    """Say how good the answers are where there is no trivial one."""
    ours = f"{metric} is {figure(judged.metrics()[name][metric])}."
    if against is not None:
        return f"{ours}{_of_classical(name, against, classical, also='')}"
    why = _WHY_ALONE.get(judged.kinds[name], "`evaluate.baselines` is false")
    return f"{ours} There is no comparison: {why}."


def _deciding(judged: Judged, name: str, lead: str | None) -> tuple[tuple[str, str], str]:
    """Return the two metrics that decide, and a sentence on one that has no value on these rows."""
    metric, second = JUDGED_BY[judged.kinds[name]]
    figures = judged.metrics()[name]
    # A metric that a reader cannot compare (one of the user's own, say) decides nothing.
    if lead in known() and figures.get(lead or "") is not None:
        metric = lead or metric
    if figures.get(metric) is None and figures.get(second) is not None:
        why = known()[metric].undefined
        return (second, second), f" {metric} cannot be computed on these rows: {why}."
    return (metric, second), ""


def _no_better_itself(
    judged: Judged,
    name: str,
    rival: Mapping[str, np.ndarray] | None,
    constant: Mapping[str, np.ndarray],
    metric: str,
) -> str:
    """Say that the classical model is itself no better than the trivial answer: to beat it proves nothing."""
    if rival is None:
        return ""
    figures = _difference(judged, name, constant, metric, 0, 0.95, 0, ours=rival)
    if None in (figures.ours, figures.theirs) or figures.better:
        return ""
    return f" That model is itself no better than the trivial answer ({figures})."


def _of_classical(
    target: str, against: Difference | None, classical: Classical, *, also: str = "also "
) -> str:
    if against is None:
        why = classical.note or "it cannot answer this target"
        return f" It was not compared with {classical.named(target)}: {why}."
    name = classical.named(target)
    if against.ours is None or against.theirs is None:
        why = known()[against.metric].undefined
        return f" It was not compared with {name}: {against.metric} has no value where {why}."
    if against.better:
        return f" It is {also}clearly better than {name} ({against})."
    if against.worse:
        return f" {name[0].upper()}{name[1:]} is clearly better than the network ({against})."
    return (
        f" It is not clearly better than {name}; the difference is within the margin of error"
        f" ({against})."
    )


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
    difference = Difference(metric, *values)
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
        interval = percentiles(difference._sign * (draws[0] - draws[1]), confidence)
        if interval:
            centre = difference._sign * (values[0] - values[1])
            # The spread falls with the root of the rows, so that of the first _MOST is
            # shrunk to all of them.
            if len(truth) > _MOST:
                middle, shrink = (
                    float(np.nanmedian(difference._sign * (draws[0] - draws[1]))),
                    (_MOST / len(truth)) ** 0.5,
                )
                interval = [centre + (edge - middle) * shrink for edge in interval]
            difference.low, difference.high = interval
    return difference


def tiny(metric: str, value: Any) -> str:
    """Return a small figure of a metric without a unit in four places; empty where the figure is to be
    written in another way.

    The smallest are `<0.0001`. A figure in a target's own units keeps its digits.
    """
    metrics = known()
    if metric not in metrics or {"number", "series"} & {*metrics[metric].kinds}:
        return ""
    if not isinstance(value, float) or not 1e-15 <= value < 5e-4:
        return ""
    return "<0.0001" if value < 5e-5 else f"{value:.4f}"


def figure(value: float | None) -> str:
    """Format a number for people; `undefined` for None. What is next to nothing is 0."""
    if value is None:
        return "undefined"
    size = abs(value)
    # A remainder of rounding, such as an r2 of 7e-18, says nothing more than 0.
    if size < 1e-15:
        return "0"
    if size >= 1e9 or size < 1e-4:
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
