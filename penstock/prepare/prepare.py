"""Preparing, told top to bottom: from declared sources to an immutable dataset version.

    snapshot → id → (there already? then that) → extract → row ids → joins → where → sample → derive → expect
             → clean → split → clean with what the training split taught → write → profile

Where the store has a version of some of the files, only the others are read (`children`).

The id is made in `survey`, sources are read in `extraction`, and the steps are in `preparation`.

Order. Rows are written in the order of their row id, so that positions in a feed mean the same rows
everywhere.
"""

from __future__ import annotations

import time
from typing import Any

from penstock.contracts.data import ROW_ID
from penstock.core.errors import RecipeError
from penstock.core.events import Events
from penstock.core.making import made_once
from penstock.core.store import Store, as_store_error
from penstock.prepare.budget import threads_of
from penstock.prepare.children import Child, family_facts, parent_of
from penstock.prepare.dataset import Dataset
from penstock.prepare.extraction import extract
from penstock.prepare.preparation import Preparation
from penstock.prepare.recipe_columns import learning_problems
from penstock.prepare.successors import current_survey, succeed
from penstock.prepare.survey import Survey, lineage
from penstock.recipe.schema import Recipe


def prepare(
    recipe: Recipe, store: Store, events: Events, *, profiled: bool = True
) -> Dataset:
    """Make the dataset version that `recipe` declares, or return it if it is there.

    Args:
        profiled: whether it is to have a profile; False for a store that is thrown away.

    Raises:
        RecipeError: the recipe names columns that are not there, or has expressions that do not hold; all of
            them at once.
        SourceError: data that cannot be found or read.
        ContractError: the data breaks a promise with `on_violation: fail`, a join is not to-one, or nothing
            is left to train on.
        StoreError: the disk is full, or the store may not be written.
    """
    # The version whose rows were forgotten is not made again.
    sources = current_survey(recipe, store)
    name = f"datasets/{recipe.name}/{sources.id}"
    return made_once(
        store,
        name,
        f"dataset {recipe.name}@{sources.id}",
        events,
        # A dataset that is there cost no work, but the recipe may name other columns
        # since.
        find=lambda: (
            _checked(recipe, Dataset.at(store, name=name)) if store.has(name) else None
        ),
        make=lambda: _make_either(
            recipe, store, events, sources, name, profiled=profiled
        ),
    )


def _make_either(
    recipe: Recipe,
    store: Store,
    events: Events,
    sources: Survey,
    name: str,
    *,
    profiled: bool,
) -> Dataset:
    """From a version that has some of the files, where there is one and each row stands alone; else anew."""
    parent = parent_of(recipe, store, sources, events)
    dataset = None
    if parent is not None:
        dataset = Child(recipe, store, events, sources, parent).make(name)
    if dataset is None:
        dataset = _make(recipe, store, events, sources, name, profiled=profiled)
    if sources.whole is not None:
        # A list that grows later makes no second version of the same rows.
        succeed(store, recipe.name, sources.whole, sources.id)
    return dataset


def _make(
    recipe: Recipe,
    store: Store,
    events: Events,
    sources: Survey,
    name: str,
    *,
    profiled: bool,
) -> Dataset:
    start = time.perf_counter()
    manifest: dict[str, Any] = {}
    # The manifest is written when the draft closes, so it is filled within; the scratch
    # folder goes whatever happens.
    with (
        store.scratch("scratch-") as scratch,
        store.draft(name, manifest=manifest) as folder,
    ):
        with as_store_error(folder):
            events.progress("prepare", 1, None, "steps", step="extract")
            extracts = extract(recipe, sources, scratch, events)
            with recipe.engine.open(
                scratch / "engine",
                memory_bytes=recipe.resources.memory,
                threads=threads_of(recipe),
            ) as session:
                preparation = Preparation(
                    recipe,
                    events,
                    folder,
                    scratch,
                    sources,
                    extracts,
                    session,
                    profiled=profiled,
                    store=store,
                )
                # The engine is closed before the manifest is made: the counts below are
                # of finished files.
                described = preparation.run()
        manifest |= {
            "type": "dataset",
            "name": recipe.name,
            "id": sources.id,
            **described,
            **family_facts(recipe, sources, extracts),
            "lineage": lineage(recipe, sources, extracts.lookups),
            "seconds": round(time.perf_counter() - start, 3),
        }
    counts = manifest["counts"]
    events.say(
        f"{counts['in']:,} rows in = {preparation.ledger.sentence()}", counts=counts
    )
    return Dataset.at(store, name=name)


def find_dataset(recipe: Recipe, store: Store) -> Dataset | None:
    """The finished version that `recipe` declares over its sources as they are now, if there is one.

    Raises:
        RecipeError: it is there, and lacks columns that the recipe names.
    """
    name = f"datasets/{recipe.name}/{current_survey(recipe, store).id}"
    # A version that is whole here and half sent to its bucket is sent, not made again.
    return (
        _checked(recipe, Dataset.at(store, name=name))
        if store.has(name) or store.finish(name)
        else None
    )


def _checked(recipe: Recipe, dataset: Dataset) -> Dataset:
    """Check an existing dataset against the columns that the recipe names but its id does not
    cover.
    """
    # The manifest has the schema, so no file is opened.
    if problems := learning_problems(
        recipe, [name for name in dataset.manifest["schema"] if name != ROW_ID]
    ):
        raise RecipeError.of(problems, where=f"the recipe {recipe.name!r}")
    return dataset
