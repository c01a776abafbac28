"""Rows in the order of time: by a column of moments that rises with them, or by neighbours that are alike.

A file that is sorted by a column, by its classes or by its groups is no order of time, and neighbours are
alike there all the same: such files are told apart first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penstock.inspect.alike import is_plain, next_to, scores
from penstock.inspect.moments_of import Moments
from penstock.inspect.raw_column import Finding, Look

_EVENT = re.compile(
    r"^(date|day|datetime|date_?time|time|time_?stamp|ts|when|dt|event_?(time|date)|created(_?at|_?on)?"
    r"|(order|invoice|transaction|purchase|sale|sold|shipped|shipping|trade|trans|booking|visit|record(ed)?"
    r"|observ(ed|ation)|measure(d|ment)|report(ed)?|sample|log|publish(ed)?|post(ed)?|pickup|start(ed)?)"
    r"_?(at|on|date|time|datetime|day|ts|timestamp)?|date_?(sold|of_sale)|trans_?date_?trans_?time"
    r"|datum|zeit|fecha|data|jour|tpep_pickup_datetime|lpep_pickup_datetime)$",
    re.IGNORECASE,
)
_TIME_LIKE = re.compile(
    r"(^|[._\- ])(year|yr|month|day|date|week|hour|minute|time|step|index|idx|no|number|id|row|cycle|round"
    r"|seq|sequence|count|instant|epoch|period|tick|quarter)($|[._\- ]|s$)",
    re.IGNORECASE,
)
_SPACE = re.compile(
    r"(^|[._\- ])(lat|latitude|lon|lng|long|longitude|easting|northing)($|[._\- ])",
    re.IGNORECASE,
)
_MISSING = 0.02
_LEAST = 100
"""Rows in a row that are looked at before neighbours say anything."""
_LEAST_MOMENTS = 10
_MOST_COMPARED = 40
_RISES = 0.98
_TARGET_ALIKE = 0.7
_CLASS_ALIKE = 0.5
_COLUMNS_ALIKE = 0.5


@dataclass(frozen=True)
class TimeOrder:
    """What orders the rows."""

    column: Moments | None
    """The moments; None where only the rows' places do."""
    why: str


def by_moments(moments: Sequence[Moments]) -> TimeOrder | None:
    """The column whose moments rise with the rows, else one whose name says when a row happened.

    Args:
        moments: of rows that stand one behind another in the source; those that leak are left out.
    """
    usable = [m for m in moments if m.missing <= _MISSING and _many(m.values)]
    for each in usable:
        if len(each.values) >= 30 and _rising(each.values) >= _RISES:
            return TimeOrder(each, f"the rows come in the order of {each.column!r}")
    for each in usable:
        if each.timed and _EVENT.match(each.column.strip()):
            why = f"{each.column!r} says when a row happened, and a model answers for later ones"
            return TimeOrder(each, why)
    return None


def _many(values: np.ndarray) -> bool:
    there = values[np.isfinite(values)]
    return len(np.unique(there)) >= _LEAST_MOMENTS


def _rising(values: np.ndarray) -> float:
    """The share of the neighbours that do not fall, or do not rise, where that is more."""
    there = values[np.isfinite(values)]
    if len(there) < 2 or there[0] == there[-1]:
        return 0.0
    steps = np.diff(there)
    return max(float(np.mean(steps >= 0)), float(np.mean(steps <= 0)))


def by_neighbours(
    columns: Sequence[tuple[Look, Finding]],
    target: tuple[Look, Finding] | None,
) -> TimeOrder | None:
    """Whether neighbours are alike though the file is sorted by none of its columns.

    Args:
        columns: all but the target, with what was proposed for each; of rows that stand one behind another in
            the source.
        target: with what was proposed for it.
    """
    # Lists have no order, and no single value that neighbours could share.
    if target is None or not is_plain(target[0]):
        return None
    if target[0].rows < _LEAST or _sorted_by(target[0]):
        return None
    if any(_sorted_by(look) for look, f in columns if f.role not in ("constant", "list")):
        return None
    # Neighbours in space, or in one town, are alike as well.
    if any(_SPACE.search(look.name) for look, _ in columns) or _in_blocks(columns):
        return None
    alike = []
    for look, finding in columns:
        if finding.type in ("number", "category", "binary") and finding.role != "code":
            values, ordered = scores(look)
            alike.append(next_to(values, ordered=ordered))
    strong = sum(score >= _COLUMNS_ALIKE for score in alike)
    values, ordered = scores(target[0])
    of_target = next_to(values, ordered=ordered)
    if of_target < (_TARGET_ALIKE if ordered else _CLASS_ALIKE):
        return None
    # Blocks of one class are alike without being steps of anything.
    if not ordered and (strong < 0.3 * max(len(alike), 1) or _blocks(values)):
        return None
    why = (
        f"neighbouring rows are alike: the target of a row and of the next agree to {of_target:.0%} beyond"
        " chance"
    )
    return TimeOrder(None, why)


def _sorted_by(look: Look) -> bool:
    """Whether the file is sorted by a column, or its values come in blocks, that is no counter of time."""
    if _TIME_LIKE.search(look.name) or not is_plain(look):
        return False
    if look.numeric_share >= 0.9 and look.distinct > 2:
        values = look.numbers
        return (
            len(np.unique(values[np.isfinite(values)])) >= 3 and _rising(values) >= 0.99
        )
    codes = look.codes
    kinds = len(np.unique(codes))
    runs = 1 + int((np.diff(codes) != 0).sum())
    # A value for every row is no block.
    return 2 <= kinds <= len(codes) / 3 and runs <= 1.5 * kinds


def _in_blocks(columns: Sequence[tuple[Look, Finding]]) -> bool:
    """Whether several columns keep their values for some rows and then change together, as facts of a town do
    in a table of its houses.
    """
    changes: list[np.ndarray] = []
    for look, finding in columns:
        if finding.role == "constant" or _TIME_LIKE.search(look.name):
            continue
        if is_plain(look) and look.distinct >= 5:
            changed = np.diff(look.codes) != 0
            if 0 < changed.mean() <= 0.3 and len(changes) < _MOST_COMPARED:
                changes.append(changed)
    return any(
        (one & other).sum() >= 0.7 * min(one.sum(), other.sum())
        for i, one in enumerate(changes)
        for other in changes[i + 1 :]
    )


def _blocks(codes: np.ndarray) -> bool:
    """Whether a class comes in a few long blocks, so that the last rows would lack most classes."""
    tail = codes[int(0.8 * len(codes)) :]
    runs = 1 + int((np.diff(codes) != 0).sum())
    kinds = len(np.unique(codes))
    return runs <= 10 * kinds or len(np.unique(tail)) < kinds
