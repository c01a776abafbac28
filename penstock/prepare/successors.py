"""Versions whose rows were partly forgotten, and the versions that took their places.

    index/forgotten/<name>.<id>      the id of the version without those rows

The source may still have the rows: whoever prepares it again with the same recipe gets the version without
them, and not the rows back. Who prepares more files, or others, gets a version of its own id without the rows
that are known again (`forgotten`).
"""

from __future__ import annotations

from dataclasses import replace

from penstock.core.errors import StoreError
from penstock.core.identity import fingerprint
from penstock.core.store import Store
from penstock.prepare.forgotten import forgotten_rows
from penstock.prepare.survey import Survey, survey
from penstock.recipe.schema import Recipe

_FOLDER = "index/forgotten"


def succeed(store: Store, name: str, id: str, child: str) -> None:
    """Note that of the dataset `name` the version `child` stands for `id` from now on."""
    store.write_text(f"{_FOLDER}/{name}.{id}", text=f"{child}\n")


def current(store: Store, name: str, id: str) -> str:
    """The id of the version that stands for the version `id` of the dataset `name`: its own unless rows of it
    were forgotten.

    Raises:
        StoreError: rows of it were forgotten, and the version without them is gone.
    """
    first, visited = id, {id}
    while not store.has(f"datasets/{name}/{id}"):
        child = (store.read_text(f"{_FOLDER}/{name}.{id}") or "").strip()
        if not child and id == first:
            return id
        if not child or child in visited:
            raise StoreError(
                f"rows of {name}@{first} were forgotten (`penstock audit {name}`), and the version without"
                f" them, {name}@{id}, is not in the store {store.url}. Prepared again from its source, the"
                " rows would be back: take them out of the source, which makes another version."
            )
        id = child
        visited.add(id)
    return id


def current_survey(recipe: Recipe, store: Store) -> Survey:
    """The survey of a recipe's sources, with the id of the version that stands for them in this store.

    Raises:
        SourceError: a source cannot be found or read.
        StoreError: the version without forgotten rows is gone, or a list of such rows was changed.
        UserError: the recipe names a `dataset`, so there is nothing to prepare.
    """
    sources = survey(recipe, store)
    id = current(store, recipe.name, sources.id)
    if id != sources.id or store.has(f"datasets/{recipe.name}/{id}"):
        return replace(sources, id=id)
    forgotten = forgotten_rows(store, recipe.name)
    if forgotten is None:
        return sources
    id = fingerprint("without forgotten rows", sources.id, forgotten.digest)
    return replace(sources, id=id, whole=sources.id, forgotten=forgotten)
