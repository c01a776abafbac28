"""The verbs about versions of datasets: name one, follow its lineage, choose some of its rows."""

from __future__ import annotations

from pathlib import Path

from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.pipeline.lineage import Lineage, lineage_of
from penstock.prepare.dataset import Dataset
from penstock.prepare.subset import Subset, open_subset
from penstock.prepare.tags import Tag, drop_tag, set_tag, tags_of
from penstock.recipe.stores import as_store


def subset(
    reference: str,
    *,
    where: str | None = None,
    sample: float | None = None,
    seed: int = 0,
    store: str | Path | Store | None = None,
) -> Subset:
    """The rows of a dataset version that a condition is true of, or a sample of them, copied nowhere.

    `penstock.Loader` and `encode` take it in place of a dataset; its `reference` is the text that names it.

    Args:
        reference: `NAME@ID`, or a subset's own reference and nothing else.
        where: an SQL condition on its columns.
        sample: the share of rows.
        seed: which sample.

    Raises:
        UserError: a number that cannot be, or a subset of a subset.
        RecipeError: the condition is not allowed, or names a column that is not there.
        StoreError: there is no such version.
    """
    place = as_store(store)
    if "?" in reference:
        if where is not None or sample is not None:
            raise UserError(
                f"{reference} is a subset already. Write its whole condition in one `where`."
            )
        return open_subset(place, reference)
    whole = Dataset.open(place, reference=reference)
    return Subset(whole, where=where, sample=sample, seed=seed)


def tag(
    reference: str,
    tag: str,
    *,
    force: bool = False,
    store: str | Path | Store | None = None,
    events: Events | None = None,
) -> Tag:
    """Give a version of a dataset a name of its own: `NAME@TAG` then stands for it wherever a dataset is
    named.

    Args:
        reference: the version, `NAME@ID`, `NAME@TAG`, or `NAME` for the newest.
        tag: 1 to 64 of the characters A–Z a–z 0–9 . _ -; nothing that looks like the beginning of an id.
        force: move the tag where it stands for another version.

    Raises:
        UserError: the tag may not be called so, or stands for another version.
        StoreError: there is no such version, or the store cannot be written.
    """
    where = as_store(store)
    if "?" in reference:
        raise UserError(
            f"a tag names a whole version, and {reference} is a subset of one. Tag the version,"
            f" {reference.partition('?')[0]}, and name the subset with the tag in its place."
        )
    dataset = Dataset.open(where, reference=reference)
    return set_tag(where, dataset.reference, tag, events or Events(), force=force)


def untag(
    reference: str,
    *,
    store: str | Path | Store | None = None,
    events: Events | None = None,
) -> Tag:
    """Remove the tag `NAME@TAG`; the version stays.

    Raises:
        UserError: there is no such tag.
        StoreError: the store cannot be written.
    """
    return drop_tag(as_store(store), reference, events or Events())


def tags(
    name: str | None = None, *, store: str | Path | Store | None = None
) -> list[Tag]:
    """The tags of the datasets called `name`, or of all of them."""
    return tags_of(as_store(store), name)


def lineage(reference: str, *, store: str | Path | Store | None = None) -> Lineage:
    """What a dataset, subset, feed, run, bundle or report was made of, to the sources, and what was made of
    it, to bundles and reports; likewise of a source, by the path of its file or folder.

    Raises:
        UserError: there is nothing of that reference.
        StoreError: the store cannot be read.
    """
    return lineage_of(reference, as_store(store))
