"""The data contract: do the columns exist that the recipe names, and does each row keep what `expect`
promises.

`column_problems` looks at names alone (so `check` may call it with a sample's schema) and finds every mistake
at once. `expect` counts all violations in one pass over the columns concerned; only where there are some are
rows marked, and the way of each is its column's `on_violation`: quarantined, the end of the run, or a
warning.

A promise is judged on the raw column: a text column with `type: number` holds numbers written as text. A
missing value breaks `not_null` and `max_missing` only. In a column of floating-point numbers NaN is a missing
value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.contracts.data import PLACE, ROW_FILE, ROW_ID, ROW_NUMBER, EngineSession, is_wide
from penstock.contracts.sql import bind
from penstock.core.errors import ContractError, Problem, RecipeError
from penstock.core.events import Events
from penstock.core.near import Hints, listed
from penstock.prepare.ledger import COLUMN, REASON
from penstock.recipe.names import name_problems
from penstock.recipe.schema import Expect, Recipe

if TYPE_CHECKING:
    import ibis.expr.types as ir

OWN = (ROW_ID, ROW_FILE, ROW_NUMBER)
_EXAMPLES = 3
_SHOWN = 80
_MARKED_AT_ONCE = 64
"""Promises that one query over a wide table judges."""

# -- names ---------------------------------------------------------------------------------------------------


def column_problems(
    recipe: Recipe, columns: Sequence[str], joined: Sequence[Sequence[str]] = ()
) -> list[Problem]:
    """Every column that the recipe names and that is not there, and every expression that does not hold.

    Args:
        columns: of the source.
        joined: of each joined source, in order.
    """
    problems: list[Problem] = []
    here = list(columns)
    hints: dict[int, Hints] = {}

    def miss(path: tuple[str | int, ...], name: str, known: Sequence[str]) -> None:
        if name not in known:
            hint = hints.setdefault(id(known), Hints(known))
            problems.append(
                Problem(path, f"there is no column {name!r}.{hint(name)} Columns: {listed(known)}.")
            )

    def express(path: tuple[str | int, ...], text: str) -> None:
        try:
            bind(text, here)
        except RecipeError as error:
            problems.append(Problem(path, error.message))

    for i, name in enumerate(recipe.key):
        miss(("key", i), name, here)
    for i, (join, theirs) in enumerate(zip(recipe.join, joined, strict=False)):
        pairs = join.on if isinstance(join.on, dict) else {name: name for name in join.on}
        for ours, other in pairs.items():
            miss(("join", i, "on"), ours, here)
            miss(("join", i, "on"), other, theirs)
        for name in join.columns or ():
            miss(("join", i, "columns"), name, theirs)
        brought = [
            join.prefix + name
            for name in join.columns or [n for n in theirs if n not in pairs.values()]
            if name in theirs
        ]
        twice = [name for name in brought if name in here]
        if twice:
            problems.append(
                Problem(
                    ("join", i, "prefix"),
                    f"would bring {', '.join(map(repr, twice))}, which is there already; set `prefix`, or"
                    " name the `columns` to bring",
                )
            )
        here += [name for name in brought if name not in here]
    if recipe.where is not None:
        express(("where",), recipe.where)
    for name, text in recipe.derive.items():
        if name.lower() in {each.lower() for each in (*here, *OWN)}:
            problems.append(Problem(("derive", name), "is a column already; give the new one another name"))
        express(("derive", name), text)
        here.append(name)
    for name in recipe.expect:
        miss(("expect", name), name, here)
    for i, cleaner in enumerate(recipe.clean):
        for name in cleaner.needs():
            miss(("clean", i), name, here)
        for word, text in cleaner.expressions().items():
            express(("clean", i, word), text)
    for name in recipe.split.on or ():
        miss(("split", "on"), name, here)
    if recipe.split.stratify:
        miss(("split", "stratify"), recipe.split.stratify, here)
    return problems + learning_problems(recipe, here)


def learning_problems(recipe: Recipe, columns: Sequence[str]) -> list[Problem]:
    """Every column that is not there of those that are named for what follows preparing: they are no part of
    a dataset's identity, so a dataset that is there already must be asked again.

    Args:
        columns: of the prepared rows.
    """
    problems: list[Problem] = []
    known, hint, some = set(columns), Hints(columns), listed(columns)

    def miss(path: tuple[str | int, ...], name: str) -> None:
        if name not in known:
            problems.append(Problem(path, f"there is no column {name!r}.{hint(name)} Columns: {some}."))

    for side, features in (("inputs", recipe.inputs), ("targets", recipe.targets)):
        for name, feature in features.items():
            for column in feature.columns(name):
                miss((side, name) if column == name else (side, name, "column"), column)
    if recipe.weight:
        miss(("weight",), recipe.weight)
    order = recipe.train.order
    if order.weights:
        miss(("train", "order", "weights"), order.weights)
    if order.mix:
        miss(("train", "order", "mix", "by"), order.mix.by)
    for name in recipe.keep:
        miss(("keep",), name)
    for name in recipe.evaluate.slices:
        miss(("evaluate", "slices"), name)
    return problems + name_problems(recipe)


# -- promises ------------------------------------------------------------------------------------------------


@dataclass
class Check:
    """One promise about one column."""

    column: str
    bad: ir.BooleanValue
    """Never null."""
    reason: ir.StringValue
    """What was found and what was expected."""
    policy: str
    what: str


def expect(
    table: ir.Table,
    promises: dict[str, Expect],
    *,
    session: EngineSession,
    events: Events,
    paths: Sequence[str],
) -> ir.Table:
    """The table with `COLUMN` and `REASON` for the rows to be quarantined; untouched where there are none.

    Raises:
        ContractError: a promise with `on_violation: fail`, or `max_missing`, is broken; names all of them,
            with examples.
        RecipeError: a promise cannot be judged on its column's type.
    """
    if not promises:
        return table
    given = table
    table, checks = _checks(table, promises, session)
    counts = _count(table, checks, promises, session)
    _fail(
        table,
        [(counts[f"bad{i}"], c) for i, c in enumerate(checks) if c.policy == "fail" and counts[f"bad{i}"]],
        counts,
        promises,
        session,
        paths,
    )
    broken = [(i, c) for i, c in enumerate(checks) if counts[f"bad{i}"]]
    for i, check in broken:
        if check.policy == "warn":
            events.warn(
                f"{check.column}: {counts[f'bad{i}']:,} rows break `{check.what}`; they are kept, as"
                " `on_violation: warn` says",
                column=check.column,
                rows=counts[f"bad{i}"],
            )
    marking = [c for _, c in broken if c.policy == "quarantine"]
    if not marking:
        return given
    if is_wide(given):
        return session.beside(given, _marks(table, marking, session))
    marked = _marked(table, marking)
    return marked.select(*[name for name in marked.columns if not name.startswith("__p_first_")])


def _marked(table: ir.Table, checks: Sequence[Check]) -> ir.Table:
    """The table with the first promise that each row breaks."""
    import ibis

    column = ibis.cases(*[(check.bad, check.column) for check in checks])
    reason = ibis.cases(*[(check.bad, check.reason) for check in checks])
    return table.mutate(**{COLUMN: column, REASON: reason})


def _marks(table: ir.Table, checks: Sequence[Check], session: EngineSession) -> ir.Table:
    """The rows of a wide table that break a promise: their places, and the first that each breaks.

    A few promises at a time.
    """
    marks = session.keep(_first(table, checks[:_MARKED_AT_ONCE]))
    for start in range(_MARKED_AT_ONCE, len(checks), _MARKED_AT_ONCE):
        more = session.keep(_first(table, checks[start : start + _MARKED_AT_ONCE]))
        marks = session.keep(marks.union(more.anti_join(marks, list(PLACE))))
    return marks


def _first(table: ir.Table, checks: Sequence[Check]) -> ir.Table:
    marked = _marked(table, checks)
    return marked.filter(marked[REASON].notnull()).select(*PLACE, COLUMN, REASON)


def _checks(
    table: ir.Table, promises: dict[str, Expect], session: EngineSession
) -> tuple[ir.Table, list[Check]]:
    problems: list[Problem] = []
    for i, (name, promise) in enumerate(promises.items()):
        # Only repeated values are joined back, so the table is as wide as before and hardly longer to read.
        if promise.unique:
            value = _present(table[name])
            groups = table.select(__p_value=value, **{ROW_ID: table[ROW_ID]}).filter(
                lambda t: t["__p_value"].notnull()
            )
            groups = groups.group_by("__p_value").aggregate(
                __p_rows=groups.count(), __p_first=groups[ROW_ID].min()
            )
            repeated = session.keep(
                groups.filter(groups["__p_rows"] > 1).select("__p_value", **{f"__p_first_{i}": "__p_first"})
            )
            table = table.left_join(repeated, value == repeated["__p_value"]).drop("__p_value")
    checks: list[Check] = []
    for i, (name, promise) in enumerate(promises.items()):
        try:
            checks += _of_column(table, name, promise, f"__p_first_{i}")
        except RecipeError as error:
            problems += [Problem(("expect", name, *p.path), p.text) for p in error.problems] or [
                Problem(("expect", name), error.message)
            ]
    if problems:
        raise RecipeError.of(problems, where="the recipe")
    return table, checks


def _of_column(table: ir.Table, name: str, promise: Expect, first: str) -> list[Check]:
    import ibis

    column = table[name]
    value = _present(column)
    there = value.notnull()
    shown_value = value.cast("string").substr(0, _SHOWN)
    found = ibis.literal("found ") + (
        ibis.literal("'") + shown_value + "'" if column.type().is_string() else shown_value
    )
    made: list[Check] = []

    def add(what: str, bad: ir.BooleanValue, expected: str) -> None:
        made.append(
            Check(
                name,
                bad.fill_null(ibis.literal(False)),
                (found + f", expected {expected}").fill_null(f"is missing, expected {expected}"),
                promise.on_violation,
                what,
            )
        )

    if promise.not_null:
        add("not_null", ~there, "a value")
    if promise.type:
        add(
            f"type: {promise.type}",
            there & ~_is(value, promise.type),
            (
                f"{'an' if promise.type == 'integer' else 'a'} {promise.type}"
                if promise.type != "text"
                else "text"
            ),
        )
    for word, bound in (("min", promise.min), ("max", promise.max)):
        if bound is not None:
            measured, limit = _comparable(value, bound, word, promise.type)
            outside = measured < limit if word == "min" else measured > limit
            # A text that is no number has no place among numbers; `type` says so too where it is declared.
            limit_text = f"{bound:g}" if isinstance(bound, float) else bound
            add(
                f"{word}: {limit_text}",
                there & (outside | measured.isnull()),
                f"at {'least' if word == 'min' else 'most'} {limit_text}",
            )
    if promise.allowed is not None:
        options = _options(value, promise.allowed)
        add(
            "allowed",
            there & ~value.isin(options),
            f"one of {listed([str(v) for v in promise.allowed], most=12)}",
        )
    if promise.pattern is not None:
        _check_pattern(promise.pattern)
        add(
            "pattern",
            there & ~value.cast("string").re_search(rf"\A(?:{promise.pattern})\z"),
            f"text that matches {promise.pattern}",
        )
    if promise.unique:
        add(
            "unique",
            table[first].notnull() & (table[first] != table[ROW_ID]),
            "a value that no other row has",
        )
    return made


def _present(column: ir.Value) -> ir.Value:
    import ibis

    return column.isnan().ifelse(ibis.null(column.type()), column) if column.type().is_floating() else column


def _is(value: ir.Value, wanted: str) -> ir.BooleanValue:
    """Whether a value that is there is of the type promised, by the raw column's type."""
    import ibis

    found = value.type()
    if found.is_string():
        text = value.strip()
        return {
            "text": lambda: ibis.literal(True),
            "integer": lambda: text.re_search(r"\A[+-]?[0-9]+\z"),
            "number": lambda: text.re_search(r"\A[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\z"),
            "boolean": lambda: text.lower().isin(["true", "false", "t", "f", "yes", "no", "0", "1"]),
            "timestamp": lambda: text.try_cast("timestamp").notnull(),
        }[wanted]()
    kinds = {
        "integer": found.is_integer(),
        "number": found.is_numeric() and not found.is_boolean(),
        "boolean": found.is_boolean(),
        "timestamp": found.is_timestamp() or found.is_date(),
        "text": False,
    }
    if kinds[wanted]:
        return ibis.literal(True)
    if wanted == "integer" and (found.is_floating() or found.is_decimal()):
        return value == value.floor()
    if wanted == "boolean" and found.is_integer():
        return value.isin([0, 1])
    return ibis.literal(False)


def _comparable(value: ir.Value, bound: float | str, word: str, declared: str | None) -> tuple[Any, Any]:
    import ibis

    found = value.type()
    if isinstance(bound, str) and declared != "timestamp":
        try:
            bound = float(bound)
        except ValueError:
            if found.is_numeric() or declared in ("integer", "number"):
                raise RecipeError(
                    "",
                    (
                        Problem(
                            (word,), f"expected a number, since the column holds {found}; found {bound!r}"
                        ),
                    ),
                ) from None
    if not isinstance(bound, str):
        if found.is_numeric():
            return value, ibis.literal(
                int(bound) if float(bound).is_integer() and found.is_integer() else bound
            )
        if found.is_string():
            return value.strip().try_cast("float64"), ibis.literal(bound)
        raise RecipeError("", (Problem((word,), f"is a number, but the column holds {found}"),))
    if found.is_date() or found.is_timestamp() or found.is_string():
        import pandas as pd

        try:
            moment = pd.Timestamp(bound)
        except ValueError:
            raise RecipeError(
                "", (Problem((word,), f"expected a number or a time such as 2024-01-31; found {bound!r}"),)
            ) from None
        moment = moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment
        measured = value.strip().try_cast("timestamp") if found.is_string() else value.cast("timestamp")
        return measured, ibis.literal(moment.to_pydatetime(), type="timestamp")
    raise RecipeError("", (Problem((word,), f"is a text, but the column holds {found}"),))


def _options(value: ir.Value, allowed: Sequence[str | int | float | bool]) -> list[Any]:
    found = value.type()
    options: list[Any] = []
    for option in allowed:
        try:
            if found.is_boolean():
                options.append({"true": True, "false": False, "1": True, "0": False}[str(option).lower()])
            elif found.is_numeric():
                number = float(option)
                options.append(int(option) if number.is_integer() and not isinstance(option, str) else number)
            elif found.is_string():
                options.append(str(option).lower() if isinstance(option, bool) else str(option))
            else:
                raise RecipeError(
                    "", (Problem(("allowed",), f"cannot be judged on a column that holds {found}"),)
                )
        except (ValueError, KeyError):
            raise RecipeError(
                "", (Problem(("allowed",), f"has {option!r}, but the column holds {found}"),)
            ) from None
    return options


def _check_pattern(pattern: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise RecipeError(
            "", (Problem(("pattern",), f"is not a regular expression of RE2 ({error}); found {pattern!r}"),)
        ) from None


def _count(
    table: ir.Table, checks: list[Check], promises: dict[str, Expect], session: EngineSession
) -> dict[str, int]:
    sums = {f"bad{i}": check.bad.cast("int64").sum() for i, check in enumerate(checks)}
    sums |= {
        f"missing_{name}": _present(table[name]).isnull().cast("int64").sum()
        for name, p in promises.items()
        if p.max_missing is not None
    }
    row = session.measure(table, {"__p_rows": table.count(), **sums})
    return {name: int(value or 0) for name, value in row.items()}


def _fail(
    table: ir.Table,
    broken: list[tuple[int, Check]],
    counts: dict[str, int],
    promises: dict[str, Expect],
    session: EngineSession,
    paths: Sequence[str],
) -> None:
    told: list[str] = []
    rows = counts["__p_rows"]
    for name, promise in promises.items():
        missing = counts.get(f"missing_{name}", 0)
        if promise.max_missing is not None and missing > promise.max_missing * rows:
            told.append(
                f"{name}: {missing:,} of {rows:,} rows ({missing / rows:.1%}) are missing; at most"
                f" {promise.max_missing:.1%} may be"
            )
    for bad_rows, check in broken:
        first = (
            table.filter(check.bad)
            .select(ROW_FILE, ROW_NUMBER, reason=check.reason)
            .order_by([ROW_FILE, ROW_NUMBER])
            .limit(_EXAMPLES)
        )
        told.append(f"{check.column}: {bad_rows:,} of {rows:,} rows break `{check.what}`")
        told += [f"    {place(row, paths)}: {row['reason']}" for row in session.rows(first)]
    if told:
        raise ContractError(
            "\n".join(
                [
                    "the data breaks what the recipe's `expect` promises:",
                    *(f"  - {line}" if not line.startswith(" ") else line for line in told),
                    "Mend the data, or the promise; `on_violation: quarantine` puts such rows aside instead.",
                ]
            )
        )


def place(row: dict[str, Any], paths: Sequence[str]) -> str:
    """Where a row came from: file and row, from 1."""
    return f"{paths[row[ROW_FILE]]}, row {row[ROW_NUMBER] + 1}"


def typed_problems(
    session: EngineSession,
    table: ir.Table,
    expressions: Iterable[tuple[tuple[str | int, ...], str]],
    *,
    condition: bool,
) -> list[Problem]:
    """Expressions whose names are right but whose types do not fit; a condition must be true or false."""
    problems: list[Problem] = []
    for path, text in expressions:
        try:
            value = session.sql(table, text)
            if condition and not value.type().is_boolean():
                problems.append(
                    Problem(path, f"a condition must be true or false; this is {value.type()}: {text!r}")
                )
        except RecipeError as error:
            problems.append(Problem(path, error.message))
    return problems
