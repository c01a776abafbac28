"""A sort for rows that are many and wide, in the order of a hash: dealt out to buckets by the hash, and each bucket sorted alone.

DuckDB's sort leaves the values of a run where they came in, so that 2,048 rows in the new order may need as many blocks of
256 KiB at once: rows of some kilobytes cannot be sorted within half a gigabyte (measured on 1.5.6: 300,000 rows of 4.5 kB).
A hash is uniform, so its first bits tell beforehand where a row belongs (a distribution sort, as in external radix
sorting; Knuth, The Art of Computer Programming 3, 5.4.9): each row is written twice and read twice, whatever the memory.

Buckets are sorted and written by several threads, each into files of its own, named in their order.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.summary import id_halves

_MOST_BUCKETS = 256
"""Files that are open at once."""
_WHOLE = 1 << 64


@dataclass(frozen=True)
class Ways:
    """How much at once."""

    group_rows: int
    """Of a row group, and about of a bucket."""
    hands: int
    """Threads; each sorts a bucket."""
    held_bytes: int
    """Rows that are gathered before they are dealt out."""
    compression: str | None
    """Of the buckets."""


def write_in_order(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, scratch: Path, *, key: str, rows: int, ways: Ways) -> int:
    """Write all rows to Parquet files in `folder` in the order of `key`, a column of md5 digests; returns how many there were.

    Args:
        rows: about how many there will be.
        scratch: a folder for the buckets, made and removed here.
    """
    scratch.mkdir(parents=True)
    try:
        buckets = list(_dealt(batches, schema, scratch, key=key, rows=rows, first=0, span=_WHOLE, ways=ways))
        shares = _shares([count for _, count in buckets], 1 if sum(count for _, count in buckets) <= 4 * ways.group_rows else ways.hands)
        names = ["part-0.parquet"] if len(shares) == 1 else [f"part-{i:03d}.parquet" for i in range(len(shares))]
        with ThreadPoolExecutor(ways.hands, thread_name_prefix="penstock-sort") as pool:
            parts = [pool.submit(_written, [path for path, _ in buckets[share]], schema, folder / name, key=key, ways=ways) for share, name in zip(shares, names, strict=True)]
            return sum(part.result() for part in parts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _dealt(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, *, key: str, rows: int, first: int, span: int, ways: Ways) -> Iterator[tuple[Path, int]]:
    """The rows whose key is in `[first, first + span)` as files of about `group_rows`, in the order of their keys, with their numbers of rows."""
    number = min(max(-(-rows // ways.group_rows), 1), _MOST_BUCKETS)
    width = -(-span // number)
    paths = [folder / f"{i:03d}.arrow" for i in range(number)]
    counts = np.zeros(number, np.int64)
    options = pa.ipc.IpcWriteOptions(compression=ways.compression, use_threads=False)
    writers: dict[int, pa.RecordBatchFileWriter] = {}
    try:
        for table in _gathered(batches, schema, ways.held_bytes):
            keys = id_halves(table[key].combine_chunks())[:, 0]
            places = ((keys - np.uint64(first)) // np.uint64(width)).astype(np.int64) if number > 1 else np.zeros(len(keys), np.int64)
            found = np.bincount(places, minlength=number)
            dealt = table.take(pa.array(np.argsort(places, kind="stable"))) if number > 1 else table
            start = 0
            for i in np.flatnonzero(found).tolist():
                if i not in writers:
                    writers[i] = pa.ipc.new_file(str(paths[i]), schema, options=options)
                writers[i].write_table(dealt.slice(start, int(found[i])))
                start += int(found[i])
            counts += found
    finally:
        for writer in writers.values():
            writer.close()
    for i in np.flatnonzero(counts).tolist():
        if counts[i] <= 2 * ways.group_rows or number == 1:
            yield paths[i], int(counts[i])
            continue
        deeper = folder / f"{i:03d}"
        deeper.mkdir()
        yield from _dealt(_read(paths[i]), schema, deeper, key=key, rows=int(counts[i]), first=first + i * width, span=width, ways=ways)
        paths[i].unlink()


def _gathered(batches: Iterable[pa.RecordBatch], schema: pa.Schema, most_bytes: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= most_bytes:
            yield pa.Table.from_batches(held, schema).combine_chunks()
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held, schema).combine_chunks()


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _shares(rows: list[int], parts: int) -> list[slice]:
    """Neighbouring buckets in `parts` lots of about as many rows; at least one lot."""
    ends = np.cumsum(rows) if rows else np.zeros(0, np.int64)
    cuts = [0, *(int(np.searchsorted(ends, ends[-1] * (i + 1) / parts)) + 1 for i in range(parts - 1)), len(rows)] if rows else [0, 0]
    found = [slice(start, stop) for start, stop in itertools.pairwise(cuts) if stop > start]
    return found or [slice(0, 0)]


def _written(paths: list[Path], schema: pa.Schema, target: Path, *, key: str, ways: Ways) -> int:
    """Buckets, each sorted, as one Parquet file."""
    rows = 0
    coded = [f.name for f in schema if pa.types.is_string(f.type) and f.name != key]
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1, use_dictionary=coded or False, write_statistics=True) as writer:
        for path in paths:
            table = pa.Table.from_batches(_read(path), schema)
            halves = id_halves(table[key].combine_chunks())
            table = table.take(pa.array(np.lexsort((halves[:, 1], halves[:, 0]))))
            writer.write_table(table, row_group_size=ways.group_rows)
            rows += len(table)
            path.unlink()
    return rows
