"""A version of a dataset, or some of its rows, by what a user calls it; and a recipe that learns from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.contracts.foreign import is_loaded, no_foreign_code
from penstock.core.errors import PenstockError, RecipeError, UserError
from penstock.core.sound import sound
from penstock.core.store import Store
from penstock.prepare.dataset import Dataset
from penstock.prepare.recipe_columns import learning_problems
from penstock.prepare.subset import open_subset
from penstock.recipe.of_dataset import PREPARING
from penstock.recipe.schema import Recipe, load_recipe


def open_version(store: Store, reference: str, *, verify: bool = False) -> Dataset:
    """The dataset `NAME@ID`, `NAME@TAG` or `NAME` (the newest); with `?where=…` a subset of it.

    Raises:
        UserError: the words of a subset are not such.
        RecipeError: the condition of a subset is not allowed, or names a column that is not there.
        StoreError: there is no such version, or it was changed.
    """
    if "?" in reference:
        return open_subset(store, reference)
    return Dataset.open(store, reference=reference, verify=verify)


def declared_words(dataset: Dataset) -> dict[str, Any]:
    """The words of the recipe that prepared a version, as far as they are about preparing; without secrets.

    `source` is as it was read; its paths start from the folder of the recipe.
    """
    with sound(f"the dataset {dataset.reference}"):
        lineage = dataset.manifest["lineage"]
        words = dict(lineage["declared"])
        # They are in an id alone: the first for series, the second says that a key is the same one.
        words.pop("row_order", None)
        words.pop("private_keys", None)
        seed = words.pop("split_seed")
        words.pop("sample_seed", None)
        return {
            **words,
            "split": {**words["split"], "seed": seed},
            "source": lineage["reading"],
        }


def over_version(recipe: Recipe, store: Store) -> tuple[Recipe, Dataset | None]:
    """A recipe that names a `dataset`, and that; with the words by which the version was prepared filled in,
    so that a bundle prepares requests likewise. Other recipes as they are, and None.

    Raises:
        RecipeError: the version lacks columns that the recipe names.
        UserError: what the version says of its preparation does not hold here.
        StoreError: there is no such version.
    """
    if recipe.dataset is None:
        return recipe, None
    dataset = open_version(store, recipe.dataset)
    if problems := learning_problems(recipe, dataset.schema.names[1:]):
        raise RecipeError.of(problems, where=f"the recipe {recipe.name!r}")
    prepared = _prepared(dataset, recipe.base)
    words = {word: getattr(prepared, word) for word in PREPARING}
    return recipe.model_copy(update={**words, "dataset": None}), dataset


def _prepared(dataset: Dataset, base: Path) -> Recipe:
    try:
        # The words of a manifest may be anybody's: they import no module that is not here already.
        with no_foreign_code(but=is_loaded):
            return load_recipe(declared_words(dataset), base=base, name=dataset.name)
    except PenstockError as error:
        raise UserError(
            f"{dataset.reference} cannot be learnt from by its name alone, because what it says of its"
            f" preparation does not hold here. Train with the recipe that prepared it. {error.message}"
        ) from error
