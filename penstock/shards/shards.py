"""Shards: encoded rows on disk, ready to become tensors; memory-mapped, or fetched as they are needed.

How a shard lies on disk is in `shards.layout`, how it is written in `shards.writer`. Beside the features'
arrays there are `row_id` (the two halves of the md5, int64) and, if declared, `weight` (float32).

What this file refuses to know: features, order, tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.ragged import Ragged
from penstock.core.errors import StoreError
from penstock.core.store import Member
from penstock.shards.cache import Cache
from penstock.shards.layout import (
    Arrays,
    Held,
    Place,
    held_dtype,
    matrices_of,
    open_shard,
    pieces_of,
)
from penstock.shards.mmap_concat import mmap_concat
from penstock.shards.remote_files import HELD_BYTES, RemoteFiles


class Shards:
    """The shards of one split as one table of `rows`: memory-mapped, or fetched as they are needed
    (`Shards.far`).

    Args:
        files: the shards, in order; none for an empty split.

    Raises:
        StoreError: a file is not a shard, or is of a newer format.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._places: list[Place] = []
        self._widths: dict[str, int] = {}
        """Columns of the matrix of each dtype."""
        self._far: RemoteFiles[Held] | None = None
        self._maps: list[Held] = []
        self._whole: Arrays = {}
        """The matrix of each dtype over all shards, where pages allow it."""
        rows = []
        for file in files:
            batch, places = open_shard(str(file), None)
            self._agree(places, str(file))
            self._maps.append(matrices_of(batch, places))
            rows.append(batch.num_rows)
        self._set_rows(rows)
        # One shard is one array already.
        if len(files) > 1:
            # Where each matrix lies in its file; rows are whole, so matrices can follow
            # one another.
            pieces = [pieces_of(str(file), list(self._widths)) for file in files]
            matrices = {
                name: mmap_concat(
                    [piece[name] for piece in pieces], held_dtype(name), width
                )
                for name, width in self._widths.items()
            }
            self._whole = {
                name: whole for name, whole in matrices.items() if whole is not None
            }

    @classmethod
    def far(
        cls,
        members: Sequence[Member],
        rows: Sequence[int],
        cache: Cache,
        *,
        memory_bytes: int = HELD_BYTES,
    ) -> Shards:
        """Open the shards of a bucket. None is fetched yet, so a damaged one raises when it is
        first read.

        Args:
            members: the shards, in order.
            rows: of each.
            cache: the node's copies.
            memory_bytes: the most that shards take in memory where the cache keeps no copies.
        """
        # None is opened: an epoch may need few of them, and the first batch only one.
        shards = cls([])
        # Rows are known from the manifest, so that a slot's shard is known without a
        # fetch.
        counts = dict(zip((m.url for m in members), rows, strict=True))

        def opens(member: Member, content: pa.Buffer) -> Held:
            batch, places = open_shard(member.url, content)
            # Positions rest on these numbers, so a shard that disagrees would shift
            # every row after it.
            if batch.num_rows != counts[member.url]:
                raise StoreError(
                    f"{member.url} has {batch.num_rows} rows, its feed's manifest says {counts[member.url]};"
                    " the feed was changed. Delete the feed, and it is made again."
                )
            # Called by any thread that fetches: the first shard that comes tells the
            # layout.
            shards._agree(places, member.url)
            return matrices_of(batch, places)

        if members:
            shards._far = RemoteFiles(members, cache, opens, memory_bytes=memory_bytes)
        shards._set_rows(rows)
        return shards

    def _set_rows(self, rows: Sequence[int]) -> None:
        # Where each shard begins, and at last where all of them end.
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(
            np.int64
        )
        self.rows = int(self._starts[-1])
        self.rows_by_shard = list(rows)

    def _agree(self, places: list[Place], file: str) -> None:
        if self._places and places != self._places:
            raise StoreError(
                f"{file} has another layout than the shards before it; the feed was changed. Delete the feed,"
                " and it is made again."
            )
        if not self._places:
            widths = {
                # A matrix is as wide as all the arrays in it together.
                dtype: sum(
                    p.width for p in places if p.ragged is None and p.dtype == dtype
                )
                for dtype in dict.fromkeys(p.dtype for p in places if p.ragged is None)
            }
            self._widths, self._places = widths, places

    def _shard(self, shard: int) -> Held:
        return self._maps[shard] if self._far is None else self._far.get(shard)

    def _known(self, shard: int = 0) -> list[Place]:
        """The layout; for remote shards, `shard` is fetched if no shard has been opened yet."""
        if not self._places and self._far is not None:
            self._far.get(shard)
        return self._places

    @property
    def is_far(self) -> bool:
        """Whether shards are fetched as they are needed."""
        return self._far is not None

    def want(self, shards: Iterable[int]) -> None:
        """Fetch these shards ahead, in this order, in place of those of an earlier call.

        Nothing to do for shards that are here.
        """
        if self._far is not None:
            self._far.want(shards)

    def at(self, slots: np.ndarray) -> np.ndarray:
        """The number of the shard in which each slot lies, int64 `[k]`."""
        # `right`: the first row of a shard belongs to it, and empty shards are passed
        # over.
        shard: np.ndarray = np.searchsorted(self._starts, slots, side="right") - 1
        return shard

    def beyond_cache(self) -> str | None:
        """The reason why a full shuffle over these shards would fetch them again and again; None if
        it would not.
        """
        far = self._far
        if far is None or not far.cache.is_on or far.size_bytes <= far.cache.limit_bytes:
            return None
        return (
            f"its shards have {far.size_bytes:,} bytes, and the cache of this machine may hold"
            f" {far.cache.limit_bytes:,}"
        )

    @property
    def names(self) -> list[str]:
        """The names of a row's arrays."""
        return [place.name for place in self._known()]

    def views(self, shard: int) -> Arrays:
        """The dense arrays of one shard, without a copy; they may not be written to."""
        matrices = self._shard(shard)
        return self._split({name: matrices[name] for name in self._widths})

    def gather(self, slots: np.ndarray, *, ragged: bool = False) -> dict[str, Any]:
        """The rows in `slots` (int64 `[k]`, in any order, repeats allowed), as arrays `[k, …]` that are the
        caller's own (but a row of a ragged array, which is a slice of the mapped file and may not be written
        to).

        Args:
            ragged: ragged arrays come as `Ragged`, and not as object arrays with an array a row.
        """
        # Slots index and are subtracted from, so they have a sign.
        slots = np.asarray(slots, np.int64)
        if not self.rows_by_shard:
            if len(slots):
                raise IndexError(f"there are no rows; found {len(slots)} slots")
            return {}
        # Without the check numpy would take a negative slot from the end.
        if len(slots) and (slots.min() < 0 or slots.max() >= self.rows):
            raise IndexError(
                f"slots must be from 0 to {self.rows - 1}; found {slots.min()} to {slots.max()}"
            )
        if self._far is not None and len(slots):
            # All shards of the batch are asked for at once, so that they come side by
            # side.
            needed = np.unique(self.at(slots)).tolist()
            with self._far.using(needed):
                self._known(needed[0])
                return self._gathered(slots, ragged)
        self._known()
        return self._gathered(slots, ragged)

    def _gathered(self, slots: np.ndarray, ragged: bool) -> dict[str, Any]:
        if len(self.rows_by_shard) == 1:
            matrices = self._shard(0)
            taken = {name: matrices[name].take(slots, axis=0) for name in self._widths}
        # All matrices are contiguous over the shards: one `take` a dtype, with no sort
        # of slots.
        elif len(self._whole) == len(self._widths):
            taken = {
                name: whole.take(slots, axis=0) for name, whole in self._whole.items()
            }
        else:
            taken = self._gather_across(slots)
        arrays: dict[str, Any] = dict(self._split(taken))
        for place in self._places:
            if place.ragged is not None:
                arrays[place.name] = (
                    self._rows(place, slots)
                    if ragged and place.ragged != "bytes"
                    else self._objects(place, slots)
                )
        # In the order of the layout, which is that of the features.
        return {place.name: arrays[place.name] for place in self._places}

    def _gather_across(self, slots: np.ndarray) -> Arrays:
        """Gather shard by shard: the slots are grouped by shard, so that each shard is read from
        once.
        """
        shard = self.at(slots)
        # Stable, so that rows of one shard are read in the order of the batch.
        by_shard = np.argsort(shard, kind="stable")
        edges = np.searchsorted(shard[by_shard], np.arange(len(self.rows_by_shard) + 1))
        gathered = {
            # Filled shard by shard; every place is written once.
            name: np.empty((len(slots), width), held_dtype(name))
            for name, width in self._widths.items()
        }
        # Shards without a row of this batch are not touched.
        for i in np.flatnonzero(np.diff(edges)).tolist():
            matrices = self._shard(i)
            places = by_shard[edges[i] : edges[i + 1]]
            local = slots[places] - self._starts[i]
            for name in self._widths:
                gathered[name][places] = matrices[name].take(local, axis=0)
        return gathered

    def _split(self, matrices: Arrays) -> Arrays:
        arrays: Arrays = {}
        for place in self._places:
            if place.ragged is None:
                matrix = matrices[place.dtype]
                if place.shape == ():
                    values = matrix[:, place.start]
                else:
                    values = matrix[:, place.start : place.start + place.width]
                    if len(place.shape) > 1:
                        values = values.reshape(len(matrix), *place.shape)
                # A matrix holds booleans as bytes of 0 and 1; a view turns them back
                # without a copy.
                arrays[place.name] = (
                    values.view(np.bool_) if place.dtype == "bool" else values
                )
        return arrays

    def _objects(self, place: Place, slots: np.ndarray) -> np.ndarray:
        objects = np.empty(len(slots), object)
        shard = self.at(slots)
        for i in np.unique(shard).tolist():
            values_of, places = self._shard(i)[place.name], np.flatnonzero(shard == i)
            local = slots[places] - self._starts[i]
            if place.ragged == "bytes":
                # Bytes are of any length: each becomes an object of its own.
                for k, slot in zip(places.tolist(), local.tolist(), strict=True):
                    objects[k] = values_of[slot].as_py()
                continue
            # One slice a row: a view of the file, not a copy.
            offsets, values = values_of
            for k, start, stop in zip(
                places.tolist(),
                offsets[local].tolist(),
                offsets[local + 1].tolist(),
                strict=True,
            ):
                objects[k] = values[start:stop]
        return objects

    def _rows(self, place: Place, slots: np.ndarray) -> Ragged:
        if len(self.rows_by_shard) == 1:
            offsets, values = self._shard(0)[place.name]
            # Where they lie: a row is read when it is padded, once.
            rows = Ragged.taken([(values, offsets, slots, None)], len(slots))
            # what came from a bucket may be let go of before it is used
            return rows if self._far is None else rows.compact()
        shard, sources = self.at(slots), []
        for i in np.unique(shard).tolist():
            offsets, values = self._shard(i)[place.name]
            places = np.flatnonzero(shard == i)
            sources.append((values, offsets, slots[places] - self._starts[i], places))
        return Ragged.taken(sources, len(slots))

    def lengths(self, slots: np.ndarray, name: str) -> np.ndarray:
        """How many values the ragged array `name` has in each row of `slots`, int64 `[k]`: read from the
        offsets alone.
        """
        counts = np.zeros(len(slots), np.int64)
        shard = self.at(slots)
        for i in np.unique(shard).tolist():
            offsets = self._shard(i)[name][0]
            # The page of the offsets alone; the values are not touched.
            places = np.flatnonzero(shard == i)
            local = slots[places] - self._starts[i]
            counts[places] = offsets[local + 1] - offsets[local]
        return counts

    def ragged(self) -> list[str]:
        """The ragged arrays of numbers that a row has."""
        return [
            place.name for place in self._known() if place.ragged not in (None, "bytes")
        ]
