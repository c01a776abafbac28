"""A sample of a source's tables: its rows drawn over all files, and what is known of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from penstock.contracts.sample import Sample, Unread
from penstock.contracts.snapshot import Extract, SourceFile
from penstock.core.events import Events
from penstock.formats.draw import Draw, file_numbers
from penstock.formats.excerpts import shares
from penstock.formats.extract import extract
from penstock.formats.reader import Input

MEMORY_BYTES = 256 << 20
"""What a look at a source may take."""
MOST_REASONS = 100
"""Different reasons that are kept apart, why rows could not be read."""


def sample_files(
    files: Sequence[SourceFile],
    inputs: Sequence[Input],
    scratch: Path,
    *,
    rows: int,
    file_bytes: int,
    most_bytes: int,
) -> Sample:
    """Draw rows over all files, and count what was read.

    Args:
        inputs: how each of the files is read.
        rows: how many to draw.
        file_bytes: of the files, to be read at most.
        most_bytes: what the sample may take.

    Raises:
        SourceError: a file cannot be read as a whole, or a row is bad and its `on_bad_row` is `fail`.
    """
    some = shares(files, file_bytes)
    draw = Draw(rows, most_bytes)
    extracted = extract(
        [replace(inputs[s.place], most_bytes=s.most_bytes) for s in some],
        scratch,
        memory_bytes=MEMORY_BYTES,
        events=Events(),
        draw=draw,
    )
    table, cut = draw.table(extracted.parquet, extracted.schema.names)
    places = [share.place for share in some]
    head = draw.head and draw.head.select(table.column_names)
    is_whole = len(some) == len(files) and all(s.most_bytes is None for s in some)
    return Sample(
        file_numbers(table, places),
        rows=_rows(extracted, draw, is_whole=is_whole, all_files=len(some) == len(files)),
        complete=is_whole and table.num_rows == draw.rows,
        head=head and file_numbers(head, places),
        files=tuple(files),
        unread=unread(extracted.rejects),
        duplicates=draw.duplicates if is_whole else None,
        cut=cut,
    )


def _rows(
    extracted: Extract, draw: Draw, *, is_whole: bool, all_files: bool
) -> int | None:
    if is_whole:
        return draw.rows
    # Of files that say it themselves (Parquet), though not all of them was read.
    return extracted.declared if all_files else None


def unread(rejects: Sequence[Path]) -> dict[str, Unread]:
    """By reason, the most frequent first: the rows that were put aside."""
    counts: dict[str, int] = {}
    first: dict[str, Unread] = {}
    for path in rejects:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["file", "line", "reason", "row"]):
                for row in batch.to_pylist():
                    known = row["reason"] in first or len(first) < MOST_REASONS
                    reason = row["reason"] if known else "other reasons"
                    counts[reason] = counts.get(reason, 0) + 1
                    if reason not in first:
                        first[reason] = Unread(1, row["file"], row["line"], row["row"])
    frequent = sorted(counts, key=lambda reason: -counts[reason])
    return {reason: replace(first[reason], rows=counts[reason]) for reason in frequent}
