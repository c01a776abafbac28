"""A sort for rows in the order of a hash: dealt out to buckets by the hash, and each bucket sorted alone.

DuckDB's sort leaves the values of a run where they came in, so that 2,048 rows in the new order may need as
many blocks of 256 KiB at once: rows of some kilobytes cannot be sorted within half a gigabyte (measured on
1.5.6: 300,000 rows of 4.5 kB). A hash is uniform, so its first bits tell beforehand where a row belongs (a
distribution sort, as in external radix sorting; Knuth, The Art of Computer Programming 3, 5.4.9): each row is
written twice and read twice, whatever the memory. Rows of several parts (splits) are dealt out in the same
pass, so the rows need no copy that is read once for each part.

Texts that repeat travel as codes of a dictionary, so that moving a row moves 4 bytes a text, and Parquet's
own dictionaries need no second look at the words (2 M rows of 15 columns: 2 s of CPU less).

Buckets are sorted and written by several threads, each into files of its own, named in their order.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.summary import id_halves
from penstock.core.errors import PenstockError
from penstock.formats.groups import ahead

_MOST_BUCKETS = 256
"""Files that are open at once."""
_WHOLE = 1 << 64
_REPEATS = 8
"""A text travels as a code where each word comes so often, by the first rows."""
_SMALL_WORDS = 4_096
"""A dictionary of more words is made anew for each bucket, of the words that are in it."""


@dataclass(frozen=True)
class Ways:
    """How much is done at once: rows, threads, bytes."""

    group_rows: int
    """Of a row group, and about of a bucket."""
    num_workers: int
    """Threads; each sorts a bucket."""
    held_bytes: int
    """Rows that are gathered before they are dealt out."""
    compression: str | None
    """Of the buckets."""


@dataclass
class _Bucket:
    path: Path
    rows: int
    first: int
    """The least that the first half of a key here may be."""


def write_in_order(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    folder: Path,
    scratch: Path,
    *,
    key: str,
    rows: int,
    ways: Ways,
) -> int:
    """Write all rows to Parquet files in `folder` in the order of `key`, a column of md5 digests; returns how
    many there were.

    Args:
        rows: about how many there will be.
        scratch: a folder for the buckets, made and removed here.
    """
    return _write(
        batches, schema, {None: folder}, scratch, by=None, key=key, rows=rows, ways=ways
    )[None]


def write_parts_in_order(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    folders: Mapping[str, Path],
    scratch: Path,
    *,
    by: str,
    key: str,
    rows: int,
    ways: Ways,
) -> dict[str, int]:
    """The same for several parts: a row goes to the folder that its text in the column `by` names, and that
    column is left out.

    Raises:
        PenstockError: a row names none of them.
    """
    written = _write(
        batches, schema, folders, scratch, by=by, key=key, rows=rows, ways=ways
    )
    return {str(name): count for name, count in written.items()}


def _write(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    folders: Mapping[Any, Path],
    scratch: Path,
    *,
    by: str | None,
    key: str,
    rows: int,
    ways: Ways,
) -> dict[str | None, int]:
    """Deal the rows out to buckets by the first bits of their key, then sort and write the buckets."""
    scratch.mkdir(parents=True)
    names = list(folders)
    # About a row group to a bucket. All parts share the number of files that may be
    # open, so many parts leave each of them fewer buckets.
    number = min(max(-(-rows // ways.group_rows), 1), max(_MOST_BUCKETS // len(names), 1))
    # Rounded up: rounded down, the largest keys would fall into a bucket past the last.
    width = -(-_WHOLE // number)
    words = pa.array(names, pa.string()) if by is not None else None

    def place(table: pa.Table) -> np.ndarray:
        places = _prefixes(table, key, 0, width, number)
        if words is None:
            return places
        # A null, or a word that no folder has, has no index.
        part = pc.index_in(table[by].combine_chunks(), value_set=words)
        if part.null_count:
            raise PenstockError(
                f"a row belongs to none of {', '.join(map(str, names))}. This is a defect of"
                " Penstock; nothing was saved."
            )
        # A folder's buckets lie side by side: its number, then the bucket within it.
        buckets: np.ndarray = (
            part.to_numpy(zero_copy_only=False).astype(np.int64) * number + places
        )
        return buckets

    try:
        plan = _Coding(schema, key, by)
        dealt = _dealt(
            batches, plan, scratch, place=place, number=number * len(names), ways=ways
        )
        tasks: list[_Task] = []
        for i, name in enumerate(names):
            # The key's first 64 bits tell the bucket, so bucket `j` begins at the key
            # `j * width`; a deeper deal counts from there.
            buckets = [
                deeper
                for j, bucket in enumerate(dealt[i * number : (i + 1) * number])
                # A bucket without rows has no file either.
                if bucket.rows
                for deeper in _split(
                    replace(bucket, first=j * width), width, plan, key=key, ways=ways
                )
            ]
            tasks += _tasks(name, buckets, folders[name], ways)
        return _run(tasks, names, plan, key=key, ways=ways)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Task(NamedTuple):
    """One file to be written."""

    name: str | None
    """Of the part that it is of."""
    buckets: list[_Bucket]
    path: Path


def _tasks(
    name: str | None, buckets: list[_Bucket], folder: Path, ways: Ways
) -> list[_Task]:
    """The files of one part: one where it is small, else one a worker."""
    count = sum(bucket.rows for bucket in buckets)
    # Four row groups or fewer are one file: more files would hold next to nothing each.
    most = 1 if count <= 4 * ways.group_rows else ways.num_workers
    shares = _shares([bucket.rows for bucket in buckets], most)
    # As many digits in every name, so that sorting the names gives the order of the
    # keys.
    digits = [f"{k:03d}" for k in range(len(shares))] if len(shares) > 1 else ["0"]
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _Task(name, buckets[share], folder / f"part-{number}.parquet")
        for share, number in zip(shares, digits, strict=True)
    ]


def _run(
    tasks: list[_Task], names: list[str | None], plan: _Coding, *, key: str, ways: Ways
) -> dict[str | None, int]:
    """Write all files, the largest first so that none is left over at the end; returns rows by
    part.
    """
    tasks = sorted(tasks, key=lambda task: -sum(bucket.rows for bucket in task.buckets))
    counts: dict[str | None, int] = dict.fromkeys(names, 0)
    with ThreadPoolExecutor(ways.num_workers, thread_name_prefix="penstock-sort") as pool:
        futures = [
            pool.submit(
                _written,
                [bucket.path for bucket in task.buckets],
                plan,
                task.path,
                key=key,
                ways=ways,
            )
            for task in tasks
        ]
        for task, future in zip(tasks, futures, strict=True):
            counts[task.name] += future.result()
    return counts


def _prefixes(
    table: pa.Table, key: str, first: int, width: int, number: int
) -> np.ndarray:
    # One bucket has the width 2**64, which no uint64 can hold.
    if number == 1:
        return np.zeros(len(table), np.int64)
    keys = id_halves(table[key].combine_chunks())[:, 0]
    # Both sides are uint64: together with an int64, numpy would go to float64 and lose
    # the lowest 11 bits of a key.
    return ((keys - np.uint64(first)) // np.uint64(width)).astype(np.int64)


class _Coding:
    """Turns text columns that repeat into dictionary codes; the first table decides which columns
    do.
    """

    def __init__(self, schema: pa.Schema, key: str, by: str | None) -> None:
        self.given, self._by = schema, by
        self._texts = [
            field.name
            for field in schema
            # Digests are all different, and the column of parts is dropped, so codes
            # gain nothing there.
            if pa.types.is_string(field.type) and field.name not in (key, by)
        ]
        self.coded: list[str] | None = None

    @property
    def schema(self) -> pa.Schema:
        """The schema of coded rows, without the column of parts."""
        coded = self.coded or []
        return pa.schema(
            [
                (
                    pa.field(f.name, pa.dictionary(pa.int32(), pa.string()))
                    if f.name in coded
                    else pa.field(f.name, f.type)
                )
                for f in self.given
                if f.name != self._by
            ]
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        encoded = {
            name: table[name].combine_chunks().dictionary_encode()
            for name in (self._texts if self.coded is None else self.coded)
        }
        if self.coded is None:
            # The first table decides for all: an Arrow stream has one schema, and a
            # column cannot be text in one batch and codes in the next.
            self.coded = [
                name
                for name, array in encoded.items()
                if len(array.dictionary) * _REPEATS <= max(len(table), 1)
            ]
        return pa.table(
            [
                encoded[f.name] if f.name in self.coded else table[f.name]
                for f in self.schema
            ],
            schema=self.schema,
        )


def _dealt(
    batches: Iterable[pa.RecordBatch],
    coding: Callable[[pa.Table], pa.Table] | _Coding,
    folder: Path,
    *,
    place: Callable[[pa.Table], np.ndarray],
    number: int,
    ways: Ways,
) -> list[_Bucket]:
    """Write the rows to `number` files, each row to the one that `place` gives; returns the files."""
    paths = [folder / f"{i:03d}.arrow" for i in range(number)]
    counts = np.zeros(number, np.int64)
    # Arrow's own pool would compete with the engine, which computes the next batch
    # meanwhile.
    options = pa.ipc.IpcWriteOptions(compression=ways.compression, use_threads=False)
    writers: dict[int, pa.RecordBatchStreamWriter] = {}
    try:
        for given in _gathered(batches, ways.held_bytes):
            # Places first: the coding drops the column of parts.
            places = place(given)
            table = coding(given)
            # The rows in words go before the copies of each bucket are made.
            del given
            sizes = np.bincount(places, minlength=number)
            # One sort by bucket; each bucket is then one slice of `order`.
            order = np.argsort(places, kind="stable")
            start = 0
            for i in np.flatnonzero(sizes).tolist():
                stop = start + int(sizes[i])
                # Opened with its first row, so an empty bucket costs no file.
                if i not in writers:
                    writers[i] = pa.ipc.new_stream(
                        str(paths[i]), table.schema, options=options
                    )
                writers[i].write_table(_compact(table.take(pa.array(order[start:stop]))))
                start = stop
            counts += sizes
    finally:
        for writer in writers.values():
            writer.close()
    # Only the caller knows at which key each bucket begins.
    return [
        _Bucket(path, int(count), 0) for path, count in zip(paths, counts, strict=True)
    ]


def _compact(table: pa.Table) -> pa.Table:
    """Remove from large dictionaries the words that these rows do not use."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table[field.name].combine_chunks()
            # A small dictionary costs less to repeat in every bucket than to make anew.
            if len(column.dictionary) > _SMALL_WORDS:
                # Decoded and coded again: `take` keeps the whole dictionary, however
                # few rows need it.
                table = table.set_column(
                    i, field, column.cast(pa.string()).dictionary_encode()
                )
    return table


def _split(
    bucket: _Bucket, width: int, coding: _Coding, *, key: str, ways: Ways
) -> Iterator[_Bucket]:
    """Yield the bucket, or the smaller buckets that it is dealt out to if it is too large."""
    # A width of 1 means that the first halves are equal: no deeper deal tells such rows
    # apart, and `_sorted` compares the second halves.
    if bucket.rows <= 2 * ways.group_rows or width <= 1:
        yield bucket
        return
    # One file a row group again; what is still too large is dealt out once more below.
    number = min(-(-bucket.rows // ways.group_rows), _MOST_BUCKETS)
    narrower = -(-width // number)
    folder = bucket.path.with_suffix("")
    folder.mkdir()
    deeper_buckets = _dealt(
        _read(bucket.path),
        # The rows have their codes already.
        lambda table: table,
        folder,
        place=lambda table: _prefixes(table, key, bucket.first, narrower, number),
        number=number,
        ways=ways,
    )
    # The same rows lie in the deeper buckets; the disk should not hold them twice.
    bucket.path.unlink()
    for i, deeper in enumerate(deeper_buckets):
        if deeper.rows:
            yield from _split(
                replace(deeper, first=bucket.first + i * narrower),
                narrower,
                coding,
                key=key,
                ways=ways,
            )


def _gathered(batches: Iterable[pa.RecordBatch], most_bytes: int) -> Iterator[pa.Table]:
    batches_here: list[pa.RecordBatch] = []
    size = 0
    # The next batch is computed while this one is dealt out.
    for batch in ahead(batches, 1):
        batches_here.append(batch)
        size += batch.nbytes
        if size >= most_bytes:
            yield _one(batches_here)
            # A new list: the old one was emptied by `_one`.
            batches_here, size = [], 0
    if batches_here:
        yield _one(batches_here)


def _one(batches: list[pa.RecordBatch]) -> pa.Table:
    # Each batch comes with a dictionary of its own; one of all gives each word one
    # code.
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    # The caller holds this very list: emptied, it frees the batches before their copy
    # is used.
    batches.clear()
    return table


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield from reader


def _shares(rows: list[int], parts: int) -> list[slice]:
    """Divide neighbouring buckets into `parts` slices of about as many rows each; at least one
    slice.
    """
    # Where each bucket ends, in rows from the first.
    ends = np.cumsum(rows) if rows else np.zeros(0, np.int64)
    cuts = (
        [
            0,
            *(
                # A cut comes after the bucket in which its share of the rows ends.
                int(np.searchsorted(ends, ends[-1] * (i + 1) / parts)) + 1
                for i in range(parts - 1)
            ),
            len(rows),
        ]
        if rows
        else [0, 0]
    )
    # A bucket with more rows than a share makes two cuts meet; the lot between them is
    # empty.
    slices = [
        slice(start, stop) for start, stop in itertools.pairwise(cuts) if stop > start
    ]
    # A part without rows still gets a file, which carries the schema.
    return slices or [slice(0, 0)]


def _written(
    paths: list[Path], coding: _Coding, target: Path, *, key: str, ways: Ways
) -> int:
    """Sort each bucket and write all of them to one Parquet file; returns the number of rows."""
    rows, schema = 0, coding.schema
    # Only texts: a dictionary of numbers or digests seldom repeats enough to pay.
    words = [
        field.name
        for field in schema
        if field.name != key
        and (pa.types.is_string(field.type) or pa.types.is_dictionary(field.type))
    ]
    sorted_tables: list[pa.Table] = []
    with pq.ParquetWriter(
        target,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=words or False,
        write_statistics=True,
        # Without Arrow's schema in the file, what was coded is read back as plain text.
        store_schema=False,
    ) as writer:
        for path in paths:
            sorted_tables.append(_sorted(path, key))
            # Its rows are copied into memory, so the disk space can go before the next
            # file grows.
            path.unlink()
            # Neighbours that are small are written together, since a row group is what
            # readers hold and skip; three quarters of the size is near enough.
            if (
                4 * sum(map(len, sorted_tables)) >= 3 * ways.group_rows
                or path == paths[-1]
            ):
                table = pa.concat_tables(sorted_tables).unify_dictionaries()
                sorted_tables = []
                # Twice the usual size, so that a bucket of up to two row groups is not
                # cut in two.
                writer.write_table(table, row_group_size=2 * ways.group_rows)
                rows += len(table)
                del table
    return rows


def _sorted(path: Path, key: str) -> pa.Table:
    table = _one(list(_read(path)))
    halves = id_halves(table[key].combine_chunks())
    # By the first 64 bits alone: a sort of one key costs less than `lexsort` over both
    # halves.
    order = np.argsort(halves[:, 0])
    first = halves[order, 0]
    # Equal first halves, as of equal ids or of 2**32 rows and more, need the second
    # ones, too.
    if (first[1:] == first[:-1]).any():
        order = np.lexsort((halves[:, 1], halves[:, 0]))
    return table.take(pa.array(order))
