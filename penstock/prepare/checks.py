"""Promises as conditions: each word of `expect`, on a column of its type, is an expression that is true of
rows that break it.

A promise is judged on the raw column: a text column with `type: number` holds numbers written as text. A
missing value breaks `not_null` and `max_missing` only. In a column of floating-point numbers NaN is a missing
value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import listed
from penstock.core.wording import counted
from penstock.prepare.relations import (
    MARK,
    combined,
    mark_repeated,
    mark_strangers,
    mark_unordered,
)
from penstock.recipe.expect import TableRule
from penstock.recipe.schema import Expect

if TYPE_CHECKING:
    import ibis.expr.types as ir

_SHOWN = 80
"""Characters of a value that a reason shows."""


@dataclass
class Check:
    """One rule: the condition that is true of rows which break it."""

    column: str
    """The column; of a rule on several its name."""
    bad: ir.BooleanValue
    """Never null."""
    reason: ir.StringValue
    """What was found and what was expected."""
    policy: str
    what: str
    expected: str = ""
    record: tuple[str | int, ...] = ()
    """The path of the record in the recipe, whose rules share a budget."""
    budget: float | None = None


@dataclass(frozen=True)
class Rule:
    """A record of `expect` on a column."""

    path: tuple[str | int, ...]
    column: str
    expect: Expect
    mark: str
    """The beginning of the columns that its words join to the table."""


def rules_of(promises: Mapping[str, Expect]) -> list[Rule]:
    """The records of all columns, in order."""
    rules: list[Rule] = []
    for column, promise in promises.items():
        for path, rule in promise.rules():
            mark = f"{MARK}{len(rules)}_"
            rules.append(Rule(("expect", column, *path), column, rule, mark))
    return rules


def checks_of(
    table: ir.Table,
    promises: Mapping[str, Expect],
    session: EngineSession,
    *,
    together: Mapping[str, TableRule] = MappingProxyType({}),
    compared: Mapping[tuple[str | int, ...], ir.Value] = MappingProxyType({}),
) -> tuple[ir.Table, list[Check]]:
    """All checks of all columns, and the table with the columns that the checks read.

    Args:
        together: rules on several columns, by name.
        compared: columns of other sources, by the path of the rule that compares with them.

    Raises:
        RecipeError: a promise cannot be judged on its column's type; names all of them.
    """
    problems: list[Problem] = []
    checks: list[Check] = []
    rules = rules_of(promises)
    for rule in rules:
        try:
            table = _with_marks(table, rule, session, compared)
        except RecipeError as error:
            problems += _at(rule.path, error)
    several = list(together.items())
    for i, (_, other) in enumerate(several):
        if other.unique:
            text = combined(table, other.unique)
            table = mark_repeated(table, text, session, mark=f"{MARK}table_{i}")
    for rule in rules:
        try:
            checks += _of_column(table, rule)
        except RecipeError as error:
            # The place in the recipe is put before what the column's own check knows.
            problems += _at(rule.path, error)
    for i, (name, other) in enumerate(several):
        try:
            checks.append(_of_table(table, name, other, session, f"{MARK}table_{i}"))
        except RecipeError as error:
            problems += _at(("expect_table", "rules", name, "sql"), error)
    if problems:
        raise RecipeError.of(dict.fromkeys(problems), where="the recipe")
    return table, checks


def _at(path: tuple[str | int, ...], error: RecipeError) -> list[Problem]:
    inner = [Problem((*path, *p.path), p.text) for p in error.problems]
    return inner or [Problem(path, error.message)]


def _with_marks(
    table: ir.Table,
    rule: Rule,
    session: EngineSession,
    compared: Mapping[tuple[str | int, ...], ir.Value],
) -> ir.Table:
    """The table with what rules that compare rows found."""
    promise, mark = rule.expect, rule.mark
    if promise.unique:
        value = present(table[rule.column])
        table = mark_repeated(table, value, session, mark=f"{mark}first")
    if promise.monotonic is not None:
        order, by = promise.monotonic.order, promise.monotonic.by
        table = mark_unordered(
            table,
            ordered(present(table[rule.column]), promise.type, "monotonic"),
            session,
            order=order,
            by=by,
            mark=f"{mark}seen",
        )
    if promise.refers_to is not None:
        known = present(compared[(*rule.path, "refers_to")])
        value = present(table[rule.column])
        table = mark_strangers(table, value, session, known=known, mark=f"{mark}stranger")
    return table


def _of_table(
    table: ir.Table, name: str, rule: TableRule, session: EngineSession, mark: str
) -> Check:
    """The check of a rule on several columns."""
    import ibis

    if rule.sql is not None:
        condition = session.sql(table, rule.sql)
        if not condition.type().is_boolean():
            text = f"a condition must be true or false; this is {condition.type()}: {rule.sql!r}"
            raise RecipeError("", (Problem((), text),))
        # A condition that is null has no answer, and is kept.
        bad, expected = ~condition, rule.sql
        reason = f"expected {rule.sql}"
    else:
        bad = table[mark].notnull() & (table[mark] != table[ROW_ID])
        expected = f"values of {', '.join(rule.unique)} that no other row has together"
        reason = f"expected {expected}"
    return Check(
        name,
        bad.fill_null(ibis.literal(False)),
        ibis.literal(reason),
        rule.on_violation,
        f"rule: {name}",
        expected,
        ("expect_table", "rules", name),
        rule.budget,
    )


def _of_column(table: ir.Table, rule: Rule) -> list[Check]:
    """The checks of one record; the first that a row breaks is the reason given for it."""
    import ibis

    promise = rule.expect
    value = present(table[rule.column])
    # A value may have megabytes, and every broken row gets its reason.
    shown = value.cast("string").substr(0, _SHOWN)
    finding = ibis.literal("found ") + (
        ibis.literal("'") + shown + "'" if value.type().is_string() else shown
    )
    conditions: list[tuple[str, ir.BooleanValue, str]] = [
        *_of_presence(value, promise),
        *_of_bounds(value, promise),
        *_of_lengths(value, promise),
        *_of_values(value, promise),
        *_of_others(table, rule),
    ]
    return [
        Check(
            rule.column,
            # A condition that is null has no answer; only presence may judge a missing
            # value.
            bad.fill_null(ibis.literal(False)),
            # `found` is null where the value is: a text with null in it is null.
            (finding + f", expected {expected}").fill_null(
                f"is missing, expected {expected}"
            ),
            promise.on_violation,
            what,
            expected,
            rule.path,
            promise.budget,
        )
        for what, bad, expected in conditions
    ]


def _of_others(table: ir.Table, rule: Rule) -> Iterator[tuple[str, ir.BooleanValue, str]]:
    """Rules that compare a row with others: what `_with_marks` found."""
    promise = rule.expect
    if promise.unique:
        first = table[f"{rule.mark}first"]
        # The row that stands first keeps the promise.
        repeated = first.notnull() & (first != table[ROW_ID])
        yield "unique", repeated, "a value that no other row has"
    if promise.monotonic is not None:
        side = "least" if promise.monotonic.order == "increasing" else "most"
        yield (
            f"monotonic: {promise.monotonic.order}",
            table[f"{rule.mark}seen"].notnull(),
            f"at {side} what stands before it",
        )
    if promise.refers_to is not None:
        column = promise.refers_to.column or rule.column
        yield (
            "refers_to",
            table[f"{rule.mark}stranger"].notnull(),
            f"a value of {column!r} in the other source",
        )


def _of_lengths(
    value: ir.Value, promise: Expect
) -> Iterator[tuple[str, ir.BooleanValue, str]]:
    for word, bound in (
        ("min_length", promise.min_length),
        ("max_length", promise.max_length),
    ):
        if bound is None:
            continue
        type_ = value.type()
        if not (type_.is_string() or type_.is_array()):
            text = f"is for texts and lists, but the column holds {type_}"
            raise RecipeError("", (Problem((word,), text),))
        length = value.length()
        side = "least" if word == "min_length" else "most"
        kind = "character" if type_.is_string() else "element"
        yield (
            f"{word}: {bound}",
            value.notnull() & (length < bound if side == "least" else length > bound),
            f"at {side} {counted(bound, kind)}",
        )


def _of_presence(
    value: ir.Value, promise: Expect
) -> Iterator[tuple[str, ir.BooleanValue, str]]:
    """(what is promised, the rows that break it, what was expected) of `not_null` and `type`."""
    if promise.not_null:
        yield "not_null", value.isnull(), "a value"
    if promise.type:
        article = "an" if promise.type == "integer" else "a"
        expected = "text" if promise.type == "text" else f"{article} {promise.type}"
        yield (
            f"type: {promise.type}",
            value.notnull() & ~_is(value, promise.type),
            expected,
        )


def _of_bounds(
    value: ir.Value, promise: Expect
) -> Iterator[tuple[str, ir.BooleanValue, str]]:
    for word, bound in (("min", promise.min), ("max", promise.max)):
        if bound is None:
            continue
        measured, limit = _comparable(value, bound, word, promise.type)
        outside = measured < limit if word == "min" else measured > limit
        shown = f"{bound:g}" if isinstance(bound, float) else bound
        # A text that is no number has no place among numbers; `type` says so too where it is declared.
        bad = value.notnull() & (outside | measured.isnull())
        yield (
            f"{word}: {shown}",
            bad,
            f"at {'least' if word == 'min' else 'most'} {shown}",
        )


def _of_values(
    value: ir.Value, promise: Expect
) -> Iterator[tuple[str, ir.BooleanValue, str]]:
    if promise.allowed is not None:
        options = options_of(value, promise.allowed)
        some = listed([str(option) for option in promise.allowed], most=12)
        yield "allowed", value.notnull() & ~value.isin(options), f"one of {some}"
    if promise.pattern is not None:
        _check_pattern(promise.pattern)
        # The whole text must match; a pattern with `|` needs the group.
        matches = value.cast("string").re_search(rf"\A(?:{promise.pattern})\z")
        yield (
            "pattern",
            value.notnull() & ~matches,
            f"text that matches {promise.pattern}",
        )


def present(column: ir.Value) -> ir.Value:
    """The column, with NaN as the missing value that it is."""
    import ibis

    return (
        column.isnan().ifelse(ibis.null(column.type()), column)
        if column.type().is_floating()
        else column
    )


def _is(value: ir.Value, wanted: str) -> ir.BooleanValue:
    """Whether each present value has the type `wanted`, judged by the type of the raw column."""
    import ibis

    kind = value.type()
    if kind.is_string():
        # Blanks around a number do not make it text, as with the readers.
        text = value.strip()
        return {
            "text": lambda: ibis.literal(True),
            "integer": lambda: text.re_search(r"\A[+-]?[0-9]+\z"),
            # Neither `inf` nor `nan`: they are no numbers in a promise.
            "number": lambda: text.re_search(
                r"\A[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\z"
            ),
            "boolean": lambda: text.lower().isin(
                ["true", "false", "t", "f", "yes", "no", "0", "1"]
            ),
            # What the engine takes for a moment is one; a failed cast is null.
            "timestamp": lambda: text.try_cast("timestamp").notnull(),
        }[wanted]()
    kinds = {
        "integer": kind.is_integer(),
        # Ibis counts booleans among the numbers.
        "number": kind.is_numeric() and not kind.is_boolean(),
        "boolean": kind.is_boolean(),
        "timestamp": kind.is_timestamp() or kind.is_date(),
        "text": False,
    }
    if kinds[wanted]:
        return ibis.literal(True)
    if wanted == "integer" and (kind.is_floating() or kind.is_decimal()):
        # A column of doubles may hold whole numbers only, as 3.0.
        return value == value.floor()
    if wanted == "boolean" and kind.is_integer():
        return value.isin([0, 1])
    return ibis.literal(False)


def _comparable(
    value: ir.Value, bound: float | str, word: str, declared: str | None
) -> tuple[Any, Any]:
    import ibis

    kind = value.type()
    # YAML gives a quoted number as text.
    if isinstance(bound, str) and declared != "timestamp":
        try:
            bound = float(bound)
        except ValueError:
            if kind.is_numeric() or declared in ("integer", "number"):
                raise RecipeError(
                    "",
                    (
                        Problem(
                            (word,),
                            f"expected a number, since the column holds {kind}; found {bound!r}",
                        ),
                    ),
                ) from None
    if not isinstance(bound, str):
        if kind.is_numeric():
            # A whole number for whole numbers: as a double, it would lose digits beyond
            # 2**53.
            return value, ibis.literal(
                int(bound) if float(bound).is_integer() and kind.is_integer() else bound
            )
        if kind.is_string():
            # Null where the text is no number, which the caller calls broken.
            return value.strip().try_cast("float64"), ibis.literal(bound)
        raise RecipeError(
            "", (Problem((word,), f"is a number, but the column holds {kind}"),)
        )
    if kind.is_date() or kind.is_timestamp() or kind.is_string():
        # Loads slowly, and is needed for times alone.
        import pandas as pd

        try:
            moment = pd.Timestamp(bound)
        except ValueError:
            raise RecipeError(
                "",
                (
                    Problem(
                        (word,),
                        f"expected a number or a time such as 2024-01-31; found {bound!r}",
                    ),
                ),
            ) from None
        # Moments in the engine are in UTC and have no zone.
        moment = moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment
        measured = (
            value.strip().try_cast("timestamp")
            if kind.is_string()
            else value.cast("timestamp")
        )
        return measured, ibis.literal(moment.to_pydatetime(), type="timestamp")
    raise RecipeError("", (Problem((word,), f"is a text, but the column holds {kind}"),))


def ordered(value: ir.Value, declared: str | None, word: str) -> ir.Value:
    """A column as something that has an order: numbers, or moments in UTC.

    Raises:
        RecipeError: it holds neither, and no `type` says that its texts do.
    """
    kind = value.type()
    if kind.is_string() and declared == "timestamp":
        return value.strip().try_cast("timestamp")
    if kind.is_string() and declared in ("integer", "number"):
        return value.strip().try_cast("float64")
    if kind.is_date() or kind.is_timestamp():
        return value.cast("timestamp")
    if kind.is_numeric() and not kind.is_boolean():
        return value
    text = f"needs numbers or times, but the column holds {kind}; `type` says what texts hold"
    raise RecipeError("", (Problem((word,), text),))


def options_of(value: ir.Value, allowed: Sequence[str | int | float | bool]) -> list[Any]:
    """Values as a recipe writes them, as values of a column's type.

    Raises:
        RecipeError: one of them is none.
    """
    kind = value.type()
    options: list[Any] = []
    for option in allowed:
        try:
            # YAML's `yes`, `1` and `"true"` may all be meant.
            if kind.is_boolean():
                options.append(
                    {"true": True, "false": False, "1": True, "0": False}[
                        str(option).lower()
                    ]
                )
            elif kind.is_numeric():
                number = float(option)
                # Exact for whole numbers; a fraction can only be compared as a double.
                options.append(
                    int(option)
                    if number.is_integer() and not isinstance(option, str)
                    else number
                )
            elif kind.is_string():
                options.append(
                    # As YAML writes it: Python would say `True`.
                    str(option).lower() if isinstance(option, bool) else str(option)
                )
            else:
                raise RecipeError(
                    "",
                    (
                        Problem(
                            ("allowed",),
                            f"cannot be judged on a column that holds {kind}",
                        ),
                    ),
                )
        except (ValueError, KeyError):
            raise RecipeError(
                "",
                (Problem(("allowed",), f"has {option!r}, but the column holds {kind}"),),
            ) from None
    return options


def _check_pattern(pattern: str) -> None:
    try:
        # Arrow has the same RE2 that the engine has, and needs no engine to be asked.
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise RecipeError(
            "",
            (
                Problem(
                    ("pattern",),
                    f"is not a regular expression of RE2 ({error}); found {pattern!r}",
                ),
            ),
        ) from None
