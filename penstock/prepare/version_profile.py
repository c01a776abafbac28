"""The profile of a version: what was written when it was prepared, or made now.

A version that was made of an older one has none (`children`): a profile is a pass over all rows, and only the
new ones were read. What is made now is what preparing all files would have written. It is not kept, since
values of rows stand in it, and all that has such values is part of an artefact.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from penstock.contracts.data import Engine
from penstock.core.sound import object_in
from penstock.prepare.dataset import Dataset
from penstock.prepare.profile import SAMPLE, profile

FILE = "profile.json"
_MEMORY_BYTES = 1 << 30
_BATCH = 4_096


def profile_of(dataset: Dataset) -> dict[str, Any]:
    """Each column of the training split, summarised (`prepare.profile`).

    Raises:
        StoreError: the version was changed, or cannot be read.
    """
    if FILE in dataset.manifest["files"]:
        return object_in(dataset.file(FILE))
    with (
        tempfile.TemporaryDirectory(prefix="penstock-profile-") as scratch,
        Engine.load("embedded").open(
            Path(scratch), memory_bytes=_MEMORY_BYTES, threads=2
        ) as session,
    ):
        # Rows come in the order of ids, so the first are a sample.
        lowest = Path(scratch) / "lowest.parquet"
        taken = 0
        with pq.ParquetWriter(lowest, dataset.schema) as writer:
            for batch in dataset.batches("train", rows=_BATCH):
                writer.write_batch(batch.slice(0, SAMPLE - taken))
                taken += batch.num_rows
                if taken >= SAMPLE:
                    break
        whole = profile(session, dataset.files("train"), sampled=[lowest])
    # As it is read from a file.
    plain: dict[str, Any] = json.loads(json.dumps(whole))
    return plain
