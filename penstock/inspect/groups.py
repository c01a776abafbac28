"""Rows that belong together: a patient, a user, a site whose rows are alike among themselves.

Rows of one group on both sides of a split make a model look better than it is on others. A column is a group
by its name and by the data: its values recur, and its rows agree in the target or in other columns beyond
chance. Users and items that cross are no such groups: a model is asked about the very users it has seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from penstock.inspect.alike import is_plain, scores, within
from penstock.inspect.raw_column import Finding, Look

_NAME = re.compile(
    r"(^|[._\- ])(patient|subject|participant|person|people|user|customer|client|member|group|session|visitor"
    r"|speaker|site|household|family|device|machine|store|shop|school|hospital|clinic|station|player|team"
    r"|author|driver|vehicle|sensor|cluster|document|doc|query|writer|donor|animal|mouse|plant|tree|case"
    r"|study|company|employee|account|engine|unit|plot|batch|recording|video|conversation|thread|dialog"
    r"|pid|sid|uid)"
    r"s?([._\- ]?(id|no|nr|num|number|key|code|idx))?$",
    re.IGNORECASE,
)
"""Names of what has several rows; `family_size` and `sensor_1` are measures."""
LEAST_GROUPS = 20
"""With fewer, a test split of whole groups holds hardly any."""
_ALIKE = 0.1
"""Agreement of rows of one group, beyond chance, that makes the groups matter."""
_NO_GROUPS = frozenset({"timestamp", "text", "set", "image", "vector", "sequence"})
_MISSING = 0.02
_TRIED = 30
_MOST_NAMED = 16
_SHUFFLES = 5


@dataclass(frozen=True)
class Group:
    """A column whose equal values belong together."""

    column: str
    groups: int
    rows: float
    """Rows of a group on average."""
    alike: str
    """The column that rows of one group agree in most."""
    agreement: float


@dataclass(frozen=True)
class Groups:
    """What identifiers that recur mean for the split."""

    group: Group | None = None
    crossing: tuple[str, ...] = field(default=())
    """Columns that cross, such as users and items: known ones are asked about again."""


def groups_of(columns: Sequence[tuple[Look, Finding]], target: Look | None) -> Groups:
    """The group whose rows are most alike, or columns that cross.

    Args:
        columns: all but the target, with what was proposed for each.
    """
    named = [
        (look, finding)
        for look, finding in columns
        # One that gives the target away says no more than that its rows are alike.
        if finding.role != "constant" and _recurs(look, finding)
    ]
    if not named:
        return Groups()
    # A table may have thousands of columns.
    named = named[:_MOST_NAMED]
    crossing = _crossing([look for look, _ in named])
    if crossing:
        return Groups(crossing=crossing)
    candidates = [_judged(look, columns, target) for look, _ in named]
    sure = [group for group in candidates if group is not None]
    # The largest groups that are alike: visits are within patients, patients within sites.
    sure.sort(key=lambda group: (group.groups, -group.agreement))
    return Groups(sure[0]) if sure else Groups()


def _recurs(look: Look, finding: Finding) -> bool:
    if not is_plain(look) or finding.type in _NO_GROUPS:
        return False
    if not (_NAME.search(look.name) or look.named_id or _camel(look.name)):
        return False
    # A quantity is no name of anything, whatever it is called.
    if look.numeric_share == 1 and not look.whole:
        return False
    filled = look.filled
    return (
        filled >= (1 - _MISSING) * look.rows
        and look.distinct >= LEAST_GROUPS
        and filled >= 1.5 * look.distinct
        and _several(look) >= 0.5
    )


def _camel(name: str) -> bool:
    return bool(_NAME.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)))


def _several(look: Look) -> float:
    """The share of the rows whose value is there twice at least."""
    return sum(c for c in look.present.values() if c > 1) / max(look.filled, 1)


def _crossing(looks: Sequence[Look]) -> tuple[str, ...]:
    """Two columns that both recur, each with many of the other."""
    for i, one in enumerate(looks):
        for other in looks[i + 1 :]:
            pairs = one.codes * np.int64(other.distinct + 1) + other.codes
            different = len(np.unique(pairs))
            cells = one.distinct * other.distinct
            # So many different pairs there are where one says nothing of the other.
            by_chance = cells * -np.expm1(-one.rows / cells)
            most = max(one.distinct, other.distinct)
            # Each has many of the other: no tree of sites and patients.
            if different >= 0.5 * by_chance and different >= 3 * most:
                return (one.name, other.name)
    return ()


def _judged(
    look: Look, columns: Sequence[tuple[Look, Finding]], target: Look | None
) -> Group | None:
    others = [
        other
        for other, finding in columns
        if other.name != look.name
        and finding.role not in ("constant", "identifier", "code", "leak")
        and finding.type in ("number", "category", "binary")
    ][:_TRIED]
    asked = ([target] if target is not None else []) + others
    best = [(_beyond_chance(look, other), other.name) for other in asked]
    if not best:
        return None
    agreement, name = max(best)
    of_target = best[0][0] if target is not None else 0.0
    alike = sum(score >= _ALIKE for score, _ in best[target is not None :])
    # One column of many may be a property of the group without mattering.
    if of_target < _ALIKE and alike < max(1, len(others) / 4):
        return None
    if of_target >= _ALIKE:
        agreement, name = best[0]
    return Group(look.name, look.distinct, look.filled / look.distinct, name, agreement)


def _beyond_chance(group: Look, other: Look) -> float:
    values, ordered = scores(other)
    likeness = within(values, group.codes, ordered=ordered)
    if likeness < _ALIKE:
        return likeness
    chance = np.random.default_rng(0)
    by_chance = max(
        within(chance.permutation(values), group.codes, ordered=ordered)
        for _ in range(_SHUFFLES)
    )
    return likeness if likeness > 3 * max(by_chance, 0.02) else 0.0
