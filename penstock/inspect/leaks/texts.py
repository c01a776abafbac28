"""Pieces of the target inside a text or among labels: the class's own word, or a fixed place that names
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from penstock.inspect.leaks.evidence import (
    Clues,
    Column,
    Doubt,
    Leak,
    Question,
    different,
)
from penstock.metrics.one_column import telling
from penstock.metrics.same_number import same_number

_MOST_CLASSES = 200
_GENERIC = frozenset("yes no true false none other unknown y n t f".split())
_LOUD = 0.5
_KEY = r"(?:label|class|category|target|tag|type|topic|{own})\s*[:=]\s*[\"']?([\w-]+(?: [\w-]+)?)"


def told_by_words(column: Column, question: Question) -> Clues:
    """Judge texts (or lists of labels) by simple patterns."""
    # Each text once, however many rows have it.
    texts, of_row = different(_texts(column, question))
    if question.is_number:
        for words, values in _numbers(texts):
            x = np.array([float(v) if v else np.nan for v in values])[of_row]
            if np.isfinite(x).mean() >= _LOUD and same_number(x, question.numbers):
                why = f"{words} is the target"
                return Clues([Leak(column.name, why, 0.8)])
        return Clues()
    if not question.is_class:
        return Clues()
    for words, values, is_label in _patterns(texts, question):
        places: dict[str, int] = {"": 0}
        cells = np.array([places.setdefault(v, len(places)) for v in values], np.int64)
        cells = cells[of_row]
        if len(places) < 2 or (cells > 0).sum() < 10:
            continue
        judged = telling(question.hits(cells), question.truth)
        if judged.almost_perfect(cells=len(places)):
            return Clues(
                [Leak(column.name, f"{words} tells the target; {judged.words}", 0.8)]
            )
        if is_label and judged.score >= _LOUD and judged.to_undo >= 20:
            why = f"{words} often tells the target; {judged.words}"
            return Clues(doubts=[Doubt(column.name, why)])
    return Clues()


def _texts(column: Column, question: Question) -> list[str]:
    rows = column.look.raw.take(question.rows).to_pylist()
    return [
        ""
        if value is None
        else "\n".join(map(str, value))
        if isinstance(value, list)
        else str(value)
        for value in rows
    ]


def _numbers(texts: list[str]) -> Iterator[tuple[str, list[str]]]:
    number = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
    numbers = [number.findall(text) for text in texts]
    yield (
        "the first number in it",
        [numbers_of_text[0] if numbers_of_text else "" for numbers_of_text in numbers],
    )
    yield (
        "the last number in it",
        [numbers_of_text[-1] if numbers_of_text else "" for numbers_of_text in numbers],
    )


def _patterns(
    texts: list[str], question: Question
) -> Iterator[tuple[str, list[str], bool]]:
    """Patterns by what they are called, what each text has of it, and whether it is the class's own word."""
    folded = [text.casefold() for text in texts]
    own = re.escape(question.name.casefold())
    key = re.compile(_KEY.format(own=own))
    named = [match[1] if (match := key.search(text)) else "" for text in folded]
    yield "what follows a word such as `label:` in it", named, False
    edge = re.compile(r"[\w-]+")
    split = [edge.findall(text) for text in folded]
    yield "its first word", [words[0] if words else "" for words in split], False
    yield "its last word", [words[-1] if words else "" for words in split], False
    for called, numbers in _numbers(texts):
        yield called, numbers, False
    marks = [text[:1] for text in texts]
    yield "its first character", marks, False
    labels = [
        label.casefold()
        for label in question.labels
        if len(label) >= 3
        and label.casefold() not in _GENERIC
        and not label.replace(".", "").isdigit()
    ]
    if not labels or question.count > _MOST_CLASSES:
        return
    # The longest first, so that `men` is not seen in `women`.
    labels.sort(key=len, reverse=True)
    word = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, labels)) + r")(?!\w)")
    yield (
        "the class's own word in it",
        ["|".join(sorted(set(word.findall(t)))) for t in folded],
        True,
    )
