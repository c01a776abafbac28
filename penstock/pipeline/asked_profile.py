"""What a user names to be profiled or compared: a source, a recipe, a dataset, a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.core import audit
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.core.regular import local_output
from penstock.core.store import Store, atomic_write
from penstock.formats.in_hand import is_in_hand, with_files
from penstock.inspect.profile import compare
from penstock.pipeline.first_look import Draft
from penstock.pipeline.profiled import (
    dataset_reference,
    is_recipe_file,
    keyed_rows,
    read_profile,
)
from penstock.pipeline.profiles import (
    Profile,
    first_target,
    profile_dataset,
    profile_recipe,
    profile_source,
)
from penstock.prepare.dataset import Dataset
from penstock.prepare.versions import open_version
from penstock.recipe.schema import Recipe, load_recipe
from penstock.recipe.sources import declared


def as_source(source: Any) -> dict[str, Any]:
    """A declaration from a path, words or a frame; `folder` where files themselves would be the rows, `files`
    unless so.

    Raises:
        SourceError: it is nothing of these.
    """
    given = with_files(source)
    if not isinstance(given, (str, Mapping)):
        raise SourceError(
            f"a source is a path, a frame or a mapping such as {{'path': [...]}}, not a value of the type"
            f" {type(source).__name__}."
        )
    words = dict(given) if isinstance(given, Mapping) else {"path": given}
    return declared(words, Path.cwd())


def source_name(source: Any, declaration: Mapping[str, Any]) -> str:
    """What a source is called in a sentence: its path, or `frame` for rows in memory."""
    given = declaration.get("path") or declaration.get("train")
    return "frame" if is_in_hand(source) else str(given or "the source")


def profiled(source: Any, *, target: str | None, store: Store, events: Events) -> Profile:
    """The profile of whatever is named.

    Args:
        source: as `penstock.profile` takes it.

    Raises:
        SourceError: nothing can be read there.
        RecipeError: there is no such column.
        StoreError: there is no such dataset.
    """
    if isinstance(source, Dataset):
        return profile_dataset(source, target=target)
    if isinstance(source, str) and not isinstance(source, Draft):
        reference = dataset_reference(source)
        if reference is not None:
            dataset = open_version(store, reference)
            audit.note(store, "read", dataset.reference, by="profile")
            return profile_dataset(dataset, target=target)
    if (recipe := as_recipe(source)) is not None:
        if recipe.dataset is not None:
            version = open_version(store, recipe.dataset)
            return profile_dataset(version, target=target or first_target(recipe))
        is_path = isinstance(source, (str, Path)) and not isinstance(source, Draft)
        name = str(source) if is_path else recipe.name
        return profile_recipe(recipe, target=target, name=name, events=events)
    declaration = as_source(source)
    name = source_name(source, declaration)
    return profile_source(declaration, target=target, name=name, events=events)


def as_recipe(given: Any) -> Recipe | None:
    """A recipe, where one is given: as it is, by its path, as a mapping, or drafted by `init`."""
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Draft):
        return given.recipe()
    if is_recipe_file(given) or (isinstance(given, Mapping) and "source" in given):
        return load_recipe(given)
    return None


def compared(
    a: Any, b: Any, *, key: Sequence[str], store: Store, events: Events
) -> dict[str, Any]:
    """Two of whatever `profiled` takes, or profiles of before, held against each other.

    Raises:
        UserError: a `key` is given, and the two are no datasets, or lack a column of it.
    """
    sides = [_side(each, store) for each in (a, b)]
    keyed = keyed_rows(sides[0], sides[1], key) if key else None
    profiles = [
        side
        if isinstance(side, Mapping) and "findings" in side
        else profiled(side, target=None, store=store, events=events).to_dict()
        for side in sides
    ]
    facts = compare(profiles[0], profiles[1])
    return facts if keyed is None else {**facts, "keyed": keyed}


def _side(given: Any, store: Store) -> Any:
    """A profile as plain data, a dataset, or whatever `profiled` takes."""
    if isinstance(given, Profile):
        return given.to_dict()
    if isinstance(given, (str, Path)) and (facts := read_profile(given)) is not None:
        return facts
    if isinstance(given, str) and (reference := dataset_reference(given)):
        return open_version(store, reference)
    return given


def write_page(page: str, path: str | Path) -> None:
    """Write a page for a browser, whole or not at all."""
    atomic_write(Path(local_output(str(path))), page, option="--html")
