"""A column whose being filled in or missing tells the target: what is only written down once the answer
is known.
"""

from __future__ import annotations

import numpy as np

from penstock.inspect.leaks.evidence import Clues, Column, Doubt, Leak, Question, percent
from penstock.inspect.leaks.names import is_afterwards
from penstock.metrics.one_column import telling
from penstock.metrics.same_number import same_number

_LEAST = 30
# One side is pure: of its class so many are on this side, and the class is no more common than that.
_RECALL, _COMMON = 0.5, 0.7
_SLIPS = 0.01
_NEARLY = 0.9


def told_by_absence(column: Column, question: Question) -> Clues:
    """Judge which rows of a column are filled."""
    present = column.present
    filled = int(present.sum())
    if min(filled, len(present) - filled) < 5:
        return Clues()
    if question.is_number:
        return _of_number(column, question)
    cells = present.astype(np.int64)
    judged = question.by_value(cells)
    # What is missing tells more than a value does: nothing measured is missing so exactly.
    nearly = judged.score >= _NEARLY and judged.to_undo >= _LEAST
    if judged.almost_perfect(cells=2) or nearly:
        return Clues(
            [
                Leak(
                    column.name,
                    f"its being filled in or missing is enough; {judged.words}",
                    judged.score,
                )
            ]
        )
    return _one_side(column, question)


def _of_number(column: Column, question: Question) -> Clues:
    if same_number(column.present.astype(np.float64), question.numbers):
        why = "it is filled in exactly where the target is on one side of a value"
        return Clues([Leak(column.name, why, 0.9)])
    return Clues()


def _one_side(column: Column, question: Question) -> Clues:
    """Rows that are filled in (or missing) and all of one class."""
    clues = Clues()
    for there, words in ((column.present, "filled in"), (~column.present, "missing")):
        side = np.bincount(question.truth[there], minlength=question.count)
        whole = np.bincount(question.truth, minlength=question.count)
        top = int(side.argmax())
        rows = int(side.sum())
        if rows < _LEAST or side[top] < (1 - _SLIPS) * rows:
            continue
        recall = side[top] / whole[top]
        common = whole[top] / len(question.truth)
        # By chance, so many rows would all be of that class less than once in a million columns.
        if common > _COMMON or rows * -np.log(common) < 14:
            continue
        label = question.labels[top]
        why = (
            f"it is {words} in {percent(recall)} of the rows of class {label!r} and in hardly any other row"
            f" ({rows:,} rows)"
        )
        if recall >= _RECALL or column.is_moment or is_afterwards(column.name):
            clues.leaks.append(Leak(column.name, why, 0.8))
        else:
            clues.doubts.append(
                Doubt(
                    column.name, f"{why}: make sure that it is known before the answer is"
                )
            )
        break
    return clues


def shares_undone(column: Column, question: Question) -> float:
    """How much of the trivial answer's errors the missing rows alone undo."""
    hits = question.hits(column.present.astype(np.int64))
    return telling(hits, question.truth).score
