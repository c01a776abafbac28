"""Labels of a row, read from a delimited text, a list, or columns of 0 and 1.

The canonical form is the list of a row's different labels in their own order: numbers by size, then words by
spelling; by the declared names where there are any. An empty list is "none of them", null is "nothing is
known".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.features import NOBODY, Refused
from penstock.parts.features import _lists, _raw

# A row's different labels in order; an empty list is "none of them", null is "nothing
# is known".
CANONICAL = pa.list_(pa.string())
Parted = Callable[[Any], Sequence[str | None] | None]


def from_texts(
    text: pa.Array, names: Sequence[str], parted: Parted
) -> tuple[pa.Array, Refused]:
    """The labels of texts, null where the text is, and the rows that are refused.

    Args:
        names: the labels' names, whose places from 0 the texts may have; empty where labels have no names.
        parted: a text as its labels; None where it is no list in brackets, and should be.
    """
    # Each different text is split and judged once, then spread over the rows that hold it.
    encoded = text.dictionary_encode()
    labels, unknown = _known(encoded.dictionary.to_pylist(), names, parted)
    # -1 is a null; `_taken` makes it null again.
    index = np.asarray(
        pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), np.int64
    )
    return _taken(labels, index, _spread(unknown, index))


def from_lists(
    column: pa.Array, names: Sequence[str], na: Sequence[str], *, null_is_none: bool
) -> tuple[pa.Array, Refused]:
    """The labels of a column of lists, and the rows that are refused.

    Args:
        names: the labels' names, whose places from 0 the lists may have; empty where labels have no names.
        na: texts that mean a missing value.
        null_is_none: whether a null list is a row without labels.
    """
    kind = column.type.value_type
    there = _raw.present(column) | null_is_none
    if pa.types.is_nested(kind):
        return pa.nulls(len(column), CANONICAL), _raw.refusing(
            column,
            there,
            lambda value: f"expected a list of labels, found {_raw.shown(value)}",
        )
    # Null lists have no items here and length 0 below, so items and ends agree.
    flat, undecoded = _raw.texts(_raw.plain(pc.list_flatten(column)), na)
    lengths = _lists.lengths(column)
    owner = np.repeat(np.arange(len(column)), lengths)
    values, ends = flat.to_pylist(), np.cumsum(lengths).tolist()
    rows = [
        values[end - length : end] if known else None
        for end, length, known in zip(ends, lengths.tolist(), there.tolist(), strict=True)
    ]
    labels, refused = _known(rows, names, lambda value: value)
    # A refused item refuses the row that holds it.
    bad = owner[undecoded.rows] if len(undecoded.rows) else undecoded.rows
    first = {
        # Reversed, so that the dict keeps the reason of a row's first bad item.
        int(row): reason
        for row, reason in reversed(
            list(zip(bad.tolist(), undecoded.reasons, strict=True))
        )
    }
    spoilt = (
        Refused(np.array(sorted(first), np.int64), [first[row] for row in sorted(first)])
        if first
        else NOBODY
    )
    return _taken(labels, np.arange(len(column)), _raw.together(spoilt, refused))


def _known(
    rows: Sequence[Any], names: Sequence[str], parted: Parted
) -> tuple[pa.Array, Refused]:
    """Each row's labels in order, and the rows with one that `names` does not know."""
    # Labels stand in the order of `names`, whatever their spelling.
    places = {name: i for i, name in enumerate(names)}
    known: list[list[str] | None] = []
    bad: dict[int, str] = {}
    for row, value in enumerate(rows):
        if value is None:
            known.append(None)
            continue
        parts = parted(value)
        if parts is None:
            bad[row] = (
                f"{_raw.shown(value)} is no list in brackets, such as ['a', 'b'] (`brackets: true`)"
            )
            known.append(None)
            continue
        # As a set, a label that stands twice counts once; an empty piece (`a,,b`)
        # is no label.
        labels = {label.strip() for label in parts if label is not None} - {""}
        if names:
            # Sorted, since the order of a set changes from process to process and a
            # reason must not.
            wrong = sorted(
                label
                for label in labels
                if label not in places and not _is_place(label, len(places))
            )
            if wrong:
                bad[row] = (
                    f"{_raw.shown(wrong[0])} is neither one of the {len(places)} `names` nor a place from"
                    f" 0 to {len(places) - 1} among them"
                )
                known.append(None)
                continue
            # A label that is spelt like a name is that name, even where it could be
            # a place.
            labels = {label if label in places else names[int(label)] for label in labels}
            known.append(sorted(labels, key=places.__getitem__))
        else:
            known.append(sorted(labels, key=order_of))
    return pa.array(known, CANONICAL), (
        Refused(np.array(list(bad), np.int64), list(bad.values())) if bad else NOBODY
    )


def side_by_side(
    columns: Sequence[pa.Array], names: Sequence[str], na: Sequence[str]
) -> tuple[pa.Array, Refused]:
    """The labels of columns of 0 and 1, one for each of `names`, and the rows that have another value."""
    rows = len(columns[0])
    # bool [n, K]: where a mark is 1, and where a mark could be read.
    marked, known, refused = (
        np.zeros((rows, len(columns)), bool),
        np.zeros((rows, len(columns)), bool),
        [],
    )
    for i, (name, column) in enumerate(zip(names, columns, strict=True)):
        numbers, bad = _raw.numbers(_raw.plain(column), na)
        # -1 stands for missing; `there` keeps it out of what is judged.
        values = np.asarray(
            pc.fill_null(numbers, -1.0).to_numpy(zero_copy_only=False), np.float64
        )
        there = _raw.present(numbers)
        odd = there & (values != 0) & (values != 1)
        refused += [
            Refused(bad.rows, [f"{name}: {reason}" for reason in bad.reasons]),
            _raw.refusing(numbers, odd, functools.partial(_not_a_mark, name)),
        ]
        marked[:, i], known[:, i] = values == 1, there
    # A refused value is null as well, and its row must not be told that a mark is
    # missing.
    gone = np.isin(np.arange(rows), np.concatenate([some.rows for some in refused]))
    part = known.any(axis=1) & ~known.all(axis=1) & ~gone
    # The first column without a mark, in the declared order.
    lacking = [
        next(name for name, there in zip(names, known[row], strict=True) if not there)
        for row in np.flatnonzero(part)
    ]
    refused.append(
        Refused(
            np.flatnonzero(part),
            [
                f"{name} is missing, while others of its columns are not"
                for name in lacking
            ],
        )
    )
    # In `order_of`, as the same labels from a list would be, not in the order of
    # columns.
    order = sorted(range(len(names)), key=lambda i: order_of(names[i]))
    labels = [
        [names[i] for i in order if marked[row, i]] if known[row].all() else None
        for row in range(rows)
    ]
    return _taken(pa.array(labels, CANONICAL), np.arange(rows), _raw.together(*refused))


def order_of(value: str) -> tuple[int, float, str]:
    """Numbers by size before words by spelling."""
    try:
        number = float(value)
    except ValueError:
        return (1, 0.0, value)
    # NaN compares with nothing and would leave the order open, so it is a word.
    return (0, number, value) if number == number else (1, 0.0, value)


def _is_place(label: str, count: int) -> bool:
    # `isdigit` alone takes digits such as ², which `int` refuses.
    return label.isascii() and label.isdigit() and int(label) < count


def _spread(refused: Refused, index: np.ndarray) -> Refused:
    """Refused dictionary entries as the rows that hold them."""
    if not len(refused.rows):
        return NOBODY
    reasons = dict(zip(refused.rows.tolist(), refused.reasons, strict=True))
    rows = np.flatnonzero(np.isin(index, refused.rows))
    return Refused(rows, [reasons[i] for i in index[rows].tolist()])


def _taken(
    labels: pa.Array, index: np.ndarray, refused: Refused
) -> tuple[pa.Array, Refused]:
    """The entries of `labels` by row, null where refused."""
    gone = (index < 0) | np.isin(np.arange(len(index)), refused.rows)
    # A masked place comes out null; 0 only fills it.
    return labels.take(pa.array(np.where(gone, 0, index), mask=gone)), refused


def _not_a_mark(name: str, value: float) -> str:
    return f"{name}: {value:g} is neither 0 nor 1"
