"""How the files of a source are read though nobody said so, and what lies beside them and is not read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.inspect.wording import key, shown
from penstock.pipeline.layouts import LaidOut

_SPLITS = ("train", "validation", "test")
_FILES = 20
_HEAD_BYTES = 1 << 16
_BY_PLACE = re.compile(r"column_\d+")
_MARKED_NAME = re.compile(r'"\ufeff([^"\n]{1,64})"\s*:')
_JSON_BYTES = 8 << 20
_LINES = 50
_DELIMITERS = ",;\t|"


def reading_notes(layout: LaidOut, given: Mapping[str, Any]) -> list[str]:
    """Sentences for a profile.

    Args:
        layout: of the source.
        given: the declaration as the user gave it.
    """
    words = _words(layout, given)
    return [*words, *_header(layout, words), *_heads(layout), *_windows(layout, given)]


def _words(layout: LaidOut, given: Mapping[str, Any]) -> list[str]:
    known = {"type", "path", "url", "load", "pattern", *given, *layout.sample.reading}
    words = {
        word: value
        for word, value in layout.declaration.items()
        if word not in known and word not in _SPLITS
    }
    pieces = [f"{word}: {_plain(value)}" for word, value in words.items()]
    for split in _SPLITS:
        own = layout.declaration.get(split)
        if split not in given and isinstance(own, Mapping):
            options = [f"{w}: {_plain(v)}" for w, v in own.items() if w != "path"]
            pieces += [f"{split}: {', '.join(options)}"] if options else []
    return [f"Found out from the files: {'; '.join(pieces)}."] if pieces else []


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _header(layout: LaidOut, words: list[str]) -> list[str]:
    names = layout.sample.plain().schema.names
    options = {*layout.sample.reading, *layout.declaration}
    options |= set(re.findall(r"\w+", " ".join(words)))
    if "header" in options or not all(map(_BY_PLACE.fullmatch, names)):
        return []
    return [
        "The files have no header (header: false): columns are called by their place."
    ]


def _heads(layout: LaidOut) -> list[str]:
    """What the first bytes of text files say."""
    notes: list[str] = []
    has_spaces = False
    for file in layout.sample.files[:_FILES]:
        path = Path(file.url)
        if path.is_file():
            with path.open("rb") as opened:
                text = opened.read(_HEAD_BYTES).decode("utf-8", "replace")
            notes += _marks(text, file.path)
            spaces = _spaces(text, file.path, layout)
            # Of files alike once is enough.
            notes += [] if has_spaces else spaces
            has_spaces = has_spaces or bool(spaces)
    return notes


def _marks(text: str, path: str) -> list[str]:
    names = list(dict.fromkeys(_MARKED_NAME.findall(text)))
    if not names:
        return []
    some = ", ".join(map(key, names[:3]))
    return [
        f"LOOK: a byte order mark (U+FEFF) stands in names of {key(path)}: {some}. It is cut off."
    ]


def _spaces(text: str, path: str, layout: LaidOut) -> list[str]:
    """Spaces behind delimiters: they are cut off, unless `strip: false` says otherwise."""
    is_table = layout.declaration["type"] == "files" and text[:1] not in "[{"
    if not is_table or "\0" in text or layout.declaration.get("strip") is False:
        return []
    lines = text.splitlines()[1:_LINES]
    mark = max(_DELIMITERS, key=text.count)
    marks = sum(line.count(mark) for line in lines)
    spaced = sum(line.count(f"{mark} ") for line in lines)
    # Prose has spaces behind some of its commas.
    if marks < max(len(lines), 1) or spaced < marks:
        return []
    return [
        f"a space follows every {shown(mark)} of {key(path)}: it is cut off, with `strip: false` it stays."
    ]


def _windows(layout: LaidOut, given: Mapping[str, Any]) -> list[str]:
    """Labels that lie in a file of their own: by file, the windows of time in which something was odd."""
    path = given.get("path")
    if not isinstance(path, str) or not Path(path).is_dir():
        return []
    read = {file.url for file in layout.sample.files}
    notes = []
    for file in sorted(Path(path).rglob("*.json")):
        if str(file) in read or file.stat().st_size > _JSON_BYTES:
            continue
        windows = _windows_of(file)
        if windows:
            count = sum(windows.values())
            empty = sum(1 for each in windows.values() if not each)
            notes.append(
                f"LOOK: {key(file.relative_to(path).as_posix())} is not read: it names"
                f" {count:,} windows of time in {len(windows) - empty:,} of {len(windows):,} files"
                f" ({empty:,} have none). Join them to the rows as a column, by file and time, to learn them."
            )
    return notes


def _windows_of(file: Path) -> dict[str, int]:
    """By file how many windows; empty where the JSON is something else."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or not content:
        return {}
    if not all(isinstance(windows, list) for windows in content.values()):
        return {}
    pairs = [pair for windows in content.values() for pair in windows]
    are_pairs = all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p)
        for p in pairs
    )
    return (
        {name: len(each) for name, each in content.items()} if pairs and are_pairs else {}
    )
