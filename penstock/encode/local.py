"""Rows of a dataset → shards, by the threads of this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.core.ordered_map import ordered_map
from penstock.encode.encoding import Accepted
from penstock.encode.order_columns import OrderColumns
from penstock.encode.quarantine import Quarantine
from penstock.encode.spans import Encoded
from penstock.encode.writer import FeedParts, FeedWriter
from penstock.prepare.dataset import SPLITS
from penstock.shards.writer import ShardWriter


class LocalWriter(FeedWriter):
    """Batches are encoded by threads and written in their order."""

    def write(self, folder: Path, quarantine: Quarantine) -> FeedParts:
        """See `FeedWriter.write`."""
        writers = {split: ShardWriter(folder, split) for split in SPLITS}
        for split, writer in writers.items():
            with writer:
                self._encode(split, writer, quarantine)
        return FeedParts(
            {split: writer.rows for split, writer in writers.items()},
            {split: writer.files for split, writer in writers.items()},
            self.job.encoding,
        )

    def _encode(self, split: str, writer: ShardWriter, quarantine: Quarantine) -> None:
        job = self.job
        total, done = job.dataset.counts[split], 0
        if not total:
            return
        ordered = OrderColumns.of(job.recipe)
        # A column that a feature and an order both read is read once.
        columns = list(
            dict.fromkeys([*job.encoding.columns(targets=True), *ordered.columns])
        )
        # Encodes only: the shards are written here, so its folder and shard length are
        # not used.
        work = Encoded(job.encoding, ordered, split, Path(), 0, job.rows_at_once)

        def encoded(
            batch: pa.RecordBatch,
        ) -> tuple[pa.Table, Accepted, dict[str, np.ndarray]]:
            table = pa.Table.from_batches([batch])
            return table, *work.encoded(table)

        batches = job.dataset.batches(
            split, columns=columns, rows=job.rows_at_once, coded=True
        )
        workers = job.threads if job.threads > 1 else 0  # with one, the caller's own
        # In the order of batches, whatever thread is done first.
        for table, accepted, arrays in ordered_map(encoded, batches, threads=workers):
            quarantine.add(table, accepted, split)
            writer.write(arrays)
            done += accepted.rows
            job.events.progress("encode", done, total, "rows", split=split)
