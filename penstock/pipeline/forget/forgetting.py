"""Forgetting, done: new versions first, then the old ones go, and what was made of them.

    look through the store → rows remembered by hashes → children → records of runs blanked → journal
    → destroy → report → journal gone

Until the journal is written, the old versions are whole, and doing it again begins anew and finds the
children. From then on the journal says what must go, without any value, and whoever forgets next in this
store first does what is left of it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from penstock.core.caches import cache_folder
from penstock.core.destroy import destroy, rewrite
from penstock.core.errors import StoreError
from penstock.core.events import Events
from penstock.core.identity import new_ulid
from penstock.core.jsons import parsed
from penstock.core.making import making
from penstock.core.store import Store
from penstock.core.wording import counted
from penstock.pipeline.forget import record
from penstock.pipeline.forget.child import remember, write_child
from penstock.pipeline.forget.conditions import Condition
from penstock.pipeline.forget.plan import ForgetPlan, Traced, Version, make_plan
from penstock.pipeline.forget.traces import blanked
from penstock.prepare.successors import succeed
from penstock.prepare.tags import set_tag, tags_of

_JOURNAL = ".journal"
_SHELVES = ("datasets/", "feeds/", "bundles/", "reports/")


def forget(store: Store, condition: Condition, events: Events) -> dict[str, Any]:
    """Take the rows that a condition is true of out of every dataset of a store.

    Returns:
        The signed report, with `report`, its name in the store; without one where no dataset has such rows.

    Raises:
        UserError: a run on one of the datasets is under way.
        StoreError: the store cannot be read or written. Doing it again goes on.
    """
    with making(store, "forget", "a forgetting in this store", events):
        finish(store, condition, events)
        plan = make_plan(store, condition)
        if not plan.versions:
            return plan.to_dict()
        facts = condition.facts()
        for version in plan.versions:
            matched = version.matched
            # Before anything goes, since only the rows themselves say which they are.
            remember(matched, condition, store)
            child = write_child(matched, condition, store, id=version.child, facts=facts)
            events.say(
                f"{child.reference} is {matched.dataset.reference} without"
                f" {counted(matched.count, 'row')}"
            )
        journal = _journal(store, plan)
        id = new_ulid()
        store.write_text(f"{record.FOLDER}/{id}{_JOURNAL}", text=json.dumps(journal))
        return _erase(store, id, journal, condition, events)


def finish(store: Store, condition: Condition, events: Events) -> None:
    """Do what is left of forgettings that were interrupted."""
    for name in sorted(store.texts(record.FOLDER)):
        if not name.endswith(_JOURNAL):
            continue
        text = store.read_text(f"{record.FOLDER}/{name}")
        if text is None:  # it lingers on this machine; another has done what it says
            continue
        journal = _checked(text, f"{store.url}/{record.FOLDER}/{name}")
        events.say("Going on with a forgetting that was interrupted")
        _erase(store, name.removesuffix(_JOURNAL), journal, condition, events)


def _checked(text: str, where: str) -> dict[str, Any]:
    """A journal as it was written.

    Raises:
        StoreError: it was changed since.
    """
    try:
        journal = parsed(text)
        is_sound = isinstance(journal["report"]["versions"], list) and all(
            str(name).startswith(_SHELVES) for name in journal["destroy"]
        )
        is_sound = is_sound and all(len(three) == 3 for three in journal["successors"])
        lists = (journal["checkpoints"], journal["copies"])
        is_sound = is_sound and all(isinstance(each, list) for each in lists)
    except (ValueError, KeyError, TypeError):
        is_sound = False
    if not is_sound:
        raise StoreError(
            f"{where} says what a forgetting has left to do, and was changed since. Nothing was done. Remove"
            " it, and give the condition of that forgetting again."
        )
    whole: dict[str, Any] = journal
    return whole


def _journal(store: Store, plan: ForgetPlan) -> dict[str, Any]:
    """What must go, and what the report will say; records of runs are blanked before, since only the values
    themselves tell where.
    """
    report: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **plan.to_dict(),
        "remains": list(record.REMAINS),
    }
    names: list[str] = []
    successors: list[list[str]] = []
    copies: list[str] = []
    checkpoints: list[str] = []
    for version, facts in zip(plan.versions, report["versions"], strict=True):
        dataset = version.matched.dataset
        facts["records_blanked"] = sum(_blank(store, run) for run in version.runs)
        names += [f"feeds/{id}" for id in version.feeds]
        names += [t.name for t in (*version.reports, *version.bundles) if t.holds_values]
        successors.append([dataset.name, dataset.id, version.child])
        checkpoints += [run.name for run in version.runs]
        copies += _copies(version)
    # Datasets go last: as long as one is whole, all can be found anew.
    names += [f"datasets/{name}/{id}" for name, id, _ in successors]
    return {
        "report": report,
        "destroy": list(dict.fromkeys(names)),
        "successors": successors,
        "checkpoints": list(dict.fromkeys(checkpoints)),
        "copies": sorted(set(copies)),
    }


def _blank(store: Store, run: Traced) -> int:
    """Blank the values in a run's records; returns how many files had any."""
    contents: dict[str, bytes | None] = {}
    for file in run.files:
        content = store.read(run.name, file=file)
        if content is not None:
            text = blanked(file, content.decode("utf-8", "replace"), run.values)
            contents[file] = text.encode()
    if contents:
        rewrite(store, run.name, contents)
    return len(contents)


def _copies(version: Version) -> list[str]:
    """Files of this machine's cache that rows of a database, or of a frame, were prepared from."""
    folder, paths = cache_folder(), []
    for file in version.matched.dataset.manifest["lineage"].get("source") or ():
        path = Path(str(file["url"]).removeprefix("file://"))
        pulled = folder / "pulled" / f"{file.get('sha256')}.parquet"
        paths += [
            str(p) for p in (path, pulled) if p.is_relative_to(folder) and p.is_file()
        ]
    return paths


def _erase(
    store: Store,
    id: str,
    journal: dict[str, Any],
    condition: Condition,
    events: Events,
) -> dict[str, Any]:
    """Do what a journal says, and write its report. Again and again, the result is the same."""
    # First, so that no one who prepares meanwhile gets the rows back.
    for name, old, child in journal["successors"]:
        succeed(store, name, old, child)
        # Whoever names the version by a tag means the one that stands for it now.
        for tag in tags_of(store, name):
            if tag.dataset == f"{name}@{old}":
                set_tag(store, f"{name}@{child}", tag.tag, events, force=True)
    for run in journal["checkpoints"]:
        _drop_checkpoints(store, run)
    for at, name in enumerate(journal["destroy"], 1):
        events.progress("forget", at, len(journal["destroy"]), "artefacts")
        destroy(store, name)
    for path in journal["copies"]:
        # Nothing but a file of the cache is ever removed, whatever a journal says.
        if Path(path).resolve().is_relative_to(cache_folder().resolve()):
            Path(path).unlink(missing_ok=True)
    report = record.sign(journal["report"], condition)
    name = record.write(store, id, report)
    _drop_text(store, f"{record.FOLDER}/{id}{_JOURNAL}")
    return {**report, "report": name}


def _drop_checkpoints(store: Store, run: str) -> None:
    """Remove a run's checkpoints: they serve only to go on with a training on the rows."""
    prefix = f"{run}/checkpoints/"
    folder = store.at(prefix.rstrip("/"))
    files = {
        p.relative_to(store.at(run)).as_posix() for p in folder.rglob("*") if p.is_file()
    }
    if store.is_remote:
        files |= {key.removeprefix(f"{run}/") for key in store.shelf.below(prefix[:-1])}
    if files:
        rewrite(store, run, dict.fromkeys(sorted(files)))


def _drop_text(store: Store, name: str) -> None:
    store.shelf.drop(name)
    store.at(name).unlink(missing_ok=True)


__all__ = ["finish", "forget"]
