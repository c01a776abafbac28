"""The validation split's verdict on an epoch: its loss, every target's metrics, and the one number that is
watched.

Measures merge exactly, so the verdict is the same whatever the number of processes; only rank 0 merges, all
hear it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from penstock.contracts.learn import World
from penstock.contracts.metric import Metric
from penstock.core.errors import TrainingError
from penstock.core.events import Events
from penstock.core.heartbeat import Heartbeat
from penstock.encode.feed import Feed
from penstock.loader.loader import Loader
from penstock.loader.options import LoaderOptions
from penstock.metrics import Forecasting, Measures
from penstock.recipe.schema import Recipe
from penstock.train.collectives import gathered, shared
from penstock.train.learner import Learner
from penstock.train.watched import Watched

_ROWS = 4096
"""Rows of a validation batch, unless training's are more, or rows are large."""


def validate(
    learner: Learner,
    feed: Feed,
    recipe: Recipe,
    world: World,
    batch_size: int,
    heartbeat: Heartbeat | None = None,
    watched: Watched | None = None,
) -> dict[str, Any]:
    """The validation split, judged with the average of the weights if there is one: `loss` and `targets`; the
    same at every rank.

    Of each target, the metrics that its decoder names are measured, those of the recipe's own that judge it,
    and what is watched.
    """
    learner.network.eval()
    encoding = feed.encoding
    loader = Loader(
        feed,
        split="validation",
        # Nothing is kept for a backward pass, so more rows fit than in training.
        batch_size=max(batch_size, encoding.rows_at_once(_ROWS)),
        seed=recipe.seed,
        # In the order they are stored: metrics do not depend on it, and reading is
        # cheapest.
        order="stored",
        options=LoaderOptions(rank=world.rank, world=world.size),
    )
    measures = _measures(learner, recipe, watched)
    loss = weight = 0.0
    with learner.average.in_place() if learner.average else nullcontext():
        for position, batch in loader.batches(0):
            if heartbeat is not None:
                heartbeat.progress()
            # A collective where weights are divided: it stands before a rank without
            # rows goes on.
            learner.accompany(batch, loader.global_rows(position))
            if not len(batch["row_id"]):
                continue
            weights = batch["weight"].numpy() if "weight" in batch else None
            summed, answers = learner.judge(batch)
            loss += float(summed)
            # In float64, as the sums over batches are.
            weight += (
                float(weights.sum(dtype="float64"))
                if weights is not None
                else len(batch["row_id"])
            )
            for name, measure in measures.items():
                target, fitted = encoding.targets[name], encoding.fitted[name]
                stored = {
                    array: batch[f"{name}.{array}"].numpy()
                    for array in learner.specs[name]
                }
                arrays = {
                    word: answer.cpu().numpy() for word, answer in answers[name].items()
                }
                measure.update(
                    target.truth(stored, fitted), target.judged(arrays, fitted), weights
                )
    states = {name: measure.state() for name, measure in measures.items()}
    everyone = gathered((loss, weight, states), world)
    # Rank 0 alone has what all ranks measured; the others wait for its verdict.
    verdict: dict[str, Any] = shared(
        _together(everyone, measures) if everyone is not None else None, world
    )
    return verdict


def _measures(
    learner: Learner, recipe: Recipe, watched: Watched | None
) -> dict[str, Measures]:
    """By target, what its metrics add up over batches."""
    measures = {}
    for name, decoder in learner.decoders.items():
        facts = {
            fact: value
            for spec in learner.specs[name].values()
            for fact, value in spec.facts.items()
        }
        measures[name] = Measures(
            decoder.metrics,
            scale=Forecasting.of(facts),
            where_fit=_beside(name, recipe, watched),
        )
    return measures


def _together(
    everyone: Sequence[tuple[float, float, dict[str, Any]]], measures: dict[str, Measures]
) -> dict[str, Any]:
    """The verdict over all ranks' (summed loss, summed weight, states of measures).

    Sums are exact (`fsum`), so that the loss does not depend on how many ranks there are.

    Args:
        measures: rank 0's own, to which the others' are added.
    """
    for _, _, states in everyone[1:]:
        for name, measure in measures.items():
            theirs = measure.empty()
            try:
                theirs.restore(states[name])
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(
                    f"another process measured {name} otherwise than this one ({error}). Is the same version"
                    " of Penstock, and of your own metrics, installed on every machine?"
                ) from None
            measure.merge(theirs)
    loss = math.fsum(part[0] for part in everyone)
    weight = max(math.fsum(part[1] for part in everyone), 1e-30)
    return {
        "loss": loss / weight,
        "targets": {name: each.result() for name, each in measures.items()},
    }


def _beside(target: str, recipe: Recipe, watched: Watched | None) -> list[Metric]:
    """What is measured of a target beside the metrics that its decoder names."""
    metrics = list(recipe.evaluate.metrics)
    if watched is not None and watched.metric is not None and watched.target == target:
        metrics.append(watched.metric)
    return metrics


def value_of(
    verdict: Mapping[str, Any] | None, watched: Watched, events: Events
) -> float | None:
    """What decides about the epoch; None without validation, NaN where it is undefined."""
    if verdict is None:
        return None
    value = verdict["loss"]
    if watched.metric is not None:
        value = verdict["targets"][watched.target].get(watched.metric.title)
    if value is None or not math.isfinite(value):
        events.warn(
            f"{watched} is undefined on the validation split (too few rows, one class only, or answers that"
            " are not finite); this epoch does not count as an improvement"
        )
        return math.nan
    return float(value)


def flat(verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    """The verdict as one level: `validation_loss`, and `validation.<target>.<metric>`; empty without one."""
    if verdict is None:
        return {}
    return {
        "validation_loss": verdict["loss"],
        **{
            f"validation.{target}.{metric}": value
            for target, values in verdict["targets"].items()
            for metric, value in values.items()
        },
    }
