"""An artefact is taken out of a store for good, or a file of it: the one exception to "never edited".

It is for rows that must not be kept (`pipeline.forget`). In a bucket the objects go, and this machine's
copies of them; what other machines, versions of a bucket's objects, snapshots and backups hold is out of
reach.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core.caches import cache_folder
from penstock.core.errors import StoreError
from penstock.core.identity import fingerprint
from penstock.core.jsons import parsed
from penstock.core.store import MANIFEST, Store, as_store_error, atomic_write


def destroy(store: Store, name: str) -> None:
    """Remove the artefact `name`: its objects, its folder, and this machine's copies of its files.

    What a killed process left of it goes as well.

    Raises:
        StoreError: the store may not be written.
    """
    checksums = _checksums(store, name)
    # The manifest first: from then on nobody takes it for whole.
    store.forget(name)
    for place in (store.at(name), store.at(f".files/{name}")):
        with as_store_error(place):
            (place / MANIFEST).unlink(missing_ok=True)
            if place.is_dir():
                shutil.rmtree(place)
    with as_store_error(store.folder):
        store.at(f".pushed/{fingerprint(name)}.json").unlink(missing_ok=True)
    drop_copies(checksums)


def _checksums(store: Store, name: str) -> list[str]:
    if not store.is_remote:
        return []  # only files of a bucket are copied
    with contextlib.suppress(StoreError):
        return [str(entry["sha256"]) for entry in store.manifest(name)["files"].values()]
    return []


def drop_copies(checksums: list[str]) -> None:
    """Remove this machine's copies of files, by their SHA-256."""
    shards = cache_folder() / "shards"
    for checksum in checksums:
        for path in (shards / checksum, shards / f"{checksum}.part"):
            with as_store_error(path):
                path.unlink(missing_ok=True)


def rewrite(store: Store, name: str, files: Mapping[str, bytes | None]) -> None:
    """Put other content into files of an artefact (None removes one); its manifest agrees with it afterwards.

    Killed half way, the manifest disagrees with a file until this is called again.

    Raises:
        StoreError: the store may not be written.
    """
    content = store.read(name, file=MANIFEST)
    if content is not None:
        manifest: dict[str, Any] = parsed(content)
        for file, data in files.items():
            manifest["files"].pop(file, None)
            if data is not None:
                manifest["files"][file] = {
                    "size_bytes": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
        manifest["files"] = dict(sorted(manifest["files"].items()))
        _put(store, f"{name}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
    for file, data in files.items():
        _put(store, f"{name}/{file}", data)


def _put(store: Store, key: str, data: bytes | None) -> None:
    path = store.at(key)
    if data is None:
        store.shelf.drop(key)
        path.unlink(missing_ok=True)
        return
    if store.is_remote:
        store.shelf.write(key, data)
    # In a bucket's mirror only what is there is renewed.
    if not store.is_remote or path.is_file():
        atomic_write(path, data)
    _copy(store, key).unlink(missing_ok=True)


def _copy(store: Store, key: str) -> Path:
    return store.at(f".files/{key}")


__all__ = ["destroy", "drop_copies", "rewrite"]
