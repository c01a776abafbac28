"""Versions whose rows were partly forgotten, and the versions that took their places.

    index/forgotten/<name>.<id>      the id of the version without those rows

The source may still have the rows: whoever prepares it again with the same recipe gets the version without
them, and not the rows back.
"""

from __future__ import annotations

from penstock.core.errors import StoreError
from penstock.core.store import Store

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
