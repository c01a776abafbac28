"""Metrics by name: those that come with Penstock, found on their shelf, and which suit a kind of target.

There is no list to edit: a file in `penstock/parts/metrics` is a metric, and says itself which targets it
judges and where it stands in a report.

A target's kind is read off its answers: `probability` [N] is binary, `value` a number, `probabilities` [N, K]
a category, or a set where the truth is [N, K] as well, and `probabilities` [N, T, K] a sequence (a class for
each step); `values` [N, H, V] is a series; `text` [N] a generated text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from penstock.contracts.metric import ANSWER, Kind, Metric
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import Hints, did_you_mean

Named = str | Metric
"""A metric, or the name of one that comes with Penstock."""


@cache
def known() -> Mapping[str, Metric]:
    """Return the metrics that come with Penstock, by name, in the order of reports."""
    # One object each, with its default options; metrics hold no state.
    metrics = {name: Metric.find(name)() for name in Metric.types()}
    return MappingProxyType(
        dict(sorted(metrics.items(), key=lambda pair: (pair[1].place, pair[0])))
    )


def better(name: str) -> Literal["higher", "lower"]:
    """Return whether higher or lower values of `name` are better; `loss`, which
    training minimises, is known too.

    Raises:
        RecipeError: no such metric.
    """
    if name == "loss":
        return "lower"
    metrics = known()
    if name not in metrics:
        raise RecipeError(
            f"{name!r} is not a metric.{did_you_mean(name, list(metrics))} Known:"
            f" {', '.join(metrics)}."
        )
    return metrics[name].better


def names_for(kind: Kind, *, scalar: bool = False) -> tuple[str, ...]:
    """Return the metrics reported for a target of this kind, best known first; only
    those that are one number if `scalar`.
    """
    return tuple(
        name
        for name, metric in known().items()
        if kind in (metric.kinds if metric.reported is None else metric.reported)
        and (metric.scalar or not scalar)
    )


def metrics_for(kind: Kind, more: Sequence[Metric] = ()) -> tuple[Metric, ...]:
    """Return the metrics reported for a target of this kind, and those of `more` that
    judge it.

    Args:
        more: what a recipe asks for (`evaluate.metrics`); what is reported anyway is not told twice.
    """
    reported = {name: known()[name] for name in names_for(kind)}
    asked = {metric.title: metric for metric in more if kind in metric.kinds}
    # Under a title that is reported already, the recipe's own metric takes its place.
    return tuple({**reported, **asked}.values())


def kind_of(answers: Mapping[str, Any], truth: Any = None) -> Kind:
    """Tell the kind of target from its answers.

    Args:
        answers: by name.
        truth: the target's truth; without it a set cannot be told from a category.
    """
    # Three kinds answer with this name; shapes tell them apart.
    if "probabilities" in answers:
        # A third axis is the steps of a sequence.
        if len(getattr(answers["probabilities"], "shape", ())) == 3:
            return "sequence"
        return "set" if len(getattr(truth, "shape", ())) == 2 else "category"
    for kind, key in ANSWER.items():
        if key in answers:
            return kind
    raise RecipeError(
        f"answers to be measured need one of {', '.join(dict.fromkeys(ANSWER.values()))}; found"
        f" {', '.join(answers) or 'none'}"
    )


def chosen(names: Sequence[Named], kind: Kind) -> dict[str, Metric]:
    """Return the metrics `names` by title, checked against the kind of target.

    Raises:
        RecipeError: with every name that is unknown or does not suit.
    """
    problems: list[Problem] = []
    metrics: dict[str, Metric] = {}
    hint = Hints(known())
    for named in names:
        metric = known().get(named) if isinstance(named, str) else named
        title = named if isinstance(named, str) else named.title
        if metric is None:
            problems.append(
                Problem(
                    (title,),
                    f"is not a metric.{hint(title)} For a {kind}: {', '.join(names_for(kind))}.",
                )
            )
        elif kind not in metric.kinds:
            problems.append(
                Problem(
                    (title,),
                    f"is for a {' or '.join(metric.kinds)}, but this target is a {kind}. Use one"
                    f" of {', '.join(names_for(kind))}.",
                )
            )
        else:
            metrics[title] = metric
    if problems:
        raise RecipeError.of(problems, where="the list of metrics")
    return metrics
