"""All kinds of leaks, asked for one after the other; what is left out, and what is kept in spite of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from penstock.inspect.leaks.alone import told_alone
from penstock.inspect.leaks.arithmetic import compared, told_by_arithmetic
from penstock.inspect.leaks.evidence import Clues, Column, Leak, Question, is_bytes
from penstock.inspect.leaks.flags import told_by_any, told_by_flags
from penstock.inspect.leaks.missing import told_by_absence
from penstock.inspect.leaks.names import told_by_name
from penstock.inspect.leaks.order import told_by_order
from penstock.inspect.leaks.paths import is_code, is_path, told_as_path, told_by_path
from penstock.inspect.leaks.texts import told_by_words
from penstock.inspect.leaks.vectors import told_by_parts
from penstock.inspect.raw_column import Finding, Look
from penstock.metrics.one_column import LEAST_ROWS

ROLE = "leak"
"""The role of a finding that is left out for it; no split may be proposed on such a column."""
_WORDY = ("text", "set", "category", "sequence")


@dataclass(frozen=True)
class Search:
    """What is proposed once leaks are out."""

    columns: list[Finding]
    notes: list[str] = field(default_factory=list)


def find_leaks(
    columns: Sequence[tuple[Look, Finding]], target: Look, finding: Finding
) -> Search:
    """Leave out what gives the target away; warn of what nearly does.

    Args:
        columns: every column but the target, with what is proposed for it.
        target: the target's column.
        finding: what is proposed for it.

    Returns:
        A finding for each column, in order. Where nothing else is left to learn from, the leak with the
        weakest evidence stays an input, and a note says so.
    """
    question = Question(target, finding, columns)
    judged = [
        Column(look, proposed, question)
        for look, proposed in columns
        if _is_judged(look, proposed)
    ]
    if len(question.rows) < LEAST_ROWS:
        return Search([proposed for _, proposed in columns])
    question.hold_out_groups(judged)
    clues = _clues(judged, question)
    why = {leak.column: leak for leak in reversed(clues.leaks)}
    doubts = {doubt.column: doubt.why for doubt in reversed(clues.doubts)}
    paths = told_as_path([Column(look, proposed, question) for look, proposed in columns])
    weakest = _weakest(columns, why, paths)
    after = [_decided(proposed, why, doubts, paths, weakest) for _, proposed in columns]
    notes = (
        [
            "Every column that could be an input gives the target away. The one with the weakest evidence,"
            f" {weakest.column!r}, was kept so that there is something to look at; a model of it says little."
        ]
        if weakest
        else []
    )
    return Search(after, notes)


def known_leaks(
    columns: Sequence[tuple[Look, Finding]], target: Look, finding: Finding
) -> dict[str, str]:
    """Return the columns that `find_leaks` finds to give the target away, each with the evidence."""
    question = Question(target, finding, columns)
    judged = [Column(each, f, question) for each, f in columns if _is_judged(each, f)]
    if len(question.rows) < LEAST_ROWS:
        return {}
    question.hold_out_groups(judged)
    clues = _clues(judged, question)
    return {leak.column: leak.why for leak in reversed(clues.leaks)}


@np.errstate(all="ignore")
def judge_inputs(
    columns: Mapping[str, pa.Array],
    types: Mapping[str, str],
    target: Look,
    *,
    kind: str,
) -> dict[str, str]:
    """Judge the inputs of a model on rows that it answered: what of them alone gives the target, or nearly.

    Args:
        columns: canonical values by input, all of one length.
        types: the feature's type, by input.
        target: the truth: classes as whole numbers, or numbers.
        kind: `binary`, `category` or `number`.

    Returns:
        By input, why it gives the target away, the clearest first. Names are not asked.
    """
    pairs = [
        (Look(name, column), Finding(name, types[name], ""))
        for name, column in columns.items()
    ]
    question = Question(target, Finding(target.name, kind, ""), pairs)
    if len(question.rows) < LEAST_ROWS:
        return {}
    judged = [
        Column(look, finding, question)
        for look, finding in pairs
        if _is_judged(look, finding)
    ]
    question.hold_out_groups(judged)
    clues = _clues(judged, question, by_name=False)
    leaks = sorted(clues.leaks, key=lambda leak: -leak.strength)
    reasons = [(leak.column, leak.why) for leak in leaks]
    reasons += [(doubt.column, doubt.why) for doubt in clues.doubts]
    # The first reason of each column, in this order.
    why: dict[str, str] = {}
    for column, text in reasons:
        why.setdefault(column, text)
    return why


def _is_judged(look: Look, finding: Finding) -> bool:
    """Columns that are proposed, and identifiers: they are left out anyway, but the reason matters."""
    if finding.type is None:
        return finding.role in ("identifier", "text") and not is_bytes(look)
    return finding.type != "image" and not is_bytes(look)


def _clues(
    judged: Sequence[Column], question: Question, *, by_name: bool = True
) -> Clues:
    clues = Clues()
    for column in judged:
        of_column = _of_column(column, question, by_name=by_name)
        # The first kind that explains it is the one told.
        clues.leaks += of_column.leaks[:1]
        clues.doubts += [] if of_column.leaks else of_column.doubts
    left = _without(judged, clues)
    clues.add(told_by_flags(left, question))
    clues.add(told_by_any(_without(left, clues), question))
    clues.add(told_by_order(_without(left, clues), question))
    clues.add(compared(_without(left, clues), question))
    # One relation may hide another, such as two units of the same part.
    for _ in range(3):
        of_column = told_by_arithmetic(_without(left, clues), question)
        clues.add(of_column)
        if not of_column.leaks:
            break
    return clues


def _without(columns: Sequence[Column], clues: Clues) -> list[Column]:
    out = {leak.column for leak in clues.leaks}
    return [c for c in columns if c.name not in out and c.finding.type is not None]


def _of_column(column: Column, question: Question, *, by_name: bool) -> Clues:
    clues = Clues()
    if column.finding.type is None:
        if column.look.is_text and is_path(column):
            clues.add(told_by_path(column, question))
        clues.add(told_alone(column, question))
        return clues
    if column.finding.type == "vector" and column.is_nested:
        return told_by_parts(column, question)
    if question.is_number or question.is_class:
        clues.add(told_by_absence(column, question))
    if not column.is_nested:
        if column.look.is_text and is_path(column):
            clues.add(told_by_path(column, question))
        clues.add(told_alone(column, question))
    if by_name:
        clues.add(told_by_name(column, question))
    if column.finding.type in _WORDY and (column.is_nested or column.look.is_text):
        clues.add(told_by_words(column, question))
        if is_code(column):
            clues.add(told_by_path(column, question))
    return clues


def _weakest(
    columns: Sequence[tuple[Look, Finding]],
    leaks: dict[str, Leak],
    paths: dict[str, str],
) -> Leak | None:
    """The leak to be kept, where all inputs would be left out."""
    proposed = [f.column for _, f in columns if f.type is not None]
    if not proposed or any(name not in leaks and name not in paths for name in proposed):
        return None
    out = [leaks[name] for name in proposed if name in leaks]
    return min(out, key=lambda leak: leak.strength) if out else None


def _decided(
    finding: Finding,
    leaks: dict[str, Leak],
    doubts: dict[str, str],
    paths: dict[str, str],
    weakest: Leak | None,
) -> Finding:
    name = finding.column
    leak = leaks.get(name)
    if leak is not None and leak is weakest:
        return replace(
            finding,
            why=f"{finding.why}; it gives the target away: {leak.why}. Kept since no other column is left",
            loud=True,
        )
    if leak is not None:
        use = (
            f". It would have been {finding.type}; use it only if it is known before the answer is"
            if finding.type is not None
            else ""
        )
        return Finding(
            name, None, f"gives the target away: {leak.why}{use}", loud=True, role=ROLE
        )
    if name in paths and finding.type is not None:
        return Finding(name, None, paths[name], role="identifier")
    if name in doubts and finding.type is not None:
        return replace(finding, why=f"{finding.why}; {doubts[name]}", loud=True)
    return finding
