"""Keeps evaluations as artefacts of their own (`reports/<key>`), since runs and bundles
are never edited.
"""

from __future__ import annotations

import json
from typing import Any

from penstock.bundle.bundle import Bundle
from penstock.core.events import Events
from penstock.core.making import made_once
from penstock.core.sound import object_in, sound
from penstock.core.store import Store
from penstock.evaluate import evaluate, report_markdown
from penstock.pipeline.keys import report_key
from penstock.prepare.dataset import Dataset
from penstock.recipe.schema import Recipe


def find_report(
    recipe: Recipe, bundle: Bundle, dataset: Dataset, store: Store
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
        found=lambda: find_report(recipe, bundle, dataset, store),
        make=lambda: _evaluate(recipe, bundle, dataset, store, events),
    )


def _evaluate(
    recipe: Recipe, bundle: Bundle, dataset: Dataset, store: Store, events: Events
) -> dict[str, Any]:
    result = evaluate(bundle, dataset, recipe, events)
    name = f"reports/{report_key(recipe, bundle.id, dataset)}"
    with store.draft(
        name, {"type": "report", "bundle": bundle.reference, "dataset": dataset.reference}
    ) as folder:
        (folder / "report.json").write_text(
            json.dumps(result, indent=1, ensure_ascii=False), "utf-8"
        )
        (folder / "report.md").write_text(report_markdown(result), "utf-8")
    return {**result, "path": str(store.at(f"{name}/report.md"))}
