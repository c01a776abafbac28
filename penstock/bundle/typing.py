"""Brings rows of any origin to the types that were learnt, value by value, so that no
answer depends on a row's neighbours.

    learnt int64    [7, "7", "7.0", "A7"]  → 7, 7, 7 in one piece, "A7" in another

What is not of its column's type stays what it is, and the feature says of it what it says of it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.bundle.mixed import Mixed
from penstock.contracts.learnt import Learnt
from penstock.formats.learnt import KEPT, MISFIT, fit, learnt_type
from penstock.formats.respelt import Respelling


class Typing:
    """The types of raw columns, and the words with which the training data was read.

    Args:
        columns: the columns that a request must have, with their types in training.
        learnt: how the training data was read; its types are those of other columns too.
    """

    def __init__(self, columns: Mapping[str, pa.DataType], learnt: Learnt | None) -> None:
        known = (
            {column.name: column.type for column in learnt.schema}
            if learnt is not None
            else {}
        )
        # A type that has no learnt reading (lists, bytes) stays as it comes.
        kinds = {name: learnt_type(kind) for name, kind in {**known, **columns}.items()}
        self._kinds = {name: kind for name, kind in kinds.items() if kind is not None}
        self._forced = learnt.types() if learnt is not None else {}
        self._na = learnt.na() if learnt is not None else ()
        words = learnt.reading if learnt is not None else {}
        self._respelt = {name: Respelling.of(words, name) for name in self._kinds}

    def typed(
        self, table: pa.Table, mixed: Mapping[str, Mixed]
    ) -> tuple[pa.Table, dict[str, Mixed]]:
        """Return the rows in learnt types; a column whose values now have several types
        moves from the table to the mixed ones.
        """
        pieces = dict(mixed)
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        present = set(table.column_names)
        for name in table.column_names:
            beside = MISFIT + name
            if name.startswith((MISFIT, KEPT)):
                # Helper columns of reading files; they are looked up beside their own
                # column.
                continue
            if beside in present:  # read from files by these types already
                columns[name] = table[name]
                _put(
                    name,
                    one_array(table[name]),
                    one_array(table[beside]),
                    columns,
                    pieces,
                )
            elif name in self._kinds:
                columns[name] = table[name]
                self._type(name, table[name], columns, pieces)
            else:
                columns[name] = table[name]
        for name, column in mixed.items():
            if name in self._kinds:
                pieces[name] = self._pieces(name, column)
        # A table without columns has no rows: one of nulls keeps their number.
        rest = pa.table(columns) if columns else pa.table({"": pa.nulls(table.num_rows)})
        return rest, pieces

    def _type(
        self,
        name: str,
        column: pa.ChunkedArray,
        columns: dict[str, pa.Array | pa.ChunkedArray],
        pieces: dict[str, Mixed],
    ) -> None:
        kind = self._kinds[name]
        # Words for missing values concern even a column that has the right type.
        if not self._na and (
            column.type.equals(kind)
            or (
                pa.types.is_dictionary(column.type)
                and column.type.value_type.equals(kind)
            )
        ):
            return
        array = one_array(column)
        if not self._concerns(array.type, kind):
            return
        good, others = self._fit(name, array)
        _put(name, good, others, columns, pieces)

    def _fit(self, name: str, array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
        return fit(
            array,
            self._kinds[name],
            forced=self._forced.get(name),
            na=self._na,
            respelling=self._respelt[name],
        )

    def _concerns(self, here: pa.DataType, kind: pa.DataType) -> bool:
        """Whether values of type `here` are converted to the learnt type `kind`: texts
        always; numbers, truth values and moments where such were learnt.
        """
        t = pa.types
        if t.is_dictionary(here):
            return self._concerns(here.value_type, kind)
        if t.is_string(here) or t.is_large_string(here) or t.is_string_view(here):
            return True
        if here.equals(kind):
            return False
        if t.is_timestamp(here) or t.is_date(here):
            # Moments and dates are read only where moments were learnt.
            return bool(t.is_timestamp(kind))
        plain = (
            t.is_boolean(here)
            or t.is_integer(here)
            or t.is_floating(here)
            or t.is_decimal(here)
        )
        return bool(
            plain and (t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind))
        )

    def _pieces(self, name: str, column: Mixed) -> Mixed:
        """Convert the pieces of a mixed column; what does not fit becomes a piece of
        its own.
        """
        labels = np.zeros(len(column.labels), np.int64)
        pieces: list[pa.Array] = []
        for label, piece in enumerate(column.pieces):
            rows = np.flatnonzero(column.labels == label)
            good, others = (
                self._fit(name, piece)
                if self._concerns(piece.type, self._kinds[name])
                else (piece, None)
            )
            apart = np.zeros(len(piece), bool) if others is None else _present(others)
            # Two labels a piece: what fits, and what does not.
            labels[rows] = np.where(apart, len(pieces) + 1, len(pieces))
            pieces += [
                good.filter(pa.array(~apart)),
                (others if others is not None else good.slice(0, 0)).filter(
                    pa.array(apart) if others is not None else pa.array([], pa.bool_())
                ),
            ]
        return Mixed(labels, pieces)


def _put(
    name: str,
    good: pa.Array,
    others: pa.Array | None,
    columns: dict[str, pa.Array | pa.ChunkedArray],
    pieces: dict[str, Mixed],
) -> None:
    """Put a column among `columns` if all its values fit, otherwise in two pieces into
    `pieces`.
    """
    # Every value fits.
    if others is None or others.null_count == len(others):
        columns[name] = good
        return
    apart = _present(others)
    del columns[name]
    pieces[name] = Mixed(
        apart.astype(np.int64),
        [good.filter(pa.array(~apart)), others.filter(pa.array(apart))],
    )


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array, copied only where it has several pieces."""
    if isinstance(column, pa.Array):
        return column
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], column.type)
    )


def _present(column: pa.Array) -> np.ndarray:
    return np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), bool)


def respelt(learnt: Learnt, here: pa.Schema, columns: Sequence[str]) -> list[str]:
    """Return the columns that were texts in training and have another type here. Their
    spelling (`1.50`, `True`) is lost, so values may not be found among those learnt.
    """
    lost: list[str] = []
    for name in columns:
        if name in learnt.schema.names and name in here.names:
            there, own = (
                learnt_type(learnt.schema.field(name).type),
                learnt_type(here.field(name).type),
            )
            if (
                there is not None
                and own is not None
                and pa.types.is_string(there)
                and not pa.types.is_string(own)
            ):
                lost.append(name)
    return lost
