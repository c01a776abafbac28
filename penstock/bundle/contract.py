"""The data contract at serving: the rules of `expect` that one row alone can keep or break.

A bundle carries the rules on the columns that its inputs read. They are judged as `prepare` judges them
(`prepare.checks`): on raw and derived columns, before any cleaner, and a missing value breaks
`not_null` only.
What takes other rows to tell (`unique`, `max_missing`, `monotonic`, `refers_to`, rules of the table), and
rules whose way is `on_violation: warn`, are not carried. Where rows are steps of series, each step of a
window is judged.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.bundle.casts import lengths, moments, numbers, spelt, stripped
from penstock.bundle.mixed import Mixed
from penstock.bundle.steps import Steps
from penstock.bundle.typing import one_array
from penstock.contracts.features import SeriesFeature
from penstock.core.errors import Problem
from penstock.core.near import listed
from penstock.recipe.schema import Expect, Recipe

_SHOWN = 80
"""Characters of a value that a reason shows."""
_ONE_ROW = (
    "type",
    "min",
    "max",
    "min_length",
    "max_length",
    "allowed",
    "pattern",
    "not_null",
)
"""The words of `expect` that one row alone keeps or breaks."""
_WHOLE = r"\A[+-]?[0-9]+\z"
_NUMBER = r"\A[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\z"
_TRUTH = ("true", "false", "t", "f", "yes", "no", "0", "1")


class _Broken(NamedTuple):
    """One rule over a column: which values break it."""

    what: str
    mask: np.ndarray
    expected: str


@dataclass(frozen=True)
class RowContract:
    """Rules by column, and how derived columns among them are made."""

    rules: Mapping[str, Expect]
    derive: Steps | None = None
    """Makes the derived columns that have rules; None where there are none."""
    sampled: bool = False
    """Whether rows are samples of series, whose columns are lists of steps."""
    series: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)
    """By column of steps: the column of a sample that holds it, its place among the variables of a step
    there, and how many these are.
    """

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        *,
        columns: Sequence[str],
        steps: Steps,
        schema: Mapping[str, pa.DataType],
    ) -> RowContract | None:
        """Return the rules that a bundle of this recipe carries; None if there are none.

        Args:
            columns: the raw columns that a request must have.
            steps: what makes of them what the inputs read.
            schema: the dataset's columns.
        """
        series = {
            column: (name, place, len(feature.columns(name)))
            for name, feature in recipe.inputs.items()
            if recipe.samples is not None and isinstance(feature, SeriesFeature)
            for place, column in enumerate(feature.columns(name))
        }
        rules = {
            name: rule
            for name, promise in recipe.expect.items()
            if (name in columns or name in steps.derive or name in series)
            and (rule := _of_one_row(promise)) is not None
        }
        if not rules:
            return None
        derived_names = [name for name in rules if name in steps.derive]
        derive, _ = Steps.needed(
            derived_names, derived=steps.derive, clean=[], schema=schema, targets=[]
        )
        holders = {name: holder for name, holder in series.items() if name in rules}
        return cls(rules, derive or None, recipe.samples is not None, holders)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; `load` reads it."""
        rules = {
            name: {
                word: value
                for word, value in rule.to_dict().items()
                if word in rule.model_fields_set
            }
            for name, rule in self.rules.items()
        }
        return {
            "rules": rules,
            "sampled": self.sampled,
            "derive": self.derive.to_dict() if self.derive else None,
            "series": {name: list(holder) for name, holder in self.series.items()},
        }

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> RowContract:
        """The contract that `to_dict` wrote.

        Raises:
            ArrowInvalid: a pattern is no regular expression.
        """
        rules = {n: Expect.model_validate(rule) for n, rule in data["rules"].items()}
        for rule in rules.values():
            # Told when the bundle is opened, and not to whoever asks it.
            for _, each in rule.rules():
                if each.pattern is not None:
                    pc.match_substring_regex(pa.array([""]), each.pattern)
        return cls(
            rules,
            Steps.load(data["derive"]) if data["derive"] else None,
            bool(data["sampled"]),
            {
                name: (str(holder), int(place), int(width))
                for name, (holder, place, width) in data["series"].items()
            },
        )

    def truths(
        self, table: pa.Table, mixed: Mapping[str, Mixed]
    ) -> dict[int, list[Problem]]:
        """Return by row the truth values where a rule wants numbers.

        Judged before rows get their learnt types, in which `true` would be 1.

        Args:
            table: columns of one type, as they came.
            mixed: columns of several types, over the same rows.
        """
        problems: dict[int, list[Problem]] = {}
        for name, rule in self.rules.items():
            types = {each.type for _, each in rule.rules()}
            if not types & {"integer", "number"}:
                continue
            wanted = Expect(type="integer" if "integer" in types else "number")
            if name in mixed:
                parts = enumerate(mixed[name].pieces)
                labels = mixed[name].labels
            elif name in table.column_names:
                parts = enumerate([one_array(table[name])])
                labels = np.zeros(table.num_rows, np.int64)
            else:
                continue
            for label, piece in parts:
                if pa.types.is_boolean(piece.type):
                    rows = np.flatnonzero(labels == label)
                    self._judge(name, wanted, piece, rows, problems)
        return problems

    def filtered(
        self,
        table: pa.Table,
        mixed: Mapping[str, Mixed],
        *,
        broken: Mapping[int, list[Problem]] | None = None,
    ) -> tuple[pa.Table, dict[str, Mixed], dict[int, list[Problem]]]:
        """Return the rows that keep every rule, in order, and the problems of the others.

        Args:
            table: columns of one type.
            mixed: columns of several types, over the same rows.
            broken: rows that break a rule already, by what `truths` returned.
        """
        problems = self.problems(table, mixed)
        for row, some in (broken or {}).items():
            problems.setdefault(row, []).extend(some)
        if not problems:
            return table, dict(mixed), {}
        left = np.setdiff1d(np.arange(table.num_rows), np.fromiter(problems, np.int64))
        return (
            table.take(pa.array(left)),
            {name: column.only(left) for name, column in mixed.items()},
            problems,
        )

    def problems(
        self, table: pa.Table, mixed: Mapping[str, Mixed]
    ) -> dict[int, list[Problem]]:
        """Return by row the rules that it breaks."""
        problems: dict[int, list[Problem]] = {}
        present = set(table.column_names)
        for name, rule in self.rules.items():
            if name in self.series and self.series[name][0] in present:
                self._judge_steps(name, rule, table, problems)
            elif name in mixed:
                # Each piece by its own type, so that no value is judged by its
                # neighbours.
                for label, piece in enumerate(mixed[name].pieces):
                    rows = np.flatnonzero(mixed[name].labels == label)
                    self._judge(name, rule, piece, rows, problems)
            elif name in present:
                rows = np.arange(table.num_rows)
                self._judge(name, rule, one_array(table[name]), rows, problems)
        if self.derive is not None:
            self._judge_derived(table, mixed, problems)
        return problems

    def _judge_steps(
        self, name: str, rule: Expect, table: pa.Table, problems: dict[int, list[Problem]]
    ) -> None:
        """Judge one variable of the steps of each sample."""
        holder, place, width = self.series[name]
        column, t = one_array(table[holder]), pa.types
        rows = np.arange(len(column))
        # A list of steps, and of several variables a list in each step.
        for _ in range(2 if width > 1 else 1):
            if not (t.is_list(column.type) or t.is_large_list(column.type)):
                return
            rows = rows[np.asarray(pc.list_parent_indices(column), np.int64)]
            column = column.flatten()
        mine = np.arange(place, len(column), width)
        self._judge(name, rule, column.take(pa.array(mine)), rows[mine], problems)

    def _judge_derived(
        self,
        table: pa.Table,
        mixed: Mapping[str, Mixed],
        problems: dict[int, list[Problem]],
    ) -> None:
        assert self.derive is not None
        derived, _, broken = self.derive.apply(table, mixed)
        # A row that breaks an expression has no value to judge, and is refused by the steps.
        rows = np.setdiff1d(np.arange(table.num_rows), np.fromiter(broken, np.int64))
        for name, rule in self.rules.items():
            if name in self.derive.derive:
                self._judge(name, rule, one_array(derived[name]), rows, problems)

    def _judge(
        self,
        name: str,
        rule: Expect,
        column: pa.Array,
        rows: np.ndarray,
        problems: dict[int, list[Problem]],
    ) -> None:
        """Add the rules that the values of a column break.

        Args:
            rows: which row each value is of.
        """
        t = pa.types
        if self.sampled and (t.is_list(column.type) or t.is_large_list(column.type)):
            parents = np.asarray(pc.list_parent_indices(column), np.int64)
            column, rows = column.flatten(), rows[parents]
        column = _present(column)
        found_broken = (b for _, each in rule.rules() for b in _broken(column, each))
        for broken in found_broken:
            for place in np.flatnonzero(broken.mask).tolist():
                value = column[place]
                text = f"found {_shown(value)}" if value.is_valid else "it is missing"
                problem = Problem(
                    (name,),
                    f"breaks the rule `{broken.what}`: {text}, expected {broken.expected}",
                )
                row = problems.setdefault(int(rows[place]), [])
                # Of many steps of one window the first is enough.
                if all(p.path != problem.path for p in row):
                    row.append(problem)


def _of_one_row(promise: Expect) -> Expect | None:
    """Return the part of a promise that one row alone keeps or breaks; None if there is
    none, or a row that breaks it is only warned of.
    """
    rules = [
        rule
        for _, each in promise.rules()
        if (rule := _words_of_one_row(each)) is not None
    ]
    if not rules:
        return None
    first, *others = rules
    return (
        Expect(**first, also=[Expect(**rule) for rule in others])
        if others
        else (Expect(**first))
    )


def _words_of_one_row(promise: Expect) -> dict[str, Any] | None:
    words = {word: getattr(promise, word) for word in _ONE_ROW}
    # By identity: a bound of 0 is a bound, though it equals False.
    given = {word: v for word, v in words.items() if v is not None and v is not False}
    if promise.on_violation == "warn" or not given:
        return None
    return given | _bounds(promise)


def _bounds(promise: Expect) -> dict[str, str]:
    """Return bounds that are times in the one way in which they are compared."""
    times: dict[str, str] = {}
    for word in ("min", "max"):
        bound = getattr(promise, word)
        if not isinstance(bound, str) or _number(bound) is not None:
            continue
        # Loads slowly, and understands more ways to write a time than `datetime`.
        import pandas as pd

        moment = pd.Timestamp(bound)
        moment = moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment
        times[word] = moment.isoformat()
    return times


def _broken(value: pa.Array, rule: Expect) -> Iterator[_Broken]:
    there = _valid(value)
    if rule.not_null:
        yield _Broken("not_null", ~there, "a value")
    if rule.type is not None:
        article = "" if rule.type == "text" else "an " if rule.type == "integer" else "a "
        mask = there & ~_is(value, rule.type)
        yield _Broken(f"type: {rule.type}", mask, f"{article}{rule.type}")
    for word, bound in (("min", rule.min), ("max", rule.max)):
        if bound is None or (outside := _outside(value, bound, word, rule)) is None:
            continue
        shown = f"{bound:g}" if isinstance(bound, float) else bound
        side = "least" if word == "min" else "most"
        yield _Broken(f"{word}: {shown}", there & outside, f"at {side} {shown}")
    for word, length in (
        ("min_length", rule.min_length),
        ("max_length", rule.max_length),
    ):
        if length is None or (sizes := lengths(value)) is None:
            continue
        side = "least" if word == "min_length" else "most"
        bad = sizes < length if side == "least" else sizes > length
        expected = f"a length of at {side} {length}"
        yield _Broken(f"{word}: {length}", there & bad, expected)
    if rule.allowed is not None:
        some = listed([str(option) for option in rule.allowed], most=12)
        mask = there & ~_allowed(value, rule.allowed)
        yield _Broken("allowed", mask, f"one of {some}")
    if rule.pattern is not None:
        text = _texts(value)
        # The whole text must match; a pattern with `|` needs the group.
        matches = pc.match_substring_regex(text, rf"\A(?:{rule.pattern})\z")
        yield _Broken(
            f"pattern: {rule.pattern}", there & ~_mask(matches), "text that matches it"
        )


def _is(value: pa.Array, wanted: str) -> np.ndarray:
    """Where a value has the type `wanted`, judged by the type of its column."""
    t, kind = pa.types, value.type
    if _is_text(kind):
        text = stripped(value)
        if wanted == "integer":
            return _mask(pc.match_substring_regex(text, _WHOLE))
        if wanted == "number":
            return _mask(pc.match_substring_regex(text, _NUMBER))
        if wanted == "boolean":
            return _mask(pc.is_in(pc.utf8_lower(text), pa.array(_TRUTH, text.type)))
        if wanted == "timestamp":
            return _valid(moments(value))
        return np.ones(len(value), bool)
    numeric = _is_number(kind)
    kinds = {
        "integer": t.is_integer(kind),
        "number": numeric,
        "boolean": t.is_boolean(kind),
        "timestamp": t.is_timestamp(kind) or t.is_date(kind),
        "text": False,
    }
    if kinds[wanted]:
        return np.ones(len(value), bool)
    if wanted == "integer" and numeric:
        return _mask(pc.equal(value, pc.floor(value)))
    if wanted == "boolean" and t.is_integer(kind):
        return _mask(pc.is_in(value, pa.array([0, 1], kind)))
    return np.zeros(len(value), bool)


def _outside(
    value: pa.Array, bound: float | str, word: str, rule: Expect
) -> np.ndarray | None:
    """Where a value lies outside of a bound, or is of another kind; None where values of
    this type have no place beside it.
    """
    kind, t = value.type, pa.types
    if isinstance(bound, str) and rule.type != "timestamp":
        number = _number(bound)
        bound = bound if number is None else number
    compare = pc.less if word == "min" else pc.greater
    if not isinstance(bound, str):
        if _is_number(kind):
            # A whole number for whole numbers: as a double, it would lose digits beyond 2**53.
            whole = t.is_integer(kind) and float(bound).is_integer()
            if not whole:
                value = value.cast(pa.float64(), safe=False)
            return _mask(compare(value, pa.scalar(int(bound) if whole else bound)))
        if _is_text(kind):
            compared = numbers(value)
            outside = _mask(compare(compared, pa.scalar(float(bound))))
            if word == "max":
                # To the engine no number is greater than NaN.
                outside |= _mask(pc.is_nan(compared))
            return np.asarray(outside | ~_valid(compared), bool)
        return None
    if not (t.is_timestamp(kind) or t.is_date(kind) or _is_text(kind)):
        return None
    times = moments(value) if _is_text(kind) else _in_utc(value)
    limit = pa.scalar(_moment(bound), pa.timestamp("us"))
    outside = _mask(compare(times, limit))
    return np.asarray(outside | ~_valid(times), bool)


def _allowed(value: pa.Array, allowed: Sequence[Any]) -> np.ndarray:
    t, kind = pa.types, value.type
    if t.is_boolean(kind):
        truths = {"true": True, "false": False, "1": True, "0": False}
        options = {truths.get(str(option).lower()) for option in allowed}
        return np.array([v in options for v in value.to_pylist()], bool)
    if _is_number(kind):
        # Python compares whole numbers and doubles exactly.
        numeric = {_exact(option) for option in allowed} - {None}
        return np.array([v in numeric for v in value.to_pylist()], bool)
    # As YAML writes a truth value: Python would say `True`.
    words = [str(o).lower() if isinstance(o, bool) else str(o) for o in allowed]
    return _mask(pc.is_in(_texts(value), pa.array(words, pa.string())))


def _exact(option: Any) -> int | float | None:
    if isinstance(option, (bool, int)):
        return int(option)
    return _number(str(option))


def _number(text: Any) -> float | None:
    try:
        return None if text is None else float(str(text).strip())
    except ValueError:
        return None


def _moment(bound: str) -> datetime.datetime:
    """Return a bound as a moment of UTC without a zone."""
    try:
        moment = datetime.datetime.fromisoformat(bound.strip())
    except ValueError:
        # A year alone, which `_bounds` took for a number. Loads slowly.
        import pandas as pd

        moment = pd.Timestamp(bound).to_pydatetime()
    zoned = moment.tzinfo is not None
    return moment.astimezone(datetime.UTC).replace(tzinfo=None) if zoned else moment


def _in_utc(value: pa.Array) -> pa.Array:
    """Return timestamps or dates as microseconds of UTC; a zone only says how they are shown."""
    zone = getattr(value.type, "tz", None)
    return value.cast(pa.timestamp("us", zone), safe=False).cast(pa.timestamp("us"))


def _present(column: pa.Array) -> pa.Array:
    """The column in a plain layout, with NaN as the missing value that it is."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def _texts(value: pa.Array) -> pa.Array:
    t, kind = pa.types, value.type
    if t.is_string(kind):
        return value
    # How these are spelt differs between Arrow and the engine.
    if t.is_floating(kind) or t.is_decimal128(kind) or t.is_timestamp(kind):
        return spelt(value)
    try:
        return value.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        texts = [None if v is None else str(v) for v in value.to_pylist()]
        return pa.array(texts, pa.string())


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind))


def _mask(condition: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A condition as booleans; null has no answer, and is false."""
    filled = pc.fill_null(condition, False)
    return np.asarray(filled.to_numpy(zero_copy_only=False), bool)


def _valid(column: pa.Array) -> np.ndarray:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)


def _shown(scalar: pa.Scalar) -> str:
    try:
        value = scalar.as_py()
    except (OverflowError, ValueError):
        # A year beyond 9999, which Python has not.
        return str(scalar.cast(pa.string()).as_py())
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


__all__ = ["RowContract"]
