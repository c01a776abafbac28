"""The contract of a recipe with what its rules compare with, opened on the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.contracts.data import EngineSession
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import did_you_mean, listed
from penstock.core.store import Store
from penstock.prepare.dataset import Dataset
from penstock.prepare.extraction import Extracts
from penstock.prepare.row_ids import read_extract
from penstock.prepare.validate import Contract
from penstock.recipe.expect import ExpectTable, other_sources
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    import ibis.expr.types as ir


def contract_of(
    recipe: Recipe, extracts: Extracts, session: EngineSession, store: Store | None
) -> Contract:
    """The contract of a recipe, ready to be judged.

    Args:
        store: where datasets are that rules compare with; the recipe's own unless given.

    Raises:
        RecipeError: a dataset of a drift lacks the column.
        StoreError: a dataset is not there.
    """
    compared: dict[tuple[str | int, ...], ir.Value] = {}
    others = other_sources(recipe.expect)
    for (path, _, _, theirs), extract in zip(others, extracts.compared, strict=True):
        compared[path] = read_extract(session, extract)[theirs]
    for column, promise in recipe.expect.items():
        for inner, rule in promise.rules():
            if rule.drift is None or rule.drift.dataset is None:
                continue
            dataset = Dataset.open(
                store or Store(recipe.store), reference=rule.drift.dataset
            )
            path = ("expect", column, *inner, "drift")
            theirs, known = rule.drift.column or column, dataset.schema.names
            if theirs not in known:
                text = (
                    f"{dataset.reference} has no column {theirs!r}.{did_you_mean(theirs, known)} Columns:"
                    f" {listed(known)}."
                )
                raise RecipeError.of(
                    [Problem((*path, "column"), text)], where="the recipe"
                )
            compared[path] = session.read(dataset.files("train"), [theirs])[theirs]
    return Contract(recipe.expect, recipe.expect_table or ExpectTable(), compared)
