"""Missing numbers estimated from the other numbers of their row, by a model learnt on the training split.

`iterative`: chained equations. Each column is a ridge regression on the others; what is missing begins at
its mean and is predicted again, column by column, until it settles (van Buuren and Groothuis-Oudshoorn 2011,
mice, Journal of Statistical Software 45(3)). `nearest`: the mean of the nearest training rows that have the
value, by the Euclidean distance over the columns that both rows have (Troyanskaya et al. 2001, Bioinformatics
17(6)).

Both learn on a bounded sample: the training rows with the smallest row ids. Facts are numbers, so serving
needs no library of models. A row is mended by itself, to the last bit as among others: sums run over columns
one after another, never through a matrix product whose order depends on the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from penstock.contracts.data import ROW_ID, BatchCleaner, EngineSession
from penstock.contracts.part import mistakes
from penstock.core.errors import ContractError, Problem
from penstock.parts.cleaners._words import Names, refuse_type

if TYPE_CHECKING:
    import ibis.expr.types as ir

_ROUNDS = 20
_SETTLED = 1e-4
"""Rounds end when no estimate moves by more standard deviations than this."""
_RIDGE = 1e-3
"""Of the penalty, as a share of the rows: columns that repeat one another have a solution."""
_AT_ONCE = 256
"""Rows whose distances are held at once."""


class FillByModel(BatchCleaner):
    """Estimates missing numbers from the other numbers of the row."""

    together: ClassVar[bool] = True
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": ["number", "whole"]},
        {"columns": "whole", "using": "number", "method": "nearest", "neighbours": 2},
    )

    columns: Names = Field(min_length=1)
    """Columns of numbers whose missing values are estimated (rounded in a column of whole numbers)."""
    using: Names = ()
    """Columns of numbers that are looked at besides, and not changed."""
    method: Literal["iterative", "nearest"] = "iterative"
    neighbours: int = Field(5, ge=1, le=1000)
    """Of `nearest`: so many training rows are averaged."""
    rows: int | None = Field(None, ge=2, le=100_000)
    """Training rows to learn from at most; 20,000 unless given, and 2,000 of `nearest`, whose facts they
    are.
    """

    @model_validator(mode="after")
    def _others(self) -> FillByModel:
        if twice := sorted(set(self.columns) & set(self.using)):
            raise mistakes(
                Problem(("using",), f"has {twice[0]!r}, which is in `columns` already")
            )
        if len(self.needs()) < 2:
            raise mistakes(
                Problem(
                    ("using",),
                    "a value is estimated from other columns: name at least one, or use `fill`",
                )
            )
        return self

    def needs(self) -> tuple[str, ...]:
        return (*self.columns, *self.using)

    def fit(self, table: ir.Table, session: EngineSession) -> dict[str, Any]:
        names = self.needs()
        for name in names:
            kind = table[name].type()
            if not (kind.is_integer() or kind.is_floating()):
                raise refuse_type("fill_by_model", table, name, "numbers")
        most = self.rows or (20_000 if self.method == "iterative" else 2_000)
        # Row ids are digests, so the smallest are a uniform sample, the same on every engine.
        drawn = table.select(ROW_ID, *names).order_by(ROW_ID).limit(most)
        pieces = [
            np.column_stack([_numbers(batch.column(name)) for name in names])
            for batch in session.batches(drawn)
            if len(batch)
        ]
        sample = np.concatenate(pieces) if pieces else np.empty((0, len(names)))
        for i, name in enumerate(names):
            if np.isnan(sample[:, i]).all():
                raise ContractError(
                    f"fill_by_model: the column {name!r} has no value among the {len(sample):,} training rows"
                    " that are learnt from. Leave it out."
                )
        mean, scale = np.nanmean(sample, axis=0), np.nanstd(sample, axis=0)
        scale[scale == 0] = 1.0
        standard = (sample - mean) / scale
        facts = {"mean": mean.tolist(), "scale": scale.tolist()}
        if self.method == "nearest":
            return facts | {
                "rows": [
                    [None if np.isnan(v) else float(v) for v in row] for row in standard
                ]
            }
        return facts | {
            "coefficients": _chained(standard).tolist(),
            "low": np.nanmin(standard, axis=0).tolist(),
            "high": np.nanmax(standard, axis=0).tolist(),
        }

    def repair(
        self, columns: Mapping[str, pa.Array], facts: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        names = self.needs()
        rows = len(next(iter(columns.values()), []))
        values = np.column_stack(
            [
                _numbers(columns[name]) if name in columns else np.full(rows, np.nan)
                for name in names
            ]
        )
        mean, scale = np.array(facts["mean"]), np.array(facts["scale"])
        asked = [i for i, name in enumerate(self.columns) if name in columns]
        # Only rows that lack something are worked on.
        lacking = np.flatnonzero(np.isnan(values[:, asked]).any(axis=1))
        standard = (values[lacking] - mean) / scale
        estimates = (
            _by_equations(standard, facts)
            if self.method == "iterative"
            else _by_neighbours(standard, asked, facts, self.neighbours)
        )
        mended = {}
        for i in asked:
            column = columns[names[i]]
            whole = np.zeros(rows)
            whole[lacking] = estimates[:, i] * scale[i] + mean[i]
            if pa.types.is_integer(column.type):
                whole = np.rint(whole)
            # What is known stays to the last bit.
            mended[names[i]] = pc.if_else(
                pa.array(np.isnan(values[:, i])),
                pa.array(whole).cast(column.type, safe=False),
                column,
            )
        return mended


def _numbers(column: pa.Array) -> np.ndarray:
    """As doubles; missing is NaN."""
    return np.asarray(
        column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64
    )


def _chained(standard: np.ndarray) -> np.ndarray:
    """Coefficients of each column's regression on the others, (columns, columns + 1): the last is the
    constant, and that of a column on itself is 0.
    """
    missing = np.isnan(standard)
    filled = np.where(missing, 0.0, standard)
    rows, width = standard.shape
    coefficients = np.zeros((width, width + 1))
    for _ in range(_ROUNDS):
        before = filled.copy()
        for i in range(width):
            others = [k for k in range(width) if k != i]
            known = ~missing[:, i]
            x = np.column_stack([filled[known][:, others], np.ones(known.sum())])
            penalty = _RIDGE * max(known.sum(), 1) * np.eye(width)
            penalty[-1, -1] = 1e-12  # the constant is not drawn to zero
            solution = np.linalg.solve(x.T @ x + penalty, x.T @ standard[known, i])
            coefficients[i, [*others, width]] = solution
            gaps = missing[:, i]
            filled[gaps, i] = _clipped(
                filled[gaps][:, others] @ solution[:-1] + solution[-1], standard[:, i]
            )
        if not rows or np.abs(filled - before).max() < _SETTLED:
            break
    return coefficients


def _clipped(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    # An estimate beyond all that was seen would run away in the next round.
    return np.asarray(np.clip(values, np.nanmin(known), np.nanmax(known)))


def _by_equations(standard: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    """`standard` with what is missing estimated; each row for the same number of rounds."""
    coefficients = np.array(facts["coefficients"])
    missing = np.isnan(standard)
    filled = np.where(missing, 0.0, standard)
    for _ in range(_ROUNDS):
        for i, (low, high) in enumerate(zip(facts["low"], facts["high"], strict=True)):
            estimate = np.full(len(filled), coefficients[i, -1])
            for k in range(filled.shape[1]):
                estimate += coefficients[i, k] * filled[:, k]
            filled[:, i] = np.where(
                missing[:, i], np.clip(estimate, low, high), filled[:, i]
            )
    return filled


def _by_neighbours(
    standard: np.ndarray, asked: Sequence[int], facts: Mapping[str, Any], count: int
) -> np.ndarray:
    """`standard` with what is missing in the columns `asked` estimated; 0, the mean, where a row shares no
    column with any other.
    """
    donors = np.array(facts["rows"], np.float64)
    filled = standard.copy()
    for start in range(0, len(standard), _AT_ONCE):
        piece = standard[start : start + _AT_ONCE]
        far = _distances(piece, donors)
        for i in asked:
            gaps = np.flatnonzero(np.isnan(piece[:, i]))
            able = np.flatnonzero(~np.isnan(donors[:, i]))
            reach = far[np.ix_(gaps, able)]
            # Stable: of equally near rows those with the smaller ids.
            order = np.argsort(reach, axis=1, kind="stable")[:, :count]
            near = np.isfinite(np.take_along_axis(reach, order, axis=1))
            values = np.where(near, donors[able, i][order], 0.0)
            total = np.zeros(len(gaps))
            for k in range(values.shape[1]):
                total += values[:, k]
            filled[start + gaps, i] = total / np.maximum(near.sum(axis=1), 1)
    return filled


def _distances(rows: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Mean squared differences over the columns that both have, (rows, donors); infinite without any."""
    total = np.zeros((len(rows), len(donors)))
    shared = np.zeros_like(total)
    for k in range(rows.shape[1]):
        apart = (rows[:, k, None] - donors[None, :, k]) ** 2
        both = ~np.isnan(apart)
        total += np.where(both, apart, 0.0)
        shared += both
    return np.where(shared > 0, total / np.maximum(shared, 1), np.inf)
