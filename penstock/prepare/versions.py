"""A version of a dataset, or some of its rows, by what a user calls it."""

from __future__ import annotations

from penstock.core.store import Store
from penstock.prepare.dataset import Dataset
from penstock.prepare.subset import open_subset


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
