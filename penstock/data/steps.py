"""Steps: the rows of a dataset where a row is one step of a series (the recipe's `samples`).

    dataset ─sorted by series and time, on the engine─▶ steps ─accepted, cut into segments─▶ chunks ─┬─▶ feed
    (each step once)
                                                                                                 └─▶ samples
                                                                                                 as rows of
                                                                                                 lists

`SampledDataset` shows a dataset through its samples: a row is a sample, and a series is a column of lists,
just as a request has it. Whoever reads a dataset's rows to answer them (packing, evaluation) reads this
instead, and so goes the way that requests go. A plain column has its value at the last known step; a plain
target and the weight, at the anchor.

A sample is called by the step at its anchor, the first one that it forecasts. Memory holds a chunk of steps
and a batch of samples, whatever the length of the series.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_FILE, ROW_ID, ROW_NUMBER, Feature
from penstock.core.drafts import Draft
from penstock.core.errors import ContractError, Problem
from penstock.core.store import STAGING, told_plainly
from penstock.data import misfits
from penstock.data.encoding import Accepted, Encoding
from penstock.data.unforecast import Key, Unforecast
from penstock.data.unsampled import Unsampled, count_series
from penstock.data.windows import Anchors, Reach, broken, usual_distance
from penstock.formats.learnt import KEPT, MISFIT
from penstock.recipe.schema import Recipe, Samples

if TYPE_CHECKING:
    from penstock.data.dataset import Dataset

SPLITS = ("train", "validation", "test")
RANK = "__rank"
"""int8: a step's split, as its place in `SPLITS`."""
CHUNK_ROWS = 65_536
_BATCH_BYTES = 32 * 2**20
_EXAMPLES = 3


def whole_encoding(recipe: Recipe) -> Encoding:
    """The recipe's features as requests know them: with `samples`, a series is one column of lists."""
    if recipe.samples is None:
        return Encoding(recipe.inputs, recipe.targets, weight=recipe.weight)
    sides = [
        {name: feature.whole(name) for name, feature in side.items()}
        for side in (recipe.inputs, recipe.targets)
    ]
    return Encoding(sides[0], sides[1], weight=recipe.weight)


def step_encoding(recipe: Recipe) -> Encoding:
    """The recipe's features of a single row of the data: with `samples`, of one step."""
    if recipe.samples is None:
        return Encoding(recipe.inputs, recipe.targets, weight=recipe.weight)
    sides = [
        {name: feature.step() for name, feature in side.items()} for side in (recipe.inputs, recipe.targets)
    ]
    return Encoding(sides[0], sides[1], weight=recipe.weight)


def sort_steps(
    files: Sequence[Sequence[Path | str]],
    recipe: Recipe,
    samples: Samples,
    scratch: Path,
    *,
    texts: Sequence[str] = (),
) -> list[Path]:
    """All rows in the order of series, time and row id, with `RANK`: which of the lists of Parquet files each
    came from.

    Args:
        texts: columns of which some values are not of their type: they are given as text in a column `KEPT` +
            name, and those that name series are texts themselves.
        scratch: an empty folder for the sorted rows; the caller removes it.
    """
    import ibis

    threads = recipe.resources.threads or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with recipe.engine.open(
        scratch / "engine", memory_bytes=recipe.resources.memory, threads=threads
    ) as session:
        tables = [
            session.read(some).mutate(**{RANK: ibis.literal(rank, "int8")})
            for rank, some in enumerate(files)
            if some
        ]
        table = tables[0] if len(tables) == 1 else ibis.union(*tables)
        for name in texts:
            text = ibis.coalesce(table[MISFIT + name], table[name].cast("string"))
            table = table.mutate(**{KEPT + name: text, **({name: text} if name in samples.entity else {})})
        places = [name for name in (ROW_ID, ROW_FILE, ROW_NUMBER) if name in table.columns]
        order = [*samples.entity, samples.time, *places]
        session.write(table, scratch / "steps", order=order)
    return sorted((scratch / "steps").glob("*.parquet"))


@dataclass
class Chunk:
    """Some steps, in order, that were accepted."""

    table: pa.Table
    accepted: Accepted
    segment: np.ndarray
    """Which unbroken run each belongs to, int64 `[n]`, counted from 0 over all chunks."""
    series: np.ndarray
    """Which series, likewise."""
    rank: np.ndarray
    """Its split, int8 `[n]`."""


class Steps:
    """Sorted rows as chunks of steps.

    Args:
        files: what `sort_steps` gave.
        samples: which columns tell series and time.
        encoding: the step's (`step_encoding`), fitted or not.
        targets: whether the rows have targets.
        set_aside: told of each chunk's refused rows; None: they are passed over.
        distance: how far apart steps usually are, where that was learnt; else as the first of these are.
        twins: what two steps of one series at one time are, and a gap where `on_gap` is `error`: the end
            (`error`), or the fault of that series alone (`refuse`): the steps are refused, the gap is one.
    """

    def __init__(
        self,
        files: Sequence[Path],
        samples: Samples,
        encoding: Encoding,
        *,
        targets: bool = True,
        set_aside: Callable[[pa.Table, Accepted], None] | None = None,
        distance: float | None = None,
        twins: Literal["error", "refuse"] = "error",
    ) -> None:
        self.files, self.samples, self.encoding, self.targets = list(files), samples, encoding, targets
        self._twins = twins
        self.distance = distance
        """How far apart steps usually are, once there were some: in microseconds if they have times, else as
        they are.
        """
        self.timed = False
        """Whether they have times or dates."""
        self.gaps = 0
        self._set_aside = set_aside
        self._last: tuple[tuple[Any, ...], Any] | None = None
        self._segment = self._series = -1

    def __iter__(self) -> Iterator[Chunk]:
        for file in self.files:
            for batch in pq.ParquetFile(file).iter_batches(CHUNK_ROWS):
                yield self._chunk(pa.Table.from_batches([batch]))

    def _chunk(self, table: pa.Table) -> Chunk:
        accepted = misfits.accept(self.encoding, table, targets=self.targets)
        for name in (*self.samples.entity, self.samples.time):
            for row in np.flatnonzero(np.asarray(table[name].is_null())).tolist():
                accepted.refused.setdefault(row, []).append(
                    Problem((name,), "is missing, so the step has no place in a series")
                )
        misfits.note(
            table,
            self.samples.time,
            accepted,
            f"and not {table[self.samples.time].type} as it was learnt, so the step has no place in a series",
        )
        if self._twins == "refuse" and self.samples.on_gap != "ignore":
            self._put_twins_aside(table, accepted)
        if accepted.refused:
            if self._set_aside:
                self._set_aside(table, accepted)
            keep = np.setdiff1d(
                np.arange(table.num_rows), np.fromiter(accepted.refused, np.int64, len(accepted.refused))
            )
            table, accepted = table.take(pa.array(keep)), accepted.kept()
        segment, series = self._cut(table)
        rank = np.asarray(table[RANK].to_numpy(), np.int8)
        return Chunk(table, accepted, segment, series, rank)

    def _put_twins_aside(self, table: pa.Table, accepted: Accepted) -> None:
        """Refuse every step that shares its time with another of its series: which of them is right, nobody
        can know.
        """
        placed = np.setdiff1d(
            np.arange(table.num_rows), np.fromiter(accepted.refused, np.int64, len(accepted.refused))
        )
        if not len(placed):
            return
        _, other, distance = self._distances(table.take(pa.array(placed)))
        later = np.flatnonzero(~other & (distance == 0))
        known = self._last is not None and not other[0] and distance[0] == 0
        both = (
            np.union1d(later, later[later > 0] - 1) if not known else np.union1d(later, later[later > 1] - 1)
        )
        for row in placed[both].tolist():
            text = "is the time of another step of the series as well, so neither is taken"
            accepted.refused.setdefault(row, []).append(Problem((self.samples.time,), text))

    def _distances(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times, which steps are the first of another series, and how far each is from the one before."""
        moments, self.timed = _moments(table[self.samples.time], self.samples.time)
        names = [table[name].combine_chunks() for name in self.samples.entity]
        other = np.zeros(len(moments), bool)
        for column in names:
            other[1:] |= np.asarray(pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)))
        mine = tuple(column[0].as_py() for column in names)
        other[0] = self._last is None or self._last[0] != mine
        before = moments[0] if other[0] or self._last is None else self._last[1]
        return moments, other, np.diff(moments, prepend=before)

    def _cut(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        if not table.num_rows:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        moments, other, distance = self._distances(table)
        self._last = (tuple(table[name][-1].as_py() for name in self.samples.entity), moments[-1])
        if self.distance is None:
            self.distance = usual_distance(distance[~other])
        gap = np.zeros(len(moments), bool)
        if self.samples.on_gap != "ignore":
            self._refuse_twins(table, ~other & (distance == 0))
            gap = ~other & broken(distance, self.distance)
            self.gaps += int(gap.sum())
            if self.samples.on_gap == "error" and self._twins == "error" and gap.any():
                raise ContractError(
                    f"{int(gap.sum()):,} steps are not as far from the one before as steps usually are:"
                    f" {self._shown(table, gap)}. Mend the data, or say `samples: {{on_gap: split}}`."
                )
        segment = self._segment + np.cumsum(other | gap)
        series = self._series + np.cumsum(other)
        self._segment, self._series = int(segment[-1]), int(series[-1])
        return segment.astype(np.int64), series.astype(np.int64)

    def _refuse_twins(self, table: pa.Table, twins: np.ndarray) -> None:
        if twins.any():
            raise ContractError(
                f"{int(twins.sum()):,} steps are at the time of the one before them, in the same series:"
                f" {self._shown(table, twins)}. Name the columns that tell series apart in `samples.entity`,"
                " or deduplicate; with `on_gap: ignore` they are taken as they come."
            )

    def _shown(self, table: pa.Table, mask: np.ndarray) -> str:
        columns = [*self.samples.entity, self.samples.time]
        return "; ".join(
            ", ".join(f"{name}={table[name][row].as_py()}" for name in columns)
            for row in np.flatnonzero(mask)[:_EXAMPLES].tolist()
        )


def _moments(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, bool]:
    """A time column as numbers, and whether they are microseconds."""
    kind = column.type
    # times as ISO 8601 writes them come in the order of their letters
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        with contextlib.suppress(pa.ArrowInvalid):
            column, kind = column.cast(pa.timestamp("us")), pa.timestamp("us")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micro = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        return np.asarray(micro.cast(pa.int64()).to_numpy(), np.int64), True
    if pa.types.is_integer(kind):
        return np.asarray(column.to_numpy(), np.int64), False
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64), False
    raise ContractError(
        f"samples.time is {name!r}, which is {kind}; times, dates and numbers have distances. Derive one:"
        f' `derive: {{at: "CAST({name} AS TIMESTAMP)"}}`.'
    )


# -- samples as rows -----------------------------------------------------------------------------------------


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
        self.series: dict[str, tuple[Feature, tuple[int, int]]] = {
            n: (f, f.reach(target=target)) for target, side in sides for n, f in side.items() if f.spans
        }
        self._at = {c for n, f in recipe.targets.items() if not f.spans for c in f.columns(n)} | (
            {recipe.weight} if recipe.weight else set()
        )
        self._values: dict[str, np.ndarray] = {}
        self._table: pa.Table | None = None
        self._start = 0

    def take(self, chunk: Chunk) -> None:
        """The next steps; of those before, as many are kept as a sample may still read."""
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
                pc.fill_null(pc.list_flatten(column), float("nan")).to_numpy(zero_copy_only=False), np.float64
            ).reshape(len(column), len(self.series[name][0].columns(name)))
            old = self._values.get(name)
            self._values[name] = values if old is None else np.concatenate([old[len(old) - tail :], values])

    def cut(self, anchors: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """The samples at these anchors (counted over all steps)."""
        assert self._table is not None
        local = anchors - self._start
        there = local if self.reach.ahead else local - 1
        before = local - 1 if self.reach.back else local
        found: dict[str, pa.Array] = {}
        for name in columns:
            if name in self.series:
                _, (start, stop) = self.series[name]
                found[name] = _lists(self._values[name][local[:, None] + np.arange(start, stop)])
            else:
                found[name] = (
                    self._table[name]
                    .take(pa.array(there if name == ROW_ID or name in self._at else before))
                    .combine_chunks()
                )
        return pa.table(found)

    @property
    def sample_bytes(self) -> int:
        """About what a sample takes as a row of lists."""
        return 256 + sum(
            9 * (stop - start) * max(len(f.columns(n)), 1) for n, (f, (start, stop)) in self.series.items()
        )


def _lists(values: np.ndarray) -> pa.Array:
    """`[n, T, V]` as lists of lists of numbers; `[n, T, 1]` as lists of numbers.

    Not a number becomes null.
    """
    rows, steps, variables = values.shape
    flat = values.reshape(-1)
    inner: pa.Array = pa.array(flat, mask=np.isnan(flat))
    if variables > 1:
        inner = pa.ListArray.from_arrays(
            pa.array(np.arange(rows * steps + 1, dtype=np.int32) * variables), inner
        )
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * steps), inner)


class SampledDataset:
    """A dataset version seen through its samples, with the face of `Dataset` as far as rows are read.

    Args:
        dataset: the version, a row a step.
        recipe: says how rows make samples.
        distance: how far apart steps usually are, where that was learnt from another dataset.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, *, distance: float | None = None) -> None:
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
        staging = self.steps.path.parents[2] / STAGING  # on the store's disk, where the rows found room
        with told_plainly(staging):
            draft = Draft(staging, "scratch-")
        weakref.finalize(self, draft.close)
        return sort_steps(
            [self.steps.files(split) for split in SPLITS], self._recipe, self._samples, draft.path
        )

    @cached_property
    def schema(self) -> pa.Schema:
        """`row_id`, the plain columns, and each series as a column of lists."""
        series = {**self._recipe.inputs, **self._recipe.targets}
        spanning = {name: feature for name, feature in series.items() if feature.spans}
        fields = [field for field in self.steps.schema if field.name not in spanning]
        for name, feature in spanning.items():
            inner = pa.float64() if len(feature.columns(name)) == 1 else pa.list_(pa.float64())
            fields.append(pa.field(name, pa.list_(inner)))
        return pa.schema(fields)

    @cached_property
    def samples(self) -> dict[str, int]:
        """Samples by split."""
        found = Counter(dict.fromkeys(SPLITS, 0))
        for _, _, split in self._walk():
            found.update(
                {SPLITS[rank]: int(count) for rank, count in enumerate(np.bincount(split, minlength=3))}
            )
        return dict(found)

    @property
    def counts(self) -> dict[str, int]:
        """Samples by split; what else `Dataset.counts` has is of rows."""
        return {**self.steps.counts, **self.samples}

    def _walk(
        self, set_aside: Callable[[pa.Table, Accepted], None] | None = None
    ) -> Iterator[tuple[Chunk, np.ndarray, np.ndarray]]:
        anchors = Anchors(
            self._reach, (self._samples.stride, self._samples.stride_eval, self._samples.stride_eval)
        )
        for chunk in Steps(
            self._sorted,
            self._samples,
            step_encoding(self._recipe),
            distance=self._distance,
            set_aside=set_aside,
        ):
            yield (chunk, *anchors.update(chunk.segment, chunk.rank))

    def unsampled(self, split: str) -> Unsampled:
        """What of a split's steps is in no sample, or refused: its series without one, and its refused
        steps.
        """
        rank, refused, sampled, start, last = SPLITS.index(split), 0, 0, 0, -1

        def aside(table: pa.Table, accepted: Accepted) -> None:
            nonlocal refused
            refused += int((np.asarray(table[RANK].to_numpy())[list(accepted.refused)] == rank).sum())

        for chunk, anchors, splits in self._walk(aside):
            # of the step that completes each
            series = chunk.series[anchors[splits == rank] + self._reach.ahead - 1 - start]
            sampled += int((np.diff(series, prepend=last) != 0).sum())
            last = int(series[-1]) if len(series) else last
            start += len(chunk.series)
        series_in = count_series(self._sorted, self._samples.entity, (RANK, rank))
        return Unsampled(series_in, series_in - sampled, refused)

    def batches(
        self, split: str, columns: Sequence[str] | None = None, rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """The split's samples in the order of series and time, with `row_id`, in bounded memory."""
        wanted = (
            [ROW_ID, *(name for name in columns if name != ROW_ID)]
            if columns is not None
            else self.schema.names
        )
        cutter = Cutter(self._recipe, self._reach, targets=True)
        rows = max(min(rows, _BATCH_BYTES // cutter.sample_bytes), 1)
        rank = SPLITS.index(split)
        for chunk, anchors, splits in self._walk():
            cutter.take(chunk)
            mine = anchors[splits == rank]
            for start in range(0, len(mine), rows):
                yield from cutter.cut(mine[start : start + rows], wanted).to_batches()

    def table(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All samples of a split at once."""
        names = (
            self.schema.names if columns is None else [ROW_ID, *(name for name in columns if name != ROW_ID)]
        )
        return pa.Table.from_batches(
            self.batches(split, columns), schema=pa.schema([self.schema.field(name) for name in names])
        )


def seen(dataset: Dataset, recipe: Recipe, *, distance: float | None = None) -> Dataset | SampledDataset:
    """The dataset as its samples, where the recipe declares any; otherwise as it is."""
    return SampledDataset(dataset, recipe, distance=distance) if recipe.samples is not None else dataset


def windows_of(
    files: Sequence[Path | str],
    recipe: Recipe,
    columns: Sequence[str],
    scratch: Path,
    *,
    every: bool,
    set_aside: Callable[[pa.Table, Accepted], None],
    unforecast: Unforecast | None = None,
    distance: float | None = None,
    texts: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """Samples to be forecast from rows that are steps: the inputs alone, with the series' names and the last
    known time.

    Args:
        files: Parquet files of steps, in any order.
        columns: the columns wanted.
        scratch: an empty folder.
        every: at every step that has a whole window behind it; otherwise the latest one of each series.
        set_aside: told of steps that cannot be taken.
        unforecast: keeps the tally of series, and tells of those without a window.
        distance: how far apart steps were where the bundle learnt.
        texts: columns of which some values are not of their type, and that name series or are carried along.
    """
    samples = recipe.samples
    assert samples is not None
    last_key: list[Key] = []  # of the rows as they came, where some were refused

    def aside(table: pa.Table, accepted: Accepted) -> None:
        set_aside(table, accepted)
        last_key.append(tuple(table[name][-1].as_py() for name in samples.entity))
        if unforecast is not None:
            unforecast.refused_steps(table, accepted)

    reach = Reach.of(recipe.inputs.values(), ())
    encoding = Encoding(step_encoding(recipe).inputs, {})
    anchors, cutter = Anchors(reach), Cutter(recipe, reach, targets=False)
    rows = max(_BATCH_BYTES // cutter.sample_bytes, 1)
    held: tuple[int, pa.Table] | None = None  # the latest sample of a series that may go on in the next chunk
    steps = Steps(
        sort_steps([files], recipe, samples, scratch, texts=texts),
        samples,
        encoding,
        targets=False,
        set_aside=aside,
        distance=distance,
        twins="refuse",
    )
    for chunk in steps:
        before = anchors.seen
        found, _ = anchors.update(chunk.segment, np.zeros(len(chunk.segment), np.int8))
        if unforecast is not None:
            windowed = np.zeros(len(chunk.series), bool)
            windowed[found + reach.ahead - 1 - before] = True
            going_to = (
                last_key[-1]
                if last_key
                else (
                    tuple(chunk.table[name][-1].as_py() for name in samples.entity)
                    if len(chunk.series)
                    else None
                )
            )
            unforecast.chunk(chunk, windowed, going_to)
            last_key.clear()
        if not len(chunk.series):
            continue
        cutter.take(chunk)
        going_on = found[:0]
        if not every:
            series = chunk.series[found + reach.ahead - 1 - before]
            found = found[np.append(series[1:] != series[:-1], True)] if len(found) else found
            if held is not None and (len(series) and series[0] == held[0]):
                held = None
            elif held is not None and chunk.series[-1] != held[0]:
                yield held[1]
                held = None
            if len(series) and series[-1] == chunk.series[-1]:
                found, going_on = found[:-1], found[-1:]
        for start in range(0, len(found), rows):
            yield cutter.cut(found[start : start + rows], columns)
        if len(going_on):
            held = (int(chunk.series[-1]), cutter.cut(going_on, columns))
    if unforecast is not None:
        unforecast.close()
    if held is not None:
        yield held[1]
