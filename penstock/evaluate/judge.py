"""What a bundle is worth, told from top to bottom: answer the test split, measure, compare, slice, conclude.

Everything is measured over all rows of the split in one streamed pass, in bounded memory. What needs rows at
hand (intervals, slices, the classical model) uses a uniform sample of at most `answers.SAMPLE` of them,
chosen by the hash of the row id; fewer where rows are wide. Up to that many rows the sample is the whole
split.

What this room refuses to know: torch, and how a program is run (the Predictor knows).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.core.events import Events
from penstock.core.identity import derive_seed
from penstock.core.near import Hints
from penstock.data.sampled_dataset import SampledDataset, seen
from penstock.evaluate.answers import Judged, answer_split
from penstock.evaluate.classical import Classical, classical_model
from penstock.evaluate.compare import verdict
from penstock.evaluate.slices import declared_slices, worst_slices
from penstock.evaluate.trivial import trivial_answers
from penstock.metrics import intervals, measure, names_for
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    from penstock.bundle.bundle import Bundle
    from penstock.data.dataset import Dataset


def evaluate(
    bundle: Bundle, dataset: Dataset | SampledDataset, recipe: Recipe, events: Events
) -> dict[str, Any]:
    """Measure a bundle on a dataset's test split.

    Args:
        bundle: what is judged, through its Predictor.
        dataset: whose `test` rows are answered (`validation` if there are none, said aloud); baselines learn
            from `train`.
        recipe: for `evaluate` and `seed`.
        events: told of progress and of every choice.

    Returns:
        JSON-ready: `split` (which was used), `rows` (measured), `refused` (rows a feature could not accept,
        not measured), `series` (where rows are steps: `all` of the split, those `without_samples`, and
        `steps_refused`; else null), `metrics` {split: {target: {metric: value}}}, `intervals` {target:
        {metric: [low, high]}}, `baseline` {target: {metric: value}} (the trivial answer, described in
        `trivial`), `classical` {`model`, `rows`, `seconds`, target: {metric: value}} (or `said`: why not),
        `slices` [{`target`, `column`, `value`, `rows`, `metric`, `value_of_metric`, `whole`, `declared`}],
        `verdict` (a sentence a target), `overlap` (of train and test, from the dataset), `notes`, `seconds`.
    """
    started = time.perf_counter()
    options = recipe.evaluate
    notes: list[str] = []
    if not isinstance(dataset, SampledDataset):  # steps are as far apart as they were where the bundle learnt
        dataset = seen(dataset, recipe, distance=bundle.distance if recipe.samples is not None else None)
    overlap = 1
    if recipe.samples is not None:
        overlap = max(
            1,
            *(
                -(-feature.reach(target=True)[1] // recipe.samples.stride_eval)
                for feature in recipe.targets.values()
            ),
        )
        notes.append(
            "rows are steps of series here, and what is measured are samples: a window with its horizon, from"
            " each step on"
            + (
                ""
                if recipe.samples.stride_eval == 1
                else f" that is a multiple of {recipe.samples.stride_eval}"
            )
        )
    encoding = bundle.encoding
    known = [name for name in dataset.schema.names if not name.startswith("__")]
    slices_by = []
    hint = Hints(known)
    for column in options.slices:
        if column in known:
            slices_by.append(column)
        else:
            notes.append(
                f"evaluate.slices: there is no column {column!r} in the dataset, so it was left"
                f" out.{hint(column)}"
            )
    split = "test" if dataset.counts.get("test") else "validation"
    if split == "validation":
        notes.append(
            "the test split has no rows, so the validation split was measured instead: it chose the epoch, so"
            " these figures flatter the model"
        )

    unsampled = dataset.unsampled(split) if isinstance(dataset, SampledDataset) else None
    if unsampled is not None:
        notes += unsampled.said(split)

    trivial = trivial_answers(encoding, dataset) if options.baselines else {}
    judged = answer_split(
        bundle, dataset, split, trivial=trivial, extra_columns=slices_by, events=events, overlap=overlap
    )
    if judged.refused:
        notes.append(
            f"{judged.refused:,} rows of the {split} split were refused by a feature and are not measured,"
            f" most often: {judged.commonest_reason()}"
        )
    if judged.broken:
        notes.append(
            "the model answered numbers that are not finite, so nothing can be measured: "
            + ", ".join(judged.broken)
        )
    if not judged.rows:
        notes.append(
            f"nothing was measured: no row of the {split} split could be judged. Give `split` a test share,"
            " or look at the quarantine"
        )
    for note in notes[recipe.samples is not None :]:
        events.warn(note)

    model = (
        classical_model(encoding, dataset, judged, seed=recipe.seed, events=events)
        if options.baselines and judged.rows
        else Classical(said="not asked for")
    )
    sampled = judged.sample_rows < judged.rows
    result: dict[str, Any] = {
        "split": split,
        "rows": judged.rows,
        "refused": judged.refused,
        "refused_reasons": dict(judged.reasons.most_common(10)),
        "series": (
            None
            if unsampled is None
            else {
                "all": unsampled.series,
                "without_samples": unsampled.without,
                "steps_refused": unsampled.refused,
            }
        ),
        "metrics": {split: judged.metrics()},
        "intervals": _intervals(judged, options.bootstrap, options.confidence, recipe.seed),
        "confidence": options.confidence,
        "bootstrap": options.bootstrap,
        "baseline": judged.baseline(),
        "trivial": {name: t.text for name, t in trivial.items()},
        "classical": _classical(judged, model) if options.baselines else {},
        "slices": _slices(judged, slices_by),
        "verdict": verdict(
            judged,
            trivial,
            model,
            resamples=options.bootstrap,
            confidence=options.confidence,
            seed=recipe.seed,
        ),
        "overlap": dataset.manifest.get("overlap"),
        "classes": {name: list(classes) for name, classes in judged.classes.items()},
        "sampled_rows": judged.sample_rows if sampled else None,
        "notes": notes,
        "seconds": round(time.perf_counter() - started, 3),
    }
    events.say(result["verdict"], result=True)
    return {word: _finite(value) for word, value in result.items()}


def _intervals(judged: Judged, resamples: int, confidence: float, seed: int) -> dict[str, Any]:
    if not resamples:
        return {}
    whole = judged.metrics()
    return {
        name: (
            intervals(
                names_for(kind, scalar=True),
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
        for name, kind in judged.kinds.items()
    }


def _classical(judged: Judged, model: Classical) -> dict[str, Any]:
    found: dict[str, Any] = {"model": model.model, "rows": model.rows, "seconds": round(model.seconds, 3)}
    if model.said:
        found["said"] = model.said
    for name, answers in model.answers.items():
        found[name] = measure(
            names_for(judged.kinds[name]),
            judged.truth[name],
            answers,
            judged.weight,
            threshold=model.threshold(name),
            scale=judged.scales.get(name),
        )
    return found


def _slices(judged: Judged, declared: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in judged.kinds:
        if judged.sample_rows and name not in judged.broken:
            found += declared_slices(judged, name, declared)
    for name in judged.kinds:
        if judged.sample_rows and name not in judged.broken:
            found += worst_slices(judged, name)
    return found


def _finite(value: Any) -> Any:
    """JSON has no NaN: null says the same."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
