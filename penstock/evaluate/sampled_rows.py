"""The rows of the sample that intervals, slices and the classical model need together."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.contracts.summary import lowest, sample_keys
from penstock.evaluate.readable import Readable


@dataclass
class SampledRows:
    """A batch's rows that belong to the sample; a `sample.Piece`."""

    keys: np.ndarray
    """Of the row ids' hash, `[rows]`: what decides which rows stay."""
    columns: dict[str, pa.Array]
    extra: dict[str, pa.Array]
    truth: dict[str, np.ndarray]
    answers: dict[str, dict[str, np.ndarray]]
    weight: np.ndarray | None
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    """By input that is a picture its simple features, float32 `[rows, D]`, where they are asked for."""

    @classmethod
    def of(
        cls,
        rows: Readable,
        answers: Mapping[str, dict[str, np.ndarray]],
        inputs: Iterable[str],
        extra: Sequence[str],
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> SampledRows:
        """Take all rows of a batch, without the bytes of pictures.

        Args:
            rows: the batch's.
            answers: by target and answer, `[rows, …]`.
            inputs: the features whose canonical columns are kept.
            extra: raw columns that are kept.
            pictures: simple features of the inputs that are pictures.
        """
        return cls(
            # The hash of the row id, not its place: the sample does not depend on the
            # order.
            sample_keys(rows.table.column(ROW_ID).combine_chunks()),
            {name: _without_bytes(_array(rows.columns[name])) for name in inputs},
            {name: _array(rows.table.column(name)) for name in extra},
            rows.truth,
            {name: dict(answer) for name, answer in answers.items()},
            rows.weight,
            dict(pictures or {}),
        )

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """The bytes that the rows take, texts included."""
        columns: int = sum(
            column.nbytes for column in (*self.columns.values(), *self.extra.values())
        )
        arrays = [*self.truth.values(), *self.pictures.values()]
        for answer in self.answers.values():
            arrays += answer.values()
        return columns + sum(_nbytes(array) for array in arrays)

    def below(self, share: float) -> SampledRows:
        """Return the rows whose keys are in the lowest `share`."""
        # By the id's hash, so that each pass over the data keeps the same rows.
        mask = lowest(self.keys, share)
        if mask.all():
            return self
        arrow = pa.array(mask)
        return SampledRows(
            self.keys[mask],
            {name: column.filter(arrow) for name, column in self.columns.items()},
            {name: column.filter(arrow) for name, column in self.extra.items()},
            {name: truth[mask] for name, truth in self.truth.items()},
            {
                name: {a: v[mask] for a, v in answer.items()}
                for name, answer in self.answers.items()
            },
            None if self.weight is None else self.weight[mask],
            {name: values[mask] for name, values in self.pictures.items()},
        )


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    # Dictionaries differ from batch to batch, and could not be joined.
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _nbytes(array: np.ndarray) -> int:
    """Return an array's bytes, those of its texts included."""
    return int(array.nbytes) + (
        sum(sys.getsizeof(value) for value in array.flat) if array.dtype == object else 0
    )


def _without_bytes(column: pa.Array) -> pa.Array:
    """Replace bytes by nulls: no slice and no classical model reads a picture, and they
    would fill the memory.
    """
    return (
        pa.nulls(len(column), column.type)
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
        else column
    )
