"""What forgetting would do: the datasets that hold the rows, and all that was made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.core.errors import StoreError, UserError
from penstock.core.sharing import sharers
from penstock.core.store import Store
from penstock.pipeline.forget.child import child_id, count_quarantined
from penstock.pipeline.forget.conditions import (
    Condition,
    Matched,
    Unmatched,
    datasets_of,
    match,
)
from penstock.pipeline.forget.traces import (
    GOLDEN,
    Values,
    contents_of,
    has_golden_row,
    own_alone,
    text_of,
    values_of,
)
from penstock.run import Run


@dataclass
class Traced:
    """An artefact that was made of a dataset with the rows, and what was found in it."""

    reference: str
    name: str
    """In the store: `bundles/0123456789abcdef`."""
    files: list[str] = field(default_factory=list)
    """Those with values of the rows."""
    values: set[str] = field(default_factory=set)
    """These values; in no record."""

    @property
    def holds_values(self) -> bool:
        """Whether any file holds a value of the rows."""
        return bool(self.files)


@dataclass
class Version:
    """A dataset that holds the rows, and what was made of it."""

    matched: Matched
    child: str
    """The id of the version without them."""
    feeds: list[str] = field(default_factory=list)
    runs: list[Traced] = field(default_factory=list)
    bundles: list[Traced] = field(default_factory=list)
    reports: list[Traced] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """References and counts."""
        name = self.matched.dataset.name
        destroyed = [b.reference for b in self.bundles if b.holds_values]
        return {
            "dataset": self.matched.dataset.reference,
            "child": f"{name}@{self.child}",
            "rows": self.matched.rows,
            "quarantined": self.matched.quarantined,
            "feeds_destroyed": self.feeds,
            "runs_that_saw_them": [run.reference for run in self.runs],
            "bundles_that_saw_them": [bundle.reference for bundle in self.bundles],
            "bundles_destroyed": destroyed,
            "reports_destroyed": [r.reference for r in self.reports if r.holds_values],
        }


@dataclass
class ForgetPlan:
    """All versions with the rows, and the datasets that could not be asked."""

    condition: Condition
    versions: list[Version]
    unmatched: list[Unmatched]

    @property
    def rows(self) -> int:
        """Rows of all versions, those in quarantine among them."""
        return sum(v.matched.count + v.matched.quarantined for v in self.versions)

    def to_dict(self) -> dict[str, Any]:
        """What records and screens may have: no value."""
        return {
            "condition": self.condition.facts(),
            "versions": [version.to_dict() for version in self.versions],
            "not_matched": [
                {"dataset": each.reference, "why": each.why, "hidden": each.is_hidden}
                for each in self.unmatched
            ],
        }


def make_plan(store: Store, condition: Condition) -> ForgetPlan:
    """Look through the whole store; nothing is changed.

    Raises:
        UserError: a run on one of the datasets is under way.
        StoreError: the store cannot be read.
    """
    versions: list[Version] = []
    unmatched: list[Unmatched] = []
    for dataset in datasets_of(store):
        answer = dataset if isinstance(dataset, Unmatched) else match(dataset, condition)
        if isinstance(answer, Unmatched):
            unmatched.append(answer)
            continue
        answer.quarantined = count_quarantined(answer, condition)
        if answer.count or answer.quarantined:
            versions.append(Version(answer, child_id(answer)))
    _refuse_sharers(store, versions)
    runs = Run.all(store) if versions else []
    manifests = {
        shelf: {name: store.manifest(name) for name in store.names(shelf)}
        for shelf in (("feeds", "bundles", "reports") if versions else ())
    }
    for version in versions:
        _trace(store, version, runs, manifests)
    return ForgetPlan(condition, versions, unmatched)


def _refuse_sharers(store: Store, versions: list[Version]) -> None:
    """Refuse to destroy files that a version needs which stays.

    One that shares files has all rows of their owner, so it is among those that go. One that could not be
    asked would be left without its rows.

    Raises:
        StoreError: there is such a one.
    """
    if not store.is_remote or not versions:
        return  # a folder's files have a name in each version
    gone = [f"datasets/{v.matched.dataset.name}/{v.matched.dataset.id}" for v in versions]
    manifests = {
        name: store.manifest(name)
        for folder in store.folders("datasets")
        for name in store.names(folder)
    }
    if left := sharers(manifests, gone):
        reference = "@".join(left[0].split("/")[1:])
        raise StoreError(
            f"{reference} shares files with a version that holds the rows, and could not be asked for them"
            " itself. Nothing was changed. Delete it, or restore what it lacks, and forget again."
        )


def _is_of(reference: Any, dataset: str) -> bool:
    """Whether a reference is that of a dataset, or of a subset of it."""
    return str(reference).partition("?")[0] == dataset


def _trace(
    store: Store,
    version: Version,
    runs: list[Run],
    manifests: dict[str, dict[str, dict[str, Any]]],
) -> None:
    """Find what was made of a dataset, and where values of its rows stand."""
    matched = version.matched
    dataset, values = matched.dataset.reference, values_of(matched)
    version.feeds = [
        name.split("/")[1]
        for name, manifest in manifests["feeds"].items()
        if _is_of(manifest.get("dataset"), dataset)
    ]
    own = [run for run in runs if _is_of(run.dataset, dataset)]
    busy = [
        run.id
        for run, status in zip(own, Run.statuses(own), strict=True)
        if status == "running"
    ]
    if busy:
        raise UserError(
            f"{busy[0]} is being trained on {dataset}, which holds the rows. Stop it first; nothing was"
            " changed."
        )
    ids = {run.id for run in own}
    version.runs = [Traced(run.id, f"runs/{run.id}") for run in own]
    bundles = {
        name: manifest
        for name, manifest in manifests["bundles"].items()
        if _is_of(manifest.get("dataset"), dataset) or manifest.get("run") in ids
    }
    version.bundles = [Traced(f"bundle-{n.split('/')[1]}", n) for n in bundles]
    references = {bundle.reference for bundle in version.bundles}
    version.reports = [
        Traced(name.split("/")[1], name)
        for name, manifest in manifests["reports"].items()
        if _is_of(manifest.get("dataset"), dataset)
        or manifest.get("bundle") in references
    ]
    _search(store, version, values)


def _search(store: Store, version: Version, values: Values) -> None:
    """Write down in which files values of the rows stand that no other row has."""
    matched = version.matched
    hits: list[tuple[Traced, str, set[str]]] = []
    for traced in (*version.runs, *version.bundles, *version.reports):
        for file, content in contents_of(store, traced.name):
            if within := values.within(text_of(file, content)):
                hits.append((traced, file, within))
            if file == GOLDEN and has_golden_row(matched, content):
                traced.files.append(file)
    everything: set[str] = set().union(*(within for _, _, within in hits))
    alone = own_alone(matched, everything) if everything else set()
    for traced, file, within in hits:
        if within & alone:
            traced.files = sorted({*traced.files, file})
            traced.values |= within & alone


__all__ = ["ForgetPlan", "Traced", "Version", "make_plan"]
