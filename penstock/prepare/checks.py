"""Promises as conditions: each word of `expect`, on a column of its type, is an expression that is true of
rows that break it.

A promise is judged on the raw column: a text column with `type: number` holds numbers written as text. A
missing value breaks `not_null` and `max_missing` only. In a column of floating-point numbers NaN is a missing
value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import listed
from penstock.recipe.schema import Expect

if TYPE_CHECKING:
    import ibis.expr.types as ir

_SHOWN = 80
"""Characters of a value that a reason shows."""


@dataclass
class Check:
    """One promise about one column: the condition that is true of rows which break it."""

    column: str
    bad: ir.BooleanValue
    """Never null."""
    reason: ir.StringValue
    """What was found and what was expected."""
    policy: str
    what: str


def checks_of(
    table: ir.Table, promises: dict[str, Expect], session: EngineSession
) -> tuple[ir.Table, list[Check]]:
    """All checks of all columns, and the table with the columns that the checks read.

    Raises:
        RecipeError: a promise cannot be judged on its column's type; names all of them.
    """
    problems: list[Problem] = []
    for i, (name, promise) in enumerate(promises.items()):
        # Only repeated values are joined back, so the table is as wide as before and hardly longer to read.
        if promise.unique:
            value = present(table[name])
            # A missing value is not a repeated one.
            groups = table.select(__p_value=value, **{ROW_ID: table[ROW_ID]}).filter(
                lambda t: t["__p_value"].notnull()
            )
            # The smallest row id keeps the value: a choice that every engine makes
            # alike.
            groups = groups.group_by("__p_value").aggregate(
                __p_rows=groups.count(), __p_first=groups[ROW_ID].min()
            )
            # Kept, since the checks below read it in every query.
            repeated = session.keep(
                groups.filter(groups["__p_rows"] > 1).select(
                    "__p_value", **{f"__p_first_{i}": "__p_first"}
                )
            )
            # Missing values find nothing here: null equals nothing in a join.
            table = table.left_join(repeated, value == repeated["__p_value"]).drop(
                "__p_value"
            )
    checks: list[Check] = []
    for i, (name, promise) in enumerate(promises.items()):
        try:
            checks += _of_column(table, name, promise, f"__p_first_{i}")
        except RecipeError as error:
            # The place in the recipe is put before what the column's own check knows.
            problems += [
                Problem(("expect", name, *p.path), p.text) for p in error.problems
            ] or [Problem(("expect", name), error.message)]
    if problems:
        raise RecipeError.of(problems, where="the recipe")
    return table, checks


def _of_column(table: ir.Table, name: str, promise: Expect, first: str) -> list[Check]:
    """The checks of one column; the first that a row breaks is the reason given for it.

    Args:
        first: the column with the row id at which a repeated value stands first; null where it is not
            repeated.
    """
    import ibis

    value = present(table[name])
    # A value may have megabytes, and every broken row gets its reason.
    shown = value.cast("string").substr(0, _SHOWN)
    found = ibis.literal("found ") + (
        ibis.literal("'") + shown + "'" if value.type().is_string() else shown
    )
    conditions = [
        *_of_presence(value, promise),
        *_of_bounds(value, promise),
        *_of_values(value, promise),
    ]
    if promise.unique:
        # The row that stands first keeps the promise.
        repeated = table[first].notnull() & (table[first] != table[ROW_ID])
        conditions.append(("unique", repeated, "a value that no other row has"))
    return [
        Check(
            name,
            # A condition that is null has no answer; only presence may judge a missing
            # value.
            bad.fill_null(ibis.literal(False)),
            # `found` is null where the value is: a text with null in it is null.
            (found + f", expected {expected}").fill_null(
                f"is missing, expected {expected}"
            ),
            promise.on_violation,
            what,
        )
        for what, bad, expected in conditions
    ]


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
        options = _options(value, promise.allowed)
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

    found = value.type()
    if found.is_string():
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
        "integer": found.is_integer(),
        # Ibis counts booleans among the numbers.
        "number": found.is_numeric() and not found.is_boolean(),
        "boolean": found.is_boolean(),
        "timestamp": found.is_timestamp() or found.is_date(),
        "text": False,
    }
    if kinds[wanted]:
        return ibis.literal(True)
    if wanted == "integer" and (found.is_floating() or found.is_decimal()):
        # A column of doubles may hold whole numbers only, as 3.0.
        return value == value.floor()
    if wanted == "boolean" and found.is_integer():
        return value.isin([0, 1])
    return ibis.literal(False)


def _comparable(
    value: ir.Value, bound: float | str, word: str, declared: str | None
) -> tuple[Any, Any]:
    import ibis

    found = value.type()
    # YAML gives a quoted number as text.
    if isinstance(bound, str) and declared != "timestamp":
        try:
            bound = float(bound)
        except ValueError:
            if found.is_numeric() or declared in ("integer", "number"):
                raise RecipeError(
                    "",
                    (
                        Problem(
                            (word,),
                            f"expected a number, since the column holds {found}; found {bound!r}",
                        ),
                    ),
                ) from None
    if not isinstance(bound, str):
        if found.is_numeric():
            # A whole number for whole numbers: as a double, it would lose digits beyond
            # 2**53.
            return value, ibis.literal(
                int(bound) if float(bound).is_integer() and found.is_integer() else bound
            )
        if found.is_string():
            # Null where the text is no number, which the caller calls broken.
            return value.strip().try_cast("float64"), ibis.literal(bound)
        raise RecipeError(
            "", (Problem((word,), f"is a number, but the column holds {found}"),)
        )
    if found.is_date() or found.is_timestamp() or found.is_string():
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
            if found.is_string()
            else value.cast("timestamp")
        )
        return measured, ibis.literal(moment.to_pydatetime(), type="timestamp")
    raise RecipeError("", (Problem((word,), f"is a text, but the column holds {found}"),))


def _options(value: ir.Value, allowed: Sequence[str | int | float | bool]) -> list[Any]:
    found = value.type()
    options: list[Any] = []
    for option in allowed:
        try:
            # YAML's `yes`, `1` and `"true"` may all be meant.
            if found.is_boolean():
                options.append(
                    {"true": True, "false": False, "1": True, "0": False}[
                        str(option).lower()
                    ]
                )
            elif found.is_numeric():
                number = float(option)
                # Exact for whole numbers; a fraction can only be compared as a double.
                options.append(
                    int(option)
                    if number.is_integer() and not isinstance(option, str)
                    else number
                )
            elif found.is_string():
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
                            f"cannot be judged on a column that holds {found}",
                        ),
                    ),
                )
        except (ValueError, KeyError):
            raise RecipeError(
                "",
                (Problem(("allowed",), f"has {option!r}, but the column holds {found}"),),
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
