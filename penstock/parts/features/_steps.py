"""Steps of variables as arrays `[n, T, V]`: from and to columns of lists, gaps filled, their statistics."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.summary import Moments, Summary
from penstock.parts.features import _lists, _raw

CANONICAL = pa.list_(pa.float64())
"""A row's steps one after another, each with its variables: `steps · variables` numbers."""


class Variables(Summary):
    """Moments of each variable, and how far it moves from one step to the next (what the naive forecast errs
    by).
    """

    def __init__(self, steps: int, variables: int) -> None:
        self.steps = steps
        self.count = 0
        self.variables = [Moments() for _ in range(variables)]
        self.moves = [Moments() for _ in range(variables)]

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        values, there = matrix(column, self.steps, len(self.variables))
        self.count += len(column)
        # `[n, T - 1, V]`, from each step to the next.
        moved = np.abs(np.diff(values, axis=1))
        # A change counts only between two neighbouring steps that were both observed.
        both = there[:, 1:] & there[:, :-1]
        for i, moments in enumerate(self.variables):
            moments.update(
                pa.array(values[:, :, i].ravel(), mask=~there[:, :, i].ravel()), row_ids
            )
            if self.steps > 1:
                self.moves[i].update(pa.array(moved[:, :, i][both[:, :, i]]), row_ids)

    def merge(self, other: Self) -> None:
        self.count += other.count
        for mine, theirs in zip(
            [*self.variables, *self.moves], [*other.variables, *other.moves], strict=True
        ):
            mine.merge(theirs)

    def result(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "variables": [moments.result() for moments in self.variables],
            "naive": [moves.result()["mean"] for moves in self.moves],
        }


def matrix(column: pa.Array, steps: int, variables: int) -> tuple[np.ndarray, np.ndarray]:
    """A canonical column as doubles `[n, T, V]`, 0 where missing, and where there is a value (bool `[n, T,
    V]`).
    """
    whole = _raw.present(column)
    flat = np.full((len(column), steps * variables), np.nan)
    # `list_flatten` skips null rows; the rest is what `whole` has room for.
    flat[whole] = _lists.doubles(pc.list_flatten(column)).reshape(-1, steps * variables)
    values: np.ndarray = flat.reshape(-1, steps, variables)
    there = ~np.isnan(values)
    return np.where(there, values, 0.0), there


def filled(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Gaps along axis 1 of `[n, T, V]` filled with the value before, at the beginning with the first one
    after; 0 where there is none.
    """
    steps = np.arange(values.shape[1])[None, :, None]
    # The last observed step at or before each one, -1 if none; then the first at or
    # after, T if none.
    before = np.maximum.accumulate(np.where(there, steps, -1), axis=1)
    after = np.minimum.accumulate(
        np.where(there, steps, values.shape[1])[:, ::-1], axis=1
    )[:, ::-1]
    # Without any observed step each is its own source, which holds 0.
    source = np.where(
        before >= 0, before, np.where(after < values.shape[1], after, steps)
    )
    return np.take_along_axis(values, np.broadcast_to(source, values.shape), axis=1)


def nested(values: np.ndarray) -> pa.Array:
    """`[n, T, V]` as lists of lists of numbers; `[n, T, 1]` as lists of numbers."""
    _, steps, variables = values.shape
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    inner = flat if variables == 1 else _lists.in_lists_of(flat, variables)
    return _lists.in_lists_of(inner, steps)
