"""What the places of files say: folders and names such as `train/` or `adult.test` that are splits, and paths
that tell a split and a label.

Paths in, words of a recipe out; nothing is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

SPLITS = ("train", "validation", "test")
_WORDS = {
    "train": "train training trn",
    "validation": "validation validate valid val dev devel development",
    "test": "test testing tst holdout heldout",
}
SPLIT_WORDS: dict[str, str] = {
    word: split for split, words in _WORDS.items() for word in words.split()
}
"""By word, in lower case: the split that folders, files and values of that name belong to."""
_PACKED = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip"})
_PIECE = re.compile(r"[._\-\s]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LEAST_FILES = 2
"""Files of a folder that are a class; a lone file in a folder of its own is not."""


def split_of(word: str) -> str | None:
    """The split that a word names, whatever its case."""
    return SPLIT_WORDS.get(word.strip().lower())


def split_of_path(path: str) -> str | None:
    """The split that a file's folders or its name tell: `a/TRAIN/b.csv`, `x_test.csv`, `adult.data`."""
    *folders, name = path.split("/")
    for folder in folders:
        if split := split_of(folder):
            return split
    suffixes = [s for s in PurePosixPath(name).suffixes if s.lower() not in _PACKED]
    last = suffixes[-1].lower() if suffixes else ""
    # Of UCI's pair of files, the one is called `.data`, the other `.test`.
    if last == ".data":
        return "train"
    if split := split_of(last.removeprefix(".")):
        return split
    pieces = [p for p in _PIECE.split(_stem(name)) if p]
    # In the middle a word is no role: `drive_test_drives.csv`.
    for piece in (pieces[:1] + pieces[-1:]) if pieces else ():
        if split := split_of(piece):
            return split
    return _numbered(pieces)


def _numbered(pieces: Sequence[str]) -> str | None:
    """The split of a name that ends in numbers: `x_train_01`, `test-00000-of-00002`, `test_2016_flickr`."""
    words = [p for p in pieces if not p.isdigit() and p.lower() != "of"]
    return split_of(words[-1]) if words and pieces[-1].isdigit() else None


def _stem(name: str) -> str:
    while (suffix := PurePosixPath(name).suffix) and suffix.lower() in _PACKED:
        name = name[: -len(suffix)]
    return PurePosixPath(name).stem


@dataclass(frozen=True)
class SplitFiles:
    """Files of a folder by the split that they are."""

    paths: dict[str, tuple[str, ...]]
    """By split, patterns below the folder: `train/*.csv`; `train` is always there, and another one."""
    left: tuple[str, ...] = ()
    """Files that are no split's, and are not read."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """By split: the word that the files have for it, where it is another one."""
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By split: reading options of its own."""

    def without(self, splits: Iterable[str]) -> SplitFiles | None:
        """The same without some splits; None where only train would be left."""
        gone = set(splits)
        paths = {split: p for split, p in self.paths.items() if split not in gone}
        return SplitFiles(paths, self.left, self.renamed) if len(paths) > 1 else None


def split_files(paths: Sequence[str]) -> SplitFiles | None:
    """Tables that are splits by their folders or names; None where they are not.

    Args:
        paths: of all files, from the folder on.
    """
    by_split: dict[str, list[str]] = {}
    left = []
    for path in paths:
        split = split_of_path(path)
        if split is None:
            left.append(path)
        else:
            by_split.setdefault(split, []).append(path)
    if len(by_split) < 2 or "train" not in by_split:
        return None
    # Two tables of one split are halves of rows (X_train, y_train), not more rows.
    if any(_several_tables(files) for files in by_split.values()):
        return None
    renamed = {}
    # With two kinds of held-out data missing one, the given one is the test.
    if "test" not in by_split:
        by_split["test"] = by_split.pop("validation")
        renamed["test"] = "validation"
    return SplitFiles(
        {s: patterns(by_split[s], paths) for s in SPLITS if s in by_split},
        tuple(left),
        renamed,
    )


def _several_tables(files: Sequence[str]) -> bool:
    """Whether files of one split have different names beside the split's word: X_train, y_train."""
    stems = set()
    for path in files:
        pieces = [p.lower() for p in _PIECE.split(_stem(path.split("/")[-1])) if p]
        rest = [p for p in pieces if not split_of(p) and not p.isdigit() and p != "of"]
        # Pieces of one table are often called by numbers or days.
        stems.add((path.rpartition("/")[0], tuple(r for r in rest if not _is_part(r))))
    names = {stem for _, stem in stems}
    in_folders = all(
        any(split_of(part) for part in path.split("/")[:-1]) for path in files
    )
    return len(names) > 1 and not in_folders


def _is_part(piece: str) -> bool:
    return bool(re.fullmatch(r"(part|shard|chunk|p|r)?\d+[a-z]?", piece))


def patterns(chosen: Sequence[str], every: Sequence[str]) -> tuple[str, ...]:
    """The shortest patterns that match the chosen files, and none of the others."""
    others = sorted(set(every) - set(chosen))
    by_folder: dict[str, list[str]] = {}
    for path in sorted(chosen):
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    short: list[str] = []
    for folder, files in by_folder.items():
        pattern = _pattern(files, folder)
        fits = len(files) > 1 and not any(_matches(o, pattern) for o in others)
        short += [pattern] if fits else files
    return tuple(short)


def _pattern(files: Sequence[str], folder: str) -> str:
    names = [path.rpartition("/")[2] for path in files]
    start = _common_start(names)
    end = _common_start([name[len(start) :][::-1] for name in names])[::-1]
    # Numbers that happen to begin alike are no part of a pattern.
    start = re.sub(r"\d+$", "", start)
    return f"{folder}/{start}*{end}" if folder else f"{start}*{end}"


def _common_start(texts: Sequence[str]) -> str:
    low, high = min(texts), max(texts)
    same = 0
    while same < min(len(low), len(high)) and low[same] == high[same]:
        same += 1
    return low[:same]


def _matches(path: str, pattern: str) -> bool:
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


@dataclass(frozen=True)
class PathWords:
    """What the paths of files that are rows tell."""

    pattern: str
    """As the recipe's `source` says it."""
    splits: tuple[str, ...] = ()
    """The words that the step `{split}` has; empty where no step is a split."""
    labels: int = 0
    """How many different folders are classes; 0 where none are."""


def path_words(paths: Sequence[str]) -> PathWords | None:
    """The step of a path that is a split, and the one that is a class; None where no step is a split.

    Args:
        paths: of some thousand files, from the root on.
    """
    steps = [path.split("/") for path in paths]
    depths = {len(s) for s in steps}
    if len(depths) != 1 or (depth := depths.pop()) < 2:
        return None
    columns = [[s[i] for s in steps] for i in range(depth - 1)]
    # The outermost step whose every name is a split.
    at = next((i for i, names in enumerate(columns) if _are_splits(names)), None)
    if at is None:
        return None
    label = _label_step(columns, at)
    words = []
    for i, names in enumerate(columns):
        if i == at:
            words.append("{split}")
        elif i == label:
            words.append("{label}")
        else:
            words.append(names[0] if len(set(names)) == 1 else "*")
    if any(
        re.search(r"[*?\[{]", w) for w in words if w not in ("*", "{split}", "{label}")
    ):
        return None
    endings = {PurePosixPath(s[-1]).suffix for s in steps}
    last = f"*{endings.pop()}" if len(endings) == 1 else "*"
    return PathWords(
        "/".join([*words, last]),
        tuple(sorted(set(columns[at]))),
        len(set(columns[label])) if label is not None else 0,
    )


def _are_splits(names: Sequence[str]) -> bool:
    splits = {split_of(name) for name in set(names)}
    return None not in splits and "train" in splits and len(splits) > 1


def _label_step(columns: Sequence[Sequence[str]], split: int) -> int | None:
    """The innermost folder of few names that come several times."""
    for i in range(len(columns) - 1, -1, -1):
        names = set(columns[i])
        if (
            i != split
            and len(names) >= 2
            and len(columns[i]) >= _LEAST_FILES * len(names)
        ):
            return i
    return None


def to_splits(words: Iterable[str]) -> dict[str, str] | None:
    """By word, as it is written: its split; None where a word is none, or there is no train and another.

    Where nothing is called test, validation is the test.
    """
    by_word = {word: split_of(word) for word in words}
    splits = set(by_word.values())
    if None in splits or "train" not in splits or len(splits) < 2:
        return None
    known = {word: split for word, split in by_word.items() if split is not None}
    if "test" not in splits:
        known = {w: "test" if s == "validation" else s for w, s in known.items()}
    return known
