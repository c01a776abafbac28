"""Says what a run would do before it does it: the stages, what is done already and
why, and the cost.

Rows and bytes are counted where that is cheap (a finished dataset) and estimated from a sample where it is
not; every estimate says so. The model is built on features fitted to the sample, so its parameters are near,
not exact, until the dataset is there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.contracts.sample import FEW_FILE_BYTES, Sample
from penstock.core.errors import ContractError, RecipeError
from penstock.core.store import Store
from penstock.core.wording import counted, duration
from penstock.encode.feed import Feed, batch_size_for, feed_id, fit_encoding
from penstock.pipeline.keys import packed, report_key, train_key
from penstock.pipeline.plan_timing import Measured, measure_steps
from penstock.prepare.clean import derive
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import find_dataset
from penstock.prepare.versions import over_version
from penstock.recipe.schema import Model, Recipe
from penstock.run import Run
from penstock.train.pace import Pace, fitted

SAMPLE_ROWS = 2_000
_BESIDE = 1.2
"""Validation and checkpoints take about a fifth beside the steps."""


_START_SECONDS = 4.0
"""What a training takes before its first step: processes, libraries, and how many threads are fastest."""
_BESIDE_SECONDS = {"pack": 4.0, "evaluate": 2.0}
"""What these take of the smallest model: the export is proved, and gradient boosting is the comparison."""


def make_plan(recipe: Recipe, store: Store) -> dict[str, Any]:
    """`{"name", "stages": [{"stage", "done", "why", "expects"}], "notes"}`; `expects` has numbers by word
    (`files`, `bytes`, `rows`, `parameters`, `batch_size`, `steps`, `memory_bytes`, `least_seconds`,
    `most_seconds`) and, under
    `about`, the words whose numbers are estimates.
    """
    notes: list[str] = []
    recipe, version = over_version(recipe, store)
    dataset = version or find_dataset(recipe, store)
    # The files that a version was made of may be gone.
    files = () if version else recipe.source.preview(recipe.base).files
    size_bytes = sum(f.size_bytes for f in files)
    stages = [_prepare_stage(dataset, size_bytes, len(files))]
    # Later stages need features; preparing does not.
    if not recipe.inputs or not recipe.targets:
        notes.append("The recipe has no inputs and targets, so only `prepare` can run.")
        return {"name": recipe.name, "stages": stages, "notes": notes}

    feed = _feed(recipe, dataset, store)
    stages.append(
        {
            "stage": "encode",
            "done": feed is not None,
            "why": (f"feed {feed.id}" if feed else "it needs the dataset"),
            "expects": {},
        }
    )
    # Without the feed the key of a training is not known.
    run = Run.find(store, key=train_key(recipe, feed)) if feed else None
    rows, exact = (
        (feed.rows["train"], True) if feed else _train_rows(recipe, dataset, size_bytes)
    )
    # What is done costs nothing.
    expects = {} if run else _cost(recipe, dataset, feed, rows, exact, notes)
    stages.append(
        {
            "stage": "train",
            "done": run is not None,
            "why": run.id
            if run
            else "no finished run has this model, this data and these settings",
            "expects": expects,
        }
    )
    reference = packed(recipe, run, store) if run else None
    stages.append(
        {
            "stage": "pack",
            "done": bool(reference),
            "why": reference or "its run is not packed yet",
            "expects": {} if reference else _at_least("pack", expects),
        }
    )
    is_reported = False
    if reference and dataset:
        is_reported = store.has(
            f"reports/{report_key(recipe, reference.removeprefix('bundle-'), dataset)}"
        )
    stages.append(
        {
            "stage": "evaluate",
            "done": is_reported,
            "why": "it has a report"
            if is_reported
            else "its bundle is not evaluated yet",
            "expects": {} if is_reported else _at_least("evaluate", expects),
        }
    )
    return {"name": recipe.name, "stages": stages, "notes": notes}


def _at_least(stage: str, training: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage after the training takes at least; nothing is said where the training is unknown."""
    if "most_seconds" not in training:
        return {}
    seconds = _BESIDE_SECONDS[stage]
    words = ("least_seconds", "most_seconds")
    return {**dict.fromkeys(words, seconds), "about": list(words)}


def _prepare_stage(
    dataset: Dataset | None, size_bytes: int, files: int
) -> dict[str, Any]:
    expects: dict[str, Any] = {"files": files, "bytes": size_bytes} if files else {}
    if dataset is not None:
        expects["rows"] = dataset.counts["in"]
    why = (
        f"dataset {dataset.reference}"
        if dataset
        else "no dataset has this content and these settings yet"
    )
    return {
        "stage": "prepare",
        "done": dataset is not None,
        "why": why,
        "expects": expects,
    }


def _feed(recipe: Recipe, dataset: Dataset | None, store: Store) -> Feed | None:
    if dataset is None:
        return None
    name = feed_id(recipe, dataset)
    return Feed.open(store, id=name) if store.has(f"feeds/{name}") else None


def _train_rows(
    recipe: Recipe, dataset: Dataset | None, size_bytes: int
) -> tuple[int, bool]:
    if dataset is not None:
        return dataset.counts["train"], True
    drawn = _drawn(recipe)
    sample = drawn.plain()
    per_row = max(sample.nbytes / max(len(sample), 1), 1)
    # A split by column or files does not say its shares, so all rows stand in for them.
    share = recipe.split.train if recipe.split.by in ("hash", "time", "order") else 1.0
    # Where not all rows were counted, a sample tells a row's bytes.
    rows = int((size_bytes / per_row if drawn.rows is None else drawn.rows) * share)
    return (min(rows, recipe.sample) if recipe.sample else rows), False


def _drawn(recipe: Recipe) -> Sample:
    """Some rows of the source; no plan waits for more files to be read."""
    snapshot = recipe.source.preview(recipe.base)
    return recipe.source.sample(snapshot, SAMPLE_ROWS, file_bytes=FEW_FILE_BYTES)


def _sample(recipe: Recipe) -> pa.Table:
    """Return some rows with their derived columns; joined columns come only with
    preparing.
    """
    table = _drawn(recipe).plain()
    if not recipe.derive:
        return table
    with (
        tempfile.TemporaryDirectory(prefix="penstock-") as scratch,
        recipe.engine.open(
            Path(scratch), memory_bytes=recipe.resources.memory, threads=1
        ) as session,
    ):
        return pa.Table.from_batches(
            list(session.batches(derive(session.table(table), recipe.derive, session)))
        )


def _first_rows(dataset: Dataset) -> pa.Table:
    """Return the first rows of the training split, with all columns."""
    batch = next(iter(dataset.batches("train", columns=None, rows=SAMPLE_ROWS)), None)
    return (
        dataset.schema.empty_table() if batch is None else pa.Table.from_batches([batch])
    )


def _least_share(recipe: Recipe, pace: Pace) -> float:
    """The part of the time that training takes at the least: early stopping waits so many epochs."""
    patience = recipe.train.early_stop.patience if recipe.train.early_stop else None
    return 1.0 if patience is None else min((patience + 1) / pace.epochs, 1.0)


def _of_members(recipe: Recipe, measured: Measured) -> list[str]:
    """Say what an ensemble costs beside one network; nothing where there is none."""
    ensemble = recipe.model.ensemble if isinstance(recipe.model, Model) else None
    of_one = measured.of_one
    if ensemble is None or of_one is None:
        return []
    times = measured.step_seconds / max(of_one.step_seconds, 1e-9)
    size = (
        f"share {measured.parameters:,} parameters,"
        f" {measured.parameters / of_one.parameters:.2f} times those of one network"
        if ensemble.share
        else f"have {of_one.parameters:,} parameters each, {measured.parameters:,} together"
    )
    return [
        f"The {ensemble.members} members of the ensemble {size}. A step takes {times:.1f} times"
        " as long as that of one network."
    ]


def _cost(
    recipe: Recipe,
    dataset: Dataset | None,
    feed: Feed | None,
    rows: int,
    exact: bool,
    notes: list[str],
) -> dict[str, Any]:
    """Estimate parameters, steps and time, by taking a few steps on real rows."""
    about = "" if exact else "about "
    try:
        # Features fitted to a sample have fewer categories, so parameters are near, not
        # exact.
        some = _sample(recipe) if dataset is None else _first_rows(dataset)
        encoding = feed.encoding if feed else fit_encoding(recipe, some)
    except (ContractError, RecipeError) as error:
        notes.append(
            f"The model could not be sized from a sample of the data: {error.message}"
        )
        return {"rows": rows, "about": [] if exact else ["rows"]}
    order = recipe.train.order
    batch_size = batch_size_for(recipe, rows)
    measured = measure_steps(
        recipe, encoding, some, batch_rows=max(min(batch_size, order.an_epoch(rows)), 1)
    )
    notes += _of_members(recipe, measured)
    an_epoch = order.an_epoch(rows)
    batches = _batches(an_epoch, batch_size, drops=order.last == "drop")
    pace = _pace(recipe, batches, measured.step_seconds)
    if (pace.epochs, pace.max_steps) != (recipe.train.epochs, recipe.train.max_steps):
        notes.append(_in_budget(recipe, pace, batches))
    steps = batches * pace.epochs
    if not steps:
        notes.append(
            f"train.order.last is `drop`, and {about}{an_epoch:,} rows fill no batch of"
            f" {batch_size:,}: training will be refused. Make batches smaller, or keep the last one."
        )
    if pace.max_steps:
        steps = min(steps, pace.max_steps)
    seconds = steps * measured.step_seconds * _BESIDE
    share = _least_share(recipe, pace)
    notes.append(
        "The time is for one process on this machine, measured on a few batches"
        + ("" if share == 1.0 else "; early stopping may end the training sooner")
        + "."
    )
    return {
        "rows": rows,
        "parameters": measured.parameters,
        "batch_size": batch_size,
        "steps": steps,
        "memory_bytes": measured.memory_bytes,
        "least_seconds": round(seconds * share + _START_SECONDS, 1),
        # An upper bound: early stopping may end it sooner.
        "most_seconds": round(seconds + _START_SECONDS, 1),
        "about": [
            *([] if exact else ["rows", "steps"]),
            *([] if exact or recipe.train.batch_size != "auto" else ["batch_size"]),
            *([] if feed else ["parameters"]),
            "memory_bytes",
            "least_seconds",
            "most_seconds",
        ],
    }


def _batches(rows: int, batch_size: int, *, drops: bool) -> int:
    """Batches of an epoch, as the loader counts: the rows cut into whole ones, or rounded up."""
    return rows // batch_size if drops else -(-rows // batch_size)


def _pace(recipe: Recipe, batches: int, step_seconds: float) -> Pace:
    """The epochs and steps that training will take, where it has a budget as many as fit."""
    epochs, max_steps = recipe.train.epochs, recipe.train.max_steps
    if not batches or recipe.train.budget is None:
        return Pace(epochs, max_steps, batches * step_seconds)
    return fitted(
        epochs,
        max_steps,
        budget=recipe.train.budget,
        training_seconds=batches * step_seconds,
        judging_seconds=batches * step_seconds * (_BESIDE - 1),
        steps=batches,
    )


def _in_budget(recipe: Recipe, pace: Pace, batches: int) -> str:
    fits = (
        f"about {counted(pace.epochs, 'epoch')}"
        if pace.max_steps in (None, recipe.train.max_steps)
        else f"about {100 * (pace.max_steps or 0) / batches:.0f}% of an epoch"
    )
    return (
        f"The budget of {duration(recipe.train.budget or 0)} has room for {fits} of the declared"
        f" {recipe.train.epochs}; training measures again when it begins."
    )
