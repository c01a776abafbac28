"""Tells what a run would do before it does it: the stages, what is done already and
why, and the cost.

Rows and bytes are counted where that is cheap (a finished dataset) and estimated from a sample where it is
not; every estimate says so. The model is built on features fitted to the sample, so its parameters are near,
not exact, until the dataset is there.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.core.errors import ContractError, RecipeError
from penstock.core.store import Store
from penstock.encode.encoding import Encoding
from penstock.encode.feed import Feed, batch_size_for, feed_id, fit_encoding
from penstock.pipeline.keys import packed, report_key, train_key
from penstock.prepare.clean import derive
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import find_dataset
from penstock.recipe.schema import Recipe
from penstock.run import Run

SAMPLE_ROWS = 2_000
TIMED_STEPS = 8


def make_plan(recipe: Recipe, store: Store) -> dict[str, Any]:
    """`{"name", "stages": [{"stage", "done", "why", "expects"}], "notes"}`; `expects` has numbers by word
    (`files`, `bytes`, `rows`, `parameters`, `batch_size`, `steps`, `memory_bytes`, `most_seconds`) and, under
    `about`, the words whose numbers are estimates.
    """
    notes: list[str] = []
    dataset = find_dataset(recipe, store)
    snapshot = recipe.source.preview(recipe.base)
    size_bytes = sum(f.size_bytes for f in snapshot.files)
    stages = [_prepare_stage(dataset, size_bytes, len(snapshot.files))]
    # Later stages need features; preparing does not.
    if not recipe.inputs or not recipe.targets:
        notes.append("The recipe has no inputs and targets, so only `prepare` can run.")
        return {"name": recipe.name, "stages": stages, "notes": notes}

    feed = _feed(recipe, dataset, store)
    stages.append(
        {
            "stage": "encode",
            "done": feed is not None,
            "why": (
                f"feed {feed.id}"
                if feed
                else "features are fitted and rows encoded once the dataset is there"
            ),
            "expects": {},
        }
    )
    # Without the feed the key of a training is not known.
    run = Run.find(store, train_key(recipe, feed)) if feed else None
    rows, exact = (
        (feed.rows["train"], True) if feed else _train_rows(recipe, dataset, size_bytes)
    )
    # What is done costs nothing.
    expects = {} if run else _cost(recipe, feed, rows, exact, notes)
    stages.append(
        {
            "stage": "train",
            "done": run is not None,
            "why": run.id if run else "no finished run has this model, data and training",
            "expects": expects,
        }
    )
    reference = packed(recipe, run, store) if run else None
    stages.append(
        {
            "stage": "pack",
            "done": bool(reference),
            "why": reference or "the weights have not been packed",
            "expects": {},
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
            "why": "its report is there"
            if is_reported
            else "this bundle has not been measured",
            "expects": {},
        }
    )
    return {"name": recipe.name, "stages": stages, "notes": notes}


def _prepare_stage(
    dataset: Dataset | None, size_bytes: int, files: int
) -> dict[str, Any]:
    expects: dict[str, Any] = {"files": files, "bytes": size_bytes}
    if dataset is not None:
        expects["rows"] = dataset.counts["in"]
    why = (
        f"dataset {dataset.reference}"
        if dataset
        else "no version has this content and these words"
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
    return Feed.open(store, name) if store.has(f"feeds/{name}") else None


def _train_rows(
    recipe: Recipe, dataset: Dataset | None, size_bytes: int
) -> tuple[int, bool]:
    if dataset is not None:
        return dataset.counts["train"], True
    sample = recipe.source.sample(recipe.source.preview(recipe.base), SAMPLE_ROWS)
    per_row = max(sample.nbytes / max(len(sample), 1), 1)
    # A split by column or files does not say its shares, so all rows stand in for them.
    share = recipe.split.train if recipe.split.by in ("hash", "time", "order") else 1.0
    # A sample that is not full is the whole source; a full one tells only a row's
    # bytes.
    rows = (
        int(size_bytes / per_row * share)
        if len(sample) >= SAMPLE_ROWS
        else int(len(sample) * share)
    )
    return (min(rows, recipe.sample) if recipe.sample else rows), False


def _sample(recipe: Recipe) -> pa.Table:
    """Return the first rows with their derived columns; joined columns come only with
    preparing.
    """
    table = recipe.source.sample(recipe.source.preview(recipe.base), SAMPLE_ROWS)
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


def _cost(
    recipe: Recipe, feed: Feed | None, rows: int, exact: bool, notes: list[str]
) -> dict[str, Any]:
    """Estimate parameters, steps and time, by taking a few steps on made-up rows."""
    about = "" if exact else "about "
    try:
        # Features fitted to a sample have fewer categories, so parameters are near, not
        # exact.
        encoding = feed.encoding if feed else fit_encoding(recipe, _sample(recipe))
    except (ContractError, RecipeError) as error:
        notes.append(
            f"The model could not be sized from a sample of the data: {error.message}"
        )
        return {"rows": rows, "about": [] if exact else ["rows"]}
    order = recipe.train.order
    batch_size = batch_size_for(recipe, rows)
    measured = _measure(
        recipe, encoding, batch_rows=max(min(batch_size, order.an_epoch(rows)), 1)
    )
    # As the loader counts: rows of an epoch, cut into whole batches or rounded up.
    an_epoch = order.an_epoch(rows)
    batches = (
        an_epoch // batch_size if order.last == "drop" else -(-an_epoch // batch_size)
    )
    steps = batches * recipe.train.epochs
    if not steps:
        notes.append(
            f"train.order.last is `drop`, and {about}{an_epoch:,} rows fill no batch of"
            f" {batch_size:,}: training will refuse. Make batches smaller, or keep the last one."
        )
    if recipe.train.max_steps:
        steps = min(steps, recipe.train.max_steps)
    notes.append(
        "Time is for one process as fast as it is now, if no early stopping happens; more processes may be"
        " chosen by a measurement."
    )
    return {
        "rows": rows,
        "parameters": measured.parameters,
        "batch_size": batch_size,
        "steps": steps,
        "memory_bytes": measured.memory_bytes,
        # An upper bound: early stopping may end it sooner.
        "most_seconds": round(steps * measured.step_seconds, 1),
        "about": [
            *([] if exact else ["rows", "steps"]),
            *([] if exact or recipe.train.batch_size != "auto" else ["batch_size"]),
            *([] if feed else ["parameters"]),
            "memory_bytes",
            "most_seconds",
        ],
    }


@dataclass(frozen=True)
class Measured:
    """The measurements of a few training steps."""

    parameters: int
    memory_bytes: int
    step_seconds: float


def _measure(recipe: Recipe, encoding: Encoding, *, batch_rows: int) -> Measured:
    """Build the network and take a few steps on random batches."""
    import torch

    from penstock.model import build_network, decoders_of, fake_batch, parameter_count

    network = build_network(recipe, encoding, seed=recipe.seed)
    targets = encoding.specs("targets")
    batch = {
        **fake_batch(encoding.specs("inputs"), batch_rows),
        **fake_batch(targets, batch_rows),
        "weight": torch.ones(batch_rows),
    }
    phases = recipe.train.objective.phases(decoders_of(recipe, encoding), targets)
    # Stands in for any optimiser: only time and memory are measured.
    optimiser = torch.optim.AdamW(network.parameters())
    start = time.perf_counter()
    for step in range(TIMED_STEPS + 1):
        if step == 1:
            start = time.perf_counter()  # the first step warms up
        for phase in phases:
            optimiser.zero_grad()
            phase.loss(network, batch).mean().backward()
            optimiser.step()
    parameters = parameter_count(network)
    # 16 bytes a parameter: float32 weight, gradient and the two moments of AdamW. Activations are guessed: 64
    # times the batch.
    batch_bytes = sum(tensor.numel() * tensor.element_size() for tensor in batch.values())
    return Measured(
        parameters,
        parameters * 16 + 64 * batch_bytes,
        (time.perf_counter() - start) / TIMED_STEPS,
    )
