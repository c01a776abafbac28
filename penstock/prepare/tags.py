"""Tags: names that people give to versions of a dataset, such as `people@gold`.

    tags/<name>/<tag>     one line: the id of the version

A version is never edited; a tag is the one thing about it that may move. It is moved only on request
(`force`), and changed by one process at a time, under a lease of the store. What a tag is read for (a run, a
feed, a subset) writes down the id that it stood for, so that moving it changes nothing that was made.

What this file refuses to know: what a version holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from penstock.core.errors import StoreError, UserError
from penstock.core.events import Events
from penstock.core.making import making
from penstock.core.near import did_you_mean
from penstock.core.paths import shown
from penstock.core.store import Store

_FOLDER = "tags"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LIKE_ID = re.compile(r"[0-9a-f]{4,}", re.ASCII)
"""The beginning of an id is taken for the id, so no tag may look like one."""
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True)
class Tag:
    """A tag and the version that it stands for."""

    reference: str
    """`NAME@TAG`, accepted wherever a dataset is named."""
    dataset: str
    """`NAME@ID`."""
    before: str | None = None
    """`NAME@ID` that it stood for until it was moved just now."""

    @property
    def tag(self) -> str:
        """The tag alone."""
        return self.reference.partition("@")[2]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        facts = asdict(self)
        return facts if self.before else {k: v for k, v in facts.items() if k != "before"}


def may_be_tag(text: str) -> bool:
    """Whether a tag may be called so."""
    return bool(_TAG.fullmatch(text)) and not _LIKE_ID.fullmatch(text)


def tagged(store: Store, name: str, tag: str) -> str | None:
    """The id of the version of `name` that `tag` stands for; None where there is no such tag.

    Raises:
        StoreError: what the store says of it is no id.
    """
    if not may_be_tag(tag):
        return None
    text = store.read_text(f"{_FOLDER}/{name}/{tag}")
    if text is None:
        return None
    id = text.strip()
    if not _ID.fullmatch(id):
        raise StoreError(
            f"the tag {name}@{tag} in the store {store.url} says {shown(id[:40])}, which is no id of a"
            f" version: its file was changed. Set it again with `penstock tag {name}@ID {tag} --force`."
        )
    return id


def tags_of(store: Store, name: str | None = None) -> list[Tag]:
    """The tags of the datasets called `name`, or of all, by name and then by tag."""
    folders = store.folders(_FOLDER) if name is None else [f"{_FOLDER}/{name}"]
    tags = []
    for folder in sorted(folders):
        whose = folder.removeprefix(f"{_FOLDER}/")
        for tag in sorted(filter(may_be_tag, store.texts(folder))):
            # A name may linger on this machine after another has removed the tag.
            if (id := tagged(store, whose, tag)) is not None:
                tags.append(Tag(f"{whose}@{tag}", f"{whose}@{id}"))
    return tags


def set_tag(
    store: Store, dataset: str, tag: str, events: Events, *, force: bool = False
) -> Tag:
    """Let `tag` stand for a version.

    Args:
        dataset: `NAME@ID` of a version that is there.
        force: move the tag where it stands for another version.

    Raises:
        UserError: a tag may not be called so, or stands for another version.
        StoreError: the store cannot be written.
    """
    name, _, id = dataset.partition("@")
    if not may_be_tag(tag):
        why = (
            "it looks like the beginning of an id"
            if _LIKE_ID.fullmatch(tag)
            else "a tag has 1 to 64 of the characters A–Z a–z 0–9 . _ -, the first a letter or a digit"
        )
        raise UserError(
            f"{shown(tag[:80])} cannot be a tag: {why}. Choose another, such as v1."
        )
    place = f"{_FOLDER}/{name}/{tag}"
    with making(store, place, f"the tag {name}@{tag}", events):
        # Read under the lease: another process may have set it a moment ago.
        before = tagged(store, name, tag) if not force else _unjudged(store, name, tag)
        if before == id:
            return Tag(f"{name}@{tag}", dataset)
        if before is not None and not force:
            raise UserError(
                f"{name}@{tag} stands for {name}@{before}. To move it to {dataset}, add --force"
                " (`force=True`)."
            )
        store.write_text(place, text=f"{id}\n")
    return Tag(f"{name}@{tag}", dataset, None if before is None else f"{name}@{before}")


def _unjudged(store: Store, name: str, tag: str) -> str | None:
    """What the tag stands for; None too where its file is damaged, since it is being replaced."""
    try:
        return tagged(store, name, tag)
    except StoreError:
        return None


def drop_tag(store: Store, reference: str, events: Events) -> Tag:
    """Remove the tag `NAME@TAG`; the version stays.

    Raises:
        UserError: there is no such tag.
        StoreError: the store cannot be written.
    """
    name, _, tag = reference.partition("@")
    place = f"{_FOLDER}/{name}/{tag}"
    known = [each.tag for each in tags_of(store, name)]
    if tag not in known:
        raise UserError(
            f"the store {store.url} has no tag {reference}.{did_you_mean(tag, known)}{listed_tags(known)}"
        )
    with making(store, place, f"the tag {reference}", events):
        id = tagged(store, name, tag)
        store.drop_text(place)
    return Tag(reference, f"{name}@{id}")


def listed_tags(tags: Sequence[str]) -> str:
    """` Tags: …`, for the end of an error; nothing where there are none."""
    some = ", ".join(tags[:10]) + (" …" if len(tags) > 10 else "")
    return f" Tags: {some}." if tags else ""


def with_tags(rows: Sequence[Mapping[str, Any]], store: Store) -> list[dict[str, Any]]:
    """Rows that describe datasets (`reference`), each with its `tags` where it has any."""
    tags: dict[str, list[str]] = {}
    for each in tags_of(store):
        tags.setdefault(each.dataset, []).append(each.tag)
    return [
        {**row, "tags": tags[row["reference"]]} if row["reference"] in tags else {**row}
        for row in rows
    ]
