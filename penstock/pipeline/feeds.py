"""Turns a feed, a dataset, a recipe or its path into a feed.

a feed                               as it is
a dataset or a subset, or its text,  encoded into the store that the dataset is in
  with inputs and targets
a recipe, or its path                prepared and encoded into the recipe's store, unless it is there
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core import audit
from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed, write_feed
from penstock.pipeline.profiled import dataset_reference
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import find_dataset, prepare
from penstock.prepare.versions import open_version, over_version
from penstock.recipe.schema import Recipe, load_recipe
from penstock.recipe.stores import StoreLike, as_store, store_of

Features = Mapping[str, Any]
"""Features by name, as a recipe says them: `{'age': 'number'}`."""
Data = Feed | Dataset | Recipe | str | Path
"""What rows can be had of."""


def feed_of(
    data: Data,
    *,
    inputs: Features | None = None,
    targets: Features | None = None,
    weight: str | None = None,
    order: Mapping[str, Any] | None = None,
    like: Feed | None = None,
    store: StoreLike | None = None,
    events: Events | None = None,
) -> Feed:
    """Return the feed of the data; encode it if it is not there yet.

    Args:
        data: a feed; a dataset, a subset, or the text that names one in `store`; a recipe or its path.
        inputs, targets, weight: as in a recipe; for a dataset.
        order: words of `train.order` that go by columns (`weights`, `mix`), so that these are stored; for a
            dataset.
        like: a feed whose features are taken, as they were fitted there; for a dataset.
        store: where it goes, unless into the store of the dataset or of the recipe.

    Raises:
        UserError: a feed or a recipe is given its inputs once more, or a dataset is not given them.
        RecipeError, SourceError, ContractError, StoreError: as preparing and encoding.
    """
    features = {"inputs": inputs, "targets": targets, "weight": weight}
    # Words that only a dataset needs; a feed and a recipe have their own.
    given = [word for word, value in {**features, "like": like}.items() if value]
    if isinstance(data, Feed):
        if given:
            raise UserError(
                f"A feed is already encoded, so {', '.join(given)} cannot be changed. Pass"
                " the dataset instead"
            )
        return data
    if isinstance(data, str) and (reference := dataset_reference(data)):
        data = open_version(as_store(store), reference)
    if isinstance(data, (str, Path)):
        data = load_recipe(data)
    if isinstance(data, Recipe):
        if given:
            raise UserError(
                f"A recipe sets {', '.join(given)} itself. Change them there, or pass a"
                " dataset"
            )
        return _of_recipe(data, store, events or Events())
    if not isinstance(data, Dataset):  # a caller without type checks
        raise UserError(
            "Expected a feed, a dataset, a recipe or its path; found"
            f" {type(data).__name__}"
        )
    words = (
        _words_of(data, inputs, targets, weight)
        if like is None
        else _words_like(like, given)
    )
    # Other words of the order change no stored column.
    by_columns = {
        word: value
        for word, value in (order or {}).items()
        if word in ("weights", "mix") and value
    }
    recipe = load_recipe(
        {
            # The rows come from the dataset; this source only completes the recipe.
            "name": data.name,
            "source": {"type": "files", "path": data.reference},
            **words,
            "train": {"order": by_columns},
        }
    )
    # Beside the dataset, so that the feed is found with it.
    where = data.store if store is None else as_store(store)
    return _written(recipe, data, where, events or Events(), like=like)


def _of_recipe(recipe: Recipe, store: StoreLike | None, events: Events) -> Feed:
    if not recipe.inputs:
        raise UserError(
            f"The recipe {recipe.name!r} has no `inputs`, so there is nothing to encode"
        )
    where = store_of(recipe, store)
    # What is there is not prepared again.
    recipe, version = over_version(recipe, where)
    dataset = version or find_dataset(recipe, where)
    if dataset is None:
        dataset = prepare(recipe, where, events)
        audit.note(where, "prepared", dataset.reference, rows=dataset.counts["in"])
    return _written(recipe, dataset, where, events)


def _written(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    events: Events,
    *,
    like: Feed | None = None,
) -> Feed:
    feed = write_feed(recipe, dataset, store, events, like=like)
    # Whether it was there or not: whoever asks for it reads its rows.
    audit.note(store, "read", dataset.reference, feed=feed.id)
    return feed


def _words_of(
    dataset: Dataset,
    inputs: Features | None,
    targets: Features | None,
    weight: str | None,
) -> dict[str, Any]:
    """Return the features that a user gives with a dataset, as words of a recipe."""
    for side, features in (("inputs", inputs), ("targets", targets)):
        if features is not None and not isinstance(features, Mapping):
            raise UserError(
                f"`{side}` must be features by name, as in {side}={{'age': 'number'}}; found"
                f" {features!r}"
            )
    if not inputs:
        raise UserError(
            f"The dataset {dataset.reference} needs features. Declare them, as in"
            " inputs={'age': 'number'}, targets={'income': 'binary'}"
        )
    return {"inputs": dict(inputs), "targets": dict(targets or {}), "weight": weight}


def _words_like(like: Feed, given: list[str]) -> dict[str, Any]:
    """Return another feed's features, as words of a recipe."""
    # `like` itself is one of those given.
    if len(given) > 1:
        others = ", ".join(word for word in given if word != "like")
        raise UserError(
            f"`like` takes the features of the other feed, so {others} cannot be given as"
            " well"
        )
    if like.samples is not None:
        raise UserError(
            f"The feed {like.id} has samples of series. Only a recipe can declare how"
            " rows become samples"
        )
    encoding = like.encoding
    return {
        "inputs": {name: feature.to_dict() for name, feature in encoding.inputs.items()},
        "targets": {
            name: feature.to_dict() for name, feature in encoding.targets.items()
        },
        "weight": encoding.weight,
    }
