"""Loader: feed + order → batches, for our trainer or for anybody's loop. Its whole state is a position.

A position is the number of a global batch within an epoch. Which rows that batch has is a pure function of the seed,
the epoch and the position (`data.order`), never of the number of processes; each process yields its contiguous share of
every global batch, which may be empty when the batch is small.

One thread gathers a few batches ahead in numpy, so that reading from disk and the training step overlap. More workers,
or processes, would only pass copies about: the gather is as fast as memory. Torch is imported by the first batch, not
with this file; with `numpy=True` it never is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.core.errors import UserError
from penstock.data.encoding import WEIGHT
from penstock.data.order import Batches, Order, augmentation_keys, share

if TYPE_CHECKING:
    from penstock.data.feed import Feed

AHEAD = 2
"""Batches gathered ahead: one being used and one in hand hide a read; more would only hold memory."""
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
    """

    def __init__(
        self, feed: Feed, split: str = "train", *, batch_size: int, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1, accumulate: int = 1,
        numpy: bool = False,
    ) -> None:
        for word, value, least in (("batch_size", batch_size, 1), ("world", world, 1), ("accumulate", accumulate, 1), ("rank", rank, 0)):
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

        Close the iterator, or let go of it, to stop the thread that reads ahead.
        """
        for position, arrays in _ahead(self._gathered(epoch, start)):
            yield position, arrays if self.numpy else _tensors(arrays)

    def _gathered(self, epoch: int, start: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        order = Order(self.rows, self.seed, epoch, self.shuffle)
        per_block = max(_BLOCK // self.batch_size, 1)
        for first in range(start, len(self), per_block):
            last = min(first + per_block, len(self))
            spans = [(position, *self._span(position, piece)) for position in range(first, last) for piece in range(self.accumulate)]
            places = np.concatenate([np.arange(low, high) for _, low, high in spans])
            slots = order.slots(places)
            done = 0
            for position, low, high in spans:
                yield position, self._batch(slots[done : done + high - low], epoch)
                done += high - low

    def _span(self, position: int, piece: int) -> tuple[int, int]:
        start, stop = self._batches.bounds(position)
        return share(*share(start, stop, piece, self.accumulate), self.rank, self.world)

    def _batch(self, slots: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        stored = self._shards.gather(slots)
        keys = augmentation_keys(self.seed, epoch, stored["row_id"]) if self._augment else None
        batch = self._encoding.collate(stored, keys)
        if WEIGHT not in batch:
            batch[WEIGHT] = np.ones(len(slots), np.float32)
        return batch


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    from penstock.core.needs import need

    torch = need("torch", extra="train", why="batches as tensors (ask the Loader for numpy=True to do without)")
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, made by a thread up to `AHEAD` before they are asked for. Errors are raised where they are asked for."""
    queue: Queue[Any] = Queue(AHEAD)
    stop = threading.Event()
    end = object()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(end)
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that asked
            put(_Failed(error))

    thread = threading.Thread(target=work, name="penstock-loader", daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if item is end:
                return
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stop.set()
        while True:  # make room, so that a thread waiting to put sees the flag at once
            try:
                queue.get_nowait()
            except Empty:
                break
        thread.join()
