"""Narrow columns put beside the rows of a wide table, row by row, where DuckDB's joins would hold the wide
rows.

DuckDB reserves 2,048 values of every column in each step of a query: 80 MiB for 5,000 columns, many times
over in a join or a window. So what concerns few columns (splits, duplicates, broken promises) is worked out
on those alone, and its result is put beside the wide rows here, as they stream by. What is held is the narrow
table: some bytes a row, beside rows of many kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import PLACE, ROW_FILE, ROW_NUMBER

_ROW_BITS = 44
"""Of a place's key: a file may have so many rows; the bits above are the file's number."""


class Beside:
    """Narrow columns, looked up by the place (file and row number) of a row.

    Args:
        narrow: has `PLACE`, each place once, and the columns to be given.
    """

    def __init__(self, narrow: pa.Table) -> None:
        keys = _keys(narrow)
        # Sorted once, so that each batch finds its rows by bisection and nothing is
        # hashed.
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._columns = (
            narrow.drop_columns(list(PLACE)).take(pa.array(order)).combine_chunks()
        )

    def columns(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """The narrow columns for the rows of `batch`; null in rows whose place they lack."""
        if not len(self._keys):
            # Without any row there is no last one to clip to.
            return [pa.nulls(len(batch), kind) for kind in self._columns.schema.types]
        keys = _keys(batch)
        # A key past the last would get an index one too high; the mask below makes such
        # rows null.
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        index = pa.array(place, mask=self._keys[place] != keys)
        return [_whole(column.take(index)) for column in self._columns.columns]

    def write(
        self,
        batches: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        path: Path,
        *,
        group_rows: int,
    ) -> None:
        """Write `batches`, which have `schema`, with the narrow columns beside them, to one Parquet
        file.
        """
        whole = pa.schema([*schema, *self._columns.schema])
        # lz4 and no Arrow schema: a scratch file that the engine reads back within the
        # same preparation.
        with pq.ParquetWriter(
            path,
            whole,
            compression="lz4",
            use_dictionary=_texts(whole),
            store_schema=False,
        ) as writer:
            for batch in batches:
                arrays = [*batch.columns, *self.columns(batch)]
                writer.write_table(
                    pa.Table.from_arrays(arrays, schema=whole), row_group_size=group_rows
                )


def _keys(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    file, row = (
        np.asarray(_whole(rows.column(name)).cast(pa.int64()))
        for name in (ROW_FILE, ROW_NUMBER)
    )
    # One int64 for both: the file's number above, the row's below, so keys order as
    # places do.
    keys: np.ndarray = (file << _ROW_BITS) + row
    return keys


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return (
            pa.concat_arrays(column.chunks)
            if column.num_chunks
            else pa.array([], column.type)
        )
    return column


def _texts(schema: pa.Schema) -> list[str] | bool:
    return [field.name for field in schema if pa.types.is_string(field.type)] or False
