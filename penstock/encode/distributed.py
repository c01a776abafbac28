"""Rows of a dataset → shards, by the engine's executors.

Executors write drafts: shards of a span of rows. Where rows were refused a draft is shorter than a shard must
be, so drafts are cut anew into shards of equal length; the feed is then the same as if one process had
written it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from penstock.contracts.data import Executors
from penstock.encode.fit import fit_distributed
from penstock.encode.order_columns import OrderColumns
from penstock.encode.quarantine import Quarantine
from penstock.encode.spans import Encoded, Joined, cuts, shard_rows_for, spans
from penstock.encode.writer import FeedJob, FeedParts, FeedWriter
from penstock.prepare.dataset import SPLITS
from penstock.shards.writer import SHARD_BYTES

_SPANS_EACH = 4
"""Spans for each item that is worked on at a time: executors differ in speed, and end together if there are
several for each.
"""


class DistributedWriter(FeedWriter):
    """Executors summarise and encode spans of rows; this process merges, and counts what was refused.

    Args:
        job: what is made.
        executors: they see the folder of the feed.
    """

    def __init__(self, job: FeedJob, executors: Executors) -> None:
        super().__init__(job)
        self._executors = executors

    def fit(self) -> None:
        """See `FeedWriter.fit`."""
        job = self.job
        fit_distributed(
            job.encoding, job.dataset, self._executors, job.rows_at_once, job.events
        )

    def write(self, folder: Path, quarantine: Quarantine) -> FeedParts:
        """See `FeedWriter.write`."""
        job = self.job
        rows, shards = dict.fromkeys(SPLITS, 0), {split: list[str]() for split in SPLITS}
        for split in SPLITS:
            total = job.dataset.counts[split]
            if not total:
                continue
            rows[split], shards[split] = self._encode(split, folder, quarantine)
            job.events.progress("encode", total, total, "rows", split=split)
        return FeedParts(rows, shards, job.encoding)

    def _encode(
        self, split: str, folder: Path, quarantine: Quarantine
    ) -> tuple[int, list[str]]:
        """Encode one split; returns how many rows it has, and the names of its shards."""
        job, executors = self.job, self._executors
        # Within the feed's draft, so that drafts are renamed into place and vanish with
        # it.
        drafts = folder / f".drafts-{split}"
        drafts.mkdir()
        files = job.dataset.ordered_files(split, drafts)
        work = Encoded(
            job.encoding, OrderColumns.of(job.recipe), split, drafts, 0, job.rows_at_once
        )
        shard_rows = self._shard_rows(work, files)
        spans_wanted = _SPANS_EACH * executors.at_once
        # whole shards, so that few drafts have to be cut
        span_rows = (
            max(-(-job.dataset.counts[split] // spans_wanted) // shard_rows, 1)
            * shard_rows
        )
        # One length of shard for every executor, or the cuts below would not meet.
        written = executors.each(
            replace(work, shard_rows=shard_rows), spans(files, span_rows)
        )
        # In the order of rows, so that the quarantine is the one that a single process
        # writes.
        for span in written:
            for table, accepted in span.refused:
                quarantine.add(table, accepted, split)
        draft_rows = [
            (file, count)
            for span in written
            for file, count in zip(span.files, span.rows_by_file, strict=True)
        ]
        shards = cuts(draft_rows, shard_rows, split)
        rows = sum(executors.each(Joined(drafts, folder), shards))
        # Drafts that became shards were moved away; the rest is copied by now.
        shutil.rmtree(drafts)
        return rows, [shard.target for shard in shards]

    def _shard_rows(self, work: Encoded, files: list[Path]) -> int:
        """The rows of a shard, by the bytes of the first batch; one number for all executors."""
        columns = list(
            dict.fromkeys([*work.encoding.columns(targets=True), *work.ordered.columns])
        )
        # The first batch alone; what follows from it is given to every executor.
        first = next(
            iter(spans(files, work.rows_at_once)[0].batches(columns, work.rows_at_once))
        )
        accepted, arrays = work.encoded(first)
        return shard_rows_for(arrays, accepted.rows - len(accepted.refused), SHARD_BYTES)
