"""Loader: feed + order → batches, for our trainer or for anybody's loop. Its whole state is a position.

A position is the number of a global batch within an epoch. Which rows that batch has is a pure function of the seed,
the epoch and the position (`data.order`), never of the number of processes; each process yields its contiguous share of
every global batch, which may be empty when the batch is small.

Threads read ahead (`data.ahead`), so that reading and the training step overlap: one where a batch is a gather, which is as
fast as memory, and one for each core where rows must be decoded. Small batches are gathered several at a time. Torch is
imported by the first batch, not with this file; with `numpy=True` it never is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.core.errors import UserError
from penstock.core.lanes import several
from penstock.data.ahead import Timings, ahead
from penstock.data.encoding import WEIGHT
from penstock.data.order import Batches, Order, augmentation_keys, share

if TYPE_CHECKING:
    from penstock.data.feed import Feed

HELD_BYTES = 2**30
"""What batches that are read ahead may take, unless told otherwise."""
_TOGETHER_ROWS, _TOGETHER_BYTES = 4096, 2**20
"""Batches are gathered together up to so many rows or bytes."""
_BLOCK = 65_536
"""Positions whose slots are computed at once: for a small batch, numpy's cost per call would outweigh the numbers."""


class Loader:
    """Batches of a feed's split, in an order that is a function of seed and epoch.

        for batch in loader:                      # an epoch, from where `load_state_dict` put it
            loss(model(batch), batch["income.label"])

    A batch has the features' arrays by `<feature>.<array>` `[b, …]`, `row_id` int64 `[b, 2]` (the two halves of each
    row's md5) and `weight` float32 `[b]` (ones, if no weight is declared): torch tensors, or numpy arrays if asked for.

    Args:
        feed: the encoded dataset.
        split: `train`, `validation` or `test`.
        batch_size: rows of a global batch, over all processes.
        seed: the recipe's seed.
        shuffle: permute the rows anew in each epoch; otherwise they come in stored order.
        rank: this process, of `world`.
        accumulate: with more than 1, each global batch comes in so many pieces, one after another under the same
            position; each piece is divided among the processes.
        numpy: yield numpy arrays.
        threads: that read and decode ahead; the batches are the same for any number. None: one, or this process's share of the cores if
            rows must be decoded (`Feature.decodes`).
        memory_bytes: what batches being made, waiting and in use may take; one is always made ahead.
    """

    def __init__(
        self, feed: Feed, split: str = "train", *, batch_size: int, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1, accumulate: int = 1,
        numpy: bool = False, threads: int | None = None, memory_bytes: int = HELD_BYTES,
    ) -> None:
        for word, value, least in (("batch_size", batch_size, 1), ("world", world, 1), ("accumulate", accumulate, 1), ("rank", rank, 0), ("threads", 1 if threads is None else threads, 1)):
            if value < least:
                raise ValueError(f"{word} must be at least {least}; found {value}")
        if rank >= world:
            raise ValueError(f"rank must be below world ({world}); found {rank}")
        self.feed, self.split, self.seed, self.shuffle = feed, split, seed, shuffle
        self.rank, self.world, self.accumulate, self.numpy = rank, world, accumulate, numpy
        self.batch_size = batch_size
        self.rows = feed.sizes.get(split, 0)
        self.epoch = 0
        self.position = 0
        """The global batch that comes next."""
        self._shards = feed.shards(split)
        self._encoding = feed.encoding
        self._batches = Batches(self.rows, batch_size)
        self.threads = threads or (several(world) if self._encoding.decodes else 1)
        self.memory_bytes = memory_bytes
        self.timings = Timings()
        """Where the seconds went, over all epochs."""
        self._row_bytes = _TOGETHER_BYTES
        self._augment = split == "train" and shuffle and self._encoding.augments

    def __len__(self) -> int:
        """Global batches an epoch."""
        return len(self._batches)

    def global_rows(self, position: int) -> int:
        """Rows of a global batch, over all processes."""
        start, stop = self._batches.bounds(position)
        return stop - start

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it is: the batch that comes next, and what must be equal for that to mean the same (not the world)."""
        return {"epoch": self.epoch, "position": self.position, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        return {"feed": self.feed.id, "split": self.split, "rows": self.rows, "batch_size": self.batch_size, "seed": self.seed, "shuffle": self.shuffle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where another loader was; it may have had another number of processes.

        Raises:
            UserError: it went through other rows, or in another order.
        """
        differing = [f"{word} was {state.get(word)!r} and is {mine!r}" for word, mine in self._identity().items() if state.get(word) != mine]
        if differing:
            raise UserError(f"this position belongs to another order of rows: {'; '.join(differing)}. Go on with what it had, or begin again.")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of the current epoch; then the loader stands at the next one's beginning.

        A batch that was handed out counts as done: a state taken while it is in use begins with the next one.
        """
        epoch = self.epoch
        pieces = 0
        for position, batch in self.batches(epoch, self.position):
            pieces += 1
            if pieces == self.accumulate:
                self.position, pieces = position + 1, 0
            yield batch
        self.set_epoch(epoch + 1)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, this process's share) for each global batch of an epoch, from `start`. Does not move the loader.

        Close the iterator, or let go of it, to stop the threads that read ahead.
        """
        blocks = ahead(
            self._blocks(epoch, start), partial(self._made, epoch), threads=self.threads, memory_bytes=self.memory_bytes, size=lambda made: made.size, timings=self.timings)
        with closing(blocks):  # type: ignore[type-var]  # a generator
            for block in blocks:
                block.batches.reverse()
                while block.batches:
                    yield block.batches.pop()

    def _blocks(self, epoch: int, start: int) -> Iterator[_Block]:
        """Runs of consecutive batches that are read at once: a small batch alone would cost more to hand over than to gather.

        The first is a single batch, so that it comes soon; from it the bytes of a row are known. What is in a batch does not depend
        on the run it came in.
        """
        order = Order(self.rows, self.seed, epoch, self.shuffle)
        per_chunk = max(_BLOCK // self.batch_size, 1)
        share_rows = max(self.batch_size // (self.world * self.accumulate), 1)
        block = _Block([], [])
        for first in range(start, len(self), per_chunk):
            last = min(first + per_chunk, len(self))
            spans = [(position, *self._span(position, piece)) for position in range(first, last) for piece in range(self.accumulate)]
            places = np.concatenate([np.arange(low, high) for _, low, high in spans])
            slots = order.slots(places)
            done = 0
            for position, low, high in spans:
                block.positions.append(position)
                block.slots.append(slots[done : done + high - low])
                done += high - low
                if len(block.positions) * share_rows * self._row_bytes >= _TOGETHER_BYTES or len(block.positions) * share_rows >= _TOGETHER_ROWS:
                    yield block
                    block = _Block([], [])
        if block.positions:
            yield block

    def _span(self, position: int, piece: int) -> tuple[int, int]:
        start, stop = self._batches.bounds(position)
        return share(*share(start, stop, piece, self.accumulate), self.rank, self.world)

    def _made(self, epoch: int, block: _Block) -> _Block:
        """The batches of a block, read at once."""
        began = time.perf_counter()
        sizes = [len(slots) for slots in block.slots]
        slots = np.concatenate(block.slots)
        stored = self._shards.gather(slots)
        read = time.perf_counter()
        keys = augmentation_keys(self.seed, epoch, stored["row_id"]) if self._augment else None
        if WEIGHT not in stored:
            stored[WEIGHT] = np.ones(len(slots), np.float32)
        if self._encoding.plain:
            whole = self._encoding.collate(stored)
            block.size = sum(values.nbytes for values in whole.values())
            parts = self._parted(whole, sizes)
        else:
            ends = np.cumsum(sizes).tolist()
            parts = []
            for end, size in zip(ends, sizes, strict=True):  # each on its own: how far a text is padded is its batch's business
                rows = slice(end - size, end)
                batch = self._encoding.collate({name: values[rows] for name, values in stored.items()}, None if keys is None else keys[rows])
                block.size += sum(values.nbytes for values in batch.values())
                parts.append(batch if self.numpy else _tensors(batch))
        if len(slots):
            self._row_bytes = max(block.size // len(slots), 1)
        block.batches = list(zip(block.positions, parts, strict=True))
        block.slots.clear()
        self.timings.add(read=read - began, decode=time.perf_counter() - read)
        return block

    def _parted(self, arrays: dict[str, np.ndarray], sizes: list[int]) -> list[dict[str, Any]]:
        """Arrays of several batches, as batches."""
        names = list(arrays)
        if not self.numpy:
            tensors = _tensors(arrays)
            if len(sizes) == 1:
                return [tensors]
            return [dict(zip(names, row, strict=True)) for row in zip(*(tensors[name].split(sizes) for name in names), strict=True)]
        if len(sizes) == 1:
            return [arrays]
        ends = np.cumsum(sizes).tolist()
        return [{name: arrays[name][end - size : end] for name in names} for end, size in zip(ends, sizes, strict=True)]


@dataclass
class _Block:
    """Consecutive batches: which they are, then what they hold."""

    positions: list[int]
    slots: list[np.ndarray]
    batches: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    size: int = 0
    """Bytes of its arrays."""


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    from penstock.core.needs import need

    torch = need("torch", extra="train", why="batches as tensors (ask the Loader for numpy=True to do without)")
    return {name: torch.from_numpy(values) for name, values in arrays.items()}
