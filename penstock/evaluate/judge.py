"""Evaluates a bundle from top to bottom: answers the test split, measures, compares,
slices, concludes.

Everything is measured over all rows of the split in one streamed pass, in bounded memory. What needs rows at
hand (intervals, slices, the classical model) uses a uniform sample of at most `answers.SAMPLE` of them,
chosen by the hash of the row id; fewer where rows are wide. Up to that many rows the sample is the whole
split.

What this room refuses to know: torch, and how a program is run (the Predictor knows).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penstock.contracts.features import reach_of
from penstock.core.events import Events
from penstock.core.identity import derive_seed
from penstock.core.near import Hints
from penstock.core.wording import counted
from penstock.encode.series.sampled_dataset import SampledDataset, as_samples
from penstock.evaluate.answers import Judged, answer_split
from penstock.evaluate.classical import classical_model
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.compare import verdict
from penstock.evaluate.forecast import Naive
from penstock.evaluate.giveaways import giveaways
from penstock.evaluate.plain_facts import plain_facts
from penstock.evaluate.sentences import rows_of
from penstock.evaluate.slices import declared_slices, worst_slices
from penstock.evaluate.trivial import Trivial, trivial_answers
from penstock.metrics import intervals, measure
from penstock.recipe.evaluate import split_watched
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    from penstock.bundle.bundle import Bundle
    from penstock.encode.series.unsampled import Unsampled
    from penstock.prepare.dataset import Dataset


def evaluate(
    bundle: Bundle,
    dataset: Dataset | SampledDataset,
    recipe: Recipe,
    events: Events,
    *,
    label: str | None = None,
    no_rival: str = "",
) -> dict[str, Any]:
    """Measure a bundle on a dataset's test split.

    Args:
        bundle: what is judged, through its Predictor.
        dataset: whose `test` rows are answered (`validation` if there are none, with a warning); baselines
            learn from `train`.
        recipe: for `evaluate` and `seed`.
        events: told of progress and of every choice.
        label: what the report calls the split; its own name unless given.
        no_rival: why no classical model is to be compared, if none is.

    Returns:
        JSON-ready: `split` (which was used), `rows` (measured), `refused` (rows a feature could not accept,
        not measured), `series` (where rows are steps: `all` of the split, those `without_samples`, and
        `steps_refused`; else null), `metrics` {split: {target: {metric: value}}}, `intervals` {target:
        {metric: [low, high]}}, `baseline` {target: {metric: value}} (the trivial answer, described in
        `trivial`), `classical` {`model`, `rows`, `of_rows`, `seconds`, `budget_seconds`, `metrics` {target:
        {metric: value}}, `models` {target: name}, `tried` {target: [every model with its figures]}}
        (or `said`: why not),
        `slices` [{`target`, `column`, `value`, `rows`, `metric`, `value_of_metric`, `whole`, `declared`}],
        `verdict` (a line a target), `plain` {target: what a sentence can be made of}, `giveaways` {target
        with a near-perfect score: [{`column`, `why`}] of the inputs that alone give it}, `overlap` (of train
        and test, from the dataset), `notes`, `seconds`.
    """
    started = time.perf_counter()
    options = recipe.evaluate
    # Steps are as far apart as they were where the bundle learnt.
    if not isinstance(dataset, SampledDataset):
        dataset = as_samples(
            dataset,
            recipe,
            distance=bundle.distance if recipe.samples is not None else None,
        )
    slices_by, warnings = _slice_columns(options.slices, dataset)
    # Rather the validation split, with a warning, than nothing.
    split = "test" if dataset.counts.get("test") else "validation"
    # Series without a sample are measured nowhere, so they are counted here.
    unsampled = dataset.unsampled(split) if isinstance(dataset, SampledDataset) else None
    trivial = trivial_answers(bundle.encoding, dataset) if options.baselines else {}
    judged = answer_split(
        bundle,
        dataset,
        split,
        trivial=trivial,
        extra_columns=slices_by,
        events=events,
        overlap=_overlap(recipe),
        metrics=options.metrics,
        pictures=options.baselines,
    )
    warnings += _split_notes(split, unsampled, label or split)
    warnings += _judged_notes(judged, label or split)
    for note in warnings:
        events.warn(note)
    model = _model(bundle, dataset, judged, recipe, events, no_rival)
    chance = (options.bootstrap, options.confidence, recipe.seed)
    sentence = _verdict(judged, trivial, model, recipe)
    result: dict[str, Any] = {
        **_counts(judged, split, unsampled),
        "metrics": {split: judged.metrics()},
        "intervals": _intervals(judged, *chance),
        "confidence": options.confidence,
        "bootstrap": options.bootstrap,
        "baseline": judged.baseline(),
        "trivial": {name: answer.text for name, answer in trivial.items()},
        "classical": _classical(judged, model) if options.baselines else {},
        "slices": _slices(judged, slices_by),
        "verdict": sentence,
        "plain": plain_facts(judged, trivial, model),
        "giveaways": giveaways(judged, bundle.encoding),
        "overlap": dataset.manifest.get("overlap"),
        "classes": {name: list(classes) for name, classes in judged.classes.items()},
        # Null where the sample is the whole split.
        "sampled_rows": judged.sample_rows if judged.sample_rows < judged.rows else None,
        "notes": _sampling_notes(recipe) + warnings,
        "seconds": round(time.perf_counter() - started, 3),
    }
    events.say(sentence, result=True)
    return {word: _finite(value) for word, value in result.items()}


def _model(
    bundle: Bundle,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    recipe: Recipe,
    events: Events,
    no_rival: str,
) -> Classical:
    """Return the classical model; where there is nothing to compare, one without answers."""
    if no_rival:
        return Classical(note=no_rival)
    if not (recipe.evaluate.baselines and judged.rows):
        return Classical(note="not asked for")
    return classical_model(
        bundle.encoding,
        dataset,
        judged,
        seed=recipe.seed,
        seconds=recipe.evaluate.baseline_budget,
        events=events,
    )


def _verdict(
    judged: Judged,
    trivial: Mapping[str, Trivial | Naive],
    model: Classical,
    recipe: Recipe,
) -> str:
    return verdict(
        judged,
        trivial,
        model,
        resamples=recipe.evaluate.bootstrap,
        confidence=recipe.evaluate.confidence,
        seed=recipe.seed,
        leads=_leads(recipe),
    )


def _leads(recipe: Recipe) -> dict[str, str]:
    """By target: the metric that training watches, where it is one of a target."""
    watched = recipe.train.early_stop
    if watched is None or "." not in watched.metric:
        return {}
    target, metric = split_watched(watched.metric, recipe.targets)
    return {target: metric}


def _counts(judged: Judged, split: str, unsampled: Unsampled | None) -> dict[str, Any]:
    """Return which rows were judged, and which could not be."""
    return {
        "split": split,
        "rows": judged.rows,
        "refused": judged.refused,
        "refused_reasons": dict(judged.reasons.most_common(10)),
        "series": None if unsampled is None else _series(unsampled),
    }


def _overlap(recipe: Recipe) -> int:
    """Return how many neighbouring rows share what they answer: more than 1 only for
    samples of series, whose horizons overlap.
    """
    if recipe.samples is None:
        return 1
    stride = recipe.samples.stride_eval
    # Horizon over stride, rounded up: so many neighbouring samples share a step.
    return max(
        1,
        *(
            -(-reach_of(feature, target=True)[1] // stride)
            for feature in recipe.targets.values()
        ),
    )


def _slice_columns(
    wanted: Sequence[str], dataset: Dataset | SampledDataset
) -> tuple[list[str], list[str]]:
    """Return the wanted slice columns that the dataset has, and a note on each other
    one.
    """
    columns = [name for name in dataset.schema.names if not name.startswith("__")]
    hint = Hints(columns)
    notes = [
        f"evaluate.slices: the dataset has no column {column!r}. It is left out.{hint(column)}"
        for column in wanted
        if column not in columns
    ]
    return [column for column in wanted if column in columns], notes


def _sampling_notes(recipe: Recipe) -> list[str]:
    """Explain what is measured where rows are steps of series; for the report alone,
    since it is no warning.
    """
    if recipe.samples is None:
        return []
    stride = recipe.samples.stride_eval
    every = "" if stride == 1 else f" that is a multiple of {stride}"
    return [
        "Rows are steps of series. What is measured are samples: a window and its horizon, one from each step"
        f"{every} on"
    ]


def _split_notes(split: str, unsampled: Unsampled | None, label: str) -> list[str]:
    notes: list[str] = []
    if split == "validation":
        notes.append(
            "The test split has no rows, so the validation split was measured instead. It also chose the"
            " epoch, so these figures flatter the model"
        )
    if unsampled is not None:
        notes += unsampled.sentences(rows_of(label))
    return notes


def _judged_notes(judged: Judged, label: str) -> list[str]:
    notes: list[str] = []
    if judged.refused:
        notes.append(
            f"{counted(judged.refused, 'row')} of {rows_of(label)} could not be answered, most often:"
            f" {judged.commonest_reason()}"
        )
    if judged.broken:
        notes.append(
            "The model gave answers that are not finite numbers, so nothing can be measured for "
            + ", ".join(judged.broken)
        )
    if not judged.rows:
        notes.append(
            f"Nothing was measured: no row of {rows_of(label)} could be judged."
            + (
                " Give `split` a test share, or look at the quarantine"
                if label == judged.split
                else " Compare the file's truth with what the bundle learnt"
            )
        )
    return notes


def _series(unsampled: Unsampled) -> dict[str, Any]:
    return {
        "all": unsampled.series,
        "without_samples": unsampled.without,
        "steps_refused": unsampled.refused,
    }


def _intervals(
    judged: Judged, resamples: int, confidence: float, seed: int
) -> dict[str, Any]:
    if not resamples:
        return {}
    # Figures of all rows centre the intervals; the sample gives their width.
    whole = judged.metrics()
    return {
        name: (
            intervals(
                judged.metrics_of(name),
                judged.truth[name],
                judged.answers[name],
                judged.weight,
                resamples,
                confidence,
                derive_seed(seed, "evaluate", name),
                threshold=judged.thresholds[name],
                scale=judged.scales.get(name),
                whole=whole[name],
                population=judged.rows,
            )
            if judged.sample_rows and name not in judged.broken
            else {}
        )
        for name in judged.kinds
    }


def _classical(judged: Judged, model: Classical) -> dict[str, Any]:
    """Return the classical model's metrics by target, and facts about it.

    Metrics are in `metrics`, where a target may be called `rows` as well; and, as earlier reports had
    them, beside the facts, where it may not.
    """
    metrics = {
        name: measure(
            judged.metrics_of(name),
            judged.truth[name],
            answers,
            judged.weight,
            threshold=model.threshold(name),
            scale=judged.scales.get(name),
        )
        for name, answers in model.answers.items()
    }
    facts: dict[str, Any] = {
        "model": model.model,
        "rows": model.rows,
        "seconds": round(model.seconds, 3),
        "of_rows": model.total,
        "budget_seconds": model.budget,
        "models": model.models,
        "tried": {
            name: [each.to_dict() for each in tried]
            for name, tried in model.tried.items()
        },
    }
    if model.note:
        facts["said"] = model.note
    return {**metrics, **facts, "metrics": metrics}


def _slices(judged: Judged, columns: list[str]) -> list[dict[str, Any]]:
    """Return the slices by `columns` of every target, then the worst slices that were
    found.
    """
    # A target with answers that are not finite has nothing to slice.
    names = [
        name for name in judged.kinds if judged.sample_rows and name not in judged.broken
    ]
    slices: list[dict[str, Any]] = []
    for name in names:
        slices += declared_slices(judged, name, columns)
    for name in names:
        slices += worst_slices(judged, name)
    return slices


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by None, since JSON has neither."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
