"""Planned rows → arrays: gathered from shards, decoded, padded, and on their way to a device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.contracts.tensors import MEMBER
from penstock.core.optional import require
from penstock.encode.encoding import WEIGHT
from penstock.encode.order_columns import MIX, WEIGHTS
from penstock.loader.epoch_plan import TOGETHER_BYTES, Block
from penstock.loader.feeds import Rows
from penstock.loader.prefetch import Timings
from penstock.loader.staging import Staging
from penstock.order.order import augmentation_keys
from penstock.order.samplers import Drawn


class BatchReader:
    """Reads blocks of batches. The threads that read ahead call `read`; the consumer's thread calls
    `hand_over`.

    Args:
        parts: the feeds' rows; all encoded alike.
        seed: what augmentation is derived from, with the epoch and the row.
        augment: whether features augment what they decode.
        numpy: leave arrays as numpy's.
        device: where tensors are wanted.
        threads: how many call `read` at once.
    """

    def __init__(
        self,
        parts: Sequence[Rows],
        *,
        seed: int,
        augment: bool,
        numpy: bool,
        device: Any,
        threads: int,
    ) -> None:
        self.timings = Timings()
        """Where the seconds went, over all epochs."""
        # Many at first, so that the first block is one batch, and then it is known.
        self.row_bytes = TOGETHER_BYTES
        """Bytes of a row as it is handed out; of the last block that was read, and many before there was
        one.
        """
        self._parts, self._seed, self._numpy, self._device = parts, seed, numpy, device
        self._encoding = parts[0].feed.encoding
        # Only where the encoding has something to augment are keys worth their making.
        self._augments = augment and self._encoding.augments
        self._is_plain = self._encoding.plain
        # One more than there are threads, so that none waits for another's copy.
        self._slots = max(threads, 1) + 1
        self._staging: Staging | None = None

    def begin(self) -> None:
        """Prepare for an epoch: allocate pinned buffers, for a CUDA device."""
        # Made with the first epoch: a loader that is only asked for its length takes no
        # pinned memory.
        if (
            self._staging is None
            and self._device is not None
            and self._device.type == "cuda"
        ):
            self._staging = Staging(self._device, slots=self._slots)

    def read(self, epoch: int, block: Block) -> Block:
        """Read all batches of a block at once, and begin to copy them to the device."""
        began = time.perf_counter()
        sizes = [len(drawn.slots) for drawn in block.drawn]
        # Rows of several batches are gathered in one call.
        drawn = Drawn.joined(block.drawn)
        stored = self._gather(drawn)
        rows = len(drawn.slots)
        read = time.perf_counter()
        # The loss of every task multiplies by a weight, so there always is one.
        if WEIGHT not in stored:
            stored[WEIGHT] = np.ones(rows, np.float32)
        if drawn.member is not None:
            stored[MEMBER] = drawn.member
        if self._is_plain:
            # One set of arrays for all batches, cut apart as views: `collate` would
            # change nothing.
            block.sizes, block.arrays = [sizes], [stored]
        else:
            block.sizes, block.arrays = (
                [[size] for size in sizes],
                self._collated(epoch, drawn, stored, sizes),
            )
        # Counted before the copy, after which the arrays are gone.
        block.size_bytes = sum(
            values.nbytes for arrays in block.arrays for values in arrays.values()
        )
        if rows:
            self.row_bytes = max(block.size_bytes // rows, 1)
        # The draws are not needed any more; a block that waits should hold arrays only.
        block.drawn.clear()
        decoded = time.perf_counter()
        if self._staging is not None:
            # The arrays are packed into pinned memory, so ours go before the next block
            # is made.
            block.sent = self._staging.send(block.arrays)
            block.arrays.clear()
        elif not self._numpy:
            block.arrays = [_tensors(arrays) for arrays in block.arrays]
        self.timings.add(
            read=read - began,
            decode=decoded - read,
            copy=time.perf_counter() - decoded if self._staging is not None else 0.0,
        )
        return block

    def _gather(self, drawn: Drawn) -> dict[str, np.ndarray]:
        """The stored arrays of the rows drawn, without the columns that they were drawn by."""
        if drawn.source is None:
            shards = self._parts[0].shards
            # plain rows have no ragged arrays, and are gathered without asking for each
            stored = (
                shards.gather(drawn.slots)
                if self._is_plain
                else shards.gather(drawn.slots, ragged=True)
            )
        else:
            stored = {}
            # An empty share still has the arrays of a batch, with no rows.
            for number in np.unique(drawn.source).tolist() or [0]:
                mine = np.flatnonzero(drawn.source == number)
                for name, values in (
                    self._parts[number].shards.gather(drawn.slots[mine]).items()
                ):
                    if name not in stored:
                        # Made with the first feed's shapes: all feeds are encoded
                        # alike.
                        stored[name] = np.empty(
                            (len(drawn.slots), *values.shape[1:]), values.dtype
                        )
                    stored[name][mine] = values
        # What rows were drawn by is no input of a model.
        stored.pop(MIX, None)
        stored.pop(WEIGHTS, None)
        return stored

    def _collated(
        self, epoch: int, drawn: Drawn, stored: dict[str, np.ndarray], sizes: list[int]
    ) -> list[dict[str, Any]]:
        """Each batch collated by itself, since it is padded to its own longest row."""
        keys = None
        if self._augments:
            # By row and occurrence, not by place in the batch, so any world augments
            # alike.
            keys = augmentation_keys(
                self._seed, epoch, stored["row_id"], drawn.occurrence
            )
        batches = []
        for end, size in zip(np.cumsum(sizes).tolist(), sizes, strict=True):
            own = slice(end - size, end)
            # Slices are views; `collate` makes the arrays that are handed out.
            rows = {name: values[own] for name, values in stored.items()}
            batches.append(
                self._encoding.collate(rows, None if keys is None else keys[own])
            )
        return batches

    def hand_over(self, block: Block) -> list[tuple[int, dict[str, Any]]]:
        """A block's batches with their positions, on the device, for the thread that uses them. The
        block keeps no reference to them.
        """
        if block.sent is not None and self._staging is not None:
            block.arrays, block.sent = self._staging.receive(block.sent), None
        elif self._device is not None:
            # Not CUDA: copied when it is handed out, by the thread that uses it.
            block.arrays = [
                {name: values.to(self._device) for name, values in arrays.items()}
                for arrays in block.arrays
            ]
        batches = [
            batch
            for arrays, sizes in zip(block.arrays, block.sizes, strict=True)
            for batch in self._split(arrays, sizes)
        ]
        # Let go of here, so that a batch lives as long as its user holds it.
        block.arrays = []
        return list(zip(block.positions, batches, strict=True))

    def _split(self, arrays: dict[str, Any], sizes: list[int]) -> list[dict[str, Any]]:
        """Cut arrays of several batches into one mapping for each batch."""
        if len(sizes) == 1:
            return [arrays]
        if not self._numpy:  # torch cuts a tensor into all its parts at once
            # Views of one tensor: the storage lives until the last of them goes.
            columns = [tensor.split(sizes) for tensor in arrays.values()]
            return [
                dict(zip(arrays, row, strict=True)) for row in zip(*columns, strict=True)
            ]
        ends = np.cumsum(sizes).tolist()
        return [
            {name: values[end - size : end] for name, values in arrays.items()}
            for end, size in zip(ends, sizes, strict=True)
        ]


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    torch = require(
        "torch",
        extra="train",
        why="batches as tensors (ask the Loader for numpy=True to do without)",
    )
    # Without a copy: the tensor shares the array's memory.
    return {name: torch.from_numpy(values) for name, values in arrays.items()}
