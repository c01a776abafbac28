"""What kinds of leaks share: the target and the rows on which columns are held against it, columns on
these rows, and what is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import Feature
from penstock.inspect.raw_column import Finding, Look
from penstock.metrics.one_column import NOTHING, Telling, by_order, by_value, telling

MOST_ROWS = 20_000
"""Rows that are compared; more would tell nothing new."""
_LEAST_OF_CLASS = 3
_ENTITY = frozenset(
    """
    id uid patient subject user customer client person student speaker participant
    member household account device machine session visitor respondent group family
    player employee
    """.split()
)


@dataclass(frozen=True)
class Leak:
    """A column that gives the target away, and how that was seen."""

    column: str
    why: str
    """After "gives the target away: "."""
    strength: float
    """From 0 (its name says so) to 1 (it is the target); the weakest may be kept where nothing else is
    left.
    """


@dataclass(frozen=True)
class Doubt:
    """A column that stays, with a word of warning."""

    column: str
    why: str


@dataclass
class Clues:
    """What one kind of leak, or all of them, found."""

    leaks: list[Leak] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)

    def add(self, other: Clues) -> None:
        """Take in what another kind found."""
        self.leaks += other.leaks
        self.doubts += other.doubts


class Question:
    """The target, and the rows on which columns are held against it.

    Rows without a target are left out, and rows that repeat another in all inputs count once.
    """

    def __init__(
        self, target: Look, finding: Finding, candidates: Sequence[tuple[Look, Finding]]
    ) -> None:
        self.name = target.name
        self.look = target
        self.is_number = finding.type == "number"
        self.is_class = finding.type in ("binary", "category")
        self.is_set = finding.type == "set"
        codes = coded(target)
        known = np.isfinite(target.numbers) if self.is_number else codes >= 0
        if self.is_class:
            known &= _common_enough(codes)
        self.rows = _different(codes, np.flatnonzero(known), candidates)
        self.truth = np.unique(codes[self.rows], return_inverse=True)[1]
        """Classes from 0 `[n]`; of a number, its different values."""
        self.numbers = (
            target.numbers[self.rows]
            if not self.is_set and target.numeric_share > 0.5
            else np.full(len(self.rows), np.nan)
        )
        self.count = int(self.truth.max()) + 1 if len(self.rows) else 0
        self.group_column = ""
        self.groups: np.ndarray | None = None

    @cached_property
    def labels(self) -> list[str]:
        """The classes' own words, by class."""
        raw = self.look.trimmed.take(pa.array(self.rows))
        first = np.unique(self.truth, return_index=True)[1]
        return [str(raw[int(i)].as_py()) for i in first]

    @cached_property
    def tokens(self) -> frozenset[str]:
        """The words of the target's name."""
        return frozenset(words_of(self.name))

    def hold_out_groups(self, columns: Sequence[Column]) -> None:
        """Find the identifier of whom rows belong to, where the target is the same for all rows of one.

        From then on such rows do not answer for each other: what is particular to a patient would shine by
        memory.
        """
        best = 2.0
        for column in columns:
            named = column.look.named_id or _ENTITY & set(words_of(column.name))
            if not named or column.is_nested or column.distinct < 8:
                continue
            filled = int(column.present.sum())
            size = filled / column.distinct
            if size < best or filled < 0.9 * len(self.rows):
                continue
            if telling(by_value(column.cells, self.truth), self.truth).score >= 0.9:
                best, self.group_column, self.groups = size, column.name, column.cells

    def own_groups(self, column: Column) -> Telling:
        """Judge the identifier of whom rows belong to by itself, and what is only another name of it."""
        if self.groups is None or not _same_division(column.cells, self.groups):
            return NOTHING
        return telling(by_value(column.cells, self.truth), self.truth)

    def by_value(self, cells: np.ndarray, *, at: np.ndarray | None = None) -> Telling:
        """Judge cells `[n]`, or those `at` some rows."""
        hits = self.hits(cells, at=at)
        return telling(hits, _dense(self.truth if at is None else self.truth[at]))

    def hits(self, cells: np.ndarray, *, at: np.ndarray | None = None) -> np.ndarray:
        """Answers by value, NaN where no other row has it."""
        truth, groups = self.truth, self.groups
        if at is not None:
            cells, truth = cells[at], truth[at]
            groups = None if groups is None else groups[at]
        return by_value(cells, _dense(truth), groups)

    def by_order(self, numbers: np.ndarray) -> Telling:
        """Judge numbers `[n]` on the rows where they are finite."""
        at = np.flatnonzero(np.isfinite(numbers))
        if not len(at):
            return NOTHING
        groups = None if self.groups is None else self.groups[at]
        truth = _dense(self.truth[at])
        return telling(by_order(numbers[at], truth, groups), truth)


class Column:
    """A column on the rows of a question."""

    def __init__(self, look: Look, finding: Finding, question: Question) -> None:
        self.look, self.finding = look, finding
        self.name = look.name
        self._rows: np.ndarray = question.rows

    @property
    def is_nested(self) -> bool:
        """Whether its values are lists or objects."""
        return bool(pa.types.is_nested(self.look.type)) or is_bytes(self.look)

    @cached_property
    def cells(self) -> np.ndarray:
        """Each row's value as a whole number from 1; 0 where it is missing `[n]`."""
        return np.asarray(coded(self.look)[self._rows] + 1)

    @cached_property
    def present(self) -> np.ndarray:
        """Which rows have a value `[n]`."""
        if not self.is_nested:
            return np.asarray(self.cells > 0)
        there = np.asarray(self.look.raw.is_valid())
        # An empty list says as little as none.
        if is_list(self.look):
            there = there & (
                np.asarray(pc.list_value_length(self.look.raw).fill_null(0)) > 0
            )
        return np.asarray(there[self._rows])

    @cached_property
    def distinct(self) -> int:
        """How many different values there are on these rows."""
        return len(np.unique(self.cells[self.cells > 0]))

    @property
    def is_moment(self) -> bool:
        """Whether its values are moments in time."""
        return self.finding.type == "timestamp"

    @property
    def is_ordered(self) -> bool:
        """Whether its values are numbers or moments."""
        return self.is_moment or self.look.numeric_share == 1

    @cached_property
    def numbers(self) -> np.ndarray:
        """Numbers, or seconds since 1970; NaN where there are none `[n]`."""
        if self.is_moment:
            return np.asarray(moments(self.look, self.finding)[self._rows])
        return np.asarray(self.look.numbers[self._rows])


def moments(look: Look, finding: Finding) -> np.ndarray:
    """A column of moments in seconds since 1970, read as its feature reads it; NaN where it cannot."""
    feature = Feature.load({"type": "timestamp", **finding.options})
    column, _ = feature.accept([look.raw])
    known = np.asarray(column.is_valid())
    seconds = np.asarray(column.cast(pa.int64()).fill_null(0)) / 1e6
    return np.where(known, seconds, np.nan)


def is_list(look: Look) -> bool:
    """Whether its values are lists."""
    kind = look.type
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    )


def is_bytes(look: Look) -> bool:
    """Whether its values are bytes, such as pictures."""
    kind = look.type
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def coded(look: Look) -> np.ndarray:
    """Each row's value as a whole number from 0, -1 where it is missing; lists by what they hold."""
    if pa.types.is_nested(look.type):
        places: dict[str, int] = {}
        return np.array(
            [
                -1 if value is None else places.setdefault(_sorted(value), len(places))
                for value in look.raw.to_pylist()
            ],
            np.int64,
        )
    if look.numeric_share == 1 and not look.is_text:
        values = look.numbers
        there = np.isfinite(values)
        codes = np.full(len(values), -1, np.int64)
        codes[there] = np.unique(values[there], return_inverse=True)[1]
        return codes
    return look.codes


def words_of(name: str) -> list[str]:
    """The words of a column's name, in lower case: `paidAmount_EUR` → paid, amount, eur."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in re.findall(r"[^\W\d_]+|\d+", spaced)]


def different(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The different texts in the order in which they come first, and the place of each row's among them
    `[N]`.
    """
    places: dict[str, int] = {}
    of_row = np.array([places.setdefault(t, len(places)) for t in texts], np.int64)
    return list(places), of_row


def percent(share: float) -> str:
    """A share as a reason says it."""
    return f"{share:.1%}"


def _sorted(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "\x00".join(sorted(map(str, value)))
    if isinstance(value, Mapping):
        return "\x00".join(f"{k}={v}" for k, v in value.items())
    return str(value)


def _common_enough(codes: np.ndarray) -> np.ndarray:
    """Which rows belong to a class of at least `_LEAST_OF_CLASS` rows: no column tells a slip of the pen."""
    counts = (
        np.bincount(codes[codes >= 0]) if (codes >= 0).any() else np.zeros(1, np.int64)
    )
    enough = (codes >= 0) & (counts[np.maximum(codes, 0)] >= _LEAST_OF_CLASS)
    return np.asarray(enough if (counts >= _LEAST_OF_CLASS).sum() >= 2 else codes >= 0)


def _same_division(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether each value of one goes with one value of the other, and the other way round."""
    pairs = len(np.unique(one * (int(other.max()) + 1) + other))
    return len(np.unique(one)) == len(np.unique(other)) == pairs


def _dense(truth: np.ndarray) -> np.ndarray:
    return np.asarray(np.unique(truth, return_inverse=True)[1])


def _different(
    target: np.ndarray, known: np.ndarray, candidates: Sequence[tuple[Look, Finding]]
) -> np.ndarray:
    """The known rows, those that repeat another once, and of many as many as are compared."""
    if len(known) > MOST_ROWS:
        chosen = np.random.default_rng(0).permutation(len(known))[:MOST_ROWS]
        known = known[np.sort(chosen)]
    plain = [
        look
        for look, finding in candidates
        if finding.type is not None
        and not pa.types.is_nested(look.type)
        and not is_bytes(look)
    ]
    # Few columns coincide by chance; pictures and lists beside them may differ.
    if len(plain) < 3 or len(plain) < sum(f.type is not None for _, f in candidates):
        return known
    factor = np.uint64(0x9E3779B97F4A7C15)
    digest = target[known].astype(np.uint64)
    for look in plain:
        digest = (digest ^ (digest >> np.uint64(29))) * factor + coded(look)[
            known
        ].astype(np.uint64)
    return np.asarray(known[np.sort(np.unique(digest, return_index=True)[1])])
