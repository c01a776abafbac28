"""Rows in memory from which the classical models learn, decide, and are chosen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.contracts.summary import lowest, sample_keys
from penstock.contracts.tensors import joined
from penstock.encode.encoding import Encoding
from penstock.evaluate.pictures import is_picture, picture_features
from penstock.evaluate.readable import BATCH, read
from penstock.evaluate.sample import FEWEST, Sample
from penstock.evaluate.sampled_rows import SampledRows

if TYPE_CHECKING:
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

MOST_BYTES = 64 << 20
"""Of the rows at hand."""
AT_ONCE = 16_384
"""Rows that are answered at once, so that no matrix of all of them is needed."""


@dataclass
class ReadRows:
    """Rows of a split: canonical inputs, the features of pictures, truths and weights."""

    columns: Mapping[str, pa.Array]
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    weight: np.ndarray | None = None
    total: int = 0
    """Rows of the whole split."""

    def __len__(self) -> int:
        for values in (*self.columns.values(), *self.pictures.values()):
            return len(values)
        return 0

    def take(self, places: np.ndarray) -> ReadRows:
        """Return the rows at these places, in this order."""
        at = pa.array(places)
        return ReadRows(
            {name: column.take(at) for name, column in self.columns.items()},
            {name: values[places] for name, values in self.pictures.items()},
            {name: truth[places] for name, truth in self.truth.items()},
            None if self.weight is None else self.weight[places],
            self.total,
        )

    def first(self, rows: int) -> ReadRows:
        """Return the first so many rows: a random part, if the rows were shuffled."""
        return self if rows >= len(self) else self.take(np.arange(rows))

    def shuffled(self, seed: int) -> ReadRows:
        """Return the rows in an order drawn by a seed, whatever order the data had."""
        return self.take(np.random.default_rng(seed).permutation(len(self)))

    def pieces(self) -> Iterator[ReadRows]:
        """Return the rows piece by piece, without truths."""
        for start in range(0, len(self), AT_ONCE):
            yield ReadRows(
                {n: column.slice(start, AT_ONCE) for n, column in self.columns.items()},
                {n: v[start : start + AT_ONCE] for n, v in self.pictures.items()},
            )


def split_rows(
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    split: str,
    *,
    limit: int,
    seconds: float = float("inf"),
) -> ReadRows:
    """Read at most about `limit` rows of a split, chosen by the hash of their ids.

    Fewer where long texts or lists would take more than MOST_BYTES, or decoding pictures more than `seconds`;
    never fewer than a hundred or so. Of pictures only their simple features are kept.
    """
    total = int(dataset.counts.get(split, 0))
    sample: Sample[SampledRows] = Sample(limit / max(total, 1), MOST_BYTES)
    has_pictures = any(is_picture(encoding, name) for name in encoding.inputs)
    done, started = 0, time.process_time()
    for batch in (
        dataset.batches(
            split,
            columns=[ROW_ID, *encoding.columns(targets=True)],
            rows=encoding.rows_at_once(BATCH),
        )
        if total
        else ()
    ):
        table = pa.Table.from_batches([batch])
        done += len(table)
        keys = sample_keys(table.column(ROW_ID).combine_chunks())
        table = table.filter(pa.array(lowest(keys, sample.share)))
        if len(table):
            rows = read(encoding, table)
            pictures = picture_features(encoding, rows.columns)
            sample.add(SampledRows.of(rows, {}, encoding.inputs, (), pictures))
        if has_pictures:
            _keep_pace(sample, (time.process_time() - started) / seconds, done / total)
    return _joined(encoding, [piece for piece in sample.pieces if piece.rows], total)


def _keep_pace(sample: Sample[SampledRows], spent: float, done: float) -> None:
    """Read half of the rows from now on, if the time would not suffice for the rest."""
    if (
        spent + spent / done * (1 - done) > 1
        and sum(p.rows for p in sample.pieces) > FEWEST
    ):
        sample.halve()


def _joined(encoding: Encoding, parts: Sequence[SampledRows], total: int) -> ReadRows:
    if not parts:
        return ReadRows({}, truth={name: np.empty(0) for name in encoding.targets})
    weights = [part.weight for part in parts if part.weight is not None]
    return ReadRows(
        {
            name: pa.concat_arrays([part.columns[name] for part in parts])
            for name in parts[0].columns
        },
        {
            name: np.concatenate([part.pictures[name] for part in parts])
            for name in parts[0].pictures
        },
        # Where truths vary in length, -1 fills the steps that are not there.
        {
            name: joined([part.truth[name] for part in parts], fill=-1)
            for name in encoding.targets
        },
        np.concatenate(weights) if weights else None,
        total,
    )
