"""A version made of an older one and of files that came later: only the new files are read.

The rows of the parent are shared, not copied (`core.sharing`); those of the new files are prepared by the
same steps and written as another run of files (`runs`). The result has the id and the content of preparing
all files: rows, ids, splits, quarantine, counts, what the contract found. So it is made only where each row
stands alone (`standing.preventing`); anywhere else all files are prepared anew, and the word of the recipe
that asks for it is named. Its profile is made when it is asked for, since that is a pass over all rows
(`version_profile`).

What follows from all files together is compared before anything is believed: the new files must have the very
columns and types of the parent's.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID, Snapshot, SourceFile
from penstock.core.errors import (
    ContractError,
    Problem,
    RecipeError,
    SourceError,
    StoreError,
)
from penstock.core.events import Events
from penstock.core.sharing import SharedFile, shared_of
from penstock.core.store import Store, as_store_error
from penstock.core.wording import counted
from penstock.prepare import sums
from penstock.prepare.budget import threads_of
from penstock.prepare.dataset import Dataset
from penstock.prepare.extraction import Extracts, extract
from penstock.prepare.preparation import Preparation
from penstock.prepare.runs import in_run, run_of
from penstock.prepare.standing import nameless, preventing
from penstock.prepare.survey import Survey, family_id, lineage
from penstock.recipe.schema import Recipe

FAMILY = "family"
"""The word of a manifest for what makes versions comparable."""
_MOST_RUNS = 32
"""A version with so many runs of files is prepared anew the next time: every reader holds a batch of each."""


class Unsharable(Exception):
    """All files must be prepared anew; the text says why. It never leaves this file."""


@dataclass
class Parent:
    """A version whose files are among those of the source."""

    dataset: Dataset
    new: tuple[SourceFile, ...]
    """The source's other files."""


def family_facts(recipe: Recipe, sources: Survey, extracts: Extracts) -> dict[str, Any]:
    """What a manifest says so that versions of more files can be made of this one."""
    schema = base64.b64encode(extracts.main.schema.serialize().to_pybytes()).decode()
    facts = {"id": family_id(recipe, sources.joined), "columns": schema}
    if recipe.fit == "parent":
        facts["facts_of"] = str(recipe.parent)
    return {FAMILY: facts}


# -- which version -------------------------------------------------------------------------------------------


def parent_of(
    recipe: Recipe, store: Store, sources: Survey, events: Events
) -> Parent | None:
    """The version that a child can be made of: the one that the recipe names, or that has most of the files.

    None, with the reason told where a version came near, if all files must be prepared.

    Raises:
        RecipeError: the recipe takes over what a parent learnt, and it cannot be had.
    """
    family = family_id(recipe, sources.joined)
    why = preventing(recipe, [file.path for file in sources.snapshot.files])
    best: Parent | None = None
    reason = ""
    for name in _candidates(recipe, store):
        try:
            manifest = store.manifest(name)
        except StoreError as error:
            # One that nobody asked for may be damaged; it is only no parent.
            reason = reason or (error.message if recipe.parent else "")
            continue
        if manifest.get(FAMILY, {}).get("id") != family or not _is_plain(
            recipe, manifest
        ):
            continue
        reference = f"{manifest.get('name')}@{manifest.get('id')}"
        new = _compared(sources.snapshot, manifest)
        if isinstance(new, str):
            reason = reason or (new and f"{reference}: {new}")
        elif why:
            reason = f"{reference} has the rows of {_files(sources, new)}, but {why}"
        elif best is None or len(new) < len(best.new):
            try:
                best = Parent(Dataset.at(store, name=name), new)
            except StoreError as error:
                reason = f"{reference} cannot be shared: {error.message}"
    if best is None:
        _told(recipe, reason, events)
    return best


def _candidates(recipe: Recipe, store: Store) -> list[str]:
    if recipe.parent is None:
        return store.names(f"datasets/{recipe.name}")
    name = "datasets/" + recipe.parent.replace("@", "/")
    return [name] if store.has(name) else []


def _is_plain(recipe: Recipe, manifest: Mapping[str, Any]) -> bool:
    """Whether a version has all rows of its files, mended as the recipe would mend them."""
    # Without forgotten rows it is not what preparing its files would give.
    if "forgotten" in manifest.get("lineage", {}):
        return False
    return recipe.fit == "parent" or "facts_of" not in manifest[FAMILY]


def _key(file: Mapping[str, Any]) -> tuple[Any, ...]:
    return file.get("path"), file.get("sha256"), file.get("split")


def _compared(
    snapshot: Snapshot, manifest: Mapping[str, Any]
) -> tuple[SourceFile, ...] | str:
    """The files that a version lacks; a text where it has others, empty where it has none of these."""
    now = {(f.path, f.sha256, f.split): f for f in snapshot.files}
    old = {_key(file): file for file in manifest["lineage"]["source"]}
    gone = [file["path"] for key, file in old.items() if key not in now]
    if gone and len(gone) == len(old):
        return ""
    if gone:
        more = f" and {len(gone) - 1:,} more" if len(gone) > 1 else ""
        return f"its file {gone[0]}{more} was changed or is gone since"
    new = tuple(file for key, file in now.items() if key not in old)
    return new or "it has all files of the source"


def _files(sources: Survey, new: tuple[SourceFile, ...]) -> str:
    whole = len(sources.snapshot.files)
    return f"{whole - len(new):,} of {counted(whole, 'file')}"


def _told(recipe: Recipe, reason: str, events: Events) -> None:
    if recipe.fit == "parent":
        why = reason or (
            "it is not in the store, or was made by other words, of other files, or by an earlier Penstock"
        )
        text = (
            f"what cleaners of {recipe.parent} learnt cannot be taken over: {why.rstrip('.')}. Leave out"
            " `fit` and `parent` to prepare all files"
        )
        raise RecipeError.of(
            [Problem(("parent",), text)], where=f"the recipe {recipe.name!r}"
        )
    if reason:
        events.say(f"All files are prepared. {reason.rstrip('.')}")
    elif recipe.parent is not None:
        events.say(
            f"All files are prepared. {recipe.parent} is not in the store, or was made by other words, of"
            " other files, or by an earlier Penstock"
        )


# -- making it -----------------------------------------------------------------------------------------------


@dataclass
class Child:
    """A version in the making, of a parent and of new files."""

    recipe: Recipe
    store: Store
    events: Events
    sources: Survey
    parent: Parent
    shared: dict[str, SharedFile] = field(default_factory=dict)

    def make(self, name: str) -> Dataset | None:
        """Make it, as the artefact `name`; None, with the reason told, where all files must be prepared anew.

        Raises:
            RecipeError: the recipe takes over what the parent learnt, and its rows cannot be shared.
            StoreError: the store cannot be written.
        """
        try:
            manifest = self._made(name)
        except Unsharable as error:
            reference = self.parent.dataset.reference
            _told(self.recipe, f"{reference} is not shared: {error}", self.events)
            return None
        old, counts = self.parent.dataset, manifest["counts"]
        self.events.say(
            f"{counts['in']:,} rows, of which {old.counts['in']:,} are those of {old.reference}:"
            f" {counted(len(self.parent.new), 'new file')} of"
            f" {len(self.sources.snapshot.files):,} were read",
            counts=counts,
        )
        return Dataset.at(self.store, name=name)

    def _made(self, name: str) -> dict[str, Any]:
        start = time.perf_counter()
        manifest: dict[str, Any] = {}
        self._share()
        with (
            self.store.scratch("scratch-") as scratch,
            self.store.draft(name, manifest=manifest, shared=self.shared) as folder,
        ):
            with as_store_error(folder):
                manifest |= self._described(folder, scratch)
            manifest["seconds"] = round(time.perf_counter() - start, 3)
        return manifest

    def _share(self) -> None:
        """Choose the parent's files that become the child's: its rows and its quarantine."""
        old = self.parent.dataset
        name = f"datasets/{old.name}/{old.id}"
        files = [
            n for n in old.manifest["files"] if n.startswith(("rows/", "quarantine/"))
        ]
        self.number = 1 + max(map(run_of, files), default=0)
        if self.number > _MOST_RUNS:
            raise Unsharable(f"it was itself made in {_MOST_RUNS} steps, one on another")
        self.shared.update({n: shared_of(name, old.manifest, n) for n in files})
        if why := _lacking(self.store, self.shared):
            raise Unsharable(why)

    def _described(self, folder: Path, scratch: Path) -> dict[str, Any]:
        recipe, part = self.recipe, replace(self.sources)
        part.snapshot = Snapshot(self.parent.new)
        self.events.progress("prepare", 1, None, "steps", step="extract")
        try:
            extracts = extract(recipe, part, scratch, self.events)
            self._check_columns(extracts)
            with recipe.engine.open(
                scratch / "engine",
                memory_bytes=recipe.resources.memory,
                threads=threads_of(recipe),
            ) as session:
                preparation = Preparation(
                    recipe,
                    self.events,
                    folder,
                    scratch,
                    part,
                    extracts,
                    session,
                    profiled=False,
                    store=self.store,
                    is_part=True,
                    taken_facts=self.parent.dataset.facts
                    if recipe.fit == "parent"
                    else {},
                )
                described = preparation.run()
                self._check_keys(folder, described)
                self._into_run(folder)
        # It is so of all files, too, and is then told with the counts of all.
        except (SourceError, ContractError) as error:
            raise Unsharable(error.message.splitlines()[0]) from None
        return self._manifest(folder, described, extracts)

    def _check_columns(self, extracts: Extracts) -> None:
        family = self.parent.dataset.manifest[FAMILY]
        raw = pa.py_buffer(base64.b64decode(family["columns"]))
        theirs, ours = pa.ipc.read_schema(raw), extracts.main.schema
        if theirs.names != ours.names:
            odd = sorted(set(theirs.names) ^ set(ours.names))
            named = (
                f": {', '.join(map(repr, odd[:5]))}" if odd else ", or in another order"
            )
            raise Unsharable(f"the new files have other columns{named}")
        for old, new in zip(theirs, ours, strict=True):
            if old.type != new.type:
                raise Unsharable(
                    f"the column {old.name!r} is {new.type} in the new files and {old.type} in the others"
                )
        if nameless(self.recipe.source, ours.names):
            raise Unsharable(
                "columns have no names, and whether first lines are names is found out by all files together:"
                " say `header: false` in the source"
            )
        if extracts.blobs.columns:
            column = min(extracts.blobs.columns)
            raise Unsharable(f"the column {column!r} holds bytes")

    def _check_keys(self, folder: Path, described: Mapping[str, Any]) -> None:
        """Refuse a key that stands in an old row and in a new one: which is the first depends on all rows."""
        if not self.recipe.key:
            return
        old = self.parent.dataset
        if old.counts["filtered"] or described["counts"]["filtered"]:
            raise Unsharable(
                "rows with a `key` were filtered, and nobody knows any more which keys they had"
            )
        own = [_column(path, ROW_ID) for path in sorted(folder.rglob("*.parquet"))]
        ids = pa.chunked_array(own, pa.string()).combine_chunks()
        known = [_column(old.file(name), ROW_ID) for name in self.shared]
        if any(pc.any(pc.is_in(some, value_set=ids)).as_py() for some in known):
            raise Unsharable("a `key` of the new files stands in the others, too")

    def _into_run(self, folder: Path) -> None:
        """Name what was written as the child's newest run."""
        for path in sorted(folder.rglob("*.parquet")):
            file = path.relative_to(folder).as_posix()
            if not file.startswith(("rows/", "quarantine/")):
                continue
            if pq.read_metadata(path).num_rows:
                path.rename(folder / in_run(file, self.number))
            else:
                path.unlink()

    def _manifest(
        self, folder: Path, described: Mapping[str, Any], extracts: Extracts
    ) -> dict[str, Any]:
        """What the two halves say, added up."""
        old = self.parent.dataset.manifest
        if described["schema"] != old["schema"]:
            raise Unsharable("the rows of the new files have other columns or types")
        if described.get("private") != old.get("private"):
            raise Unsharable("private columns of the new files have other types")
        # After that of `described`, whose words are of the new files alone.
        paths = {f.path: i for i, f in enumerate(self.sources.snapshot.files)}
        quarantines = [
            *(self.parent.dataset.file(n) for n in self.shared if _is_quarantine(n)),
            *sorted((folder / "quarantine").glob("*.parquet")),
        ]
        reasons = sums.reasons(quarantines, paths)
        if reasons is None:
            raise Unsharable("rows are in quarantine for too many different reasons")
        manifest: dict[str, Any] = {
            "type": "dataset",
            "name": self.recipe.name,
            "id": self.sources.id,
            **described,
            "counts": sums.counts(old["counts"], described["counts"]),
            "quarantine": reasons,
            **family_facts(self.recipe, self.sources, extracts),
            "lineage": {
                **lineage(self.recipe, self.sources, extracts.lookups),
                "parent": self.parent.dataset.reference,
                "files_read": [file.path for file in self.parent.new],
            },
        }
        if "contract" in old:
            both = old["contract"]["rules"], described["contract"]["rules"]
            manifest["contract"] = {**described["contract"], "rules": sums.rules(*both)}
        if "changes" in old:
            manifest["changes"] = sums.changes(old["changes"], described["changes"])
            sums.save_changes(self.parent.dataset.file("changes.json"), folder)
        return manifest


def _lacking(store: Store, files: Mapping[str, SharedFile]) -> str | None:
    """What is wrong with files that are to be shared: one is missing, or has another size than its owner's
    manifest says. None where all are as they should be; their content is not read.
    """
    sizes: dict[str, int] = {}
    if store.is_remote:
        for owner in {shared.owner for shared in files.values()}:
            sizes |= store.shelf.below(owner)
    for file, shared in files.items():
        key = f"{shared.owner}/{file}"
        path = store.at(key)
        here = path.stat().st_size if path.is_file() else None
        size = sizes.get(key) if store.is_remote else here
        if size != shared.size_bytes:
            state = "is missing" if size is None else f"has {size:,} bytes"
            return f"{key} {state}, and its manifest says {shared.size_bytes:,} bytes"
    return None


def _is_quarantine(file: str) -> bool:
    return file.startswith("quarantine/")


def _column(path: Path, name: str) -> pa.Array:
    column = pq.read_table(path, columns=[name])[name]
    return column.cast(pa.string()).combine_chunks().drop_null()
