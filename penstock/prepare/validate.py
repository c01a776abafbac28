"""The data contract: does each row keep what `expect` promises?

All violations are counted in one pass over the columns concerned; only where there are some are rows marked,
and the way of each is its rule's `on_violation`: quarantined, dropped, the end of the run, or a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import PLACE, ROW_FILE, ROW_NUMBER, EngineSession, is_wide
from penstock.contracts.judge import COLUMN, REASON
from penstock.core.errors import ContractError
from penstock.core.events import Events
from penstock.prepare.checks import Check, checks_of, present, rules_of
from penstock.prepare.ledger import DROPPED, RULES
from penstock.prepare.relations import MARK
from penstock.prepare.set_rules import Verdict, judge_rows, judge_together
from penstock.recipe.expect import ExpectTable, over_budget
from penstock.recipe.schema import Expect

if TYPE_CHECKING:
    import ibis.expr.types as ir

_PRIVATE = "a value of a private column"
_EXAMPLES = 3
"""Rows that an error shows for each broken promise."""
_MARKED_AT_ONCE = 64
"""Promises that one query over a wide table judges."""


@dataclass
class Contract:
    """What the recipe promises of a table, and what it is compared with."""

    promises: Mapping[str, Expect]
    table: ExpectTable = field(default_factory=ExpectTable)
    compared: Mapping[tuple[str | int, ...], ir.Value] = field(default_factory=dict)
    """Columns of other sources, by the path of the rule that compares with them."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(tzinfo=None))
    """The moment at which rows are judged, in UTC, without a zone."""
    withheld: frozenset[str] = frozenset()
    """Columns of whose values no reason may show any."""


@dataclass
class Judged:
    """What the contract says of a table."""

    table: ir.Table
    """With `COLUMN`, `REASON` and `RULES` for rows to be quarantined, and `DROPPED` for those to be dropped;
    untouched where there are none.
    """
    rules: list[dict[str, Any]]
    """By rule: `column`, `rule`, `expected`, `on_violation` and `rows` that break it; of one on all rows
    `broken` and `found`.
    """
    marking: list[Check] = field(default_factory=list)
    """What the numbers in `RULES` mean."""
    dropped: int = 0
    """Rows that are only dropped."""


def expect(
    table: ir.Table,
    contract: Contract,
    *,
    session: EngineSession,
    events: Events,
    paths: Sequence[str],
) -> Judged:
    """Judge every rule of a contract.

    Raises:
        ContractError: a promise with `on_violation: fail`, a budget, or `max_missing`, is broken; names all
            of them, with examples.
        RecipeError: a promise cannot be judged on its column's type.
    """
    judged = judge(table, contract, session=session)
    # Failures first: a warning about data that is refused would only distract.
    _fail(judged, session, paths)
    for check, rows in judged.broken("warn"):
        events.warn(
            f"{check.column}: {rows:,} rows break `{check.what}`; they are"
            " kept, because `on_violation` is `warn`",
            column=check.column,
            rows=rows,
        )
    for verdict in judged.verdicts:
        if verdict.broken:
            head = f"{verdict.column}: " if verdict.column else ""
            events.warn(f"{head}`{verdict.what}` is broken: {verdict.observed}")
    # What was not broken needs no column in the query that marks.
    sent = [c for way in ("quarantine", "drop") for c, _ in judged.broken(way)]
    # In the order of the contract.
    marking = [check for check in judged.checks if any(check is other for other in sent)]
    if not marking:
        # Without a broken promise this comes back, free of the joins that rules need.
        return Judged(table, judged.report())
    # Only the broken rows and their places go through the query, not all the columns.
    if is_wide(table):
        marked = session.beside(table, _marks(judged.table, marking, session))
    else:
        marked = _marked(judged.table, marking)
        # The columns in which rules looked belong to no dataset.
        marked = marked.select(*[n for n in marked.columns if not n.startswith(MARK)])
    return Judged(marked, judged.report(), marking, judged.counts["__p_dropped"])


@dataclass
class Counts:
    """How often each rule is broken."""

    table: ir.Table
    """With the columns that the checks read."""
    checks: list[Check]
    verdicts: list[Verdict]
    counts: dict[str, int]
    promises: Mapping[str, Expect]

    @property
    def rows(self) -> int:
        """Rows that were judged."""
        return self.counts["__p_rows"]

    def broken(self, policy: str) -> list[tuple[Check, int]]:
        """The broken rules of one way, each with its rows."""
        return [
            (check, self.counts[f"bad{i}"])
            for i, check in enumerate(self.checks)
            if check.policy == policy and self.counts[f"bad{i}"]
        ]

    def over_budget(self) -> list[tuple[Check, int]]:
        """The first rule of each record over its budget, with the rows that the record sends away."""
        return [
            (check, self.counts[f"sent{i}"])
            for i, check in enumerate(self.checks)
            if f"sent{i}" in self.counts
            and over_budget(self.counts[f"sent{i}"], self.rows, check.budget)
        ]

    def missing(self) -> list[tuple[str, int, float]]:
        """Columns with more missing values than may be: name, rows, share allowed."""
        return [
            (name, rows, most)
            for name, most in _most_missing(self.promises).items()
            # A share of all rows, those that other promises will quarantine included.
            if (rows := self.counts[f"missing_{name}"]) > most * self.rows
        ]

    def report(self) -> list[dict[str, Any]]:
        """Every rule with what it found, as plain data."""
        rules: list[dict[str, Any]] = [
            {
                "column": check.column,
                "rule": check.what,
                "expected": check.expected,
                "on_violation": check.policy,
                "rows": self.counts[f"bad{i}"],
            }
            for i, check in enumerate(self.checks)
        ]
        rules += [
            {
                "column": name,
                "rule": f"max_missing: {most:g}",
                "on_violation": "fail",
                "rows": self.counts[f"missing_{name}"],
                "broken": self.counts[f"missing_{name}"] > most * self.rows,
            }
            for name, most in _most_missing(self.promises).items()
        ]
        rules += [
            {
                "column": verdict.column,
                "rule": verdict.what,
                "on_violation": verdict.policy,
                "broken": verdict.broken,
                "found": verdict.observed,
            }
            for verdict in self.verdicts
        ]
        return rules


def judge(table: ir.Table, contract: Contract, *, session: EngineSession) -> Counts:
    """Count what breaks each rule; nothing is sent away, and nothing fails.

    Raises:
        RecipeError: a promise cannot be judged on its column's type.
    """
    import ibis

    given = table
    table, checks = checks_of(
        table,
        contract.promises,
        session,
        together=contract.table.rules,
        compared=contract.compared,
    )
    counts = _count(table, checks, contract.promises, session)
    verdicts = judge_together(
        given,
        rules_of(contract.promises),
        session,
        compared=contract.compared,
        now=contract.now,
    )
    if contract.table.rows is not None:
        verdicts.append(judge_rows(contract.table.rows, counts["__p_rows"]))
    verdicts = [
        replace(verdict, observed=_PRIVATE)
        if verdict.column in contract.withheld
        else verdict
        for verdict in verdicts
    ]
    checks = [
        replace(
            check, reason=ibis.literal(f"found {_PRIVATE}, expected {check.expected}")
        )
        if check.column in contract.withheld
        else check
        for check in checks
    ]
    return Counts(table, checks, verdicts, counts, contract.promises)


def _marked(table: ir.Table, checks: Sequence[Check], start: int = 0) -> ir.Table:
    """The table with the first promise that each row breaks, and the numbers of all.

    Args:
        start: the number of the first.
    """
    import ibis

    quarantining = [check for check in checks if check.policy == "quarantine"]
    dropping = [check.bad for check in checks if check.policy == "drop"]
    # The first promise that is broken gives column and reason: both lists are in one
    # order.
    nothing = ibis.null("string")
    column = reason = nothing
    if quarantining:
        column = ibis.cases(*[(check.bad, check.column) for check in quarantining])
        reason = ibis.cases(*[(check.bad, check.reason) for check in quarantining])
    numbers = [
        check.bad.ifelse(ibis.literal(f"{start + i} "), ibis.literal(""))
        for i, check in enumerate(checks)
    ]
    rules = ibis.literal("").join(numbers)
    # A row that a rule drops and another puts aside is put aside: nothing is lost.
    dropped = reduce(or_, dropping) & reason.isnull() if dropping else ibis.literal(False)
    return table.mutate(
        **{COLUMN: column, REASON: reason, RULES: rules, DROPPED: dropped}
    )


def _marks(table: ir.Table, checks: Sequence[Check], session: EngineSession) -> ir.Table:
    """The places of the rows of a wide table that break a promise, with what each breaks.

    A few promises at a time.
    """
    marks = session.keep(_first(table, checks[:_MARKED_AT_ONCE], 0))
    for start in range(_MARKED_AT_ONCE, len(checks), _MARKED_AT_ONCE):
        some = checks[start : start + _MARKED_AT_ONCE]
        marks = session.keep(_both(marks, session.keep(_first(table, some, start))))
    return marks


def _both(marks: ir.Table, more: ir.Table) -> ir.Table:
    """Marks of both: the first that a row breaks, and the numbers of all, as in one query."""
    import ibis

    other = more.rename({f"__p_m{name}": name for name in more.columns})
    joined = marks.outer_join(
        other, [marks[name] == other[f"__p_m{name}"] for name in PLACE]
    )
    none = ibis.literal("")
    reason = joined[REASON].coalesce(joined[f"__p_m{REASON}"])
    drops = [joined[n].fill_null(False) for n in (DROPPED, f"__p_m{DROPPED}")]
    return joined.select(
        **{name: joined[name].coalesce(joined[f"__p_m{name}"]) for name in PLACE},
        **{
            COLUMN: joined[COLUMN].coalesce(joined[f"__p_m{COLUMN}"]),
            REASON: reason,
            RULES: joined[RULES].fill_null(none)
            + joined[f"__p_m{RULES}"].fill_null(none),
            DROPPED: (drops[0] | drops[1]) & reason.isnull(),
        },
    )


def _first(table: ir.Table, checks: Sequence[Check], start: int) -> ir.Table:
    marked = _marked(table, checks, start)
    return marked.filter(marked[REASON].notnull() | marked[DROPPED]).select(
        *PLACE, COLUMN, REASON, RULES, DROPPED
    )


def _count(
    table: ir.Table,
    checks: list[Check],
    promises: Mapping[str, Expect],
    session: EngineSession,
) -> dict[str, int]:
    # Cast first: not every engine sums booleans.
    sums = {f"bad{i}": check.bad.cast("int64").sum() for i, check in enumerate(checks)}
    sums |= {
        f"missing_{name}": present(table[name]).isnull().cast("int64").sum()
        for name in _most_missing(promises)
    }
    records: dict[tuple[str | int, ...], list[int]] = {}
    for i, check in enumerate(checks):
        if check.budget is not None:
            records.setdefault(check.record, []).append(i)
    for places in records.values():
        away = reduce(or_, [checks[i].bad for i in places])
        sums[f"sent{places[0]}"] = away.cast("int64").sum()
    drops = [check.bad for check in checks if check.policy == "drop"]
    if drops:
        quarantined = [check.bad for check in checks if check.policy == "quarantine"]
        only = reduce(or_, drops)
        only = only & ~reduce(or_, quarantined) if quarantined else only
        sums["__p_dropped"] = only.cast("int64").sum()
    row = session.measure(table, {"__p_rows": table.count(), **sums})
    # Without rows a sum is null.
    return {"__p_dropped": 0} | {name: int(value or 0) for name, value in row.items()}


def _most_missing(promises: Mapping[str, Expect]) -> dict[str, float]:
    """By column, the smallest share of missing values that a rule allows."""
    most: dict[str, float] = {}
    for name, promise in promises.items():
        for _, rule in promise.rules():
            if rule.max_missing is not None:
                most[name] = min(rule.max_missing, most.get(name, 1.0))
    return most


def _fail(judged: Counts, session: EngineSession, paths: Sequence[str]) -> None:
    lines: list[str] = []
    rows = judged.rows
    for name, missing, most in judged.missing():
        lines.append(
            f"{name}: {missing:,} of {rows:,} rows ({missing / rows:.1%}) are missing; at most"
            f" {most:.1%} may be"
        )
    for verdict in judged.verdicts:
        if verdict.broken and verdict.policy == "fail":
            head = f"{verdict.column}: " if verdict.column else ""
            lines.append(f"{head}`{verdict.what}` is broken: {verdict.observed}")
    for check, bad_rows in judged.broken("fail"):
        lines.append(
            f"{check.column}: {bad_rows:,} of {rows:,} rows break `{check.what}`"
        )
        lines += [f"    {line}" for line in examples(judged.table, check, session, paths)]
    for check, sent in judged.over_budget():
        lines.append(
            f"{check.column}: its rules send {sent:,} of {rows:,} rows away ({sent / rows:.2%}); the"
            f" `budget` is {check.budget:.2%}"
        )
        lines += [f"    {line}" for line in examples(judged.table, check, session, paths)]
    if lines:
        raise ContractError(
            "\n".join(
                [
                    "the data breaks what the recipe's `expect` promises:",
                    *(
                        f"  - {line}" if not line.startswith(" ") else line
                        for line in lines
                    ),
                    "Mend the data, or the promise; `on_violation: quarantine` puts such rows aside instead.",
                ]
            )
        )


def examples(
    table: ir.Table, check: Check, session: EngineSession, paths: Sequence[str]
) -> list[str]:
    """The first rows that break a rule, each with its place and what was found."""
    # In the order of places, so that every engine shows the same rows.
    first = (
        table.filter(check.bad)
        .select(ROW_FILE, ROW_NUMBER, reason=check.reason)
        .order_by([ROW_FILE, ROW_NUMBER])
        .limit(_EXAMPLES)
    )
    return [f"{place(row, paths)}: {row['reason']}" for row in session.rows(first)]


def place(row: dict[str, Any], paths: Sequence[str]) -> str:
    """Where a row came from, for messages: its file, and its row counted from 1."""
    return f"{paths[row[ROW_FILE]]}, row {row[ROW_NUMBER] + 1}"
