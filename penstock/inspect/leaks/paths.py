"""Names and paths of files: a folder or a piece of the name that tells the class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from penstock.inspect.leaks.evidence import Clues, Column, Leak, Question, different
from penstock.metrics.one_column import telling
from penstock.metrics.same_number import same_number

_STEPS = re.compile(r"[/\\]+")
_PIECES = re.compile(r"[^\W\d_]+|\d+")
_FILE = re.compile(r".*[/\\].*|[^\s]+\.[A-Za-z][A-Za-z0-9]{1,4}")
_MOST = 6
"""Steps and pieces that are looked at, from either end."""
_LIKE_PATHS = 0.9
_CODE = 64
_PATH = "path"
_CONTENT = "content"


def is_path(column: Column) -> bool:
    """Whether the values are names or paths of files."""
    look = column.look
    if not look.is_text or not look.present:
        return False
    some = [str(value) for value in look.present][:500]
    like = sum(
        bool(_FILE.fullmatch(text)) and len(text) < 400 and text.count(" ") < 6
        for text in some
    )
    return like >= _LIKE_PATHS * len(some)


def is_code(column: Column) -> bool:
    """Whether the values are short texts of some pieces, such as `REF-2023-17`."""
    look = column.look
    if column.is_nested or not look.is_text or not look.present or is_path(column):
        return False
    some = [str(value) for value in look.present][:500]
    return all(len(text) <= _CODE and text.count(" ") < 3 for text in some)


def told_by_path(column: Column, question: Question) -> Clues:
    """Judge each step and each piece of paths and file names; also of codes such as `REF-2023-17`."""
    # Each text once, however many rows have it.
    texts, of_row = different(_texts(column, question))
    for words, values in _derived(texts):
        if question.is_number:
            if how := _number(values, of_row, question):
                why = f"{words} (such as {how!r}) is the target"
                return Clues([Leak(column.name, why, 0.9)])
            continue
        cells = _cells(values)[of_row]
        at = np.flatnonzero(cells > 0)
        if len(at) < 0.5 * len(cells):
            continue
        hits = question.hits(cells)
        judged = telling(hits, question.truth)
        if judged.almost_perfect(cells=len(np.unique(cells))):
            example = next(value for value in values if value)
            why = f"{words} (such as {example!r}) tells the target; {judged.words}"
            return Clues([Leak(column.name, why, 0.9)])
    return Clues()


def told_as_path(columns: Sequence[Column]) -> dict[str, str]:
    """Columns that are where a row's own file lies, whatever they tell: name → why they are no input."""
    names = {column.name for column in columns}
    return {
        column.name: "the path of the row's own file: it tells where the file lies, not what is in it"
        for column in columns
        if column.name == _PATH and _CONTENT in names and is_path(column)
    }


def _texts(column: Column, question: Question) -> list[str]:
    rows = column.look.trimmed.take(question.rows).to_pylist()
    return ["" if value is None else str(value) for value in rows]


def _derived(texts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each step and piece of the texts, with what it is called; empty where a text has none."""
    steps = [[step for step in _STEPS.split(text) if step] for text in texts]
    deepest = max(map(len, steps), default=0)
    for i in range(min(deepest - 1, _MOST)):
        yield f"its folder {i + 1}", [row[i] if len(row) > i + 1 else "" for row in steps]
    for i in range(2, min(deepest, _MOST) + 1):
        yield (
            f"its folder {i - 1} from the end",
            [row[-i] if len(row) >= i else "" for row in steps],
        )
    pieces = [_PIECES.findall(row[-1]) if row else [] for row in steps]
    longest = max(map(len, pieces), default=0)
    for i in range(min(longest, _MOST)):
        yield f"piece {i + 1} of it", [row[i] if len(row) > i else "" for row in pieces]
    for i in range(1, min(longest, _MOST) + 1):
        yield (
            f"piece {i} of it from the end",
            [row[-i] if len(row) >= i else "" for row in pieces],
        )


def _cells(values: Sequence[str]) -> np.ndarray:
    places: dict[str, int] = {"": 0}
    return np.array([places.setdefault(value, len(places)) for value in values], np.int64)


def _number(values: Sequence[str], of_row: np.ndarray, question: Question) -> str:
    """An example, where a piece that is a number is the target."""
    x = np.array([float(value) if value.isdecimal() else np.nan for value in values])
    x = x[of_row]
    if np.isfinite(x).mean() < 0.8:
        return ""
    return next((v for v in values if v), "") if same_number(x, question.numbers) else ""
