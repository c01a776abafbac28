"""Steps of one or many variables: what was before an anchor (`window`), and what comes from it on
(`horizon`).

Two ways to have them. With the recipe's `samples`, a row of the data is one step and `columns` name its
variables: every step is stored once, and a sample is cut out of them. Without, a row is a whole sample:
`columns` are lists, one a variable, or `column` is a list of steps, each a list of the variables' values (a
plain list of numbers, if there is one variable). The last is also how requests have it, always: `{"past":
[[5.8, 2.0], [5.7, 2.1], …]}`.

Each variable is standardised by the training split's mean and deviation. Far values are bounded at a million
deviations, for their sake alone: a series with a trend leaves the range it was learnt on, and encoders take
each window's own level out of it. A missing value is what the variable was before (`previous`), within the
same window, at the window's beginning what it is after; a step at which nothing was observed is so marked in
`mask`. Filling happens in `collate`, so that a window cut from stored steps and one that came in a request
are filled alike.

As a target, missing values are marked in `present` and count neither in the loss nor in metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from penstock.contracts.features import (
    NOBODY,
    CollatedFeature,
    Fitted,
    Refused,
    SeriesFeature,
    Stored,
    TargetFeature,
)
from penstock.contracts.part import mistakes
from penstock.contracts.summary import Summary
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError, Problem
from penstock.parts.features import _lists, _raw, _steps

# In standard deviations of the training split.
_FAR = 1e6
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]


class Series(SeriesFeature, CollatedFeature, TargetFeature):
    """A window of past values, inputs known ahead, or a forecast."""

    encoder: ClassVar[str] = "decomposition"
    decoder: ClassVar[str] = "series"
    answers: ClassVar[tuple[str, ...]] = ("", "quantiles")
    canonical: ClassVar[pa.DataType] = _steps.CANONICAL

    columns_: Names = Field((), alias="columns")
    """The columns of the variables, in order; not with `column`, which holds them all."""
    variables: Names = ()
    """The variables' names, in order: needed where `column` holds several; the columns' own unless given."""
    window: int = Field(0, ge=0)
    """Steps before the anchor."""
    horizon: int = Field(0, ge=0)
    """Steps from the anchor on: of a target, what is forecast; of an input, what is known ahead (a calendar,
    a plan).
    """
    missing: Literal["previous", "mean", "error"] = "previous"
    """What a missing input is filled with: what came before it in the window, or the training split's mean;
    `error` refuses the row.
    """
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Of a target: the quantiles answered beside the forecast, ascending; with 0.5, the forecast is the
    median.
    """
    season: int | None = Field(None, ge=1)
    """Of a target: steps after which it repeats itself, for the seasonal naive forecast.

    Unless given it follows from the distance of the steps where that is known (a day of hours, a week of
    days), otherwise 1.
    """

    @model_validator(mode="after")
    def _holds(self) -> Self:
        problems = []
        if self.columns_ and self.column:
            problems.append(
                Problem(
                    ("column",),
                    "holds all variables; `columns` names a column for each. Leave one of them out",
                )
            )
        if self.columns_ and self.variables and len(self.columns_) != len(self.variables):
            problems.append(
                Problem(
                    ("variables",),
                    f"names {len(self.variables)} variables for {len(self.columns_)} columns",
                )
            )
        # Names tell the variables apart in facts and reasons.
        if len(set(self.names)) < len(self.names):
            problems.append(Problem(("columns",), "has a variable twice"))
        if not self.length:
            problems.append(
                Problem(
                    ("window",),
                    "or `horizon` is required: how many steps before the anchor, or from it on",
                )
            )
        # The decoder answers levels in this order, and a level that stands twice would
        # be two equal fields.
        if list(self.quantiles) != sorted(set(self.quantiles)):
            problems.append(Problem(("quantiles",), "must be ascending and differ"))
        if self.quantiles and 0.5 not in self.quantiles:
            problems.append(
                Problem(("quantiles",), "need 0.5 among them: the median is the forecast")
            )
        if problems:
            raise mistakes(*problems)
        return self

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """T: of a whole sample."""
        return self.window + self.horizon

    @property
    def names(self) -> tuple[str, ...]:
        """The variables' names; as many as there are variables, V."""
        return (
            self.variables
            or self.columns_
            or ((self.column,) if self.column else ("value",))
        )

    def columns(self, name: str) -> tuple[str, ...]:
        return self.columns_ or (self.column or name,)

    def row_bytes(self) -> int:
        # About 32 bytes a value, raw and accepted together.
        return 64 + 32 * self.length * len(self.names)

    def reach(self, *, target: bool) -> tuple[int, int]:
        return -self.window, self.horizon

    def whole(self, name: str) -> Series:
        # A lone variable without a name is called as the feature is.
        names = self.names if self.columns_ or self.variables or self.column else (name,)
        # One nested column, however the training data lay: a request has the steps of a
        # sample together.
        return self.model_copy(
            update={"columns_": (), "column": name, "variables": names}
        )

    def step(self) -> Series:
        # A window of one, so that `accept`, `fit` and `encode` serve single steps as
        # they serve samples.
        return self.model_copy(update={"window": 1, "horizon": 0})

    def unfit(self, *, target: bool, sampled: bool) -> str | None:
        if target and (self.window or not self.horizon):
            return "a target is what comes: give it a `horizon`, and no `window`"
        if not target and (self.quantiles or self.season):
            return f"`{'quantiles' if self.quantiles else 'season'}` belongs to a target"
        if sampled and not self.columns_ and len(self.names) > 1:
            return (
                "needs `columns`: with `samples`, each variable is a column of the data"
            )
        return None

    # -- in --------------------------------------------------------------------------------------------------

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        rows = len(columns[0])
        # [n, T, V] in the user's units, NaN where missing; filled in place below.
        values = np.full((rows, self.length, len(self.names)), np.nan)
        gone = np.zeros(rows, bool)  # missing as a whole
        # One step of one variable may come as a plain number, as stored steps do.
        if self.columns_ or (
            self.length == 1
            and len(self.names) == 1
            and not pa.types.is_nested(_raw.one(columns).type)
        ):
            refused = self._side_by_side(columns, values)
        else:
            refused = self._nested(_raw.one(columns), values, gone)
        # Counted after reading, so that NaN and the texts under `na` are gaps as well.
        if self.missing == "error":
            gaps = np.flatnonzero(np.isnan(values).any(axis=(1, 2)))
            refused = _raw.together(
                refused,
                Refused(
                    gaps,
                    ["has a missing value, and `missing: error` was declared"]
                    * len(gaps),
                ),
            )
        # A refused row is null as a whole, never half a row.
        gone[refused.rows] = True
        size = self.length * len(self.names)
        # A null row has no values, and its length is 0.
        finite = values[~gone].ravel()
        lengths = np.where(gone, 0, size)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        lists = pa.ListArray.from_arrays(
            offsets,
            # In the canonical form a missing value is null, never NaN.
            pa.array(finite, mask=np.isnan(finite)),
            mask=pa.array(gone) if gone.any() else None,
        )
        return lists, refused

    def _side_by_side(self, columns: Sequence[pa.Array], values: np.ndarray) -> Refused:
        """A column a variable: lists of T numbers, or numbers where there is one step.

        Fills `values` `[n, T, V]`.
        """
        problems = []
        for place, (name, column) in enumerate(
            zip(self.names, map(_raw.plain, columns), strict=True)
        ):
            if self.length == 1 and not pa.types.is_nested(column.type):
                numbers, some = _raw.numbers(column, self.na)
                values[:, 0, place] = _lists.doubles(numbers)
                problems.append(
                    Refused(
                        some.rows,
                        (
                            [f"{name}: {reason}" for reason in some.reasons]
                            if len(self.names) > 1
                            else some.reasons
                        ),
                    )
                )
            else:
                # `values[:, :, place]` is a view: what is written there is in the whole
                # array.
                problems.append(
                    self._lists(
                        column,
                        values[:, :, place],
                        f"{name}: " if len(self.names) > 1 else "",
                    )
                )
        return _raw.together(*problems)

    def _lists(self, column: pa.Array, values: np.ndarray, prefix: str) -> Refused:
        """Lists of T numbers into `values` `[n, T]`."""
        there = _raw.present(column)
        if not _lists.is_list(column.type):
            # A column of nothing but nulls comes without a type that means anything.
            if not there.any():
                return NOBODY
            return _raw.refusing(
                column,
                there,
                lambda value: (
                    f"{prefix}expected a list of {self.length} numbers, found {_raw.shown(value)}"
                ),
            )
        lengths = _lists.lengths(column)
        # Rows of the right length alone are read, so their items reshape without gaps.
        right = there & (lengths == self.length)
        wrong = np.flatnonzero(there & ~right)
        uneven = Refused(
            wrong,
            [
                f"{prefix}has {n} steps, expected {self.length}"
                for n in lengths[wrong].tolist()
            ],
        )
        return _raw.together(
            uneven,
            self._numbers(
                _lists.items(column, right), np.flatnonzero(right), values, prefix
            ),
        )

    def _numbers(
        self, flat: pa.Array, rows: np.ndarray, values: np.ndarray, prefix: str = ""
    ) -> Refused:
        """`flat`, all rows' numbers one after another, into `values[rows]`."""
        if not len(rows):
            return NOBODY
        numbers, bad = _raw.numbers(_raw.plain(flat), self.na)
        # `rows` are whole: the items are `[r, T]` or `[r, T, V]` in a row.
        values[rows] = _lists.doubles(numbers).reshape(len(rows), *values.shape[1:])
        # Numbers a row; dividing an item's place by it gives the row, its step and its
        # variable.
        each = int(np.prod(values.shape[1:]))
        width = values.shape[2] if values.ndim == 3 else 1

        def place(at: int) -> str:
            step, variable = divmod(at % each, width)
            return f"{prefix}step {step}" + (
                f", {self.names[variable]}" if width > 1 else ""
            )

        return Refused(
            rows[bad.rows // each],
            [
                f"{place(at)}: {reason}"
                for at, reason in zip(bad.rows.tolist(), bad.reasons, strict=True)
            ],
        )

    def _nested(self, column: pa.Array, values: np.ndarray, gone: np.ndarray) -> Refused:
        """One column of steps, each a list of V values (or a number, where V is 1)."""
        there, width = _raw.present(column), len(self.names)
        # In place: it tells the caller's null rows from rows whose every value is null.
        gone |= ~there
        expected = (
            f"a list of {self.length} steps, each a list of {width} numbers"
            if width > 1
            else f"a list of {self.length} numbers"
        )

        def refused() -> Refused:
            why = "expected {}, found {}".format
            return _raw.refusing(column, there, lambda v: why(expected, _raw.shown(v)))

        if not _lists.is_list(column.type):
            return refused() if there.any() else NOBODY
        inner = column.type.value_type
        # With one variable, a list of numbers is a list of steps.
        if not _lists.is_list(inner):
            if width == 1:
                return self._lists(column, values[:, :, 0], "")
            # Lists of nulls alone have no inner type; their steps are missing, not
            # malformed.
            if pa.types.is_null(inner):
                return self._all_gone(column, there, values)
            return refused()
        lengths = _lists.lengths(column)
        right = there & (lengths == self.length)
        wrong = np.flatnonzero(there & ~right)
        expects = f"steps, expected {self.length}"
        problems = [
            Refused(wrong, [f"has {n} {expects}" for n in lengths[wrong].tolist()])
        ]
        rows = np.flatnonzero(right)
        steps = _raw.plain(_lists.items(column, right))  # [rows · T] lists of V
        # A null step stands for V missing values, so it is never uneven.
        observed = _raw.present(steps)
        widths = np.where(observed, _lists.lengths(steps), width)
        uneven = (
            widths.reshape(-1, self.length) != width
            if len(rows)
            else np.zeros((0, self.length), bool)
        )
        bad = uneven.any(axis=1)
        reasons = [
            f"step {int(row.argmax())} has {int(counts[row.argmax()])} values, expected {width}"
            for row, counts in zip(
                uneven[bad], widths.reshape(uneven.shape)[bad], strict=True
            )
        ]
        problems.append(Refused(rows[bad], reasons))
        # An uneven step takes its whole row out before reading, since `_numbers`
        # reshapes to `[r, T, V]`.
        good = np.repeat(~bad, self.length)
        # A step that is missing as a whole is a step of missing values.
        flat = _lists.items(steps, observed & good)
        # For each value of each step its place in `flat`; -1 becomes null in `take`.
        index = np.full((len(steps), width), -1, np.int64)
        index[observed & good] = np.arange(int((observed & good).sum()) * width).reshape(
            -1, width
        )
        index = index[good].ravel()
        problems.append(
            self._numbers(flat.take(pa.array(index, mask=index < 0)), rows[~bad], values)
        )
        return _raw.together(*problems)

    def _all_gone(
        self, column: pa.Array, there: np.ndarray, values: np.ndarray
    ) -> Refused:
        """Lists of nothing but nulls: steps at which nothing was observed."""
        lengths = _lists.lengths(column)
        wrong = np.flatnonzero(there & (lengths != self.length))
        return Refused(
            wrong,
            [f"has {n} steps, expected {self.length}" for n in lengths[wrong].tolist()],
        )

    # -- learning --------------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        return _steps.Variables(self.length, len(self.names))

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        parts = result["variables"]
        empty = [
            name
            for name, part in zip(self.names, parts, strict=True)
            if not part["count"]
        ]
        if empty:
            which = "" if len(empty) == len(parts) else f" in {', '.join(empty[:10])}"
            raise ContractError(
                f"is missing at every step of the training split{which}: nothing can be learnt from it"
            )
        constant = [
            name
            for name, part in zip(self.names, parts, strict=True)
            if part["min"] == part["max"]
        ]
        # Single precision ends at 3.4e38, and the forecast is answered in the user's
        # units.
        largest = max(max(abs(part["min"]), abs(part["max"])) for part in parts)
        if largest > 1e37:
            raise ContractError(
                f"has values up to {largest:g}; series are answered in single precision, up to 1e37. Derive"
                " it in larger units, or bound it under `expect`"
            )
        notes = (
            [
                f"has variables that never change in the training split: {', '.join(constant[:10])}"
            ]
            if constant
            else []
        )
        facts = {
            word: [part[word] for part in parts]
            for word in ("mean", "min", "max", "missing")
        }
        # A variable that never changes keeps its own unit.
        return {
            **facts,
            "std": [part["std"] or 1.0 for part in parts],
            "naive": result["naive"],
            # With 1, the seasonal naive forecast repeats the last value.
            "season": self.season or 1,
            "count": result["count"],
            "target": target,
            "said": notes,
        }

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        shape, axes = (self.length, len(self.names)), ("time", "variable")
        facts: dict[str, Any] = {
            "variables": list(self.names),
            "mean": fitted["mean"],
            "std": fitted["std"],
            "window": self.window,
            "horizon": self.horizon,
        }
        if fitted["target"]:
            facts |= {
                "quantiles": list(self.quantiles),
                "season": fitted["season"],
                "naive": fitted["naive"],
            }
            return {
                "values": TensorSpec("float32", shape, "target", axes=axes, facts=facts),
                "present": TensorSpec("float32", shape, "mask", axes=axes),
            }
        return {
            "values": TensorSpec("float32", shape, "values", axes=axes, facts=facts),
            "mask": TensorSpec("bool", shape[:1], "mask", axes=axes[:1]),
        }

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        values, there = _steps.matrix(column, self.length, len(self.names))
        # In doubles: single precision would lose the small changes of a series on a
        # high level.
        scaled = (values - np.array(fitted["mean"])) / np.array(fitted["std"])
        return {
            # 0 is the training split's mean after scaling; `collate` fills by the value
            # before where that was declared.
            "values": np.where(there, np.clip(scaled, -_FAR, _FAR), 0.0).astype(
                np.float32
            ),
            "present": there,
        }

    def collate(
        self, stored: Stored, fitted: Fitted, keys: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        values, there = np.ascontiguousarray(stored["values"]), stored["present"]
        if fitted["target"]:
            # Gaps of a target stay 0 and are marked: they count in no loss and no
            # metric.
            return {"values": values, "present": np.asarray(there, np.float32)}
        if self.missing == "previous" and not there.all():
            values = _steps.filled(values, there)
        # A step counts as observed if any of its variables was; mask is bool [B, T].
        return {"values": values, "mask": np.asarray(there.any(axis=2))}

    # -- out -------------------------------------------------------------------------------------------------

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        """`[n, H, V]` in the user's units, not a number where nothing was observed."""
        values = stored["values"].astype(np.float64) * np.array(fitted["std"]) + np.array(
            fitted["mean"]
        )
        return np.where(stored["present"], values, np.nan)

    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        fitted: Fitted,
        decision: Mapping[str, Any],
    ) -> dict[str, pa.Array]:
        """`""`: a list of H steps, each a list of V numbers (H numbers, where V is 1); `quantiles`: the same
        for each quantile.
        """
        columns = {"": _steps.nested(np.asarray(arrays["values"], np.float64))}
        if self.quantiles:
            levels = np.asarray(arrays["quantiles"], np.float64)
            parts = [
                _steps.nested(np.ascontiguousarray(levels[..., i]))
                for i in range(len(self.quantiles))
            ]
            columns["quantiles"] = pa.StructArray.from_arrays(
                parts, names=[f"{q:g}" for q in self.quantiles]
            )
        return columns
