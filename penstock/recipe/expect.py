"""Words about the data contract: what columns and the table promise, and where a row goes that breaks it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from penstock.contracts.amounts import parse_seconds
from penstock.contracts.data import Source
from penstock.contracts.part import Strict, mistakes
from penstock.core.errors import Problem
from penstock.recipe.identifiers import Names

Way: TypeAlias = Literal["quarantine", "drop", "fail", "warn"]
"""Where a row goes that breaks a rule."""
_SENDS_AWAY = ("quarantine", "drop")
_SET_WORDS = ("fresh", "share", "drift")
"""Words of a column that all rows together keep or break."""
_LATER: dict[str, Any] = {
    "min_length": None,
    "max_length": None,
    "refers_to": None,
    "monotonic": None,
    "fresh": None,
    "share": {},
    "drift": None,
    "budget": None,
    "also": (),
}
"""Words that came later, with their defaults: a contract without them keeps the ids it gave."""


class RefersTo(Strict):
    """A foreign key: every value must stand in a column of another source."""

    source: Source
    """Where the other rows are."""
    column: str | None = None
    """Their column; the one of the same name unless given."""


class Monotonic(Strict):
    """An order of values, in the order of the rows: file by file in the order of their paths, row by row."""

    order: Literal["increasing", "decreasing"]
    """`increasing`: no value is less than one before it; equal ones are in order. A row that is out of order
    breaks the rule, and the rows that are left are in order.
    """
    by: Names = ()
    """Columns that tell one series from another; all rows are one series unless given."""


class Fresh(Strict):
    """How old the newest value of a column of times may be."""

    max_age: str
    """Such as `90 minutes`, `12h`, `7 days` or `2w`."""
    at: str | None = None
    """The moment it is judged against, in UTC unless it has a zone. Without it, it is the moment at which
    the rows are judged, which the dataset's manifest records.
    """

    @model_validator(mode="after")
    def _readable(self) -> Fresh:
        problems = []
        try:
            parse_seconds(self.max_age)
        except ValueError:
            text = f"expected an age such as `12h` or `7 days`; found {self.max_age!r}"
            problems.append(Problem(("max_age",), text))
        if self.at is not None:
            try:
                utc(self.at)
            except ValueError:
                text = f"expected a time such as 2024-01-31T12:00; found {self.at!r}"
                problems.append(Problem(("at",), text))
        if problems:
            raise mistakes(*problems)
        return self

    @property
    def seconds(self) -> float:
        """The age in seconds."""
        return float(parse_seconds(self.max_age))


class Drift(Strict):
    """How far a column's values may be from those of a reference."""

    against: Source | None = None
    """The files of the reference."""
    dataset: str | None = None
    """`NAME@ID` of a dataset in the store, in the place of files: its training split is the reference."""
    column: str | None = None
    """The reference's column; the one of the same name unless given."""
    measure: Literal["psi", "ks", "js"] = "psi"
    """`psi`: the population stability index, over tenths of the reference, or over its values where they are
    texts; a share of nothing counts as 0.0001. `ks`: the distance of Kolmogorov and Smirnov, exact, for
    numbers and times. `js`: the divergence of Jensen and Shannon over the cells of `psi`, in bits (0 to 1).
    """
    limit: float = Field(gt=0)
    """The most it may be. Of PSI 0.1 is usually called small, and 0.25 large."""

    @model_validator(mode="after")
    def _one_reference(self) -> Drift:
        if (self.against is None) == (self.dataset is None):
            text = "needs a reference: either `against` (files) or `dataset` (NAME@ID)"
            raise mistakes(Problem((), text))
        if self.dataset is not None and not re.fullmatch(
            r"[A-Za-z0-9._-]+@[0-9a-f]{16}", self.dataset
        ):
            text = (
                f"expected NAME@ID with all 16 digits, so that it stays one version; found"
                f" {self.dataset!r}"
            )
            raise mistakes(Problem(("dataset",), text))
        return self


def _texts(share: Any) -> Any:
    """Values of a column as texts, as YAML writes them: Python would say `True`."""
    if not isinstance(share, Mapping):
        return share
    return {
        str(value).lower() if isinstance(value, bool) else str(value): bounds
        for value, bounds in share.items()
    }


class Expect(Strict):
    """What a column promises (the data contract). A row that breaks it goes the way of `on_violation`."""

    type: Literal["integer", "number", "text", "boolean", "timestamp"] | None = None
    """What every value must be; a text column of numbers holds numbers."""
    min: float | str | None = None
    """Least value (numbers; timestamps as text)."""
    max: float | str | None = None
    """Greatest value."""
    min_length: int | None = Field(None, ge=0)
    """The fewest characters of a text, or elements of a list."""
    max_length: int | None = Field(None, ge=0)
    """The most characters of a text, or elements of a list."""
    allowed: tuple[str | int | float | bool, ...] | None = None
    """The only values it may have."""
    pattern: str | None = None
    """A regular expression (RE2) the whole text must match."""
    not_null: bool = False
    """No missing values."""
    unique: bool = False
    """No value twice; the rows after the first (by row id) break it."""
    refers_to: RefersTo | None = None
    """A foreign key: the source and column in which every value must stand."""
    monotonic: Monotonic | None = None
    """Values in order, row by row."""
    max_missing: float | None = Field(None, ge=0, le=1)
    """The largest share of missing values; breaking it fails the run whatever `on_violation` says."""
    fresh: Fresh | None = None
    """How old the newest value may be (times). All rows together keep it: `fail` or `warn` only."""
    share: Annotated[
        dict[str, tuple[float, float]],
        BeforeValidator(_texts, json_schema_input_type=dict),
    ] = {}
    """By value, the least and greatest share of the present values that it may have: `{yes: [0.2, 0.4]}`.
    `fail` or `warn` only.
    """
    drift: Drift | None = None
    """How far the values may be from those of a reference. `fail` or `warn` only."""
    on_violation: Way = "quarantine"
    """Where a row goes that breaks a promise: aside with its reason (`quarantine`), away (`drop`: counted as
    filtered), to the end of the run (`fail`), or on with a warning (`warn`). Rules that all rows together
    keep (`fresh`, `share`, `drift`) can only `fail`, which is what they do unless told otherwise, or `warn`.
    """
    budget: float | None = Field(None, ge=0, le=1)
    """The largest share of rows that these rules may send away (`quarantine`, `drop`); with more, the run
    stops with examples.
    """
    also: tuple[Expect, ...] = ()
    """More rules on the same column, each with an `on_violation` of its own."""

    @model_validator(mode="before")
    @classmethod
    def _set_rules_fail(cls, data: Any) -> Any:
        """Give rules on all rows together their way, where they stand by themselves."""
        if not isinstance(data, Mapping) or "on_violation" in data:
            return data
        given = {word for word, value in data.items() if value not in (None, {}, ())}
        alone = given & set(_SET_WORDS) and given <= {*_SET_WORDS, "also", "max_missing"}
        return {**data, "on_violation": "fail"} if alone else data

    @model_validator(mode="after")
    def _hold_together(self) -> Expect:
        problems = []
        words = [word for word in _SET_WORDS if getattr(self, word)]
        if words and self.on_violation in _SENDS_AWAY:
            text = (
                f"`{words[0]}` is a rule on all rows together, so no row can go to `{self.on_violation}`"
                " for it: say `on_violation: fail` or `warn`, or give it beside the others, in `also`"
            )
            problems.append(Problem(("on_violation",), text))
        if self.budget is not None and self.on_violation not in _SENDS_AWAY:
            text = "is a share of rows that are sent away: it goes with `quarantine` or `drop`"
            problems.append(Problem(("budget",), text))
        least, most = self.min_length, self.max_length
        if least is not None and most is not None and least > most:
            text = f"must be at most `max_length`, {most}; found {least}"
            problems.append(Problem(("min_length",), text))
        for value, (low, high) in self.share.items():
            if not 0 <= low <= high <= 1:
                text = f"expected [least, greatest] between 0 and 1; found [{low:g}, {high:g}]"
                problems.append(Problem(("share", value), text))
        if problems:
            raise mistakes(*problems)
        return self

    @model_serializer(mode="wrap")
    def _later_left_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        words: dict[str, Any] = handler(self)
        for word, usual in _LATER.items():
            if getattr(self, word) == usual:
                words.pop(word, None)
        return words

    def rules(self) -> list[tuple[tuple[str | int, ...], Expect]]:
        """This one and those in `also`, each with its path from here."""
        rules: list[tuple[tuple[str | int, ...], Expect]] = [((), self)]
        for i, other in enumerate(self.also):
            rules += [(("also", i, *path), rule) for path, rule in other.rules()]
        return rules


class RowCount(Strict):
    """How many rows there are: of all that came to be judged."""

    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)
    on_violation: Literal["fail", "warn"] = "fail"
    """All rows together keep it, so that no row can be sent away for it."""

    @model_validator(mode="before")
    @classmethod
    def _no_row_goes(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("on_violation") in _SENDS_AWAY:
            text = (
                f"`rows` is a rule on all rows together, so no row can go to `{data['on_violation']}` for it:"
                " say `fail` or `warn`"
            )
            raise mistakes(Problem(("on_violation",), text))
        return data


class TableRule(Strict):
    """A rule on several columns: a SQL condition, or columns whose values together come once."""

    sql: str | None = None
    """True of the rows that keep the rule. Where a value is missing a condition has no answer, and is
    kept.
    """
    unique: Names = ()
    """Columns whose values together come once; the rows after the first (by row id) break it."""
    on_violation: Way = "quarantine"
    budget: float | None = Field(None, ge=0, le=1)
    """The largest share of rows that the rule may send away; with more, the run stops."""

    @model_validator(mode="after")
    def _hold_together(self) -> TableRule:
        problems = []
        if (self.sql is None) == (not self.unique):
            problems.append(Problem((), "needs either `sql` or `unique`"))
        if self.budget is not None and self.on_violation not in _SENDS_AWAY:
            text = "is a share of rows that are sent away: it goes with `quarantine` or `drop`"
            problems.append(Problem(("budget",), text))
        if problems:
            raise mistakes(*problems)
        return self


def _with_sql(rules: Any) -> Any:
    """A text alone is a condition."""
    if not isinstance(rules, Mapping):
        return rules
    return {
        name: {"sql": rule} if isinstance(rule, str) else rule
        for name, rule in rules.items()
    }


class ExpectTable(Strict):
    """What the table promises as a whole."""

    rows: RowCount | None = None
    """How many rows there are."""
    rules: Annotated[
        dict[str, TableRule], BeforeValidator(_with_sql, json_schema_input_type=dict)
    ] = {}
    """By name, rules on several columns: `ends_after_start: "ended >= started"`, or
    `once_a_day: {unique: [shop, day]}`.
    """


def other_sources(
    expect: Mapping[str, Expect],
) -> Iterator[tuple[tuple[str | int, ...], Source, str, str]]:
    """The sources that rules compare with: path in the recipe, source, our column, theirs."""
    for name, promise in expect.items():
        for path, rule in promise.rules():
            here = ("expect", name, *path)
            if (refers := rule.refers_to) is not None:
                yield (*here, "refers_to"), refers.source, name, refers.column or name
            if rule.drift is not None and rule.drift.against is not None:
                other = rule.drift.column or name
                yield (*here, "drift"), rule.drift.against, name, other


def utc(text: str) -> datetime:
    """A moment in UTC, without a zone.

    Raises:
        ValueError: it is no time.
    """
    moment = datetime.fromisoformat(text.strip())
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def over_budget(rows: int, total: int, budget: float | None) -> bool:
    """Whether more rows are sent away than may be."""
    # A share such as 0.01 is no double, and 0.01 of 300 rows are 3 rows.
    return budget is not None and rows > math.floor(budget * total + 1e-9)
