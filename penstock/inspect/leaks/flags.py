"""Several columns that are the target together: a flag for each class, or a probability for each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from penstock.inspect.leaks.evidence import Clues, Column, Leak, Question, words_of
from penstock.inspect.leaks.names import OF_LABELS, PREDICTIONS, SCORES

_LEAST = 5
_SLIPS = 0.02
# Flags of so many of the classes are no coincidence.
_COVERED, _LEAST_FLAGS = 0.7, 3
_MOST_CLASSES = 200
_SCORED = 0.9
# A class no more common than this, and so sure that rows of one class are no chance (natural logarithm).
_COMMON, _SURE = 0.5, 14


def told_by_flags(columns: Sequence[Column], question: Question) -> Clues:
    """Find columns of two values (or filled and missing ones) that are one class each, and families of
    scores.
    """
    names, members = _classes(question)
    if not 2 < len(names) + question.is_set <= _MOST_CLASSES:
        return _families(columns, question) if question.is_class else Clues()
    size = members.sum(axis=1)
    flags: dict[str, int] = {}
    for column in columns:
        for bits in _bits(column):
            if (place := _equal(bits, members, size)) is not None:
                flags[column.name] = place
                break
    clues = Clues()
    covered = len(set(flags.values()))
    # All but one class leave nothing to be told.
    needed = max(_LEAST_FLAGS, _COVERED * len(names))
    family = covered >= (min(needed, len(names) - 1) if question.is_class else needed)
    for name, place in flags.items():
        words = set(words_of(name))
        own = set(words_of(names[place]))
        if family or (own and own <= words) or question.tokens <= words:
            clues.leaks.append(
                Leak(
                    name,
                    f"it is a flag of {names[place]!r}, right in nearly all of {members.shape[1]:,} rows",
                    0.9,
                )
            )
    if question.is_class:
        clues.add(_families(columns, question))
    return clues


def told_by_any(columns: Sequence[Column], question: Question) -> Clues:
    """Find flags each of which is only set in one class, and which together are that class (kinds of
    failure).
    """
    if not question.is_class or question.count != 2:
        return Clues()
    share = np.bincount(question.truth, minlength=2) / len(question.truth)
    for one in (0, 1):
        if share[one] > _COMMON:
            continue
        own = question.truth == one
        parts = [
            (column.name, bits)
            for column in columns
            for bits in _bits(column)
            if bits.sum() * -np.log(share[one]) >= _SURE
            and (bits & ~own).sum() <= _SLIPS * bits.sum()
        ]
        if len(parts) < 2:
            continue
        together = np.any([bits for _, bits in parts], axis=0)
        if (together & own).sum() >= (1 - _SLIPS) * own.sum():
            label = question.labels[one]
            why = (
                f"it is only set where the target is {label!r}, and {len(parts)} such columns together"
                f" are the target in {(together == own).mean():.1%} of {len(own):,} rows"
            )
            return Clues([Leak(name, why, 0.75) for name, _ in parts])
    return Clues()


def _classes(question: Question) -> tuple[list[str], np.ndarray]:
    """The classes, or the labels of a set, and which rows have each `[classes, n]`."""
    if not question.is_set:
        if not question.is_class or question.count > _MOST_CLASSES:
            return [], np.zeros((0, 0), bool)
        members = question.truth[None, :] == np.arange(question.count)[:, None]
        return question.labels, members
    rows = question.look.raw.take(question.rows).to_pylist()
    sets = [
        set(map(str, value))
        if isinstance(value, (list, tuple))
        else {part.strip() for part in re.split(r"[,;|/]", str(value))}
        for value in rows
    ]
    names = sorted(set().union(*sets) - {""}) if sets else []
    if len(names) > _MOST_CLASSES:
        return [], np.zeros((0, 0), bool)
    return names, np.array([[name in row for row in sets] for name in names])


def _bits(column: Column) -> list[np.ndarray]:
    """The ways in which a column may be a flag: one value against the other, or filled against missing."""
    bits = []
    if not column.is_nested and column.distinct == 2:
        bits.append(column.cells == column.cells[column.cells > 0].max())
    if 0 < column.present.sum() < len(column.present):
        bits.append(column.present)
    return bits


def _equal(bits: np.ndarray, members: np.ndarray, size: np.ndarray) -> int | None:
    """The class whose rows the bits (or their opposite) are; None if there is none."""
    both = members @ bits.astype(np.int64)
    ones = int(bits.sum())
    rows = len(bits)
    for shared, count in ((both, ones), (size - both, rows - ones)):
        wrong = size + count - 2 * shared
        place = int(wrong.argmin())
        if size[place] >= _LEAST and wrong[place] <= _SLIPS * size[place]:
            return place
    return None


def _families(columns: Sequence[Column], question: Question) -> Clues:
    """Numbers with a class or a place in their names, the greatest of which tells the class."""
    families: dict[str, list[tuple[str, Column]]] = defaultdict(list)
    labels = {label.casefold(): label for label in question.labels}
    tail = re.compile(
        r"(.*?)[\W_]*("
        + "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
        + r"|\d{1,2})$"
    )
    for column in columns:
        if column.is_nested or column.look.numeric_share < 1 or column.distinct <= 2:
            continue
        if match := tail.match(column.name.casefold()):
            families[match[1]].append((match[2], column))
    clues = Clues()
    count = question.count
    for stem, members in families.items():
        known = {which for which, _ in members} <= set(labels)
        scored = set(words_of(stem)) & (PREDICTIONS | SCORES | OF_LABELS | {"p", "class"})
        if not 2 <= len(members) <= count + 1 or len(members) < count - 1:
            continue
        if not known and not scored:
            continue
        table = np.nan_to_num(np.array([c.numbers for _, c in members]), nan=-np.inf)
        judged = question.by_value(table.argmax(axis=0))
        if judged.score >= _SCORED and judged.to_undo >= 10:
            clues.leaks += [
                Leak(
                    column.name,
                    f"it is one of {len(members)} scores, the greatest of which tells the class;"
                    f" {judged.words}",
                    0.85,
                )
                for _, column in members
            ]
    return clues
