"""Chooses the store: the one given, or the recipe's, or `./store`."""

from __future__ import annotations

from pathlib import Path

from penstock.core.store import Store
from penstock.recipe.schema import Recipe

StoreLike = Store | str | Path
"""A store, its folder, or its URL."""


def store_of(recipe: Recipe, store: StoreLike | None = None) -> Store:
    """Return the store given, or else the recipe's (a relative path starts from the
    recipe's folder).

    Either keeps on this machine as many bytes of a bucket's files as the recipe's `resources.cache` says.
    """
    if isinstance(store, Store):
        return store
    if store is None:
        store = recipe.store if "://" in recipe.store else recipe.base / recipe.store
    return Store(store, cache_bytes=recipe.resources.cache)


def as_store(store: StoreLike | None) -> Store:
    """Return the store given, opened from a folder or URL; `./store` if none is given."""
    return store if isinstance(store, Store) else Store(store or "./store")
