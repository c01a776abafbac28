"""Rows whose values are partly of another type than was learnt, accepted as they are: each value for what it
is.

Where files were read by learnt types, a column has its values, and beside it those that are not of its type,
as texts (`formats.learnt`). Rows are taken together by which of their columns have such a text, so that no
row changes how another is read.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.core.errors import Problem
from penstock.encode.encoding import Accepted, Encoding
from penstock.formats.learnt import MISFIT


def accept(encoding: Encoding, table: pa.Table, *, targets: bool) -> Accepted:
    """`Encoding.accept` for a table with texts beside its columns."""
    odd = {
        name: mask
        for name in encoding.columns(targets=targets)
        if (mask := misfits(table, name)) is not None
    }
    if not odd:
        return encoding.accept(table, targets=targets)
    # Rows with texts in the same columns have the same number.
    pattern = np.zeros(table.num_rows, np.int64)
    for mask in odd.values():
        pattern = pattern * 2 + mask
        pattern = np.unique(pattern, return_inverse=True)[
            1
        ]  # as many numbers as there are patterns
    places: list[np.ndarray] = []
    parts: list[Accepted] = []
    # One table a pattern, in which each odd column holds nothing but texts.
    for each in np.unique(pattern):
        rows = np.flatnonzero(pattern == each)
        some = table.take(pa.array(rows))
        for name, mask in odd.items():
            # All rows of a pattern have it in the same columns, so the first speaks for
            # all.
            if mask[rows[0]]:
                some = some.set_column(
                    some.column_names.index(name), name, some[MISFIT + name]
                )
        places.append(rows)
        parts.append(encoding.accept(some, targets=targets))
    return _merged(table.num_rows, places, parts)


def misfits(table: pa.Table, name: str) -> np.ndarray | None:
    """Which values of a column are not of its type, bool `[n]`; None where all are."""
    if MISFIT + name not in table.column_names:
        return None
    mask = np.asarray(table[MISFIT + name].is_valid().to_numpy(), bool)
    return mask if mask.any() else None


def note(table: pa.Table, name: str, accepted: Accepted, text: str) -> None:
    """Refuse the rows of a column that names or orders rows, where its value is not of its type."""
    mask = misfits(table, name)
    for row in np.flatnonzero(mask).tolist() if mask is not None else ():
        cell = table[MISFIT + name][row].as_py()
        # What the feature said of the null in its place says less than the text that
        # was found.
        accepted.refused[row] = [
            p for p in accepted.refused.get(row, []) if p.path != (name,)
        ]
        accepted.refused[row].append(Problem((name,), f"is {cell[:80]!r}, {text}"))


def _merged(rows: int, places: list[np.ndarray], parts: list[Accepted]) -> Accepted:
    whole = Accepted(rows)
    # `places` is a permutation of the rows, and its argsort undoes it.
    order = pa.array(np.argsort(np.concatenate(places), kind="stable"))
    for name in parts[0].columns:
        whole.columns[name] = pa.concat_arrays(
            # Pieces may have come with different dictionaries.
            [_plain(part.columns[name]) for part in parts]
        ).take(order)
    for row_numbers, part in zip(places, parts, strict=True):
        for row, problems in part.refused.items():
            whole.refused[int(row_numbers[row])] = problems
    if parts[0].weight is not None:
        whole.weight = np.concatenate(
            [part.weight for part in parts if part.weight is not None]
        )[np.asarray(order)]
    return whole


def _plain(column: pa.Array) -> pa.Array:
    return (
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    )
