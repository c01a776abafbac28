"""Vectors one component of which is the target, or that are its one-hot code."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.inspect.leaks.evidence import Clues, Column, Leak, Question
from penstock.metrics.same_number import same_number

_MOST = 64
"""Components of a vector that are looked at; longer ones are embeddings."""


def told_by_parts(column: Column, question: Question) -> Clues:
    """Judge each component, and which is the greatest."""
    raw = column.look.raw.take(question.rows)
    if not _is_numeric(raw.type.value_type):
        return Clues()
    lengths = pc.list_value_length(raw)
    if raw.null_count or not len(raw) or pc.max(lengths).as_py() > _MOST:
        return Clues()
    if pc.min(lengths).as_py() != pc.max(lengths).as_py():
        return Clues()
    # Doubles first: whole numbers have no NaN for what is missing.
    flat = pc.cast(pc.list_flatten(raw), pa.float64(), safe=False)
    table = np.asarray(flat.fill_null(float("nan"))).reshape(len(raw), -1)
    if not table.shape[1]:
        return Clues()
    if question.is_number:
        for i in range(table.shape[1]):
            if how := same_number(table[:, i], question.numbers):
                return Clues([Leak(column.name, f"its component {i + 1}: {how}", 0.9)])
        return Clues()
    if not question.is_class:
        return Clues()
    greatest = np.nan_to_num(table, nan=-np.inf).argmax(axis=1)
    judged = question.by_value(greatest)
    if judged.almost_perfect(cells=table.shape[1]):
        why = f"its greatest component tells the class; {judged.words}"
        return Clues([Leak(column.name, why, 0.9)])
    for i in range(table.shape[1]):
        judged = question.by_order(table[:, i])
        if judged.almost_perfect(cells=100):
            why = f"its component {i + 1} tells the class; {judged.words}"
            return Clues([Leak(column.name, why, 0.9)])
    return Clues()


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    )
