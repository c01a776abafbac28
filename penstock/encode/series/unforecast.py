"""Series that get no forecast, found while their steps stream by, so that none is left out without a word.

    a series of 30 steps   window 12   forecast
    a series of  5 steps   window 12   refused: it has 5 steps in a row at its end, 12 are needed
    a series of refused steps          refused: none of its steps could be taken

A series is refused once, with the values of its last step beside the reason. Memory holds one series at a
time, and the names of those of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.encode.encoding import Accepted
from penstock.encode.series.chunk import Chunk

Refuse = Callable[[pa.Table, list[str]], None]
"""Told of series without a forecast: the last step of each, and why, one a row."""
Key = tuple[Any, ...]


@dataclass
class Tally:
    """How many series have a forecast, how many have none, and the steps of both."""

    forecast: int = 0
    """Series with a forecast at least."""
    refused: int = 0
    """Series without one."""
    steps: int = 0
    """Steps that were taken of the series that have a forecast."""
    left: int = 0
    """Steps that were taken of the series that have none."""
    late: int = 0
    """Series whose latest steps are in no window, so that their latest forecast is from an earlier time."""

    @property
    def series(self) -> int:
        """All series, with a forecast or without."""
        return self.forecast + self.refused


@dataclass
class _Series:
    """A series as far as its steps went by."""

    number: int
    steps: int = 0
    run: int = 0
    """Steps in a row at its end."""
    segment: int = -1
    behind: int = 0
    """Steps at its end that are in no window."""
    answered: bool = False
    last: pa.Table | None = None


class Unforecast:
    """Counts series, and hands those without a forecast to `refuse`.

    Args:
        needed: steps in a row that a forecast needs.
        entity: the columns that tell one series from another.
        refuse: called with the series that have none.
    """

    def __init__(self, needed: int, entity: Sequence[str], refuse: Refuse) -> None:
        self.tally = Tally()
        self._needed, self._entity, self._refuse = needed, tuple(entity), refuse
        self._open: _Series | None = None
        self._lost: dict[Key, tuple[pa.Table, str]] = {}
        """Series of which steps were refused, and none was taken so far."""
        self._taken: Key | None = None
        """The last series of which a step was taken."""

    def refused_steps(self, table: pa.Table, accepted: Accepted) -> None:
        """Take in refused steps; a series that has no others is refused as a whole."""
        for row in sorted(accepted.refused):
            key = self._key(table, row)
            # Without a name there is no series; and a series with one good step is not
            # lost.
            if None in key or key == self._taken:
                continue
            reason = (
                "none of its steps could be taken; of the last one:"
                f" {'; '.join(map(str, accepted.refused[row]))}"
            )
            # The last refusal speaks for the series.
            self._lost[key] = (table.slice(row, 1), reason)

    def chunk(self, chunk: Chunk, windowed: np.ndarray, last_key: Key | None) -> None:
        """Take in the accepted steps of a chunk.

        Args:
            windowed: which of them are the last of a whole window, bool `[n]`.
            last_key: the series that may go on in the next chunk.
        """
        # Series count from 0, so that -2 makes the first step a start.
        starts = np.flatnonzero(np.diff(chunk.series, prepend=-2))
        stops = np.append(starts[1:], len(chunk.series))[: len(starts)]
        lacking: list[_Series] = []
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            # One of its steps could be taken after all.
            self._lost.pop(self._key(chunk.table, start), None)
            number = int(chunk.series[start])
            # Sorted by series: another number means that the one before has ended.
            if self._open is None or self._open.number != number:
                lacking += self._closed()
                self._open = _Series(number)
            self._grow(self._open, chunk, windowed, start, stop)
        if len(starts):
            self._taken = self._key(chunk.table, len(chunk.series) - 1)
        # The reasons of a chunk go out together.
        self._tell(lacking)
        self._tell_lost(last_key)

    def close(self) -> None:
        """Say that no more steps come: series that are open are counted or refused."""
        self._tell(self._closed())
        self._open = None
        self._tell_lost(None)

    def _key(self, table: pa.Table, row: int) -> Key:
        return tuple(table[name][row].as_py() for name in self._entity)

    def _grow(
        self, series: _Series, chunk: Chunk, windowed: np.ndarray, start: int, stop: int
    ) -> None:
        segment = int(chunk.segment[stop - 1])
        # Steps at this piece's end that are of its last segment.
        run = int(np.count_nonzero(chunk.segment[start:stop] == segment))
        # A piece that is one run may carry on the run that the chunk before ended with.
        goes_on = segment == series.segment and run == stop - start
        series.run = series.run + run if goes_on else run
        series.segment, series.steps = segment, series.steps + stop - start
        ends = np.flatnonzero(windowed[start:stop])
        series.answered = series.answered or len(ends) > 0
        series.behind = (
            stop - start - 1 - int(ends[-1])
            if len(ends)
            else series.behind + stop - start
        )
        # The last step is kept only as long as the series may be refused.
        series.last = None if series.answered else chunk.table.slice(stop - 1, 1)

    def _closed(self) -> list[_Series]:
        """Count the series that is open; it is returned if it has no forecast."""
        series = self._open
        if series is None:
            return []
        if series.answered:
            self.tally.forecast += 1
            self.tally.steps += series.steps
            self.tally.late += series.behind > 0
            return []
        self.tally.left += series.steps
        return [series]

    def _tell(self, lacking: list[_Series]) -> None:
        tables = [series.last for series in lacking if series.last is not None]
        if tables:
            self.tally.refused += len(tables)
            self._refuse(
                pa.concat_tables(tables), [self._reason(series) for series in lacking]
            )

    def _reason(self, series: _Series) -> str:
        many = "step" if series.run == 1 else "steps"
        broken = (
            ""
            if series.run == series.steps
            else f" (of {series.steps}, with a gap before them)"
        )
        return (
            f"the series has {series.run} {many} in a row at its end{broken}; a forecast needs"
            f" {self._needed}"
        )

    def _tell_lost(self, going_on: Key | None) -> None:
        """Series whose steps were all refused; not the one that may go on."""
        ended = [key for key in self._lost if key != going_on]
        if ended:
            last_steps = [self._lost.pop(key) for key in ended]
            self.tally.refused += len(last_steps)
            reasons = [reason for _, reason in last_steps]
            self._refuse(pa.concat_tables([table for table, _ in last_steps]), reasons)
