"""Keeps evaluations as artefacts of their own (`reports/<key>`), since runs and bundles
are never edited: on a dataset, and on labelled files that came later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.bundle.bundle import Bundle
from penstock.contracts.data import Source
from penstock.core.events import Events
from penstock.core.making import made_once
from penstock.core.sound import object_in, sound
from penstock.core.store import Store
from penstock.evaluate import evaluate, report_markdown
from penstock.evaluate.compare import JUDGED_BY, figure
from penstock.pipeline.ceiling import over
from penstock.pipeline.keys import report_key
from penstock.pipeline.later import (
    LaterDataset,
    balance,
    later_dataset,
    notes,
    read_later,
)
from penstock.prepare.dataset import Dataset
from penstock.recipe.schema import Recipe

_NO_RIVAL = "it would have learnt from the very rows that are judged here"
"""Why rows that made the dataset are not answered by a classical model: it is fitted much closer to them."""


def find_report(
    recipe: Recipe, bundle: Bundle, dataset: Dataset | LaterDataset, store: Store
) -> dict[str, Any] | None:
    """Return the evaluation of this bundle, this dataset and these `evaluate` words, if
    there is one.
    """
    name = f"reports/{report_key(recipe, bundle.id, dataset)}"
    if not store.has(name):
        return None
    folder = store.open(name).path
    with sound(f"the report {folder}", advice="Delete it, and it is made again"):
        report = object_in(folder / "report.json")
    return {**report, "path": str(folder / "report.md")}


def write_report(
    recipe: Recipe, bundle: Bundle, dataset: Dataset, store: Store, events: Events
) -> dict[str, Any]:
    """Evaluate and keep the result; where another process does it already, wait for its
    report.
    """
    return made_once(
        store,
        f"reports/{report_key(recipe, bundle.id, dataset)}",
        f"the report on {bundle.reference}",
        events,
        find=lambda: find_report(recipe, bundle, dataset, store),
        make=lambda: _evaluate(recipe, bundle, dataset, store, events),
    )


def later_report(
    recipe: Recipe, bundle: Bundle, source: Source, store: Store, events: Events
) -> dict[str, Any]:
    """Return the evaluation of a bundle on labelled files: the one in the store, or a
    new one.

    The rows are the report's split `later`, and `later` says what became of each of them; `at_training` has
    the figures that the bundle had on its own test split.
    """
    snapshot = source.snapshot(Path.cwd())
    dataset = later_dataset(bundle, source, snapshot, recipe, store)

    def make() -> dict[str, Any]:
        with over("evaluate", bundle.resources, events):
            read_later(dataset, bundle, source, snapshot, recipe, events)
            result = evaluate(
                bundle,
                dataset,  # type: ignore[arg-type]
                recipe,
                events,
                label="later",
                no_rival=_NO_RIVAL if dataset.shared else "",
            )
        return _kept(
            _as_later(result, recipe, bundle, dataset, store),
            recipe,
            bundle,
            dataset,
            store,
        )

    return made_once(
        store,
        f"reports/{report_key(recipe, bundle.id, dataset)}",
        f"the report on {bundle.reference}",
        events,
        find=lambda: find_report(recipe, bundle, dataset, store),
        make=make,
    )


def _as_later(
    result: dict[str, Any],
    recipe: Recipe,
    bundle: Bundle,
    dataset: LaterDataset,
    store: Store,
) -> dict[str, Any]:
    """Return the report with what is special about rows that came later."""
    split, metrics = result["split"], result["metrics"]
    before = (
        find_report(recipe, bundle, dataset.train, store)
        if dataset.train is not None
        else None
    )
    own = "validation" if before is None else before["split"]
    figures = bundle.facts()["validation"] if before is None else before["metrics"][own]
    lines = [balance(dataset), *_compared(metrics[split], figures, own)]
    if dataset.train is None:
        lines.append(
            f"the store has no dataset {bundle.dataset}, so the trivial answer is made of what the bundle"
            " learnt, and there is no classical model"
        )
    return {
        **result,
        "split": "later",
        "metrics": {"later": metrics[split]},
        "later": dict(dataset.came),
        "at_training": {"split": own, "metrics": figures},
        "notes": [*lines, *notes(dataset), *result["notes"]],
    }


def _compared(
    here: Mapping[str, Any], before: Mapping[str, Any], split: str
) -> list[str]:
    """Return a sentence a target: its first figure here, and at training."""
    lines: list[str] = []
    for target, metrics in here.items():
        earlier = before.get(target) or {}
        for name in (metric for metric, _ in JUDGED_BY.values()):
            now, then = metrics.get(name), earlier.get(name)
            if isinstance(now, (int, float)) and isinstance(then, (int, float)):
                lines.append(
                    f"{target}: {name} {figure(now)} here, {figure(then)} on the {split} split at training"
                )
                break
    return lines


def _evaluate(
    recipe: Recipe, bundle: Bundle, dataset: Dataset, store: Store, events: Events
) -> dict[str, Any]:
    result = evaluate(bundle, dataset, recipe, events)
    return _kept(result, recipe, bundle, dataset, store)


def _kept(
    result: dict[str, Any],
    recipe: Recipe,
    bundle: Bundle,
    dataset: Dataset | LaterDataset,
    store: Store,
) -> dict[str, Any]:
    """Write a report into the store; return it with its path."""
    name = f"reports/{report_key(recipe, bundle.id, dataset)}"
    with store.draft(
        name,
        manifest={
            "type": "report",
            "bundle": bundle.reference,
            "dataset": dataset.reference,
        },
    ) as folder:
        (folder / "report.json").write_text(
            json.dumps(result, indent=1, ensure_ascii=False), "utf-8"
        )
        (folder / "report.md").write_text(report_markdown(result), "utf-8")
    return {**result, "path": str(store.at(f"{name}/report.md"))}
