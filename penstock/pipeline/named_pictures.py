"""Columns of a table that name picture files: which ones, and the folder that the names start from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from penstock.contracts.sample import Sample
from penstock.inspect.picture_names import masks, names_pictures
from penstock.inspect.raw_column import Look

_LOOKED_AT = 30
_MOST_FOLDERS = 200
_MAGIC = re.compile(r"[*?\[]")
_BESIDE = ""


def load_words(declaration: Mapping[str, Any], sample: Sample) -> dict[str, str]:
    """By column that names pictures: their folder, from the folder of the table; empty for that one itself.

    Masks are left out: no feature answers a picture. So are pictures that are not there.

    Args:
        declaration: of a source of type `files`, whose paths start from the working folder.
    """
    folder = table_folder(declaration)
    if folder is None:
        return {}
    table = sample.plain()
    words = {}
    for name in table.column_names:
        look = Look(name, table.column(name).slice(0, 1_000))
        if not names_pictures(look) or masks(look):
            continue
        below = _folder_of([str(v) for v in look.present][:_LOOKED_AT], folder)
        if below is not None:
            words[name] = below
    return words


def table_folder(declaration: Mapping[str, Any]) -> str | None:
    """The local folder of the tables; None where they are elsewhere, or in several folders."""
    path = declaration.get("path")
    if not isinstance(path, str) or _MAGIC.search(path):
        return None
    if os.path.isdir(path):
        return path
    return os.path.dirname(path) or "." if os.path.isfile(path) else None


def _folder_of(names: list[str], folder: str) -> str | None:
    """The folder that holds nine in ten of the files: the table's own, or one in it."""
    below = [_BESIDE]
    with os.scandir(folder) as entries:
        below += sorted(e.name for e in entries if e.is_dir())[:_MOST_FOLDERS]
    for each in below:
        there = sum(os.path.isfile(os.path.join(folder, each, name)) for name in names)
        if there and there >= 0.9 * len(names):
            return each
    return None


def with_load(
    declaration: Mapping[str, Any], folders: Mapping[str, str], path: str
) -> dict[str, Any]:
    """The declaration with `load`.

    Args:
        folders: of `load_words`.
        path: the source's, as the declaration is to name it.
        declaration: its own path is what lies there.
    """
    root = path if os.path.isdir(str(declaration["path"])) else os.path.dirname(path)
    load = {}
    for column, below in folders.items():
        where = "/".join(part for part in (root.rstrip("/") or root, below) if part)
        load[column] = {"root": where or "."}
    return {**declaration, "path": path, "load": load}
