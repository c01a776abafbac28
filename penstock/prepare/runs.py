"""Files of a split that were written one after another, and the one order of their rows.

A version that was made of an older one and new files has the older one's files and its own beside them. Each
such run of files is in the order of row ids by itself; readers merge the runs, so that rows come in the order
in which preparing all files would have written them.

    part-0.parquet, part-1.parquet           the first run
    run-01-part-0.parquet                    the second
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID

_RUN = re.compile(r"run-(\d{2,})-")
_GROUP_ROWS = 65_536


def run_of(file: str) -> int:
    """The number of the run that a file is of, by its name; 0 for the first."""
    match = _RUN.match(file.rsplit("/", 1)[-1])
    return int(match[1]) if match else 0


def in_run(file: str, number: int) -> str:
    """A file's path, in the run of that number.

    >>> in_run("rows/split=train/part-0.parquet", 1)
    'rows/split=train/run-01-part-0.parquet'
    """
    folder, slash, name = file.rpartition("/")
    return f"{folder}{slash}run-{number:02d}-{name}" if number else file


def runs_of(files: Iterable[str]) -> list[list[str]]:
    """Files of a split by their runs; within a run in the order of rows."""
    runs: dict[int, list[str]] = {}
    for file in sorted(files):
        runs.setdefault(run_of(file), []).append(file)
    return [runs[number] for number in sorted(runs)]


def merged(
    streams: Sequence[Iterator[pa.RecordBatch]], rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches of several runs as one sequence in the order of row ids, `rows` in each but the last.

    Memory: a batch of each run, and one more.
    """
    heads = [_next(stream) for stream in streams]
    waiting: list[pa.Table] = []
    count = 0
    while any(head is not None for head in heads):
        # All rows up to here are known: each run goes on behind it.
        limit = min(head[ROW_ID][-1].as_py() for head in heads if head is not None)
        pieces = []
        for at, head in enumerate(heads):
            if head is None:
                continue
            taken = pc.sum(pc.less_equal(head[ROW_ID], limit)).as_py() or 0
            pieces.append(head.slice(0, taken))
            heads[at] = head.slice(taken) if taken < len(head) else _next(streams[at])
        table = _in_order([piece for piece in pieces if len(piece)])
        waiting.append(table)
        count += len(table)
        while count >= rows:
            whole = _joined(waiting)
            yield _batch(whole.slice(0, rows))
            waiting, count = [whole.slice(rows)], count - rows
    if count:
        yield _batch(_joined(waiting))


def _next(stream: Iterator[pa.RecordBatch]) -> pa.Table | None:
    for batch in stream:
        if batch.num_rows:
            return pa.Table.from_batches([batch])
    return None


def _in_order(pieces: Sequence[pa.Table]) -> pa.Table:
    if len(pieces) == 1:
        return pieces[0]
    table = _joined(pieces)
    return table.take(pc.sort_indices(table[ROW_ID]))


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    # Each batch has dictionaries of its own, where columns come as such.
    return pa.concat_tables(tables).unify_dictionaries()


def _batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def write_merged(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, target: Path
) -> Path:
    """Write rows that are in order as one Parquet file, for readers that need files in that order."""
    with pq.ParquetWriter(
        target, schema, compression="zstd", compression_level=1
    ) as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=_GROUP_ROWS)
    return target
