"""What a user calls an artefact: its reference, the beginning of one, or the name of its recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock.core.errors import UserError
from penstock.core.store import Store
from penstock.pipeline.listing import listed, listed_runs
from penstock.run import Run

_ID = re.compile(r"[0-9a-f]{4,}")


def whole_reference(text: str, store: Store) -> str:
    """Return the reference that `text` stands for, as far as it is not one that its own noun understands.

    The name of a recipe means its newest run, or its newest dataset where it has none. Otherwise a report or
    a feed may be given by the first characters of its id. Anything else is returned as it is.

    Raises:
        UserError: several reports or feeds begin so.
    """
    if "@" in text or "/" in text or text.startswith(("run-", "bundle-")):
        return text
    # A name may look like the beginning of an id; an id is never given in place of a name.
    if named := newest_called(text, store):
        return named
    if _ID.fullmatch(text):
        ids = [
            name.split("/")[1]
            for shelf in ("reports", "feeds")
            for name in store.names(shelf)
        ]
        near = [id for id in ids if id.startswith(text)]
        if len(near) > 1 and text not in near:
            raise ambiguous(text, near, store)
        if near:
            return near[0]
    return text


def ambiguous(text: str, references: Sequence[str], store: Store) -> UserError:
    """Return the error for a beginning that several references have."""
    some = ", ".join(references[:10]) + (" …" if len(references) > 10 else "")
    return UserError(
        f"{text!r} is the beginning of {len(references)} references in the store {store.url}: {some}."
        " Give more of it."
    )


def newest_called(name: str, store: Store) -> str | None:
    """Return the reference of the newest run of the recipe `name`, else that of its newest dataset."""
    for rows in (listed_runs(store), listed(store, "datasets")):
        for row in rows:
            if "problem" not in row and row.get("name") == name:
                return str(row["reference"])
    return None


def bundle_of(run: Run, store: Store) -> str | None:
    """Return the reference of the newest bundle that was packed of a run."""
    return _newest(store, "bundles", "run", run.id)


def report_of(bundle: str, store: Store) -> str | None:
    """Return the id of the newest report on a bundle."""
    return _newest(store, "reports", "bundle", bundle)


def _newest(store: Store, shelf: str, word: str, value: str) -> str | None:
    rows = listed(store, shelf)
    return next((str(row["reference"]) for row in rows if row.get(word) == value), None)
