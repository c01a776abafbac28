"""A column that alone tells the target: a copy, a code, a bin, a refinement of it, or the same number
otherwise written.
"""

from __future__ import annotations

import numpy as np

from penstock.inspect.leaks.evidence import Clues, Column, Doubt, Leak, Question, percent
from penstock.metrics.one_column import (
    APART,
    FEW_CELLS,
    LEAST_ROWS,
    NOTHING,
    Telling,
    roc_auc,
    telling,
)
from penstock.metrics.same_number import likeness, same_number

STRONG = 0.9
"""From this share of errors undone on the user is asked to look."""
# A column that is there in fewer rows than this, or whose values recur in fewer, is not judged by them.
_COVERS = 0.2
_RECURS = 0.3
_UNIQUE = 0.95
_LEAST_APART = 20
# Seldom is one value of a number so common that telling it from the others means anything.
_MOST_COMMON = 0.5
_GENERIC = frozenset("0 1 2 3 yes no true false y n t f none".split())
# Of the errors that are undone, from which on a column written in the target's own words is a second label.
_SPELLED = 0.85


def told_alone(column: Column, question: Question) -> Clues:
    """Judge one column that holds single values."""
    # A measure that differs from group to group (a place, a height) is no name of the group.
    grouped = NOTHING if _is_measure(column) else question.own_groups(column)
    if grouped.almost_perfect(cells=FEW_CELLS + 1):
        same = (
            ""
            if column.name == question.group_column
            else f" ({question.group_column!r})"
        )
        why = (
            f"all rows of one {column.name!r}{same} have one answer ({grouped.right:.1%} of {grouped.rows:,}"
            " rows), so it is known by heart and says nothing of others. Keep such rows on one side of"
            " the split"
        )
        return Clues([Leak(column.name, why, grouped.score)])
    if question.is_number:
        return _number(column, question)
    clues = Clues()
    judged = _of_class(column, question)
    if judged is None:
        return clues
    best, leak = judged
    strong = best.score >= STRONG and best.to_undo >= 10 and best.rows >= LEAST_ROWS
    if not leak and not strong:
        return clues
    if column.is_moment and _runs(column.numbers, question) > 2 * question.count:
        why = (
            f"rows near each other in time have one class ({best.words}). Split by time, or it tells the"
            " answer"
        )
        clues.doubts.append(Doubt(column.name, why))
    elif leak:
        clues.leaks.append(Leak(column.name, leak, best.score))
    else:
        clues.doubts.append(
            Doubt(
                column.name,
                f"{best.words}: make sure that it is known before the answer is",
            )
        )
    return clues


def _is_measure(column: Column) -> bool:
    return column.finding.type in ("number", "timestamp") and not column.look.named_id


def _of_class(column: Column, question: Question) -> tuple[Telling, str] | None:
    """How well it tells the classes, and the reason if that is too well."""
    if column.distinct < 1:
        return None
    cells, distinct = column.cells, column.distinct
    truth = question.truth
    ordered, reason = _ordered(column, question)
    # A number of its own for every row says nothing by its value.
    if (reason and distinct > question.count) or (
        ordered.rows and distinct > _UNIQUE * ordered.rows
    ):
        return ordered, reason
    hits = question.hits(cells)
    whole = telling(hits, truth)
    if whole.almost_perfect(cells=distinct):
        return whole, _shape(column, question, whole)
    best = max(whole, ordered, key=lambda t: t.score)
    # On rows that have it, and whose value another row has as well.
    at = np.flatnonzero((cells > 0) & ~np.isnan(hits))
    filled = int((cells > 0).sum())
    if len(at) >= max(_RECURS * filled, _COVERS * len(cells), 1):
        there = question.by_value(cells, at=at)
        if there.almost_perfect(cells=FEW_CELLS + 1):
            return there, _shape(column, question, there)
        best = max(best, there, key=lambda t: t.score)
    if reason:
        return best, reason
    if spelled := _spelled(column, question, best):
        return best, spelled
    return best, ""


def _shape(column: Column, question: Question, judged: Telling) -> str:
    """The reason in words: what the column is to the target."""
    cells = column.cells[column.cells > 0]
    classes = len(np.unique(question.truth))
    if len(np.unique(cells)) == classes:
        return (
            f"it is the target otherwise written, a value for each class; {judged.words}"
        )
    if len(np.unique(cells)) > classes:
        return f"each of its values goes with one class; {judged.words}"
    return judged.words


def _ordered(column: Column, question: Question) -> tuple[Telling, str]:
    """How well the order of its numbers tells the classes, and the reason if that is too well."""
    if not column.is_ordered or column.distinct <= 2:
        return NOTHING, ""
    numbers = column.numbers
    judged = question.by_order(numbers)
    if judged.rows < _COVERS * len(numbers):
        return NOTHING, ""
    if judged.almost_perfect(cells=column.distinct):
        what = "moments" if column.is_moment else "numbers"
        if _runs(numbers, question) <= 2 * question.count:
            return judged, f"each class is a range of its {what}; {judged.words}"
        return judged, f"each class is some ranges of its {what}; {judged.words}"
    return judged, _apart(numbers, question)


def _runs(numbers: np.ndarray, question: Question) -> int:
    """In how many stretches of one class the rows lie, in the order of a number."""
    at = np.flatnonzero(np.isfinite(numbers))
    ordered = question.truth[at][np.lexsort((question.truth[at], numbers[at]))]
    return int((ordered[1:] != ordered[:-1]).sum()) + 1


def _apart(numbers: np.ndarray, question: Question) -> str:
    """The reason, where a number ranks two classes apart though no threshold is without an error."""
    if question.count != 2 or question.groups is not None:
        return ""
    at = np.flatnonzero(np.isfinite(numbers))
    truth = question.truth[at]
    if min(truth.sum(), len(truth) - truth.sum()) < _LEAST_APART:
        return ""
    area = roc_auc(numbers[at], truth)
    area = max(area, 1 - area)
    return (
        f"alone it ranks the two classes apart (ROC AUC {area:.4f})"
        if area >= APART
        else ""
    )


def _spelled(column: Column, question: Question, judged: Telling) -> str:
    """The reason, where its values are the target's own words and mostly agree with it: a second label."""
    if not column.look.is_text or judged.score < _SPELLED or judged.to_undo < 10:
        return ""
    own = {label.casefold() for label in question.labels}
    values = {str(v).casefold() for v in column.look.present}
    if own <= _GENERIC or not values <= own | {"none", "other"} or len(values) < 2:
        return ""
    return f"its values are the target's own, a second label of the same; {judged.words}"


def _number(column: Column, question: Question) -> Clues:
    """Judge a column against a number."""
    clues = _ordered_number(column, question) if column.is_ordered else Clues()
    # Numbers that recur are quantities; of categories each value may go with one answer.
    if clues.leaks or column.is_moment or column.finding.type == "number":
        return clues
    if refined := _refines(column, question):
        return Clues([Leak(column.name, refined, 0.9)])
    if not column.is_ordered and (bins := _bins(column, question)):
        return Clues([Leak(column.name, bins, 1.0)])
    return clues


def _ordered_number(column: Column, question: Question) -> Clues:
    x = column.numbers
    rows = int(np.isfinite(x).sum())
    if rows < max(_COVERS * len(x), LEAST_ROWS):
        return Clues()
    like = likeness(x, question.numbers)
    if like.how and column.is_moment:
        why = f"{like.how}: the target grows with time. Split by time, or it tells the answer"
        return Clues(doubts=[Doubt(column.name, why)])
    if like.how:
        return Clues([Leak(column.name, f"{like.how} ({rows:,} rows)", 1.0)])
    if like.rank * like.rank >= STRONG:
        why = (
            f"alone it puts the rows nearly in the target's order (rank correlation {like.rank:.4f}): make"
            " sure that it is known before the answer is"
        )
        return Clues(doubts=[Doubt(column.name, why)])
    return Clues()


def _refines(column: Column, question: Question) -> str:
    """The reason, where each value of a category goes with one number."""
    hits = question.hits(column.cells)
    at = np.flatnonzero((column.cells > 0) & ~np.isnan(hits))
    if len(at) < _RECURS * len(hits):
        return ""
    judged: Telling = question.by_value(column.cells, at=at) if len(at) else NOTHING
    if judged.base > _MOST_COMMON or not judged.almost_perfect(cells=FEW_CELLS + 1):
        return ""
    return (
        f"each of its values goes with one value of the target, in {percent(judged.right)} of"
        f" {judged.rows:,} rows whose value recurs"
    )


def _bins(column: Column, question: Question) -> str:
    """The reason, where texts name ranges of the number that do not overlap."""
    cells, y = column.cells, question.numbers
    at = np.flatnonzero(cells > 0)
    if len(at) < 40 or len(at) < _COVERS * len(cells) or column.distinct > len(at) / 5:
        return ""
    # Texts have no order of their own: that of the target's medians is theirs.
    values = np.unique(cells[at])
    order = np.argsort([np.median(y[cells == value]) for value in values])
    place = np.empty(int(values.max()) + 1)
    place[values[order]] = np.arange(len(values))
    if len(values) < 2 or not same_number(place[cells[at]], y[at]):
        return ""
    return f"its {len(values)} values are ranges of the target that do not overlap"
