"""Markers: which artefacts were made for a key, found without reading every manifest.

    index/<shelf>/<key>.<artefact>      an empty file; made when the artefact is begun, never edited

A marker says only that the artefact was begun for that key. Whether it is finished, the artefact itself says,
so nothing here can be out of step with it. Artefacts without a marker (of an earlier Penstock, or of one that
was killed between the two writings) are read once, and marked then if the store may be written.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable

from penstock.core.errors import StoreError
from penstock.core.identity import fingerprint
from penstock.core.store import Store

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,100}")


def mark(store: Store, shelf: str, key: str, artefact: str) -> None:
    """Mark that `artefact` of `shelf` was begun for `key`.

    Raises:
        StoreError: the store cannot be written.
    """
    store.write_text(f"index/{shelf}/{_word(key)}.{artefact}", text="\n")


def marked(
    store: Store,
    shelf: str,
    key: str,
    artefacts: Iterable[str],
    key_of: Callable[[str], str | None],
) -> list[str]:
    """Those of `artefacts` that were begun for `key`, in their order.

    Args:
        key_of: the key of an artefact that has no marker, read from itself; None if that cannot be known.
    """
    # One listing instead of a read for every artefact.
    keys = {
        artefact: word
        for word, _, artefact in (
            name.partition(".") for name in store.texts(f"index/{shelf}")
        )
    }
    matching = []
    for artefact in artefacts:
        if artefact not in keys:
            own = key_of(artefact)
            if own is None:
                continue
            keys[artefact] = _word(own)
            with contextlib.suppress(StoreError):  # a store that may only be read
                mark(store, shelf, own, artefact)
        if keys[artefact] == _word(key):
            matching.append(artefact)
    return matching


def _word(key: str) -> str:
    # A key becomes part of a file's name, so an unusual one is replaced by its
    # fingerprint.
    return key if _PLAIN.fullmatch(key) else fingerprint("marker", key)
