"""The short ways to say a source: a path alone, or a frame in hand."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.contracts.data import Source
from penstock.contracts.foreign import foreign_code_allowed
from penstock.formats.folders import holds_no_tables
from penstock.formats.in_hand import is_in_hand, is_of_data_library, with_files
from penstock.formats.shelf import is_table

_OWN_TYPE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
"""How the module of a source of the user's own is called."""
_DATABASES = (
    "postgresql://",
    "postgres://",
    "mysql://",
    "mariadb://",
    "sqlite://",
)
"""How the URL of a database begins."""
_FOLDER_WORDS = frozenset({"pattern", "content", "max_bytes"})
"""Words that only a folder of files knows."""


def with_frames_as_files(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the path of a file for each frame that is a source in it."""
    whole = dict(recipe)
    if "source" in whole:
        whole["source"] = with_files(whole["source"])
    if isinstance(joins := whole.get("join"), (list, tuple)):
        whole["join"] = [with_files(join) for join in joins]
    walked: dict[int, Any] = {}
    return {word: _unprinted(value, walked) for word, value in whole.items()}


def _unprinted(value: Any, walked: dict[int, Any]) -> Any:
    """A frame where none can be, by its kind alone: whatever refuses it would print it.

    Args:
        walked: by the identity of what was walked, so that what a recipe shares is walked once.
    """
    if is_in_hand(value) or is_of_data_library(value):
        return f"a {type(value).__name__}"
    if not isinstance(value, (Mapping, list)):
        return value
    if id(value) in walked:
        return walked[id(value)]
    # What holds itself is refused later, by whoever bounds a recipe.
    walked[id(value)] = value
    if isinstance(value, Mapping):
        plain: Any = {word: _unprinted(below, walked) for word, below in value.items()}
    else:
        plain = [_unprinted(below, walked) for below in value]
    walked[id(value)] = plain
    return plain


def with_whole_sources(recipe: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A recipe in which each source that is a path alone is a whole declaration."""
    whole = dict(recipe)
    if "source" in whole:
        whole["source"] = _whole(whole["source"], base)
    if isinstance(joins := whole.get("join"), list):
        whole["join"] = [
            {**join, "source": _whole(join["source"], base)}
            if isinstance(join, Mapping) and "source" in join
            else join
            for join in joins
        ]
    if whole.get("repairs") is not None:
        whole["repairs"] = _whole(whole["repairs"], base)
    if isinstance(expect := whole.get("expect"), Mapping):
        whole["expect"] = {name: _compared(rule, base) for name, rule in expect.items()}
    return whole


def _compared(rule: Any, base: Path) -> Any:
    """A rule of `expect` with whole declarations of the sources that it compares with."""
    if not isinstance(rule, Mapping):
        return rule
    whole = dict(rule)
    for word, place in (("refers_to", "source"), ("drift", "against")):
        if isinstance(inner := whole.get(word), Mapping) and inner.get(place) is not None:
            whole[word] = {**inner, place: _whole(inner[place], base)}
    if isinstance(also := whole.get("also"), (list, tuple)):
        whole["also"] = [_compared(each, base) for each in also]
    return whole


def _whole(source: Any, base: Path) -> Any:
    if isinstance(source, str) and is_path(source, base):
        return declared({"path": source}, base)
    # `source: x.csv` and `--set source.na=?`: an override takes a word alone for a type.
    if (
        isinstance(source, Mapping)
        and "path" not in source
        and isinstance(source.get("type"), str)
        and is_path(source["type"], base)
    ):
        words = {word: value for word, value in source.items() if word != "type"}
        return declared({"path": source["type"], **words}, base)
    return source


def is_path(text: str, base: Path) -> bool:
    """Whether a word in the place of a source's type is the path of one."""
    if text in Source.types():
        return False
    # `os.path` answers for texts that no file can be called, too.
    is_there = os.path.exists(base / text)
    if not _OWN_TYPE.fullmatch(text) or is_table(text):
        return any(mark in text for mark in "/\\.*") or is_there
    return is_there


def declared(
    words: Mapping[str, Any], base: Path, *, look: bool = True
) -> dict[str, Any]:
    """The words of a source with its type: `folder` where files themselves are the rows, else `files`.

    Args:
        look: where no word tells, the content of a folder may.
    """
    if "type" in words:
        return dict(words)
    path, others = words.get("path"), words.keys() - {"path"}
    if isinstance(path, str) and is_database(path):
        return _of_database(path, {word: words[word] for word in others})
    rows_are_files = bool(others & _FOLDER_WORDS) or (
        look
        and not others
        and isinstance(path, str)
        # What came with an artefact of another's looks into no folder here.
        and foreign_code_allowed()
        and holds_no_tables(path, base)
    )
    return {"type": "folder" if rows_are_files else "files", **words}


def is_database(path: str) -> bool:
    """Whether a path is the URL of a database."""
    return path.lower().startswith(_DATABASES)


def _of_database(path: str, others: Mapping[str, Any]) -> dict[str, Any]:
    """The words of `postgresql://host/database#table`."""
    # The last one, since a password may have others.
    url, mark, table = path.rpartition("#")
    named = {"url": url, "table": table} if mark and "@" not in table else {"url": path}
    return {"type": "sql", **named, **others}
