"""Lists the artefacts of a store; one that cannot be read is listed with its problem,
and hides no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from penstock.core.catalogue import Catalogue
from penstock.core.errors import StoreError
from penstock.core.events import Event, Events
from penstock.core.listeners import listening, notify
from penstock.core.paths import reason, shown
from penstock.core.store import MANIFEST, Store
from penstock.run import Run

SHELVES = ("datasets", "bundles", "feeds", "reports")
"""Shelves of artefacts that a manifest finishes."""
LISTED = ("datasets", "runs", "bundles", "reports", "feeds")
"""All shelves, in the order in which they are shown."""
_TOLD = ("name", "counts", "run", "dataset", "bundle", "rows")


def listed(store: Store, shelf: str) -> list[dict[str, Any]]:
    """List the artefacts of one of `SHELVES`, newest first; those that cannot be read
    come last, with their `problem`.

    Raises:
        StoreError: the store itself cannot be listed.
    """
    with _left_out() as left:
        rows, problems = _listed(store, shelf)
    return (
        sorted(rows, key=lambda row: str(row["created"]), reverse=True) + problems + left
    )


@contextmanager
def _left_out() -> Iterator[list[dict[str, Any]]]:
    """Collect warnings about keys of a bucket that no path may be made of, as rows with
    their `problem`; other warnings are passed on.
    """
    rows: list[dict[str, Any]] = []
    others: list[Event] = []

    # A warning about a key is a row of the list.
    def take(event: Event) -> None:
        if "key" not in event.fields:
            others.append(event)
        elif (
            row := {"reference": event.fields["key"], "problem": event.fields["text"]}
        ) not in rows:
            rows.append(row)

    with listening(Events(take)):
        yield rows
    for event in others:
        if event.name == "warned":
            notify(event.fields["text"])


def _listed(
    store: Store, shelf: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the artefacts of a shelf, and those that cannot be read."""
    rows: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for folder in store.folders(shelf) if shelf == "datasets" else [shelf]:
        if (why := reason(folder)) is not None:
            problems.append(
                {"reference": shown(folder), "problem": f"its name is refused: {why}"}
            )
            continue
        names = store.names(folder)
        # Rows of finished artefacts never change, so they are read once and remembered.
        catalogue = Catalogue(store, folder, file=MANIFEST)
        catalogued = _catalogued(catalogue, names)
        for name in names:
            if name in catalogued:
                rows.append(catalogued[name])
                continue
            try:
                row = _row(store, name, shelf)
            except (StoreError, OSError) as error:
                problems.append(
                    {"reference": _reference(name, shelf), "problem": str(error)}
                )
            else:
                rows.append(row)
                # What could not be read is not remembered, and is tried again next
                # time.
                catalogue.add(name, row)
        catalogue.save(names)
    return rows, problems


def listed_runs(store: Store) -> list[dict[str, Any]]:
    """List every run, newest first; those whose record cannot be read come last, with
    their `problem`.
    """
    with _left_out() as hidden:
        folders = store.folders("runs")
        # Only a run with a manifest can no longer change.
        finished = set(store.names("runs"))
        catalogue = Catalogue(store, "runs", file="run.json")
        catalogued = _catalogued(catalogue, finished)
        runs = Run.all(store, but=catalogued)
    rows = list(catalogued.values())
    for run, status in zip(runs, Run.statuses(runs), strict=True):
        row = {
            "reference": run.id,
            "status": status,
            "created": run.created,
            "name": run.name,
            "dataset": run.dataset,
        }
        rows.append(row)
        # A row with odd values is read again, so that it is reported each time.
        if f"runs/{run.id}" in finished and _is_plain(row):
            catalogue.add(f"runs/{run.id}", row)
    catalogue.save(finished)
    # Ids are in the order in which runs were made.
    rows.sort(key=lambda row: str(row["reference"]), reverse=True)
    odd = [row for row in rows if not _is_plain(row)]
    known = {f"runs/{run.id}" for run in runs} | set(catalogued)
    left = [name for name in folders if name not in known]
    changed = [
        {
            "reference": row["reference"],
            "problem": "its record has values that Penstock never writes",
        }
        for row in odd
    ]
    return (
        [row for row in rows if row not in odd]
        + changed
        + list(_unread_runs(store, left))
        + hidden
    )


def _catalogued(
    catalogue: Catalogue, finished: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return the catalogue's rows of finished artefacts, by name; rows that Penstock
    would not write are left out, and read again.
    """
    rows = {name: row for name in finished if (row := catalogue.row(name)) is not None}
    return {
        name: row
        for name, row in rows.items()
        if isinstance(row.get("reference"), str) and all(map(_is_plain, row.values()))
    }


def _unread_runs(store: Store, names: list[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        id = name.removeprefix("runs/")
        try:
            # Without a record it is torn at its birth, or no run; nobody needs to hear
            # of it.
            if store.read(name, file="run.json") is None:
                continue  # torn at its birth, or no run
            Run(store, id)
            problem = "its name is not the name of a run"
        except (StoreError, OSError) as error:
            problem = str(error)
        yield {"reference": shown(id) if reason(id) else id, "problem": problem}


def _row(store: Store, name: str, shelf: str) -> dict[str, Any]:
    manifest = store.manifest(name)
    facts = {
        "created": manifest.get("created"),
        **{word: manifest[word] for word in _TOLD if word in manifest},
    }
    counts = facts.get("counts", {"in": 0})
    odd = [word for word, value in facts.items() if not _is_plain(value)]
    if odd or not isinstance(counts, dict) or "in" not in counts:
        what = odd[0] if odd else "counts"
        raise StoreError(
            f"its manifest has a value for {what!r} that Penstock never writes. It was"
            " changed after it was written."
        )
    if "counts" in facts:
        facts["rows"] = counts["in"]
    return {"reference": _reference(name, shelf), **facts}


def _reference(name: str, shelf: str) -> str:
    *_, above, last = name.split("/")
    reference = {"datasets": f"{above}@{last}", "bundles": f"bundle-{last}"}.get(
        shelf, last
    )
    return shown(reference) if reason(reference) else reference


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text that a terminal can show, or a mapping of
    these.
    """
    if isinstance(value, dict):
        return all(
            _is_plain(key) and not isinstance(each, dict) and _is_plain(each)
            for key, each in value.items()
        )
    return (
        value is None
        or isinstance(value, (int, float))
        or (isinstance(value, str) and (not value or value.isprintable()))
    )
