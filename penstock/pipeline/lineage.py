"""Lineage: what an artefact of a store was made of, back to the sources, and what was made of it.

    sources → dataset (and its children, and subsets) → feed → runs → bundles → reports

Each artefact says in its manifest what it was made of (`dataset`, `feed`, `run`, `bundle`, `lineage`). The
way back follows these words; the way forth reads them of all artefacts, once. What is named and is no longer
in the store is in the tree and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from penstock.core.errors import StoreError, UserError
from penstock.core.near import did_you_mean
from penstock.core.sound import sound
from penstock.core.store import Store
from penstock.pipeline.references import whole_reference
from penstock.prepare.tags import tags_of
from penstock.prepare.versions import open_version
from penstock.run import Run

_FROM = re.compile(rb"^  from:\n(?:    .*\n)*?    weights: (\S+)", re.MULTILINE)
"""Where a run's recipe, as Penstock writes it, names earlier weights."""
_SHOWN_FILES = 10
"""Files of a source that are named one by one."""

_LEAST_OF_ID = 4
"""Letters of an id that may stand for it."""


@dataclass(frozen=True)
class Node:
    """An artefact, or a source, in the lineage of another."""

    kind: str
    """`source`, `dataset`, `subset`, `feed`, `run`, `bundle` or `report`."""
    reference: str
    """As commands take it; of a source its path or address."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What matters of it: `rows`, `status`, `tags`, `created`; `missing` where it is not in the store."""
    next: tuple[Node, ...] = ()
    """What it was made of, or what was made of it, whichever way the tree goes."""

    def to_dict(self, word: str) -> dict[str, Any]:
        """Plain data; `word` names what is next."""
        facts = {"kind": self.kind, "reference": self.reference, **self.facts}
        return {**facts, word: [node.to_dict(word) for node in self.next]}


@dataclass(frozen=True)
class Lineage:
    """Where an artefact came from and what became of it."""

    node: Node
    """The artefact itself."""
    made_of: tuple[Node, ...]
    """What it was made of; `next` of each is what that was made of, to the sources."""
    led_to: tuple[Node, ...]
    """What was made of it; `next` of each is what was made of that."""

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "kind": self.node.kind,
            "reference": self.node.reference,
            **self.node.facts,
            "made_of": [node.to_dict("made_of") for node in self.made_of],
            "led_to": [node.to_dict("led_to") for node in self.led_to],
        }

    def references(self, kind: str) -> list[str]:
        """All artefacts of a kind in it, such as the `bundle`s that saw a dataset; each once."""
        references: dict[str, None] = {}
        waiting = [self.node, *self.made_of, *self.led_to]
        while waiting:
            node = waiting.pop(0)
            if node.kind == kind:
                references[node.reference] = None
            waiting += node.next
        return list(references)


def lineage_of(reference: str, store: Store) -> Lineage:
    """The lineage of a dataset, a subset, a feed, a run, a bundle or a report, or of a file of a source.

    Raises:
        UserError: there is nothing of that reference, and no dataset was made of a file called so.
        StoreError: the store cannot be read.
    """
    atlas = _Atlas(store)
    kind, name = atlas.named(reference)
    return Lineage(
        atlas.node(kind, name),
        made_of=atlas.back(kind, name),
        led_to=atlas.forth(kind, name),
    )


_Key = tuple[str, str]


class _Atlas:
    """All artefacts of a store, with what each says that it was made of."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._made_of: dict[_Key, list[_Key]] = {}
        self._facts: dict[_Key, dict[str, Any]] = {}
        self._sources: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for load in (self._datasets, self._feeds, self._runs, self._bundles):
            load()
        for key, text in self._starts(dict(self._facts)):
            self._made_of[key].append(text)

    # -- loading ---------------------------------------------------------------------------------------------

    def _manifests(self, shelf: str) -> Iterable[tuple[str, dict[str, Any]]]:
        """The artefacts of a shelf; one that cannot be read is as if it were not there."""
        for name in self.store.names(shelf):
            try:
                yield name.rsplit("/", 1)[-1], self.store.manifest(name)
            except StoreError:
                continue

    def _add(self, key: _Key, made_of: Iterable[_Key], **facts: Any) -> None:
        self._made_of[key] = list(dict.fromkeys(made_of))
        self._facts[key] = {
            word: value for word, value in facts.items() if value is not None
        }

    def _datasets(self) -> None:
        tags: dict[str, list[str]] = {}
        for tag in tags_of(self.store):
            tags.setdefault(tag.dataset, []).append(tag.tag)
        for folder in self.store.folders("datasets"):
            for id, manifest in self._manifests(folder):
                reference = f"{folder.removeprefix('datasets/')}@{id}"
                with sound(f"the dataset {reference}"):
                    lineage = manifest.get("lineage") or {}
                    parent = lineage.get("parent")
                    rows = manifest["counts"]["in"]
                    self._sources[reference] = list(_sources(lineage))
                self._add(
                    ("dataset", reference),
                    [_version(parent)] if parent else [],
                    rows=rows,
                    tags=tags.get(reference),
                    created=manifest.get("created"),
                )

    def _feeds(self) -> None:
        for id, manifest in self._manifests("feeds"):
            self._add(
                ("feed", id),
                [_version(manifest["dataset"])] if "dataset" in manifest else [],
                rows=sum(dict(manifest.get("rows") or {}).values()),
                created=manifest.get("created"),
            )

    def _runs(self) -> None:
        runs = Run.all(self.store)
        for run, status in zip(runs, Run.statuses(runs), strict=True):
            feed = ("feed", run.feed)
            # A feed that was removed still leaves the dataset to be named.
            made_of = [feed if feed in self._facts else _version(run.dataset)]
            if run.parent:
                made_of.append(("run", run.parent))
            self._add(
                ("run", run.id),
                made_of,
                name=run.name,
                status=status,
                created=run.created,
            )

    def _starts(self, known: Mapping[_Key, Any]) -> Iterable[tuple[_Key, _Key]]:
        """Of each run that began with earlier weights (`train.from`) the run or bundle that had them."""
        for kind, name in known:
            if kind != "run":
                continue
            content = self.store.read(f"runs/{name}", file="recipe.yaml") or b""
            if (match := _FROM.search(content)) is None:
                continue
            text = match[1].decode("utf-8", "replace").strip("'\"")
            # The beginning of a reference is enough in a recipe.
            near = [key for key in known if key[1].startswith(text)]
            before = "bundle" if text.startswith("bundle-") else "run"
            yield (kind, name), near[0] if len(near) == 1 else (before, text)

    def _bundles(self) -> None:
        for id, manifest in self._manifests("bundles"):
            self._add(
                ("bundle", f"bundle-{id}"),
                [("run", str(manifest["run"]))] if "run" in manifest else [],
                name=manifest.get("name"),
                created=manifest.get("created"),
            )
        for id, manifest in self._manifests("reports"):
            bundle = str(manifest.get("bundle", ""))
            self._add(
                ("report", id),
                [("bundle", bundle)] if bundle else [],
                dataset=manifest.get("dataset"),
                created=manifest.get("created"),
            )

    # -- asking ----------------------------------------------------------------------------------------------

    def named(self, reference: str) -> _Key:
        """The kind and the whole reference of what a user names."""
        if (source := self._source_named(reference)) is not None:
            return "source", source
        text = whole_reference(reference, self.store)
        if text.startswith("run-"):
            return "run", Run.open(self.store, reference=text).id
        if "@" in text:
            return _version(open_version(self.store, text).reference)
        for kind in ("bundle", "report", "feed"):
            if (kind, text) in self._facts:
                return kind, text
        # The beginning of an id is enough where it is the only one that begins so.
        near = [
            (kind, name)
            for kind, name in self._facts
            if kind in ("bundle", "report", "feed")
            and len(text.removeprefix("bundle-")) >= _LEAST_OF_ID
            and name.removeprefix("bundle-").startswith(text.removeprefix("bundle-"))
        ]
        if len(near) == 1:
            return near[0]
        known = [name for _, name in self._facts]
        raise UserError(
            f"There is nothing called {reference!r} in the store {self.store.url}, and none of its datasets"
            f" was made of such a file.{did_you_mean(reference, known)} `penstock list` shows what is there."
        )

    def _source_named(self, text: str) -> str | None:
        """The address of a source's file, or of a folder of such, that is called so."""
        urls = {_plain(str(file.get("url", ""))) for file in self._files()}
        whole = text if "://" in text else str(Path(text).absolute())
        if whole in urls or any(url.startswith(f"{whole.rstrip('/')}/") for url in urls):
            return whole
        return None

    def _files(self) -> Iterable[Mapping[str, Any]]:
        for entries in self._sources.values():
            for _, facts in entries:
                yield from facts["_files"]

    @cached_property
    def _led_to(self) -> dict[_Key, list[_Key]]:
        led: dict[_Key, list[_Key]] = {}
        for key, sources in self._made_of.items():
            for source in sources:
                led.setdefault(source, []).append(key)
        # A subset is written nowhere: it is known by what was made of it.
        for kind, name in list(led):
            if kind == "subset":
                led.setdefault(("dataset", name.partition("?")[0]), []).append(
                    (kind, name)
                )
        return led

    def node(self, kind: str, name: str, next: tuple[Node, ...] = ()) -> Node:
        """An artefact as a node of a tree."""
        facts = self._facts.get((kind, name))
        if kind in ("source", "subset"):
            return Node(kind, name, {}, next)
        return Node(kind, name, {"missing": True} if facts is None else facts, next)

    def back(
        self, kind: str, name: str, above: frozenset[_Key] = frozenset()
    ) -> tuple[Node, ...]:
        """What something was made of."""
        if kind == "subset":
            whole = name.partition("?")[0]
            return (self.node("dataset", whole, self.back("dataset", whole, above)),)
        nodes = [
            self.node(*key, self.back(*key, above | {key}))
            for key in self._made_of.get((kind, name), ())
            # Manifests that were changed by hand may name each other.
            if key not in above
        ]
        sources = self._sources.get(name, []) if kind == "dataset" else []
        origins = [Node("source", text, _public(facts)) for text, facts in sources]
        return (*origins, *nodes)

    def forth(
        self, kind: str, name: str, above: frozenset[_Key] = frozenset()
    ) -> tuple[Node, ...]:
        """What was made of something."""
        keys = (
            self._made_of_source(name)
            if kind == "source"
            else self._led_to.get((kind, name), [])
        )
        return tuple(
            self.node(*key, self.forth(*key, above | {key}))
            for key in keys
            if key not in above
        )

    def _made_of_source(self, url: str) -> list[_Key]:
        return [
            ("dataset", reference)
            for reference, entries in self._sources.items()
            if any(
                _plain(str(file.get("url", ""))) == url
                or _plain(str(file.get("url", ""))).startswith(f"{url.rstrip('/')}/")
                for _, facts in entries
                for file in facts["_files"]
            )
        ]


def _version(reference: str) -> _Key:
    return ("subset" if "?" in reference else "dataset"), str(reference)


def _plain(url: str) -> str:
    return url.removeprefix("file://")


def _public(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in facts.items() if not word.startswith("_")}


def _sources(lineage: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The sources that a manifest names: a common address each, and facts of it."""
    groups = [("rows", lineage.get("source") or [])]
    groups += [
        (f"join[{i}]", joined.get("files") or [])
        for i, joined in enumerate(lineage.get("joined") or [])
    ]
    groups += [("expect", files) for files in lineage.get("compared") or []]
    groups += [("repairs", lineage.get("repairs") or [])]
    for role, files in groups:
        if not files:
            continue
        urls = [_plain(str(file["url"])) for file in files]
        yield (
            _common(urls),
            {
                "role": role,
                "files": len(files),
                "size_bytes": sum(int(file.get("size_bytes") or 0) for file in files),
                "first": [
                    {"path": file["path"], "sha256": file["sha256"]}
                    for file in files[:_SHOWN_FILES]
                ],
                "_files": files,
            },
        )


def _common(urls: list[str]) -> str:
    """The file, or the folder that all files lie in."""
    if len(urls) == 1:
        return urls[0]
    steps = zip(*(url.split("/") for url in urls), strict=False)
    shared = [each[0] for each in takewhile(lambda each: len(set(each)) == 1, steps)]
    return "/".join(shared) or urls[0]
