"""A source declared as its files lie: splits that are folders or files, and what paths tell.

    a folder with train/ and test/       {type: files, train: …, test: …}
    <split>/<label>/<n>.txt              {type: folder, pattern: "{split}/{label}/*.txt"}

A file that lacks the target, as the test file of a competition does, is no test split: it is not read.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_FILE, Source
from penstock.contracts.sample import Sample
from penstock.core.redact import redacted_url
from penstock.formats.archive_names import is_archive
from penstock.formats.folders import walk
from penstock.formats.shelf import is_table
from penstock.inspect.file_names import NameWords, name_words
from penstock.inspect.layout import PathWords, SplitFiles, path_words, split_files
from penstock.inspect.likely_target import LikelyTarget, likely_target, rows_without
from penstock.inspect.wording import key
from penstock.pipeline.bare_splits import dotted, reading_of
from penstock.pipeline.named_pictures import load_words, with_load
from penstock.pipeline.side_by_side import refuse_side_by_side
from penstock.recipe.schema import load_recipe
from penstock.recipe.sources import declared

Sampled = tuple[Source, Sample, dict[str, Any]]
"""A source, a sample of it, and reading options that its files ask for."""
_MAGIC = re.compile(r"[*?\[]")
_ABOUT = re.compile(r"(^|/)(readme|licen[cs]e|copying)[^/]*$|\.md$", re.IGNORECASE)
"""Files about the data."""
_SHOWN = 5
_PATH = "path"
_TABLES = frozenset({".data", ".train", ".test", ".dev", ".val", ".valid"})
"""Endings of tables that are splits, such as UCI's `adult.data` and `adult.test`."""
_FEW = 20
_MANY_TABLES = 5
"""Tables of one format beside which a few JSON files are no rows."""


@dataclass
class LaidOut:
    """A source as it is to be declared, and a sample of it."""

    source: Source
    sample: Sample
    declaration: dict[str, Any]
    """Paths start from the working folder."""
    target: str | None
    likely: LikelyTarget | None = None
    """Why this target, where nobody named one."""
    notes: list[str] = field(default_factory=list)
    splits: SplitFiles | None = None
    """Of tables; None where no files are splits."""
    within: str = ""
    """What the declared path has behind the one that was given."""
    loaded: Mapping[str, str] = field(default_factory=dict)
    """By column that names pictures: their folder, from that of the table."""
    no_inputs: dict[str, str] = field(default_factory=dict)
    """Columns that are no inputs, whatever they hold, and why."""
    of_files: str = "the folder that each file is in"
    """What the column `label` of files that are rows is."""

    def shown(self, path: str | None) -> dict[str, Any]:
        """The declaration with paths that start from the recipe's folder.

        Args:
            path: the source's, from there.
        """
        if "url" in self.declaration:
            # A password that was given by hand is written nowhere.
            return {**self.declaration, "url": redacted_url(self.declaration["url"])}
        if path is None:
            return self.declaration
        if self.splits is not None:
            return _declared(self.declaration, self.splits, path)
        if self.loaded:
            return with_load(self.declaration, self.loaded, path)
        return {**self.declaration, _PATH: path + self.within}


def lay_out(
    declaration: Mapping[str, Any],
    *,
    target: str | None,
    sampled: Callable[[dict[str, Any]], Sampled],
) -> LaidOut:
    """The source with the splits that its files are, sampled, and the target.

    Args:
        declaration: of the source, whole; paths start from the working folder.
        target: the column to predict; None takes the likeliest.
        sampled: reads a sample of a declared source.

    Raises:
        SourceError: nothing can be read there.
    """
    plain = dict(declaration)
    if plain["type"] == "folder" and isinstance(plain.get(_PATH), str):
        refuse_side_by_side(str(plain[_PATH]))
    within = _enter(plain)
    splits = _splits(plain)
    chosen = plain
    if splits is not None:
        is_bare = plain["type"] == "folder"
        # A folder of tables, whatever their endings.
        plain["type"] = "files"
        chosen = _declared(plain, splits, str(plain[_PATH]))
        if is_bare:
            _mind_quirks(chosen, splits)
    source, sample, words = sampled(chosen)
    chosen |= words
    layout = LaidOut(source, sample, chosen, target, splits=splits, within=within)
    if splits is None and plain["type"] == "files" and not plain.get("load"):
        _load_pictures(layout, sampled)
    if splits is not None and splits.own:
        _mind_dots(layout, splits, sampled)
    if plain["type"] == "folder" and not plain.get("pattern"):
        _tell_paths(layout, sampled)
    left = [] if splits is None else [p for p in splits.left if not _ABOUT.search(p)]
    if left:
        some = ", ".join(map(key, left[:_SHOWN]))
        more = len(left) - _SHOWN
        rest = f" and {more:,} more" if more > 0 else ""
        layout.notes.append(f"LOOK: not read, since they name no split: {some}{rest}.")
    if target is None:
        layout.likely = _likely(layout)
        layout.target = layout.likely.column if layout.likely else None
        layout.notes += [str(layout.likely)] if layout.likely else []
    if splits is not None and layout.target is not None:
        _leave_unlabelled(layout, splits, sampled)
    return layout


def _splits(declaration: Mapping[str, Any]) -> SplitFiles | None:
    """The splits that a folder or a pattern of tables is; nothing where the user says how files lie."""
    path = declaration.get(_PATH)
    words = declaration.keys() - {"type", _PATH}
    if not isinstance(path, str) or declaration.get("load"):
        return None
    # Tables whose endings name no format are taken for files that are rows.
    as_rows = declaration["type"] == "folder"
    if declaration["type"] not in ("files", "folder") or (as_rows and words):
        return None
    probe = load_recipe({"source": dict(declaration)}, base=Path.cwd(), name="init")
    files = [file.path for file in probe.source.preview(Path.cwd()).files]
    if len(files) < 2:
        return None
    if as_rows:
        named = [path for path in files if PurePosixPath(path).suffix.lower() in _TABLES]
        return split_files(files) if len(named) > 1 and len(files) <= _FEW else None
    return split_files(files)


def _mind_quirks(declaration: dict[str, Any], splits: SplitFiles) -> None:
    """Reading options of tables without a header, for all and for each split."""
    single = {s: v for s in splits.paths if isinstance(v := declaration[s], str)}
    words = reading_of(single)
    declaration |= words.get("", {})
    for split, path in single.items():
        # Kept, so that the declaration is the same from any folder.
        splits.own[split] = words.get(split, {})
        if splits.own[split]:
            declaration[split] = {_PATH: path, **splits.own[split]}


def _mind_dots(
    layout: LaidOut, splits: SplitFiles, sampled: Callable[[dict[str, Any]], Sampled]
) -> None:
    """Cut off the dots that a test file has behind its classes."""
    dots = dotted(layout.sample, "test")
    if not dots:
        return
    path = layout.declaration["test"]
    splits.own["test"] = {**splits.own.get("test", {}), "trim_end": dots}
    where = path[_PATH] if isinstance(path, Mapping) else path
    layout.declaration["test"] = {_PATH: where, **splits.own["test"]}
    layout.source, layout.sample, words = sampled(layout.declaration)
    layout.declaration |= words


def _root(path: str) -> str:
    """The folder that a path or a pattern begins with."""
    magic = _MAGIC.search(path)
    return path if magic is None else path[: magic.start()].rpartition("/")[0]


def _declared(
    declaration: Mapping[str, Any], splits: SplitFiles, path: str
) -> dict[str, Any]:
    """The declaration with a path for each split below the folder of `path`."""
    root = _root(path)
    given = {"path", "train", "validation", "test"}
    others = {word: value for word, value in declaration.items() if word not in given}

    def below(patterns: tuple[str, ...]) -> str | list[str]:
        paths = [f"{root.rstrip('/')}/{each}" if root else each for each in patterns]
        return paths[0] if len(paths) == 1 else paths

    if set(splits.paths) == {"train"}:
        return {**others, _PATH: below(splits.paths["train"])}
    named: dict[str, Any] = {}
    for split, patterns in splits.paths.items():
        own, where = splits.own.get(split), below(patterns)
        named[split] = {_PATH: where, **own} if own else where
    kind = {"type": others.pop("type")}
    return {**kind, **named, **others}


def _tell_paths(layout: LaidOut, sampled: Callable[[dict[str, Any]], Sampled]) -> None:
    """Read a split and a label out of the paths of files that are rows."""
    table = layout.sample.table
    if _PATH not in table.column_names:
        return
    paths = table.column(_PATH).to_pylist()
    words = path_words(paths)
    named = None if _has_labels(table, words) else name_words([_name(p) for p in paths])
    if words is None and named is None:
        return
    if named is None and words is not None:
        layout.declaration["pattern"] = words.pattern
    elif named is not None:
        folders = _folders(paths) if words is None else words.pattern.rpartition("/")[0]
        layout.declaration["pattern"] = (
            f"{folders}/{named.step}" if folders else named.step
        )
        _tell_names(layout, named)
    layout.source, layout.sample, reading = sampled(layout.declaration)
    layout.declaration |= reading


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _has_labels(table: pa.Table, words: PathWords | None) -> bool:
    """Whether folders are classes already."""
    if words is not None:
        return words.labels > 1
    return "label" in table.column_names and len(table.column("label").unique()) > 1


def _folders(paths: list[str]) -> str:
    """The folders of all paths, as a pattern."""
    folders = {path.rpartition("/")[0] for path in paths}
    if len(folders) == 1 and not _MAGIC.search(only := folders.pop()):
        return only.replace("{", "?").replace("}", "?")
    return "**"


def _tell_names(layout: LaidOut, named: NameWords) -> None:
    """Say that the label was read out of the files' names, and keep the rest of them out of the inputs."""
    layout.of_files = (
        f"it stands in each file's name: {key(named.example)} has {key(named.label)}"
    )
    layout.notes.append(
        f"LOOK: the label was read out of the files' names ({key(named.example)} has {key(named.label)};"
        f" {named.labels} different). If another piece is the label, change `pattern`."
    )
    for column, count, example in named.others:
        layout.no_inputs[column] = (
            f"a piece of the file's name ({count} different, such as {key(example)}), which tells nothing of"
            " what is in the file"
        )
    layout.no_inputs[_PATH] = "the file's name, which the label was read out of"
    words = [c for c, _, example in named.others if not example.isdigit()]
    if words:
        layout.notes.append(
            f"If {words[0]} says who or what made a file, test on those never seen: "
            f" split: {{on: {words[0]}}}"
        )


def _load_pictures(layout: LaidOut, sampled: Callable[[dict[str, Any]], Sampled]) -> None:
    """Load the pictures that a column names."""
    folders = load_words(layout.declaration, layout.sample)
    if not folders:
        return
    declaration = with_load(layout.declaration, folders, str(layout.declaration[_PATH]))
    layout.loaded = folders
    layout.declaration = declaration
    layout.source, layout.sample, reading = sampled(declaration)
    layout.declaration |= reading
    layout.notes.append(
        f"{' and '.join(map(key, folders))}: the pictures that it names are loaded (`load` in `source`)."
    )


def _enter(declaration: dict[str, Any]) -> str:
    """Take the only archive of a folder, or the tables of one format among a few other files, for the source.

    Returns:
        What was put behind the path.
    """
    path = declaration.get(_PATH)
    if not isinstance(path, str) or declaration.keys() - {"type", _PATH}:
        return ""
    if not os.path.isdir(path):
        return ""
    walked = walk(path, Path.cwd()).files
    files = [each for each, _ in walked if not _ABOUT.search(each)]
    if declaration["type"] == "folder":
        if len(files) != 1 or not is_archive(files[0]):
            return ""
        within = "/" + files[0]
    else:
        # Labels and settings beside the rows are often JSON.
        tables = Counter(PurePosixPath(each).suffix for each in files if is_table(each))
        if len(tables) != 2 or not tables.pop(".json", 0):
            return ""
        ((ending, count),) = tables.items()
        if count < _MANY_TABLES:
            return ""
        within = f"/**/*{ending}"
    declaration[_PATH] = path.rstrip("/") + within
    declaration["type"] = declared({_PATH: declaration[_PATH]}, Path.cwd())["type"]
    return within


def _likely(layout: LaidOut) -> LikelyTarget | None:
    table = layout.sample.plain()
    # What is to be predicted stands in the training rows, and perhaps nowhere else.
    of_train = _of_split(layout.sample, "train")
    if layout.splits is not None and of_train is not None:
        table = table.filter(of_train)
    return likely_target(
        table,
        named=table.column_names,
        of_files=layout.of_files if layout.declaration["type"] == "folder" else "",
    )


def _of_split(sample: Sample, split: str) -> pa.Array | None:
    if ROW_FILE not in sample.table.column_names:
        return None
    own = [i for i, file in enumerate(sample.files) if file.split == split]
    return pa.array(np.isin(sample.table.column(ROW_FILE).to_numpy(), own))


def _leave_unlabelled(
    layout: LaidOut, splits: SplitFiles, sampled: Callable[[dict[str, Any]], Sampled]
) -> None:
    """Leave splits out whose rows lack the target."""
    target = layout.target
    if target is None or target not in layout.sample.table.column_names:
        return
    rows: dict[str, pa.Array] = {
        split: mine
        for split in ("validation", "test")
        if split in splits.paths and (mine := _of_split(layout.sample, split)) is not None
    }
    lacking = rows_without(layout.sample.table, target, rows)
    if not lacking:
        return
    left = {s: p for s, p in splits.paths.items() if s not in lacking}
    files = ", ".join(key(p) for split in lacking for p in splits.paths[split])
    layout.notes.append(
        f"LOOK: no row of {files} has {key(target)}, so it is no test split and is not read; answer it with "
        " penstock predict  once there is a model."
    )
    given = layout.declaration["train"]
    root = given if isinstance(given, str) else given[0]
    layout.splits = _again(left, splits)
    layout.declaration = _declared(
        layout.declaration, layout.splits, _folder_of(root, splits)
    )
    layout.source, layout.sample, reading = sampled(layout.declaration)
    layout.declaration |= reading


def _again(left: dict[str, tuple[str, ...]], splits: SplitFiles) -> SplitFiles:
    """Splits without some; a validation split that is the last one held out becomes the test."""
    if "test" not in left and "validation" in left:
        left = {"train": left["train"], "test": left["validation"]}
    return SplitFiles(left, splits.left, splits.renamed)


def _folder_of(train: str, splits: SplitFiles) -> str:
    """The folder that the splits' patterns start from."""
    return train.removesuffix(splits.paths["train"][0]).rstrip("/") or "."
