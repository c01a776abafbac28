"""The one number that decides which epoch is best: the loss, or a metric of a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from penstock.contracts.learn import Decoder
from penstock.contracts.metric import ANSWER, Metric
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import did_you_mean
from penstock.metrics import known
from penstock.recipe.evaluate import split_watched
from penstock.recipe.schema import Recipe


@dataclass(frozen=True)
class Watched:
    """What is watched, as `train.early_stop.metric` says it."""

    word: str = "loss"
    target: str = ""
    metric: Metric | None = None
    """None: the loss."""

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Which way it gets better."""
        return "lower" if self.metric is None else self.metric.better

    def __str__(self) -> str:
        return self.word


def watched_of(recipe: Recipe, decoders: Mapping[str, Decoder]) -> Watched:
    """What decides which epoch is best: the loss unless the recipe says otherwise.

    Args:
        decoders: by target.

    Raises:
        RecipeError: there is no such target, or it has no such metric.
    """
    word = recipe.train.early_stop.metric if recipe.train.early_stop else "loss"
    if word == "loss":
        return Watched()
    target, title = split_watched(word, decoders)
    # A metric of the recipe's own goes before a known one of the same title.
    metrics = {**known(), **{metric.title: metric for metric in recipe.evaluate.metrics}}
    metric = metrics.get(title)
    if (
        target not in decoders
        or metric is None
        # A curve or a matrix cannot be better or worse than another.
        or not metric.scalar
        or not _judges(metric, decoders[target])
    ):
        words = [
            "loss",
            *(
                f"{name}.{metric.title}"
                for name, decoder in decoders.items()
                for metric in metrics.values()
                if metric.scalar and _judges(metric, decoder)
            ),
        ]
        text = f"{word!r} cannot be watched.{did_you_mean(word, words)} Known: {', '.join(words)}."
        raise RecipeError.of(
            [Problem(("train", "early_stop", "metric"), text)],
            where=f"the recipe {recipe.name}",
        )
    return Watched(word, target, metric)


def _judges(metric: Metric, decoder: Decoder) -> bool:
    """Whether a metric judges what a decoder answers. A decoder of the user's own says it by the metrics that
    it names.
    """
    if decoder.type in ANSWER:
        return decoder.type in metric.kinds
    named = [known()[name] for name in decoder.metrics if name in known()]
    return any(
        set(metric.kinds).issuperset(other.kinds) or metric.title == other.title
        for other in named
    )
