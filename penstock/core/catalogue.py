"""A catalogue: what the finished artefacts of a shelf say of themselves, in one file.

    index/catalogue/<shelf>.json      {"format": 1, "rows": {<artefact>: {"stamp": …, "row": {…}}}}

A finished artefact is never edited, so a row that was read once holds for ever: the first listing reads every
manifest, later ones this file and the manifests that are new. The file is a cache and nothing else. One that
is torn, of another format or gone is made anew, and of two processes that write it at once the last one wins,
at the price of reading a few manifests again. In a folder a row also carries its file's size and time: what
somebody changed by hand is read as it is now.

What this file refuses to know: what a row holds.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from typing import Any

from penstock.core.errors import StoreError
from penstock.core.jsons import parsed
from penstock.core.store import Store

FORMAT = 1
WORTH_WRITING = 16
"""So many new rows are worth writing the file for; a smaller store is listed from its manifests."""


class Catalogue:
    """The rows of one shelf.

    Args:
        store: where.
        shelf: such as `runs`.
        file: the file of an artefact that its row is read from, such as `run.json`.
    """

    def __init__(self, store: Store, shelf: str, *, file: str) -> None:
        self._store, self._file = store, file
        self._name = f"index/catalogue/{shelf}.json"
        self._entries = _entries(self._read())
        # Only what was asked for is written again, so rows of removed artefacts fall
        # away.
        self._seen: dict[str, dict[str, Any]] = {}
        self._added = 0

    def row(self, artefact: str) -> dict[str, Any] | None:
        """The row of a finished artefact (`runs/run-…`); None where it must be read."""
        entry = self._entries.get(artefact)
        # Changed by hand since: it is read as it is now.
        if entry is None or entry["stamp"] != self._stamp(artefact):
            return None
        self._seen[artefact] = entry
        row: dict[str, Any] = entry["row"]
        return row

    def add(self, artefact: str, row: dict[str, Any]) -> None:
        """A row that was read, of an artefact that is finished."""
        self._seen[artefact] = {"stamp": self._stamp(artefact), "row": row}
        self._added += 1

    def save(self, finished: Collection[str]) -> None:
        """Write the rows that were asked for or added, where enough are new. A store
        that may only be read stays as it is.

        Args:
            finished: the artefacts that are there; rows of others are let go.
        """
        # A few manifests are read as fast as the file, and a write may collide with
        # others'.
        if self._added < WORTH_WRITING:
            return
        rows = {
            artefact: entry
            for artefact, entry in self._seen.items()
            if artefact in finished
        }
        # The listing is right without it, so a read-only store is no trouble.
        with contextlib.suppress(StoreError):
            self._store.write_text(
                self._name,
                text=json.dumps({"format": FORMAT, "rows": rows}, sort_keys=True),
            )

    def _read(self) -> str | None:
        # A cache that cannot be read is the same as none.
        with contextlib.suppress(StoreError, OSError, UnicodeDecodeError):
            return self._store.read_text(self._name)
        return None

    def _stamp(self, artefact: str) -> list[int] | None:
        """Size in bytes and time in nanoseconds of the artefact's file; None in a bucket, where asking would
        cost as much as reading.
        """
        if self._store.is_remote:
            return None
        try:
            status = self._store.at(f"{artefact}/{self._file}").stat()
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns]


def _entries(text: str | None) -> dict[str, dict[str, Any]]:
    """The entries of a catalogue's text; none where the text is not as `save` writes
    it.
    """
    try:
        whole = parsed(text or "{}")
    except ValueError:
        return {}
    # Anybody may have written the file, so each level is checked before it is used.
    if (
        not isinstance(whole, dict)
        or whole.get("format") != FORMAT
        or not isinstance(whole.get("rows"), dict)
    ):
        return {}
    return {
        artefact: entry
        for artefact, entry in whole["rows"].items()
        if isinstance(entry, dict)
        and "stamp" in entry
        and isinstance(entry.get("row"), dict)
    }
