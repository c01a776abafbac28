"""Windows to be forecast: rows that are steps → samples with inputs alone.

A chunk of steps may end in the middle of a series. Where only the latest window of each series is wanted, the
latest one so far of the series that the chunk ends in therefore waits for the next chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.encode.encoding import Accepted, Encoding
from penstock.encode.recipe_encoding import row_encoding
from penstock.encode.series.chunk import Chunk
from penstock.encode.series.sampled_dataset import BATCH_BYTES, Cutter
from penstock.encode.series.steps import Steps, sort_steps
from penstock.encode.series.unforecast import Key, Unforecast
from penstock.encode.series.windows import Anchors, Reach
from penstock.recipe.schema import Recipe


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
        set_aside: called with steps that cannot be taken.
        unforecast: counts series, and refuses those without a window.
        distance: how far apart steps were where the bundle learnt.
        texts: columns of which some values are not of their type, and that name series or are carried along.

    Raises:
        ContractError: times have no distances, so that nobody knows which steps follow each other.
    """
    samples = recipe.samples
    assert samples is not None
    refused_keys: list[Key] = []
    """The last row of the present chunk as it came, where some of its rows were refused."""

    def refuse(table: pa.Table, accepted: Accepted) -> None:
        set_aside(table, accepted)
        refused_keys.append(_last_key(table, samples.entity))
        if unforecast is not None:
            unforecast.refused_steps(table, accepted)

    # Of the inputs alone: what comes is what is asked for.
    reach = Reach.of(recipe.inputs.values(), ())
    anchors, cutter = Anchors(reach), Cutter(recipe, reach, targets=False)
    batch_rows = max(BATCH_BYTES // cutter.sample_bytes, 1)
    latest = None if every else _Latest()
    steps = Steps(
        sort_steps([files], recipe, samples, scratch, texts=texts),
        samples,
        # Rows to be forecast have neither targets nor weights.
        Encoding(row_encoding(recipe).inputs, {}),
        targets=False,
        set_aside=refuse,
        distance=distance,
        twins="refuse",
    )
    for chunk in steps:
        steps_before = anchors.steps
        # All of one split, so that no sample straddles.
        chunk_anchors, _ = anchors.update(
            chunk.segment, np.zeros(len(chunk.segment), np.int8)
        )
        # an anchor is counted over all steps; the last step of its window, within this chunk
        window_ends = chunk_anchors + reach.ahead - 1 - steps_before
        if unforecast is not None:
            _tally(unforecast, chunk, window_ends, samples.entity, refused_keys)
            # The key of refused rows is wanted for this chunk only.
            refused_keys.clear()
        if not len(chunk.series):
            continue
        cutter.take(chunk)
        # Nothing waits unless the latest sample alone is wanted.
        waiting = chunk_anchors[:0]
        if latest is not None:
            ended, chunk_anchors, waiting = latest.choose(
                chunk_anchors, chunk.series, window_ends
            )
            yield from ended
        for start in range(0, len(chunk_anchors), batch_rows):
            yield cutter.cut(chunk_anchors[start : start + batch_rows], columns)
        if latest is not None and len(waiting):
            # cut now: the next chunk pushes its steps out of the cutter
            latest.wait(int(chunk.series[-1]), cutter.cut(waiting, columns))
    if unforecast is not None:
        unforecast.close()
    if latest is not None:
        yield from latest.close()


def _last_key(table: pa.Table, entity: Sequence[str]) -> Key:
    """The series that the last row belongs to."""
    return tuple(table[name][-1].as_py() for name in entity)


def _tally(
    unforecast: Unforecast,
    chunk: Chunk,
    window_ends: np.ndarray,
    entity: Sequence[str],
    refused_keys: Sequence[Key],
) -> None:
    """Count a chunk's steps.

    The series that may go on is that of the last row as it came, taken or refused: refused rows are in the
    chunk no longer, so their key was noted before.
    """
    windowed = np.zeros(len(chunk.series), bool)
    windowed[window_ends] = True
    going_on: Key | None = None
    # Noted from the chunk as it came: the key of its last row, refused or not.
    if refused_keys:
        going_on = refused_keys[-1]
    elif len(chunk.series):
        going_on = _last_key(chunk.table, entity)
    unforecast.chunk(chunk, windowed, going_on)


class _Latest:
    """The latest sample of each series; that of a series that may go on waits for the next chunk."""

    def __init__(self) -> None:
        self._waiting: tuple[int, pa.Table] | None = None
        """Number of the series, and its latest sample so far."""

    def choose(
        self, anchors: np.ndarray, chunk_series: np.ndarray, window_ends: np.ndarray
    ) -> tuple[list[pa.Table], np.ndarray, np.ndarray]:
        """Which samples of a chunk can be given now, and which must wait.

        Args:
            anchors: of the chunk, int64 `[k]`, in order.
            chunk_series: the series of each of its steps, int64 `[n]`.
            window_ends: the last step of each anchor's window, within the chunk, int64 `[k]`.

        Returns the sample that waited, if its series has ended without a later one; the anchors to cut now;
        and the anchor that waits, if the chunk ends in its series.
        """
        series = chunk_series[window_ends]
        # The last anchor of each series within the chunk.
        if len(anchors):
            anchors = anchors[np.append(series[1:] != series[:-1], True)]
        ended: list[pa.Table] = []
        if self._waiting is not None:
            number, sample = self._waiting
            # The series went on, and this chunk has a later sample of it.
            if len(series) and series[0] == number:
                self._waiting = None  # a later sample takes its place
            elif chunk_series[-1] != number:
                ended.append(sample)
                self._waiting = None
        # The chunk ends in the series of its last sample: a later one may follow.
        if len(series) and series[-1] == chunk_series[-1]:
            return ended, anchors[:-1], anchors[-1:]
        return ended, anchors, anchors[:0]

    def wait(self, series: int, sample: pa.Table) -> None:
        """Keep the latest sample of a series that may go on."""
        self._waiting = series, sample

    def close(self) -> list[pa.Table]:
        """Say that no more chunks come; returns the sample that waited, if any."""
        return [] if self._waiting is None else [self._waiting[1]]
