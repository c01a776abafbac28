"""What a recipe says of measuring: metrics, intervals, slices, baselines; and the metric that is watched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from penstock.contracts.amounts import Seconds
from penstock.contracts.metric import ANSWER, Metric
from penstock.contracts.part import Strict, mistakes
from penstock.core.errors import Problem
from penstock.core.near import did_you_mean
from penstock.recipe.identifiers import Names


class Evaluate(Strict):
    """What is measured on the test split."""

    metrics: list[Metric] = []
    """Metrics beside those that every target of a kind gets: your own (`acme.hit_rate`), or another form of a
    built-in one (`{type: ece, bins: 30, name: ece_30}`). Each is measured of every target that it judges, on
    the validation split as well, so that `train.early_stop` can watch it.
    """
    slices: Names = ()
    """Columns by whose values the metrics are also given; the worst slices of all columns are looked for
    anyway.
    """
    confidence: float = Field(0.95, gt=0.5, lt=1)
    bootstrap: int = Field(200, ge=0)
    """Resamplings of the test rows behind each confidence interval; 0 for none."""
    baselines: bool = True
    """Compare with the trivial answer and with the best of a few quick classical models (boosting, linear,
    nearest neighbours, ridge), on at most 200,000 rows, fewer where they are wide.
    """
    baseline_budget: Seconds = 60.0
    """About how long the classical models may take, all together, in time of one core: `60s`, `5min`, or a
    number of seconds. They learn from as many rows as fit it; the report says how many.
    """

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(
        self, whole: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """`metrics` and the budget came later: they are left out where they say nothing, so that ids stay
        what they were.
        """
        fields: dict[str, Any] = whole(self)
        if not self.metrics:
            fields.pop("metrics", None)
        if self.baseline_budget == type(self).model_fields["baseline_budget"].default:
            fields.pop("baseline_budget", None)
        return fields

    @model_validator(mode="after")
    def _one_of_a_name(self) -> Evaluate:
        # Reports list metrics by title, so no two may share one.
        built_in = set(Metric.types())
        problems: list[Problem] = []
        titles: set[str] = set()
        for i, metric in enumerate(self.metrics):
            title = metric.title
            if title in titles:
                problems.append(
                    Problem(
                        ("metrics", i),
                        f"has the same name as another, {title!r}. Give it a `name`",
                    )
                )
            # A built-in metric may be asked for by name as long as it keeps its own
            # options.
            elif title in built_in and metric != Metric.find(title)():
                problems.append(
                    Problem(
                        ("metrics", i),
                        f"has the name of a metric of Penstock, {title!r}. Give it a `name`",
                    )
                )
            titles.add(title)
        if problems:
            raise mistakes(*problems)
        return self

    def metric(self, title: str) -> Metric | None:
        """Return the recipe's own metric of this title; None if there is none."""
        return next((metric for metric in self.metrics if metric.title == title), None)

    def problems(self, kinds: Mapping[str, str]) -> list[Problem]:
        """Return problems of metrics that judge none of the targets.

        Args:
            kinds: by target, its decoder's type. Of a decoder of the user's own nobody knows the kind of
                target before it answers.
        """
        # A decoder of the user's own answers in a kind that nobody knows yet.
        if not kinds or not set(kinds.values()) <= set(ANSWER):
            return []
        targets = ", ".join(f"{name} is a {kind}" for name, kind in kinds.items())
        return [
            Problem(
                ("evaluate", "metrics", i),
                f"{metric.title!r} is for a {' or '.join(metric.kinds)}, but no target is"
                f" one: {targets}",
            )
            for i, metric in enumerate(self.metrics)
            if not set(metric.kinds) & set(kinds.values())
        ]

    def watched_problems(self, word: str, targets: Iterable[str]) -> list[Problem]:
        """Return why `word` cannot be watched, as far as the recipe alone can tell.

        Args:
            word: what `train.early_stop.metric` says.
            targets: the recipe's, by name.
        """
        names = list(targets)
        if word == "loss" or not names:
            return []
        target, metric = split_watched(word, names)
        text = ""
        if target not in names:
            text = (
                f"{word!r} cannot be watched.{did_you_mean(target, names)} Known: loss, or TARGET.METRIC with"
                f" one of the targets {', '.join(names)}."
            )
        elif "." in metric and self.metric(metric) is None:
            text = f"{word!r} cannot be watched: {metric!r} is not measured. Name it in evaluate.metrics"
        return [Problem(("train", "early_stop", "metric"), text)] if text else []


def split_watched(word: str, targets: Iterable[str]) -> tuple[str, str]:
    """Split `<target>.<metric>` into (target, metric). Both may have dots in their
    names, so the longest target wins.

    Args:
        word: what `train.early_stop.metric` says.
        targets: the recipe's.
    """
    # The longest target first, since one target's name may begin another's.
    for target in sorted(targets, key=len, reverse=True):
        if word.startswith(f"{target}."):
            return target, word.removeprefix(f"{target}.")
    target, _, metric = word.rpartition(".")
    return target, metric
