"""Encoding on many machines: pure functions over spans of a dataset's rows, for an engine that has other
hands (`Engine.executors`).

Fitting: every span is summarised by itself, and summaries are merged in the order of spans. They are exact
and free of order, so what is learnt is to the bit what one machine learns.

Shards: a span is some whole shards, if no row is refused, and then its files only need their final names.
Where rows are refused, what was written is cut anew into shards of equal rows, again in parallel. Either way
rows keep their order, and every shard but a split's last has the same number of rows.

Tasks read the dataset and write into the feed's folder, so both must lie where every machine sees them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID
from penstock.contracts.summary import Summary, sample_keys
from penstock.encode.encoding import Accepted, Encoding
from penstock.encode.order_columns import OrderColumns
from penstock.shards.row_ids import row_id_halves
from penstock.shards.writer import ShardWriter

SPAN_ROWS = 65_536
"""A span of fewer rows is not worth a task."""
_WHOLE_PAGES = 4_096
"""So many rows are whole pages of memory, whatever their width."""


@dataclass(frozen=True)
class Span:
    """Rows `[start, stop)` of a split, whose files hold them one after another."""

    number: int
    files: tuple[tuple[str, int], ...]
    """Path and rows of every file of the split, in order."""
    start: int
    stop: int

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """The rows, with `row_id` and `columns`; only the row groups that hold them are read."""
        wanted = list(dict.fromkeys([ROW_ID, *columns]))
        # Rows of the files that lie before the present one.
        before = 0
        for path, count in self.files:
            # This file's share of the span, counted from the file's first row.
            first, last = max(self.start - before, 0), min(self.stop - before, count)
            before += count
            if first >= last:
                continue
            # Without `pre_buffer`, column chunks are read as batches need them and not
            # all at once.
            with pq.ParquetFile(path, pre_buffer=False) as file:
                yield from _slice(file, wanted, rows, first, last)


def _slice(
    file: pq.ParquetFile, columns: list[str], rows: int, first: int, last: int
) -> Iterator[pa.Table]:
    at = 0
    groups: list[int] = []
    # The row at which the first wanted row group begins.
    skipped: int | None = None
    for i in range(file.num_row_groups):
        size = file.metadata.row_group(i).num_rows
        # Row groups that touch `[first, last)`.
        if at < last and at + size > first:
            skipped = at if skipped is None else skipped
            groups.append(i)
        at += size
    place = skipped or 0
    for batch in file.iter_batches(rows, row_groups=groups, columns=columns):
        low, high = max(first - place, 0), min(last - place, batch.num_rows)
        place += batch.num_rows
        if low < high:
            # A file's own order of columns need not be the one asked for.
            yield pa.Table.from_batches([batch.slice(low, high - low)]).select(columns)


def spans(files: Sequence[Path], rows: int) -> list[Span]:
    """All rows of these files, in spans of `rows`."""
    # The files are one sequence of rows; a span may cross from one file into the next.
    counts = tuple((str(path), int(pq.read_metadata(path).num_rows)) for path in files)
    whole = sum(count for _, count in counts)
    return [
        Span(i, counts, start, min(start + rows, whole))
        for i, start in enumerate(range(0, whole, max(rows, 1)))
    ]


def kept_ids(table: pa.Table, accepted: Accepted) -> pa.Array:
    """The row ids of the rows that were not refused."""
    ids = table.column(ROW_ID).combine_chunks()
    ids = ids if isinstance(ids, pa.Array) else pa.concat_arrays(ids.chunks)
    if not accepted.refused:
        return ids
    return ids.take(
        pa.array(
            np.setdiff1d(
                np.arange(accepted.rows),
                np.fromiter(accepted.refused, np.int64, len(accepted.refused)),
            )
        )
    )


# -- the first pass ------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts of the training split: rows seen and used, the heaviest weight, reasons of refusals."""

    rows: int = 0
    used: int = 0
    heaviest: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, accepted: Accepted, rows: int, heaviest: float) -> None:
        """Add a batch: what was refused of it, the rows used, and the heaviest weight."""
        self.reasons.update(
            f"{problem.path[0]}: {problem.text}"
            for problems in accepted.refused.values()
            for problem in problems
        )
        self.rows += accepted.rows
        self.used += rows
        self.heaviest = max(self.heaviest, heaviest)

    def merge(self, other: Tally) -> None:
        """Add what another tally has seen."""
        self.rows += other.rows
        self.used += other.used
        self.heaviest = max(self.heaviest, other.heaviest)
        self.reasons.update(other.reasons)


@dataclass(frozen=True)
class Summarised:
    """A function from a span to the summaries of its rows, and their tally."""

    encoding: Encoding
    features: tuple[str, ...]
    """Those that are to be fitted."""
    rows_at_once: int

    def __call__(self, span: Span) -> tuple[Mapping[str, Summary], Tally]:
        encoding, tally = self.encoding, Tally()
        summaries = {
            name: {**encoding.inputs, **encoding.targets}[name].summary()
            for name in self.features
        }
        for table in span.batches(encoding.columns(targets=True), self.rows_at_once):
            accepted = encoding.accept(table, targets=True)
            accepted_rows = accepted.usable()
            # Made once for all summaries.
            keys = pa.array(sample_keys(kept_ids(table, accepted)))
            for name, summary in summaries.items():
                summary.update(accepted_rows.columns[name], keys)
            tally.count(
                accepted,
                accepted_rows.rows,
                float(accepted_rows.weight.max())
                if accepted_rows.weight is not None and accepted_rows.rows
                else 0.0,
            )
        return summaries, tally


# -- the second pass -----------------------------------------------------------------------------------------


@dataclass
class Written:
    """The shards that a span became, and its refused rows."""

    number: int
    files: list[str]
    rows_by_file: list[int]
    refused: list[tuple[pa.Table, Accepted]]
    """The rows that were refused, as tables of those alone."""


@dataclass(frozen=True)
class Encoded:
    """A function from a span to its shards, written as `s<span>-<number>.arrow` into `folder`."""

    encoding: Encoding
    ordered: OrderColumns
    split: str
    folder: Path
    shard_rows: int
    rows_at_once: int

    def __call__(self, span: Span) -> Written:
        # A column that a feature and an order both read is read once.
        columns = list(
            dict.fromkeys([*self.encoding.columns(targets=True), *self.ordered.columns])
        )
        refused: list[tuple[pa.Table, Accepted]] = []
        # Six digits, so that names sort as spans do.
        with ShardWriter(
            self.folder, f"s{span.number:06d}", shard_rows=self.shard_rows
        ) as writer:
            for table in span.batches(columns, self.rows_at_once):
                accepted, arrays = self.encoded(table)
                if accepted.refused:
                    refused.append(_alone(table, accepted))
                writer.write(arrays)
        return Written(span.number, writer.files, writer.rows_by_file, refused)

    def encoded(self, table: pa.Table) -> tuple[Accepted, dict[str, np.ndarray]]:
        """Rows as a shard holds them."""
        accepted = self.encoding.accept(table, targets=True)
        return accepted, {
            "row_id": row_id_halves(kept_ids(table, accepted)),
            **self.ordered.arrays(table, accepted.refused, self.split),
            **self.encoding.encode(accepted.usable()),
        }


def _alone(table: pa.Table, accepted: Accepted) -> tuple[pa.Table, Accepted]:
    """The refused rows without the others."""
    # Renumbered, since the other rows are left behind.
    order = sorted(accepted.refused)
    return table.take(pa.array(order)).combine_chunks(), Accepted(
        len(order), {}, {i: accepted.refused[place] for i, place in enumerate(order)}
    )


@dataclass(frozen=True)
class Cut:
    """Some rows of shards that become one shard."""

    target: str
    pieces: tuple[tuple[str, int, int], ...]
    """File, first row, number of rows."""


def cuts(drafts: Sequence[tuple[str, int]], shard_rows: int, name: str) -> list[Cut]:
    """How drafts (file and rows, in order) become shards of `shard_rows`, called `<name>-00000.arrow`, ….

    >>> [cut.pieces for cut in cuts([("a", 3), ("b", 2)], 2, "train")]
    [(('a', 0, 2),), (('a', 2, 1), ('b', 0, 1)), (('b', 1, 1),)]
    """
    shards: list[Cut] = []
    pieces: list[tuple[str, int, int]] = []
    # Room that is left in the shard being filled.
    room = shard_rows
    for file, rows in drafts:
        start = 0
        while start < rows:
            taken = min(room, rows - start)
            pieces.append((file, start, taken))
            start, room = start + taken, room - taken
            if not room:
                shards.append(Cut(f"{name}-{len(shards):05d}.arrow", tuple(pieces)))
                pieces, room = [], shard_rows
    if pieces:
        shards.append(Cut(f"{name}-{len(shards):05d}.arrow", tuple(pieces)))
    return shards


@dataclass(frozen=True)
class Joined:
    """A function that writes a cut's shard into `target`, from drafts in `source`; returns its row count."""

    source: Path
    target: Path

    def __call__(self, cut: Cut) -> int:
        # A draft that is a whole shard already only changes its name, within one file
        # system.
        if (
            len(cut.pieces) == 1
            and cut.pieces[0][1] == 0
            and _rows(self.source / cut.pieces[0][0]) == cut.pieces[0][2]
        ):
            (self.source / cut.pieces[0][0]).rename(self.target / cut.target)
            return cut.pieces[0][2]
        parts: list[pa.RecordBatch] = []
        for file, start, rows in cut.pieces:
            parts.append(_batch(self.source / file).slice(start, rows))
        schema = parts[0].schema
        # One batch a shard: its rows lie in one piece.
        whole = pa.Table.from_batches(parts, schema).combine_chunks().to_batches()[0]
        with (
            pa.OSFile(str(self.target / cut.target), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            writer.write_batch(whole)
        return int(whole.num_rows)


def _batch(file: Path) -> pa.RecordBatch:
    # Mapped, so slicing reads only what is written again.
    return pa.ipc.open_file(pa.memory_map(str(file), "r")).get_batch(0)


def _rows(file: Path) -> int:
    return int(_batch(file).num_rows)


def shard_rows_for(sample: Mapping[str, Any], rows: int, shard_bytes: int) -> int:
    """How many rows a shard has, by the bytes of some encoded ones."""
    # An object array holds its values and an offset of 8 bytes a row.
    size = sum(
        (
            values.nbytes
            if values.dtype != object
            else sum(len(v) * getattr(v, "itemsize", 1) + 8 for v in values)
        )
        for values in sample.values()
    )
    full = max(shard_bytes // max(size // max(rows, 1), 1), 1)
    # Whole pages, so that full shards can be laid side by side in memory; rows too wide
    # for that stay as they are.
    return full // _WHOLE_PAGES * _WHOLE_PAGES or full
