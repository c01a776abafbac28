"""Arrays of rows on disk, written once and read often, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from penstock.labels.hashed import Sparse


class Spool:
    """Pieces of rows in one file: each a row of arrays, whatever their lengths.

    Args:
        path: where it goes.
        names: of the arrays.
        kinds: of their elements.
    """

    def __init__(self, path: Path, names: list[str], kinds: list[pa.DataType]) -> None:
        self._path = path
        self._schema = pa.schema(
            [(name, pa.large_list(kind)) for name, kind in zip(names, kinds, strict=True)]
        )
        self._writer = pa.ipc.new_stream(str(path), self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, **arrays: np.ndarray) -> None:
        """Add a piece: each array flat."""
        columns = []
        for field in self._schema:
            values = pa.array(arrays[field.name].ravel(), field.type.value_type)
            ends = pa.array([0, len(values)], pa.int64())
            columns.append(pa.LargeListArray.from_arrays(ends, values))
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        """End the file; it can be read from now on."""
        self._writer.close()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """The pieces, in order."""
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield {
                    name: np.asarray(batch.column(name).flatten())
                    for name in self._schema.names
                }


def row_spool(path: Path) -> Spool:
    """A spool of hashed rows with their keys and labels."""
    names = ["keys", "given", "starts", "places", "weights"]
    kinds = [pa.uint64(), pa.int64(), pa.int64(), pa.int32(), pa.float32()]
    return Spool(path, names, kinds)


def regrouped(
    pieces: Iterable[dict[str, np.ndarray]], rows: int
) -> Iterator[dict[str, np.ndarray]]:
    """The rows of pieces of `row_spool` in pieces of so many rows each; the last may be shorter."""
    waiting: list[dict[str, np.ndarray]] = []
    number = 0
    for piece in pieces:
        waiting.append(piece)
        number += len(piece["given"])
        while number >= rows:
            whole = _joined(waiting)
            yield _cut(whole, 0, rows)
            number -= rows
            waiting = [_cut(whole, rows, rows + number)]
    if number:
        yield _joined(waiting)


def _joined(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    flat = ("keys", "given", "places", "weights")
    joined = {name: np.concatenate([p[name].ravel() for p in pieces]) for name in flat}
    lengths = np.concatenate([np.diff(piece["starts"]) for piece in pieces])
    return joined | {"starts": np.concatenate([[0], np.cumsum(lengths)])}


def _cut(piece: dict[str, np.ndarray], start: int, end: int) -> dict[str, np.ndarray]:
    starts = piece["starts"][start : end + 1]
    span = slice(starts[0], starts[-1])
    return {
        "keys": piece["keys"][2 * start : 2 * end],
        "given": piece["given"][start:end],
        "starts": starts - starts[0],
        "places": piece["places"][span],
        "weights": piece["weights"][span],
    }


def sparse_of(piece: dict[str, np.ndarray]) -> Sparse:
    """The rows of a piece of `row_spool`."""
    return Sparse(piece["starts"], piece["places"], piece["weights"])
