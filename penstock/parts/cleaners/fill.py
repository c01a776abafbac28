"""Missing values filled: with a constant, or with the mean, median or commonest value of the training split.

A constant is for columns where missing has a meaning ("no children" is 0). Where missing means "unknown" and
the model should know that it was, leave it to the feature: it fills and tells the model that it did. The mean
is exact; the median is of a bottom-k sample of 20,000 rows, all of them where there are no more
(penstock.contracts.summary); so every engine learns the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from penstock.contracts.data import Cleaner, EngineSession
from penstock.contracts.part import mistakes
from penstock.contracts.summary import Frequencies, Moments, Quantiles, Summary
from penstock.core.errors import ContractError, Problem
from penstock.parts.cleaners._words import Names, present, refuse_type, replaced

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Fill(Cleaner):
    """Puts a value where one is missing."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"values": {"number": 0, "text": "none", "flag": False}},
        {"values": {"whole": 7}},
        {"columns": ["number", "whole"], "by": "mean"},
        {"columns": ["whole", "number"], "by": "median"},
        {"columns": ["text", "flag", "whole"], "by": "mode"},
    )

    values: dict[str, str | int | float | bool] | None = Field(None, min_length=1)
    """Column → what a missing value becomes."""
    columns: Names | None = Field(None, min_length=1)
    """Without `values`: the columns to fill with what `by` says."""
    by: Literal["mean", "median", "mode"] | None = None
    """What is learnt of each column on the training split: `mean` and `median` of numbers (rounded in a
    column of whole numbers), `mode` (the commonest value) of texts, truth values and numbers.
    """

    @model_validator(mode="after")
    def _one_way(self) -> Fill:
        if (self.values is None) == (self.columns is None):
            raise mistakes(
                Problem(("values",), "give either `values`, or `columns` with `by`")
            )
        if (self.columns is None) != (self.by is None):
            raise mistakes(
                Problem(
                    ("by",),
                    "goes with `columns`: give both, such as `by: median`, or none",
                )
            )
        return self

    def needs(self) -> tuple[str, ...]:
        return self.columns or tuple(self.values or ())

    def is_fitted(self) -> bool:
        return self.by is not None

    def fit(self, table: ir.Table, session: EngineSession) -> dict[str, Any]:
        if self.by is None:
            return {}
        summaries: dict[str, Summary] = {}
        for name in self.needs():
            kind = table[name].type()
            if self.by == "mode":
                if not (
                    kind.is_string()
                    or kind.is_boolean()
                    or kind.is_integer()
                    or kind.is_floating()
                ):
                    raise refuse_type(
                        "fill", table, name, "texts, truth values or numbers"
                    )
                summaries[name] = Frequencies()
            else:
                if not kind.is_numeric() or kind.is_boolean():
                    raise refuse_type("fill", table, name, "numbers")
                summaries[name] = Moments() if self.by == "mean" else Quantiles()
        session.summarise(_nan_is_missing(table, list(summaries)), summaries)
        return {
            name: self._learnt(name, table[name].type(), summary)
            for name, summary in summaries.items()
        }

    def _learnt(self, name: str, kind: Any, summary: Summary) -> Any:
        value: Any = None
        if isinstance(summary, Moments):
            value = summary.result()["mean"]
        elif isinstance(summary, Quantiles):
            value = next(iter(summary.quantiles(np.array([0.5]))), None)
        elif values := summary.result()["values"]:
            value = values[0][0]
        if value is None:
            raise ContractError(
                f"fill: the column {name!r} has no value in the training split, so its {self.by} cannot be"
                " learnt. Give `values`, or leave it out."
            )
        return round(value) if kind.is_integer() else value

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        import ibis

        values = facts if self.values is None else self.values
        columns = present(table, list(values))
        for name in columns:
            kind, value = table[name].type(), values[name]
            if not _fits(kind, value):
                raise ContractError(
                    f"fill: the column {name!r} holds {kind}, which {value!r} is not. Give a value of that"
                    " type."
                )
        whole = _nan_is_missing(table, columns)
        return replaced(
            whole,
            {
                # Of the column's type, so that the column keeps it.
                name: whole[name].fill_null(
                    ibis.literal(values[name], type=table[name].type())
                )
                for name in columns
            },
        )


def _nan_is_missing(table: ir.Table, columns: list[str]) -> ir.Table:
    """NaN is missing, as everywhere in the house."""
    import ibis

    return replaced(
        table,
        {
            name: table[name].isnan().ifelse(ibis.null(table[name].type()), table[name])
            for name in columns
            if table[name].type().is_floating()
        },
    )


def _fits(kind: Any, value: Any) -> bool:
    """Whether a constant is of the column's type: another would change it, or be cast in silence."""
    # Python counts a bool as an int.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return bool(
        (kind.is_string() and isinstance(value, str))
        or (kind.is_boolean() and isinstance(value, bool))
        or (kind.is_integer() and is_number and isinstance(value, int))
        or ((kind.is_floating() or kind.is_decimal()) and is_number)
        or (kind.is_temporal() and isinstance(value, str))
    )
