"""A dataset seen through its samples: a row is a sample, and a series is a column of lists, as in a request.

Whoever reads a dataset's rows to answer them (packing, evaluation) reads this instead, and so goes the way
that requests go. A plain column has its value at the last known step; a plain target and the weight, at the
anchor.

A sample is called by the step at its anchor, the first one that it forecasts. Memory holds a chunk of steps
and a batch of samples, whatever the length of the series.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import ROW_ID
from penstock.contracts.features import SeriesFeature
from penstock.core.drafts import Draft
from penstock.core.store import STAGING, as_store_error
from penstock.encode.encoding import Accepted
from penstock.encode.recipe_encoding import row_encoding
from penstock.encode.series.chunk import Chunk
from penstock.encode.series.steps import RANK, Steps, sort_steps
from penstock.encode.series.unsampled import Unsampled, count_series
from penstock.encode.series.windows import Anchors, Reach
from penstock.prepare.dataset import SPLITS
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    from penstock.prepare.dataset import Dataset

BATCH_BYTES = 32 * 2**20
"""Samples are cut in tables of at most about so many bytes."""


class Cutter:
    """Chunks of steps → tables of samples, in which a series is a column of lists, as in a request.

    Args:
        recipe: its features, as declared.
        reach: the steps that a sample reads.
        targets: whether samples have what they forecast.
    """

    def __init__(self, recipe: Recipe, reach: Reach, *, targets: bool) -> None:
        self.reach = reach
        sides = [(False, recipe.inputs), *([(True, recipe.targets)] if targets else [])]
        self.series: dict[str, tuple[SeriesFeature, tuple[int, int]]] = {
            n: (f, f.reach(target=target))
            for target, side in sides
            for n, f in side.items()
            if isinstance(f, SeriesFeature)
        }
        # A plain target and the weight are read at the anchor; a plain input one step before.
        plain_targets = {
            n: f for n, f in recipe.targets.items() if not isinstance(f, SeriesFeature)
        }
        self._at = {
            column
            for name, feature in plain_targets.items()
            for column in feature.columns(name)
        }
        if recipe.weight:
            self._at.add(recipe.weight)
        # By series, float64 `[steps, V]` of the steps that are held, NaN where missing.
        self._values: dict[str, np.ndarray] = {}
        self._table: pa.Table | None = None
        # The number of the first step that is held, over all steps.
        self._start = 0

    def take(self, chunk: Chunk) -> None:
        """Take in the next steps; earlier ones are kept as far back as a sample may still read."""
        # Anchors of this chunk may look back on steps of the one before.
        tail = 0 if self._table is None else min(self.reach.steps, self._table.num_rows)
        if self._table is not None:
            self._start += self._table.num_rows - tail
            self._table = pa.concat_tables(
                [self._table.slice(self._table.num_rows - tail), chunk.table]
            ).combine_chunks()
        else:
            self._table = chunk.table
        for name in self.series:
            column = chunk.accepted.columns[name]
            values = np.asarray(
                pc.fill_null(pc.list_flatten(column), float("nan")).to_numpy(
                    zero_copy_only=False
                ),
                np.float64,
            ).reshape(len(column), len(self.series[name][0].columns(name)))
            old = self._values.get(name)
            self._values[name] = (
                values
                if old is None
                else np.concatenate([old[len(old) - tail :], values])
            )

    def cut(self, anchors: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """The samples at these anchors (int64 `[k]`, counted over all steps) as a table of `columns`."""
        assert self._table is not None
        # Anchors count over all steps; places in what is held begin at `_start`.
        local = anchors - self._start
        # With nothing ahead, the anchor is one past the last step, which then stands
        # for it.
        there = local if self.reach.ahead else local - 1
        # Where nothing lies back, there is no step before the anchor to read.
        before = local - 1 if self.reach.back else local
        columns_out: dict[str, pa.Array] = {}
        for name in columns:
            if name in self.series:
                # `[k, stop - start, V]`: a window for each anchor.
                _, (start, stop) = self.series[name]
                columns_out[name] = _lists(
                    self._values[name][local[:, None] + np.arange(start, stop)]
                )
            else:
                columns_out[name] = (
                    self._table[name]
                    .take(
                        pa.array(there if name == ROW_ID or name in self._at else before)
                    )
                    .combine_chunks()
                )
        return pa.table(columns_out)

    @property
    def sample_bytes(self) -> int:
        """About what a sample takes as a row of lists."""
        # A double with its share of masks and offsets takes some nine bytes.
        return 256 + sum(
            9 * (stop - start) * max(len(f.columns(n)), 1)
            for n, (f, (start, stop)) in self.series.items()
        )


def _lists(values: np.ndarray) -> pa.Array:
    """`[n, T, V]` as lists of lists of numbers; `[n, T, 1]` as lists of numbers.

    Not a number becomes null.
    """
    rows, steps, variables = values.shape
    flat = values.reshape(-1)
    # NaN means missing here, and null says so in Arrow.
    inner: pa.Array = pa.array(flat, mask=np.isnan(flat))
    if variables > 1:
        inner = pa.ListArray.from_arrays(
            pa.array(np.arange(rows * steps + 1, dtype=np.int32) * variables), inner
        )
    return pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32) * steps), inner
    )


class SampledDataset:
    """A dataset version seen through its samples, with the face of `Dataset` as far as rows are read.

    Args:
        dataset: the version, a row a step.
        recipe: says how rows make samples.
        distance: how far apart steps usually are, where that was learnt from another dataset.
    """

    def __init__(
        self, dataset: Dataset, recipe: Recipe, *, distance: float | None = None
    ) -> None:
        assert recipe.samples is not None
        self._distance = distance
        self.steps, self._recipe, self._samples = dataset, recipe, recipe.samples
        self.name, self.id, self.reference, self.path, self.manifest, self.facts = (
            dataset.name,
            dataset.id,
            dataset.reference,
            dataset.path,
            dataset.manifest,
            dataset.facts,
        )
        self._reach = Reach.of(recipe.inputs.values(), recipe.targets.values())

    @cached_property
    def _sorted(self) -> list[Path]:
        staging = (
            self.steps.path.parents[2] / STAGING
        )  # on the store's disk, where the rows found room
        with as_store_error(staging):
            draft = Draft(staging, "scratch-")
        # The sorted copy goes when nobody holds this dataset any more.
        weakref.finalize(self, draft.close)
        return sort_steps(
            [self.steps.files(split) for split in SPLITS],
            self._recipe,
            self._samples,
            draft.path,
        )

    @cached_property
    def schema(self) -> pa.Schema:
        """`row_id`, the plain columns, and each series as a column of lists."""
        series = {**self._recipe.inputs, **self._recipe.targets}
        spanning = {
            name: feature
            for name, feature in series.items()
            if isinstance(feature, SeriesFeature)
        }
        # The columns of a series are gone: their values stand in its list.
        fields = [field for field in self.steps.schema if field.name not in spanning]
        for name, feature in spanning.items():
            inner = (
                pa.float64()
                if len(feature.columns(name)) == 1
                else pa.list_(pa.float64())
            )
            fields.append(pa.field(name, pa.list_(inner)))
        return pa.schema(fields)

    @cached_property
    def samples(self) -> dict[str, int]:
        """Samples by split."""
        # Every split is there, even with no sample.
        counts = Counter(dict.fromkeys(SPLITS, 0))
        for _, _, split in self._walk():
            counts.update(
                {
                    SPLITS[rank]: int(count)
                    for rank, count in enumerate(np.bincount(split, minlength=3))
                }
            )
        return dict(counts)

    @property
    def counts(self) -> dict[str, int]:
        """Samples by split; what else `Dataset.counts` has is of rows."""
        return {**self.steps.counts, **self.samples}

    def _walk(
        self, set_aside: Callable[[pa.Table, Accepted], None] | None = None
    ) -> Iterator[tuple[Chunk, np.ndarray, np.ndarray]]:
        # Training has a stride of its own; validation and test share one.
        anchors = Anchors(
            self._reach,
            (self._samples.stride, self._samples.stride_eval, self._samples.stride_eval),
        )
        for chunk in Steps(
            self._sorted,
            self._samples,
            row_encoding(self._recipe),
            distance=self._distance,
            set_aside=set_aside,
        ):
            yield (chunk, *anchors.update(chunk.segment, chunk.rank))

    def unsampled(self, split: str) -> Unsampled:
        """What of a split's steps is in no sample, or refused: its series without one, and its refused
        steps.
        """
        # Ranks stand in the order of `SPLITS`.
        rank, refused, sampled, start, last = SPLITS.index(split), 0, 0, 0, -1

        def aside(table: pa.Table, accepted: Accepted) -> None:
            nonlocal refused
            refused += int(
                (np.asarray(table[RANK].to_numpy())[list(accepted.refused)] == rank).sum()
            )

        for chunk, anchors, splits in self._walk(aside):
            # of the step that completes each
            series = chunk.series[anchors[splits == rank] + self._reach.ahead - 1 - start]
            # Anchors come by series, so each change of number is one more series;
            # `last` carries over chunks.
            sampled += int((np.diff(series, prepend=last) != 0).sum())
            last = int(series[-1]) if len(series) else last
            start += len(chunk.series)
        series_in = count_series(self._sorted, self._samples.entity, (RANK, rank))
        return Unsampled(series_in, series_in - sampled, refused)

    def batches(
        self, split: str, *, columns: Sequence[str] | None = None, rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """The split's samples in the order of series and time, with `row_id`, in bounded memory."""
        wanted = (
            [ROW_ID, *(name for name in columns if name != ROW_ID)]
            if columns is not None
            else self.schema.names
        )
        cutter = Cutter(self._recipe, self._reach, targets=True)
        # Fewer samples at a time where windows are long.
        rows = max(min(rows, BATCH_BYTES // cutter.sample_bytes), 1)
        rank = SPLITS.index(split)
        for chunk, anchors, splits in self._walk():
            cutter.take(chunk)
            mine = anchors[splits == rank]
            for start in range(0, len(mine), rows):
                yield from cutter.cut(mine[start : start + rows], wanted).to_batches()

    def table(self, split: str, *, columns: Sequence[str] | None = None) -> pa.Table:
        """All samples of a split at once."""
        names = (
            self.schema.names
            if columns is None
            else [ROW_ID, *(name for name in columns if name != ROW_ID)]
        )
        return pa.Table.from_batches(
            self.batches(split, columns=columns),
            schema=pa.schema([self.schema.field(name) for name in names]),
        )


def as_samples(
    dataset: Dataset, recipe: Recipe, *, distance: float | None = None
) -> Dataset | SampledDataset:
    """The dataset as its samples, where the recipe declares any; otherwise as it is."""
    return (
        SampledDataset(dataset, recipe, distance=distance)
        if recipe.samples is not None
        else dataset
    )
