"""Keys that identify a stage's work by its inputs alone; looked up before anything is
made.

Engines, launchers, stores and memory are in no key: they do not change answers. Whoever adds a word to a key
loses what was made before: give the word a default, and leave it out where it has that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock.core.errors import StoreError
from penstock.core.identity import fingerprint
from penstock.core.paths import shown
from penstock.core.store import FORMAT, Store
from penstock.encode.feed import Feed
from penstock.prepare.dataset import Dataset
from penstock.recipe.code import source_digest
from penstock.recipe.order import TrainOrder
from penstock.recipe.schema import Recipe
from penstock.run import Run

if TYPE_CHECKING:
    from penstock.pipeline.later import LaterDataset

_REFERENCE = re.compile(r"bundle-[0-9a-f]{16}")


def train_key(recipe: Recipe, feed: Feed) -> str:
    """Return the key of a training: everything that decides its weights."""
    whole = recipe.to_dict()
    # `order` and `budget` came later: they are left out where they say nothing, so that what was trained
    # before is found.
    usual = {"order": TrainOrder().to_dict(), "budget": None}
    train = {
        word: value
        for word, value in whole["train"].items()
        if word != "checkpoint" and value != usual.get(word)
    }
    # `parallel` came later, too, and so did metrics of the user's own that choose the best epoch.
    later = [] if recipe.parallel == type(recipe.parallel)() else [whole["parallel"]]
    if (watched := recipe.watched_metric()) is not None:
        later.append(watched.to_dict())
    return fingerprint(
        "train", FORMAT, feed.id, whole["model"], train, recipe.seed, *later
    )


def training_lock(key: str) -> str:
    """Return the name of the lock under which one process at a time trains for a key
    (`core.making`).
    """
    return f"trainings/{key}"


def pack_key(recipe: Recipe, run: Run) -> str:
    """Return the key of a bundle: everything that decides its content, beside the
    weights.
    """
    whole = recipe.to_dict()
    # `serve.expect` came later, and is in the declaration only where it is not as usual.
    later = [whole["serve"]["expect"]] if "expect" in whole["serve"] else []
    return fingerprint(
        "pack",
        FORMAT,
        run.id,
        recipe.name,
        whole["keep"],
        whole["derive"],
        whole["clean"],
        *later,
    )


def packed(recipe: Recipe, run: Run, store: Store) -> str | None:
    """Return the reference of the bundle that this recipe packed of this run, if it
    lies in the store. It is not opened.

    Raises:
        StoreError: what the store says of it is no reference.
    """
    # The index outlives its bundle, so both are looked at.
    reference = (store.read_text(bundle_index(recipe, run)) or "").strip()
    if reference and not _REFERENCE.fullmatch(reference):
        raise StoreError(
            f"{store.url}/{bundle_index(recipe, run)} names {shown(reference)}, which is"
            " not a bundle: the file was changed. Delete it, and the run is packed again."
        )
    return (
        reference
        if reference and store.has(f"bundles/{reference.removeprefix('bundle-')}")
        else None
    )


def bundle_index(recipe: Recipe, run: Run) -> str:
    """Return the name under which the store keeps the reference of the bundle packed
    for a key.
    """
    return f"index/bundle-{pack_key(recipe, run)}"


def report_key(recipe: Recipe, bundle: str, dataset: Dataset | LaterDataset) -> str:
    """Return the key of an evaluation; `bundle` is the bundle's id."""
    options = recipe.to_dict()["evaluate"]
    metrics = options.pop("metrics", [])
    # `metrics` came later. What one of the user's own measures is its code.
    modules = [metric.type for metric in recipe.evaluate.metrics if "." in metric.type]
    code = [source_digest(module, str(recipe.base)) for module in modules]
    later = [metrics, code] if metrics else []
    return fingerprint("report", FORMAT, bundle, dataset.reference, options, *later)
