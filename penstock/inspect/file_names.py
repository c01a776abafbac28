"""A label that stands in the names of files alone: `7_anna_0.wav`, `cat.0.jpg`, `7-3.png`.

Names in, the last step of a source's `pattern` out; nothing is opened here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

LABEL = "label"
_DELIMITERS = ("_", "-", ".", " ")
_LEAST_FILES = 20
_MOST_LABELS = 100
_PER_LABEL = 5
"""Files that a label has on average, at the least; a number of its own for each file is none."""
_COUNTED = 20
"""Different whole numbers from here on count something, and name no class."""
_GLOB = re.compile(r"[*?\[{\]}]")
_YEAR = re.compile(r"(19|20)\d\d(\d{4})?")


@dataclass(frozen=True)
class NameWords:
    """What the names of files tell."""

    step: str
    """The last step of a pattern: `{label}_{part_2}_*.wav`."""
    labels: int
    """How many different labels there are."""
    example: str
    """A name."""
    label: str
    """The label that it has."""
    others: tuple[tuple[str, int, str], ...] = ()
    """Other pieces that recur, by column: how many different ones, and one of them."""


def name_words(names: Sequence[str]) -> NameWords | None:
    """The piece of a name that is a class; None where no piece is.

    Args:
        names: of files, without their folders.
    """
    endings = {PurePosixPath(name).suffix for name in names}
    if len(names) < _LEAST_FILES or len(endings) != 1:
        return None
    ending = endings.pop()
    stems = [name[: len(name) - len(ending)] for name in names]
    for delimiter in _DELIMITERS:
        pieces = [stem.split(delimiter) for stem in stems]
        depths = {len(row) for row in pieces}
        if len(depths) == 1 and depths != {1} and all(map(all, pieces)):
            words = _of_pieces(pieces, delimiter, ending)
            if words is not None:
                return words
    return None


def _of_pieces(
    pieces: Sequence[Sequence[str]], delimiter: str, ending: str
) -> NameWords | None:
    counted = [Counter(column) for column in zip(*pieces, strict=True)]
    # Days are when a file was made, and no classes.
    if any(all(_YEAR.fullmatch(piece) for piece in count) for count in counted):
        return None
    recurring = [i for i, count in enumerate(counted) if _recurs(count, len(pieces))]
    # Beside words that recur a number is more likely a count.
    words = [i for i in recurring if not all(piece.isdigit() for piece in counted[i])]
    chosen = recurring[:1] if recurring[:1] == [0] else (words or recurring)[:1]
    if not chosen:
        return None
    (label,) = chosen
    steps, others = [], []
    for i, count in enumerate(counted):
        first = pieces[0][i]
        if i == label:
            steps.append(f"{{{LABEL}}}")
        elif i in recurring:
            column = f"part_{i + 1}"
            steps.append(f"{{{column}}}")
            others.append((column, len(count), first))
        else:
            plain = len(count) == 1 and not _GLOB.search(first)
            steps.append(first if plain else "*")
    return NameWords(
        delimiter.join(steps) + (ending if not _GLOB.search(ending) else "*"),
        len(counted[label]),
        delimiter.join(pieces[0]) + ending,
        pieces[0][label],
        tuple(others),
    )


def _recurs(count: Counter[str], files: int) -> bool:
    """Whether pieces are classes, or groups: few, each with several files."""
    if all(piece.isdigit() for piece in count) and len(count) > _COUNTED:
        return False
    return 2 <= len(count) <= _MOST_LABELS and files >= _PER_LABEL * len(count)
