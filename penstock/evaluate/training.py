"""Rows in memory from which the classical models learn and decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.contracts.summary import lowest, sample_keys
from penstock.contracts.tensors import joined
from penstock.encode.encoding import Encoding
from penstock.evaluate.readable import BATCH, read
from penstock.evaluate.sample import Sample

if TYPE_CHECKING:
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

MOST_BYTES = 64 << 20
"""Of the rows at hand."""


@dataclass
class _Rows:
    keys: np.ndarray
    table: pa.Table

    @property
    def rows(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        return int(self.table.nbytes)

    def below(self, share: float) -> _Rows:
        chosen = lowest(self.keys, share)
        return _Rows(self.keys[chosen], self.table.filter(pa.array(chosen)))


def split_rows(
    encoding: Encoding, dataset: Dataset | SampledDataset, split: str, *, limit: int
) -> tuple[dict[str, pa.Array], dict[str, np.ndarray], np.ndarray | None]:
    """Read at most about `limit` rows of a split, chosen by the hash of their ids:
    canonical inputs, truths, weights. Fewer where long texts or lists would take more
    than MOST_BYTES; never fewer than a hundred or so.
    """
    total = int(dataset.counts.get(split, 0))
    # Without pictures, which no classical model reads.
    light = Encoding(
        {name: f for name, f in encoding.inputs.items() if not _is_bytes(f.canonical)},
        encoding.targets,
        encoding.fitted,
        weight=encoding.weight,
    )
    # Raw rows wait in the sample and are read at its end, since most are thinned out.
    sample: Sample[_Rows] = Sample(limit / max(total, 1), MOST_BYTES)
    for batch in (
        dataset.batches(
            split,
            columns=[ROW_ID, *light.columns(targets=True)],
            rows=encoding.rows_at_once(BATCH),
        )
        if total
        else ()
    ):
        table = pa.Table.from_batches([batch])
        sample.add(_Rows(sample_keys(table.column(ROW_ID).combine_chunks()), table))
    parts = []
    while sample.pieces:  # each is let go of once it is read
        if (some := sample.pieces.pop(0)).rows:
            parts.append(read(light, some.table))
    columns = (
        {
            name: pa.concat_arrays([p.columns[name] for p in parts])
            for name in light.inputs
        }
        if parts
        else {}
    )
    truth = {
        name: joined([p.truth[name] for p in parts], fill=-1) if parts else np.empty(0)
        for name in encoding.targets
    }
    weights = [p.weight for p in parts if p.weight is not None]
    return columns, truth, np.concatenate(weights) if weights else None


def _is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes such as pictures, which no classical model reads."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
