"""Rules that all rows together keep or break: `rows`, `fresh`, `share`, `drift`.

No row can be sent away for them. They are judged on the rows that come to the contract, those that other
rules send away included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import EngineSession
from penstock.core.errors import ContractError, Problem, RecipeError
from penstock.prepare.checks import Rule, options_of, ordered, present
from penstock.recipe.expect import Drift, RowCount, utc

if TYPE_CHECKING:
    import ibis.expr.types as ir

_CELLS = 10
"""Tenths of a reference."""
_LEAST_SHARE = 1e-4
"""A share of nothing counts as this, since a logarithm of nothing has no value."""
_MOST_VALUES = 10_000
"""Different texts that a drift is measured over."""
Known = Mapping[tuple[str | int, ...], "ir.Value"]


@dataclass(frozen=True)
class Verdict:
    """What a rule on all rows found."""

    column: str
    """Empty where the rule is on the table."""
    what: str
    policy: str
    broken: bool
    observed: str


def judge_rows(rule: RowCount, rows: int) -> Verdict:
    """Judge the number of rows."""
    least, most = rule.min, rule.max
    broken = (least is not None and rows < least) or (most is not None and rows > most)
    sides = [] if least is None else [f"at least {least:,}"]
    sides += [] if most is None else [f"at most {most:,}"]
    expected = " and ".join(sides) or "any number"
    observed = f"found {rows:,} rows, expected {expected}"
    return Verdict("", "rows", rule.on_violation, broken, observed)


def judge_together(
    table: ir.Table,
    rules: Sequence[Rule],
    session: EngineSession,
    *,
    compared: Known,
    now: datetime,
) -> list[Verdict]:
    """Judge every rule on all rows of a column.

    Args:
        compared: columns of other sources, by the path of the rule that compares with them.
        now: the moment of judging in UTC, without a zone.

    Raises:
        RecipeError: a rule cannot be judged on its column's type; names all of them.
    """
    verdicts: list[Verdict] = []
    problems: list[Problem] = []
    for rule in rules:
        try:
            verdicts += _of_rule(table, rule, session, compared, now)
        except RecipeError as error:
            problems += [Problem((*rule.path, *p.path), p.text) for p in error.problems]
    if problems:
        raise RecipeError.of(problems, where="the recipe")
    return verdicts


def _of_rule(
    table: ir.Table, rule: Rule, session: EngineSession, compared: Known, now: datetime
) -> list[Verdict]:
    promise, value = rule.expect, present(table[rule.column])
    verdicts: list[Verdict] = []

    def judged(what: str, broken: bool, observed: str) -> None:
        verdicts.append(
            Verdict(rule.column, what, promise.on_violation, broken, observed)
        )

    if promise.fresh is not None:
        if not (value.type().is_timestamp() or value.type().is_date()) and (
            promise.type != "timestamp"
        ):
            text = f"needs times, but the column holds {value.type()}; say `type: timestamp` of texts"
            raise RecipeError("", (Problem(("fresh",), text),))
        times = ordered(value, promise.type, "fresh")
        newest = _moment(session.measure(table, {"newest": times.max()})["newest"])
        at = now if promise.fresh.at is None else utc(promise.fresh.at)
        oldest = at - timedelta(seconds=promise.fresh.seconds)
        age = promise.fresh.max_age
        observed = (
            "there is no time at all"
            if newest is None
            else f"the newest is {newest.isoformat(' ')}, at most {age} before {at.isoformat(' ')} expected"
        )
        judged(f"fresh: {age}", newest is None or newest < oldest, observed)
    if promise.share:
        counts = _counts(table, value, list(promise.share), session)
        total = counts["__p_all"]
        for i, (name, (low, high)) in enumerate(promise.share.items()):
            share = counts[f"n{i}"] / total if total else 0.0
            observed = (
                f"{counts[f'n{i}']:,} of {total:,} values are {name!r} ({share:.2%}), expected"
                f" {low:.2%} to {high:.2%}"
            )
            judged(f"share: {name}", not total or not low <= share <= high, observed)
    if (drift := promise.drift) is not None:
        known = present(compared[(*rule.path, "drift")])
        distance = _distance(value, known, drift, promise.type, session)
        observed = f"it is {distance:.4g}, expected at most {drift.limit:g}"
        judged(f"drift: {drift.measure}", distance > drift.limit, observed)
    return verdicts


def _counts(
    table: ir.Table, value: ir.Value, names: Sequence[str], session: EngineSession
) -> dict[str, int]:
    try:
        options = options_of(value, names)
    except RecipeError as error:
        problems = [Problem(("share",), problem.text) for problem in error.problems]
        raise RecipeError("", tuple(problems)) from None
    sums = {
        f"n{i}": (value == option).cast("int64").sum() for i, option in enumerate(options)
    }
    sums["__p_all"] = value.notnull().cast("int64").sum()
    counts = session.measure(table, sums)
    return {name: int(count or 0) for name, count in counts.items()}


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    moment: datetime = value
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _distance(
    ours: ir.Value,
    theirs: ir.Value,
    drift: Drift,
    declared: str | None,
    session: EngineSession,
) -> float:
    """How far two columns are from one another, by the measure asked for.

    Both are counted by value, once; every measure is made of these counts, so that it is exact and the same
    on every engine.
    """
    try:
        ours, theirs = (
            ordered(v, declared, "drift").cast("float64") for v in _times(ours, theirs)
        )
        is_ordered = True
    except RecipeError:
        if drift.measure == "ks":
            raise
        ours, theirs = ours.cast("string"), theirs.cast("string")
        is_ordered = False
    counts = _by_value(ours, theirs, session)
    totals = session.measure(
        counts,
        {
            "n": counts["__p_ours"].sum(),
            "m": counts["__p_theirs"].sum(),
            "v": counts.count(),
        },
    )
    n, m = int(totals["n"] or 0), int(totals["m"] or 0)
    if not n or not m:
        raise ContractError(
            f"a drift cannot be measured: there are {n:,} values here and {m:,} in the reference"
        )
    if not is_ordered:
        if int(totals["v"]) > _MOST_VALUES:
            text = (
                f"there are {int(totals['v']):,} different texts, and at most {_MOST_VALUES:,} can be"
                " compared; choose a column of categories"
            )
            raise RecipeError("", (Problem(("drift",), text),))
        rows = sorted(session.rows(counts), key=lambda row: str(row["__p_value"]))
        cells = [(row["__p_ours"] / n, row["__p_theirs"] / m) for row in rows]
        return _divergence(cells, drift.measure)
    added = _added_up(counts, session)
    if drift.measure == "ks":
        gap = (added["__p_upto_ours"] / n - added["__p_upto_theirs"] / m).abs().max()
        return float(session.measure(added, {"gap": gap})["gap"])
    return _divergence(_tenths(added, n, m, session), drift.measure)


def _times(*values: ir.Value) -> list[ir.Value]:
    """Values with moments as seconds, which have an order and a place among numbers."""
    return [
        v.cast("timestamp").epoch_seconds()
        if v.type().is_timestamp() or v.type().is_date()
        else v
        for v in values
    ]


def _by_value(ours: ir.Value, theirs: ir.Value, session: EngineSession) -> ir.Table:
    """By value, how often it stands here and in the reference."""
    import ibis

    sides = [
        value.name("__p_value")
        .as_table()
        .mutate(
            __p_ours=ibis.literal(here, "int64"),
            __p_theirs=ibis.literal(1 - here, "int64"),
        )
        for value, here in ((ours, 1), (theirs, 0))
    ]
    both = sides[0].union(sides[1])
    both = both.filter(both["__p_value"].notnull())
    counted = both.group_by("__p_value").aggregate(
        __p_ours=both["__p_ours"].sum(), __p_theirs=both["__p_theirs"].sum()
    )
    return session.keep(counted)


def _added_up(counts: ir.Table, session: EngineSession) -> ir.Table:
    """With how many values there are up to each."""
    import ibis

    window = ibis.cumulative_window(order_by=counts["__p_value"])
    return session.keep(
        counts.mutate(
            __p_upto_ours=counts["__p_ours"].sum().over(window),
            __p_upto_theirs=counts["__p_theirs"].sum().over(window),
        )
    )


def _tenths(
    added: ir.Table, n: int, m: int, session: EngineSession
) -> list[tuple[float, float]]:
    """The shares of both sides in the tenths of the reference."""
    import ibis

    reached, nothing = added["__p_upto_theirs"], ibis.null("float64")
    edges = session.measure(
        added,
        {
            f"e{i}": (reached * _CELLS >= i * m).ifelse(added["__p_value"], nothing).min()
            for i in range(1, _CELLS)
        },
    )
    # Of a reference with few values, several edges are one.
    bounds = sorted({float(edge) for edge in edges.values()})
    sums = {}
    for i, bound in enumerate(bounds):
        below = (added["__p_value"] <= bound).cast("int64")
        sums[f"o{i}"] = (added["__p_ours"] * below).sum()
        sums[f"t{i}"] = (added["__p_theirs"] * below).sum()
    upto = session.measure(added, sums)
    ours = [0, *(int(upto[f"o{i}"]) for i in range(len(bounds))), n]
    theirs = [0, *(int(upto[f"t{i}"]) for i in range(len(bounds))), m]
    return [
        ((ours[i + 1] - ours[i]) / n, (theirs[i + 1] - theirs[i]) / m)
        for i in range(len(ours) - 1)
    ]


def _divergence(cells: Sequence[tuple[float, float]], measure: str) -> float:
    if measure == "psi":
        floored = [(max(p, _LEAST_SHARE), max(q, _LEAST_SHARE)) for p, q in cells]
        return math.fsum((p - q) * math.log(p / q) for p, q in floored)
    # Jensen and Shannon, in bits: a share of nothing adds nothing.
    halves = [(p, q, (p + q) / 2) for p, q in cells]
    ours = math.fsum(p * math.log2(p / mean) for p, _, mean in halves if p)
    theirs = math.fsum(q * math.log2(q / mean) for _, q, mean in halves if q)
    return (ours + theirs) / 2
