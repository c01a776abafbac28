"""Finds the user's own code that a recipe names, and what else in a recipe needs trust
before it is acted on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from penstock.contracts.foreign import imported_source
from penstock.core.identity import sha256_file
from penstock.recipe.dotted import modules_in

if TYPE_CHECKING:
    from penstock.recipe.schema import Recipe


def modules_of(recipe: Recipe) -> list[str]:
    """Return the modules behind every dotted `type`, sorted."""
    return modules_in(recipe.to_dict())


def code_of(recipe: Recipe) -> dict[str, str | None]:
    """Return the SHA-256 of each module's source, for a recipe that the user gave; None
    where it has none.
    """
    return {
        module: source_digest(module, str(recipe.base)) for module in modules_of(recipe)
    }


def source_digest(module: str, base: str) -> str | None:
    """Return the SHA-256 of the source that `module` was, or would be, imported from; nothing is imported.

    Args:
        base: the recipe's folder, where it is looked for last.
    """
    if (noted := imported_source(module)) is not None:
        return noted
    loaded = sys.modules.get(module)
    file = (
        # A module that is loaded is what will run, whatever file is first on the path.
        getattr(loaded, "__file__", None)
        if loaded is not None
        else _found(module, [*sys.path, base])
    )
    try:
        return sha256_file(file) if file else None
    except OSError:
        return None


def _found(module: str, path: Sequence[str]) -> str | None:
    """Find the file of a module's source.

    `importlib.util.find_spec` would import, and so run, the packages around it.
    """
    *packages, name = module.split(".")
    folders = [str(folder) for folder in path]
    # Package by package, so that no `__init__` runs.
    for package in packages:
        spec = PathFinder.find_spec(package, folders)
        if spec is None or spec.submodule_search_locations is None:
            return None
        folders = list(spec.submodule_search_locations)
    spec = PathFinder.find_spec(name, folders)
    return spec.origin if spec is not None else None


def reaching(recipe: Recipe) -> list[str]:
    """Describe what a recipe hands code to beyond this machine's own processes; acted
    on only for a trusted recipe.
    """
    return [
        why
        for part in (recipe.engine, recipe.launcher)
        if (why := part.needs_trust()) is not None
    ]
