"""Numbers far out are drawn in to limits learnt from the training split.

By default Tukey's outer fences: three interquartile ranges beyond the quartiles (Tukey 1977, Exploratory Data
Analysis). The quantiles come from a bottom-k sample of 20,000 rows (penstock.contracts.summary), so memory
does not grow with the data and every engine finds the same limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from penstock.contracts.data import Cleaner, EngineSession
from penstock.contracts.part import mistakes
from penstock.contracts.summary import Quantiles
from penstock.core.errors import ContractError, Problem
from penstock.parts.cleaners._words import Names, present, refuse_type, replaced

if TYPE_CHECKING:
    import ibis.expr.types as ir

_FAR_OUT = 3.0
_NORMAL = 1.4826
"""The standard deviation of normal values, in median absolute deviations."""


class ClipOutliers(Cleaner):
    """Draws numbers beyond learnt limits in to the limits."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "number"},
        {"columns": ["number", "whole"], "quantiles": [0.1, 0.9]},
        {"columns": "whole", "iqr": 0.5},
        {"columns": "number", "mad": 3},
    )

    columns: Names = Field(min_length=1)
    quantiles: tuple[float, float] | None = None
    """The limits are these quantiles, such as [0.01, 0.99]."""
    iqr: float | None = Field(None, gt=0)
    """The limits lie so many interquartile ranges beyond the quartiles; 3 unless another rule is
    given.
    """

    mad: float | None = Field(None, gt=0)
    """The limits lie so many deviations from the median, where the deviation is the median absolute one times
    1.4826, which is the standard deviation of normal values (Hampel 1974).
    """

    @model_validator(mode="after")
    def _one_rule(self) -> ClipOutliers:
        rules = [
            word
            for word in ("quantiles", "iqr", "mad")
            if getattr(self, word) is not None
        ]
        if len(rules) > 1:
            raise mistakes(
                Problem((rules[1],), f"goes without `{rules[0]}`: give one of them")
            )
        if (
            self.quantiles is not None
            and not 0 <= self.quantiles[0] < self.quantiles[1] <= 1
        ):
            raise mistakes(
                Problem(
                    ("quantiles",),
                    f"expected two rising shares between 0 and 1; found {list(self.quantiles)}",
                )
            )
        return self

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, table: ir.Table, session: EngineSession) -> dict[str, Any]:
        for name in self.columns:
            if not table[name].type().is_numeric():
                raise refuse_type("clip_outliers", table, name, "numbers")
        # One pass over the training split for all columns.
        sketches = {name: Quantiles() for name in self.columns}
        session.summarise(table, sketches)
        return {name: self._limits(name, sketch) for name, sketch in sketches.items()}

    def _limits(self, name: str, sketch: Quantiles) -> dict[str, float]:
        # A column of nulls and NaN alone has no quantiles.
        if not sketch.count:
            raise ContractError(
                f"clip_outliers: the column {name!r} has no number in the training split, so no limits can be"
                " learnt from it. Leave it out."
            )
        if self.quantiles:
            low, high = sketch.quantiles(np.array(self.quantiles))
            return {"low": low, "high": high}
        if self.mad is not None:
            return self._about_median(name, sketch.values(), self.mad)
        first, third = sketch.quantiles(np.array([0.25, 0.75]))
        # Limits at one value would draw every other one in to it.
        if first == third:
            raise ContractError(
                f"clip_outliers: at least half of the column {name!r} is {first:g}, so its interquartile"
                " range is 0 and every other value would be drawn in to it. Give `quantiles`, such as [0,"
                " 0.999], or leave it out."
            )
        reach = (_FAR_OUT if self.iqr is None else self.iqr) * (third - first)
        return {"low": first - reach, "high": third + reach}

    def _about_median(
        self, name: str, values: np.ndarray, reach: float
    ) -> dict[str, float]:
        """Limits at `reach` deviations on either side of the median."""
        median = float(np.median(values))
        deviation = _NORMAL * float(np.median(np.abs(values - median)))
        if not deviation:
            raise ContractError(
                f"clip_outliers: at least half of the column {name!r} is {median:g}, so its median deviation"
                " is 0 and every other value would be drawn in to it. Give `quantiles`, such as [0, 0.999],"
                " or leave it out."
            )
        return {"low": median - reach * deviation, "high": median + reach * deviation}

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        import ibis

        mended = {}
        for name in present(table, self.columns):
            column, kind = table[name], table[name].type()
            low, high = facts[name]["low"], facts[name]["high"]
            # outwards to whole numbers, so that a limit never clips tighter than was learnt
            if kind.is_integer():
                # Within the type's own bounds, or the cast of a limit would overflow.
                low, high = (
                    max(math.floor(low), kind.bounds.lower),
                    min(math.ceil(high), kind.bounds.upper),
                )
            inside = ibis.cases(
                # A null compares as null, takes neither branch and stays as it is.
                (column < ibis.literal(low), ibis.literal(low).cast(kind)),
                (column > ibis.literal(high), ibis.literal(high).cast(kind)),
                else_=column,
            )
            # NaN is missing, not far out
            mended[name] = (
                column.isnan().ifelse(column, inside) if kind.is_floating() else inside
            )
        return replaced(table, mended)
