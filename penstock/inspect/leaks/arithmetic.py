"""Numbers of which the target is made: a sum, a difference, a product, a ratio, or a weighted sum of them.

Pairs are tried among the columns that may matter only, so that the cost stays linear in the number of
columns: those that go with the target, those left over when it is explained step by step, and those that
complete another to the target's own value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penstock.inspect.leaks.evidence import Clues, Column, Leak, Question, words_of
from penstock.metrics.one_column import correlation, ranks
from penstock.metrics.same_number import LEAST_ROWS, follows

_MOST = 160
"""Columns of which all pairs are tried."""
_TRIED_ROWS = 96
"""Rows on which a pair must hold before it is held against all."""
_LIKELY = 0.99
_MOST_LIKELY = 40
"""Pairs that are held against all rows."""
_COVERS = 0.3
_FILLED = (0.5, 0.8, 0.95)
"""Shares of the rows that a column of a weighted sum must have, the least first."""
_TERMS = 6
"""The most columns of a weighted sum."""
_EXACT = 1e-4
"""Of the variance, what a weighted sum may leave before it is looked at."""


_BEGIN = frozenset("start started begin began pickup departure open opened entry".split())
_END = frozenset(
    "end ended stop stopped finish finished dropoff arrival closed exit".split()
)


@dataclass(frozen=True)
class _Pair:
    one: int
    other: int
    sign: str
    likely: float


def told_by_arithmetic(columns: Sequence[Column], question: Question) -> Clues:
    """Find the columns that a number is computed from."""
    y = question.numbers
    # A class that is a count (goals, defects) may be a sum as well.
    if not len(y) or not np.isfinite(y).all() or len(np.unique(y)) <= 4:
        return Clues()
    usable = [
        column
        for column in columns
        if not column.is_nested
        and column.look.numeric_share == 1
        and not column.is_moment
        and column.distinct > 2
    ]
    if len(usable) < 2 or len(y) < LEAST_ROWS:
        return Clues()
    table = np.array([column.numbers for column in usable])
    enough = np.isfinite(table).sum(axis=1) >= max(LEAST_ROWS, _COVERS * len(y))
    usable = [column for column, good in zip(usable, enough, strict=True) if good]
    table = table[enough]
    if len(usable) < 2:
        return Clues()
    chosen = _chosen(table, y)
    clues = Clues()
    for pair in _pairs(table, y, chosen):
        if _holds(table, y, pair):
            one, other = usable[pair.one].name, usable[pair.other].name
            after = _afterwards(pair, one, other, question)
            leaks = _leaks(
                usable, table, y, (pair.one, pair.other), f"{one} {pair.sign} {other}"
            )
            clues.leaks += [leak for leak in leaks if leak.column in after]
            return clues
    for logs in (False, True) if question.is_number else ():
        if terms := _weighted(table, y, chosen, logs=logs):
            sign = " × " if logs else " + "
            text = sign.join(usable[i].name for i in terms)
            what = "powers of " if logs else "multiples of "
            clues.leaks += _leaks(usable, table, y, terms, what + text)
            return clues
    return clues


def compared(columns: Sequence[Column], question: Question) -> Clues:
    """Find two numbers of like names, of which the greater tells the class (goals of home and away)."""
    if not question.is_class or question.count > 3:
        return Clues()
    by_word: dict[str, list[Column]] = {}
    for column in columns:
        if column.is_nested or column.look.numeric_share < 1 or column.distinct <= 2:
            continue
        for word in set(words_of(column.name)):
            by_word.setdefault(word, []).append(column)
    clues = Clues()
    for members in by_word.values():
        if len(members) != 2:
            continue
        one, other = members
        apart = one.numbers - other.numbers
        at = np.flatnonzero(np.isfinite(apart))
        if len(at) < LEAST_ROWS:
            continue
        greater = np.where(np.isfinite(apart), np.sign(apart) + 1, 0).astype(np.int64)
        judged = question.by_value(greater, at=at)
        if judged.almost_perfect(cells=3):
            why = f"which of {one.name!r} and {other.name!r} is greater is the target; {judged.words}"
            clues.leaks += [Leak(one.name, why, 0.7), Leak(other.name, why, 0.7)]
    return clues


def _afterwards(pair: _Pair, one: str, other: str, question: Question) -> set[str]:
    """Which of two is made with the answer: the end of a span, a price by the piece; else both."""
    words = {one: set(words_of(one)), other: set(words_of(other))}
    if pair.sign == "−":
        for first, last in ((one, other), (other, one)):
            if words[first] & _BEGIN and words[last] & _END:
                return {last}
    if pair.sign in "×/":
        rates = {name for name, w in words.items() if w & ({"per"} | question.tokens)}
        if len(rates) == 1:
            return rates
    return {one, other}


def _leaks(
    usable: Sequence[Column],
    table: np.ndarray,
    y: np.ndarray,
    terms: Sequence[int],
    text: str,
) -> list[Leak]:
    leaks = []
    for i in terms:
        at = np.isfinite(table[i])
        r = abs(correlation(ranks(table[i][at]), ranks(y[at])))
        rows = int(np.isfinite(table[list(terms)]).all(axis=0).sum())
        leaks.append(
            Leak(
                usable[i].name,
                f"the target is {text}, up to rounding and scale ({rows:,} rows)",
                0.5 + 0.4 * r,
            )
        )
    return leaks


def _chosen(table: np.ndarray, y: np.ndarray) -> list[int]:
    """The columns of which pairs are tried."""
    if len(table) <= _MOST:
        return list(range(len(table)))
    filled = _standard(table)
    target = _standard(y[None])[0]
    likely = np.abs(filled @ target)
    signs = (
        _standard(np.log1p(np.abs(np.nan_to_num(table))))
        @ _standard(np.log1p(np.abs(y))[None])[0]
    )
    chosen = list(np.argsort(-likely, kind="stable")[: _MOST // 4])
    chosen += list(np.argsort(-np.abs(signs), kind="stable")[: _MOST // 4])
    chosen += _stepwise(filled, target, _MOST // 8)
    chosen += _completing(table, y)
    return [int(i) for i in dict.fromkeys(chosen)][:_MOST]


def _standard(table: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1, gaps filled with the mean."""
    there = np.isfinite(table)
    largest = np.where(there, np.abs(table), 0.0).max(axis=1, keepdims=True)
    # By a power of two, which is exact: the squares of values near 1e308 are no doubles.
    table = np.ldexp(np.where(there, table, 0.0), -np.frexp(largest)[1])
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    mean = table.sum(axis=1, keepdims=True) / count
    filled = np.where(there, table - mean, 0.0)
    size = np.sqrt((filled * filled).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(filled, size, out=np.zeros_like(filled), where=size > 0))


def _solved(basis: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """The weights of columns `[n, k]` whose sum is nearest to `aim` `[n]`; zeros where none can be told."""
    none = np.zeros(basis.shape[1])
    if not np.isfinite(basis).all() or not np.isfinite(aim).all():
        return none
    try:
        return np.asarray(np.linalg.lstsq(basis, aim, rcond=None)[0])
    except np.linalg.LinAlgError:
        return none


def _stepwise(filled: np.ndarray, target: np.ndarray, most: int) -> list[int]:
    """The columns that explain the target one after the other, each what the earlier ones left."""
    chosen: list[int] = []
    rest = target
    for _ in range(min(most, filled.shape[1] // 4)):
        best = int(np.abs(filled @ rest).argmax())
        if best in chosen:
            break
        chosen.append(best)
        basis = filled[chosen].T
        rest = target - basis @ _solved(basis, target)
        if float(rest @ rest) < 1e-9:
            break
    return chosen


def _completing(table: np.ndarray, y: np.ndarray) -> list[int]:
    """Columns that complete another to the target: a sum or difference, a product or ratio.

    A fixed combination of rows makes one figure of each column; what completes a column has the figure that
    is left, and is looked up in sorted order.
    """
    whole = np.flatnonzero(np.isfinite(table).all(axis=1))
    chosen: list[int] = []
    chance = np.random.default_rng(0)
    rows = chance.permutation(len(y))[:24]
    weights = chance.normal(size=len(rows))
    plain = table[whole][:, rows]
    chosen += _lookup(plain @ weights, float(y[rows] @ weights), whole)
    positive = (plain > 0).all(axis=1) & bool((y[rows] > 0).all())
    if positive.any():
        logs = np.log(plain[positive]) @ weights
        chosen += _lookup(logs, float(np.log(y[rows]) @ weights), whole[positive])
    return chosen


def _lookup(figures: np.ndarray, target: float, place: np.ndarray) -> list[int]:
    order = np.argsort(figures)
    ordered = figures[order]
    rows: list[int] = []
    scale = abs(target) + np.abs(figures)
    for wanted in (target - figures, figures - target):
        at = np.clip(np.searchsorted(ordered, wanted), 1, max(len(ordered) - 1, 1))
        for near in (at - 1, np.minimum(at, len(ordered) - 1)):
            good = np.abs(ordered[near] - wanted) <= 1e-6 * scale
            for i in np.flatnonzero(good)[:_MOST_LIKELY]:
                rows += [int(place[i]), int(place[order[near[i]]])]
    return rows


def _pairs(table: np.ndarray, y: np.ndarray, chosen: Sequence[int]) -> list[_Pair]:
    """Pairs whose sum, difference, product or ratio goes with the target on some rows, the likeliest
    first.
    """
    rows = np.random.default_rng(1).permutation(len(y))[:_TRIED_ROWS]
    part, aim = table[list(chosen)][:, rows], y[rows]
    pairs: list[_Pair] = []
    with np.errstate(all="ignore"):
        for i in range(len(part)):
            after = part[i + 1 :]
            for sign, combined in (
                ("+", part[i] + after),
                ("−", part[i] - after),
                ("×", part[i] * after),
                ("/", part[i] / after),
                ("\\", after / part[i]),
            ):
                likely = np.abs(_correlations(combined, aim))
                for j in np.flatnonzero(likely >= _LIKELY).tolist():
                    one, other = chosen[i], chosen[i + 1 + j]
                    pairs.append(
                        _Pair(other, one, "/", float(likely[j]))
                        if sign == "\\"
                        else _Pair(one, other, sign, float(likely[j]))
                    )
    return sorted(pairs, key=lambda pair: -pair.likely)[:_MOST_LIKELY]


def _correlations(combined: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Of each row of `combined` with `aim`, where both are finite."""
    there = np.isfinite(combined)
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    x = np.where(there, combined, 0.0)
    y = np.where(there, aim, 0.0)
    x = np.where(there, x - x.sum(axis=1, keepdims=True) / count, 0.0)
    y = np.where(there, y - y.sum(axis=1, keepdims=True) / count, 0.0)
    size = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    together = (x * y).sum(axis=1)
    good = (size > 0) & (count[:, 0] >= 12)
    return np.asarray(np.divide(together, size, out=np.zeros(len(combined)), where=good))


def _holds(table: np.ndarray, y: np.ndarray, pair: _Pair) -> bool:
    a, b = table[pair.one], table[pair.other]
    with np.errstate(all="ignore"):
        combined = {"+": a + b, "−": a - b, "×": a * b, "/": a / b}[pair.sign]
    at = np.isfinite(combined)
    return bool(
        at.sum() >= max(LEAST_ROWS, _COVERS * len(y)) and follows(combined[at], y[at])
    )


def _weighted(
    table: np.ndarray, y: np.ndarray, chosen: Sequence[int], *, logs: bool
) -> list[int]:
    """The columns, at most `_TERMS`, of which the target is a weighted sum (of logarithms: a product of
    powers); empty where it is none.
    """
    part = table[list(chosen)]
    if logs:
        if y.min() <= 0:
            return []
        good = np.nanmin(part, axis=1) > 0
        chosen = [c for c, positive in zip(chosen, good, strict=True) if positive]
        part, y = np.log(part[good]), np.log(y)
    for share in _FILLED:
        whole = np.isfinite(part).mean(axis=1) >= share
        at = np.isfinite(part[whole]).all(axis=0)
        if at.sum() >= max(LEAST_ROWS, 0.1 * len(y)):
            break
    else:
        return []
    chosen = [c for c, enough in zip(chosen, whole, strict=True) if enough]
    part = part[whole]
    if len(chosen) < 2:
        return []
    x, aim = _standard(part[:, at]), _standard(y[at][None])[0]
    terms = _stepwise(x, aim, 2 * _TERMS)
    terms = _fewest(x, aim, terms)
    if not 2 <= len(terms) <= _TERMS:
        return []
    basis = np.column_stack([part[terms][:, at].T, np.ones(int(at.sum()))])
    half = np.random.default_rng(2).permutation(len(basis))
    teach, examine = half[::2], half[1::2]
    learnt = _solved(basis[teach], y[at][teach])
    answer = basis[examine] @ learnt
    truth = y[at][examine]
    if logs:
        answer, truth = np.exp(answer), np.exp(truth)
    return [int(chosen[i]) for i in terms] if follows(answer, truth) else []


def _fewest(x: np.ndarray, aim: np.ndarray, terms: list[int]) -> list[int]:
    """The terms without those that the others do not need; empty where all together leave too much."""

    def left(some: list[int]) -> float:
        basis = x[some].T
        rest = aim - basis @ _solved(basis, aim)
        return float(rest @ rest)

    allowed = max(2 * left(terms), 1e-9)
    if left(terms) > _EXACT * 100:
        return []
    for term in list(terms):
        others = [t for t in terms if t != term]
        if len(others) >= 2 and left(others) <= allowed:
            terms = others
    return terms
