"""Steps: the rows of a dataset where a row is one step of a series (the recipe's `samples`).

    dataset ─sorted by series and time, on the engine─▶ steps ─accepted, cut into segments─▶ chunks
    chunks  ─┬─▶ a feed, which stores each step once
             └─▶ samples as rows of lists (`sampled_dataset`, `forecast_windows`)

Memory holds a chunk of steps, whatever the length of the series.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_FILE, ROW_ID, ROW_NUMBER
from penstock.core.errors import ContractError, Problem
from penstock.encode import misfits
from penstock.encode.encoding import Accepted, Encoding
from penstock.encode.series.chunk import Chunk
from penstock.encode.series.windows import broken, usual_distance
from penstock.formats.learnt import KEPT, MISFIT
from penstock.prepare.budget import threads_of
from penstock.prepare.clean import derive
from penstock.prepare.row_ids import row_order
from penstock.recipe.schema import ROW_ORDER, Recipe, Samples

RANK = "__rank"
"""int8: a step's split, as its place in `SPLITS`."""
# Steps that are held at once, beside what a sample reads back.
CHUNK_ROWS = 65_536
_EXAMPLES = 3


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

    threads = threads_of(recipe)
    with recipe.engine.open(
        scratch / "engine", memory_bytes=recipe.resources.memory, threads=threads
    ) as session:
        # The split goes along as a number, since sorting mixes the splits' rows.
        tables = [
            session.read(some).mutate(**{RANK: ibis.literal(rank, "int8")})
            for rank, some in enumerate(files)
            if some
        ]
        table = tables[0] if len(tables) == 1 else ibis.union(*tables)
        for name in texts:
            # A value that is not of its type stands as text beside its column; together
            # they are the column as text.
            text = ibis.coalesce(table[MISFIT + name], table[name].cast("string"))
            values = [text.name(KEPT + name)]
            if name in samples.entity:
                values.append(text.name(name))
            table = table.mutate(values)
        # A dataset has the rows' places; rows to be forecast have them here.
        if samples.time is None and ROW_ORDER not in table.columns:
            table = table.mutate(**{ROW_ORDER: row_order(table)})
        elif samples.order not in table.columns and samples.order in recipe.derive:
            table = derive(table, {samples.order: recipe.derive[samples.order]}, session)
        # Between steps at one time, row id or place in the files decides, so that the
        # order is the same on every engine.
        places = [
            name for name in (ROW_ID, ROW_FILE, ROW_NUMBER) if name in table.columns
        ]
        order = [*samples.entity, samples.order, *places]
        session.write(table, scratch / "steps", order=order)
    return sorted((scratch / "steps").glob("*.parquet"))


class Steps:
    """Sorted rows as chunks of steps.

    Args:
        files: what `sort_steps` gave.
        samples: which columns tell series and time.
        encoding: the step's (`row_encoding`), fitted or not.
        targets: whether the rows have targets.
        set_aside: called with each chunk's refused rows; None: they are dropped.
        distance: how far apart steps usually are, where that was learnt; else as the first of these are.
        twins: what becomes of two steps of one series at one time, and of a gap where `on_gap` is `error`.
            `error` raises; `refuse` refuses such steps, and splits the series at such a gap.
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
        self.files, self.samples, self.encoding, self.targets = (
            list(files),
            samples,
            encoding,
            targets,
        )
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
            # Files and row groups come as they were sorted: by series, then time.
            for batch in pq.ParquetFile(file).iter_batches(CHUNK_ROWS):
                yield self._chunk(pa.Table.from_batches([batch]))

    def _chunk(self, table: pa.Table) -> Chunk:
        accepted = misfits.accept(self.encoding, table, targets=self.targets)
        # Without a series or a time a step can stand nowhere.
        for name in (*self.samples.entity, self.samples.order):
            for row in np.flatnonzero(np.asarray(table[name].is_null())).tolist():
                accepted.refused.setdefault(row, []).append(
                    Problem((name,), "is missing, so the step has no place in a series")
                )
        kind = table[self.samples.order].type
        misfits.note(
            table,
            self.samples.order,
            accepted,
            f"and not {kind} as it was learnt, so the step has no place in a series",
        )
        # With `on_gap: ignore`, steps at one time are taken as they come.
        if self._twins == "refuse" and self.samples.on_gap != "ignore":
            self._put_twins_aside(table, accepted)
        if accepted.refused:
            if self._set_aside:
                self._set_aside(table, accepted)
            keep = np.setdiff1d(
                np.arange(table.num_rows),
                np.fromiter(accepted.refused, np.int64, len(accepted.refused)),
            )
            table, accepted = table.take(pa.array(keep)), accepted.usable()
        segment, series = self._cut(table)
        rank = np.asarray(table[RANK].to_numpy(), np.int8)
        return Chunk(table, accepted, segment, series, rank)

    def _put_twins_aside(self, table: pa.Table, accepted: Accepted) -> None:
        """Refuse every step that shares its time with another of its series: which of them is right, nobody
        can know.
        """
        # Steps that are refused already have no place, and make no twins.
        placed = np.setdiff1d(
            np.arange(table.num_rows),
            np.fromiter(accepted.refused, np.int64, len(accepted.refused)),
        )
        if not len(placed):
            return
        _, other, distance = self._distances(table.take(pa.array(placed)))
        # A step at the time of the one before it.
        later = np.flatnonzero(~other & (distance == 0))
        known = self._last is not None and not other[0] and distance[0] == 0
        both = (
            np.union1d(later, later[later > 0] - 1)
            if not known
            else np.union1d(later, later[later > 1] - 1)
        )
        for row in placed[both].tolist():
            text = (
                "is the time of another step of the series as well, so neither is taken"
            )
            accepted.refused.setdefault(row, []).append(
                Problem((self.samples.order,), text)
            )

    def _distances(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times, which steps are the first of another series, and how far each is from the one before."""
        moments, self.timed = _moments(table[self.samples.order], self.samples.order)
        names = [table[name].combine_chunks() for name in self.samples.entity]
        # Entities are compared row by row; the rows are sorted by them.
        other = np.zeros(len(moments), bool)
        for column in names:
            other[1:] |= np.asarray(
                pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
            )
        mine = tuple(column[0].as_py() for column in names)
        # The first step goes on in the series that the chunk before ended in, if it has
        # the same entity.
        other[0] = self._last is None or self._last[0] != mine
        # At the first step of another series the distance is 0; `other` keeps it from
        # counting.
        before = moments[0] if other[0] or self._last is None else self._last[1]
        return moments, other, np.diff(moments, prepend=before)

    def _cut(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        if not table.num_rows:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        moments, other, distance = self._distances(table)
        self._last = (
            tuple(table[name][-1].as_py() for name in self.samples.entity),
            moments[-1],
        )
        # Learnt from the first chunk and kept, so that later chunks are cut alike.
        if self.distance is None:
            self.distance = usual_distance(distance[~other])
        gap = np.zeros(len(moments), bool)
        if self.samples.on_gap != "ignore":
            self._refuse_twins(table, ~other & (distance == 0))
            # A new series is no gap.
            gap = ~other & broken(distance, self.distance)
            self.gaps += int(gap.sum())
            if self.samples.on_gap == "error" and self._twins == "error" and gap.any():
                raise ContractError(
                    f"{int(gap.sum()):,} steps have an unusual distance from the step before:"
                    f" {self._shown(table, gap)}. Correct the data, or set `samples: {{on_gap:"
                    " split}`."
                )
        # A segment ends with its series or at a gap.
        segment = self._segment + np.cumsum(other | gap)
        series = self._series + np.cumsum(other)
        self._segment, self._series = int(segment[-1]), int(series[-1])
        return segment.astype(np.int64), series.astype(np.int64)

    def _refuse_twins(self, table: pa.Table, twins: np.ndarray) -> None:
        if twins.any():
            raise ContractError(
                f"{int(twins.sum()):,} steps have the same time as the step before them in"
                f" their series: {self._shown(table, twins)}. List the columns that"
                " distinguish series in `samples.entity`, or remove duplicates. With `on_gap:"
                " ignore` they are used as they are."
            )

    def _shown(self, table: pa.Table, mask: np.ndarray) -> str:
        columns = [*self.samples.entity, self.samples.order]
        return "; ".join(
            ", ".join(f"{name}={table[name][row].as_py()}" for name in columns)
            for row in np.flatnonzero(mask)[:_EXAMPLES].tolist()
        )


def _moments(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, bool]:
    """A time column as numbers, and whether they are microseconds."""
    kind = column.type
    # times as ISO 8601 writes them come in the order of their letters
    # Text that is no time falls through to the sentence below.
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        with contextlib.suppress(pa.ArrowInvalid):
            column, kind = column.cast(pa.timestamp("us")), pa.timestamp("us")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        # Unsafe on purpose: what is finer than a microsecond is cut off.
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
