"""Rows at hand that the classical models learn from and decide on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.contracts.summary import sample_keys
from penstock.contracts.tensors import joined
from penstock.data.encoding import Encoding
from penstock.evaluate.answers import read

if TYPE_CHECKING:
    from penstock.data.dataset import Dataset
    from penstock.data.steps import SampledDataset


def split_rows(encoding: Encoding, dataset: Dataset | SampledDataset, split: str, *, limit: int) -> tuple[dict[str, pa.Array], dict[str, np.ndarray], np.ndarray | None]:
    """At most about `limit` rows of a split, chosen by the hash of their ids: canonical inputs, truths, weights."""
    total = int(dataset.counts.get(split, 0))
    share = limit / max(total, 1)
    parts = []
    light = Encoding({name: f for name, f in encoding.inputs.items() if not _is_bytes(f.canonical)}, encoding.targets, encoding.fitted, weight=encoding.weight)
    for batch in dataset.batches(split, [ROW_ID, *light.columns(targets=True)]) if total else ():
        table = pa.Table.from_batches([batch])
        if share < 1:
            table = table.filter(pa.array(sample_keys(table.column(ROW_ID).combine_chunks()) < np.uint64(int(share * 2**64))))
        if len(table):
            parts.append(read(light, table))
    columns = {name: pa.concat_arrays([p.columns[name] for p in parts]) for name in light.inputs} if parts else {}
    truth = {name: joined([p.truth[name] for p in parts], fill=-1) if parts else np.empty(0) for name in encoding.targets}
    weights = [p.weight for p in parts if p.weight is not None]
    return columns, truth, np.concatenate(weights) if weights else None


def _is_bytes(kind: pa.DataType) -> bool:
    """Pictures: no classical model reads them, so they need not be decoded."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
