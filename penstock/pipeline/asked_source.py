"""What a user names to be answered, as a source that is read as the bundle's own data was."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.bundle.bundle import Bundle
from penstock.contracts.data import Source
from penstock.contracts.foreign import modules_beside, no_foreign_code
from penstock.formats.archive import is_archive
from penstock.formats.folders import holds_no_tables, is_folder, walk
from penstock.formats.shelf import ending
from penstock.recipe.schema import load_recipe
from penstock.recipe.sources import declared as declared_source
from penstock.recipe.sources import is_database

_OF_FILES = {"pattern", "content", "max_bytes"}
"""Words that only a folder of files knows."""


def asked_source(source: str | Path | Mapping[str, Any], bundle: Bundle) -> Source:
    """Return the source that a path, or words, name.

    A bundle that learnt from files that are rows (pictures, texts) reads a file, a folder or an archive as
    such rows, unless it is a table by its ending. Any other reads tables; their words and types are those
    that it learnt.

    Raises:
        RecipeError: the words do not hold.
    """
    declaration = dict(source) if isinstance(source, Mapping) else {"path": str(source)}
    path = declaration.get("path")
    if "type" not in declaration and isinstance(path, str) and is_database(path):
        declaration = declared_source(declaration, Path.cwd())
    if "type" not in declaration:
        declaration = {"type": _kind(declaration, bundle), **declaration}
    # Read as a recipe's source, so that its words are checked alike.
    declared: Source = load_recipe(
        {"source": declaration}, base=Path.cwd(), name="predict"
    ).source
    # What the bundle names comes with it: that runs on the trust in the bundle, not on the user's own words.
    with modules_beside(str(Path.cwd())) if bundle.trusted else no_foreign_code():
        return declared.like(bundle.learnt)


def _kind(declaration: Mapping[str, Any], bundle: Bundle) -> str:
    path, others = declaration.get("path"), declaration.keys() - {"path"}
    if others & _OF_FILES:
        return "folder"
    if not isinstance(path, str):
        return "files"
    if bundle.source_type == "folder":
        return "files" if _is_tables(path) else "folder"
    # Where a recipe names a format, the rows of later files are in it too, whatever
    # their endings.
    is_plain = not others and bundle.learnt.reading.get("format", "auto") == "auto"
    return "folder" if is_plain and holds_no_tables(path, Path.cwd()) else "files"


def _is_tables(path: str) -> bool:
    """Whether all files that a path names are tables by their endings."""
    if is_archive(path):
        return False
    if glob.has_magic(path) or not is_folder(path, Path.cwd()):
        return bool(ending(path))
    files = walk(path, Path.cwd()).files
    return bool(files) and all(ending(name) for name, _ in files)
