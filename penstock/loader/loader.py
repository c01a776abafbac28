"""Loader: feed + order → batches, for our trainer or for anybody's loop. Its whole state is a position.

A position is the number of a global batch within an epoch. Which rows that batch has is a pure function of
the seed, the epoch and the position (`order.order`, `order.samplers`, `order.mixture`), never of the number
of processes; each process yields its contiguous share of every global batch, which may be empty when the
batch is small.

Threads read ahead (`loader.prefetch`), so that reading and the training step overlap: one where a batch is a
gather, which is as fast as memory, and one for each core where rows must be decoded. Where a gather is from
memory and this process has a single core, none: a thread would take its time from the step. Small batches are
gathered several at a time. Torch is imported by the first batch, not with this file; with `numpy=True` it
never is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from penstock.contracts.part import flatten
from penstock.core.errors import RecipeError, UserError
from penstock.core.events import Events
from penstock.core.memory import keep_freed
from penstock.core.store import Store
from penstock.core.threads import threads_per_process
from penstock.encode.encoding import WEIGHT
from penstock.encode.feed import batch_size_for
from penstock.encode.order_columns import MIX, WEIGHTS
from penstock.loader.from_recipe import Data, Features, check_whole, device_there, opened, place_in_world
from penstock.loader.lookahead import advise, shards_ahead
from penstock.loader.prefetch import Timings, prefetch
from penstock.loader.resolve_order import FULL_BYTES, Rows, check_alike, resolve_order, shard_bytes
from penstock.loader.staging import Sent, Staging
from penstock.order.order import Batches, augmentation_keys, share
from penstock.order.samplers import Drawn, is_in
from penstock.recipe.order import Mix, TrainOrder
from penstock.shards.shards import Shards

HELD_BYTES = 2**30
"""What batches that are read ahead may take, unless told otherwise."""
_TOGETHER_ROWS, _TOGETHER_BYTES = 4096, 4 * 2**20
"""Batches are gathered together up to so many rows or bytes."""
_BLOCK = 65_536
"""Positions whose slots are computed at once: for a small batch, numpy's cost per call would outweigh the
numbers.
"""
_UNTOLD = {"shuffle": "auto", "block": "auto", "last": "keep"}


class Loader:
    """Batches of a feed's split, in an order that is a function of seed and epoch.

        for batch in loader:                      # an epoch, from where `load_state_dict` put it
            loss(model(batch), batch["income.label"])

    A batch has the features' arrays by `<feature>.<array>` `[b, …]`, `row_id` int64 `[b, 2]` (the two halves
    of each row's md5) and `weight` float32 `[b]` (ones, if no weight is declared): torch tensors, or numpy
    arrays if asked for.

    Args:
        data: a feed; a dataset (with `inputs` and `targets`), or a recipe or its path, which are prepared and
            encoded if they are not yet; or several of them mixed by weights, `{feed: 0.7, other: 0.3}` or a
            list of (feed, weight).
        split: `train`, `validation` or `test`.
        batch_size: rows of a global batch, over all processes; a recipe's own unless given.
        seed: what the order is derived from; a recipe's own, or 0, unless given.
        shuffle: True is `auto`, False is `stored` and without augmentation; or a word of `TrainOrder`, which
            tells what these words mean, and the following ones: `block`, `window`, `last`, `fraction`,
            `replacement`, `weights`, `balance`, `mix`, `epoch_rows`, `bucket`.
        order: all these words in one, instead. For the training split of a recipe they are the recipe's
            unless given.
        rank: this process, of `world`; as torch.distributed or torchrun's environment says, unless given.
        accumulate: with more than 1, each global batch comes in so many pieces, one after another under the
            same position; each piece is divided among the processes.
        numpy: yield numpy arrays.
        threads: that read and decode ahead; the batches are the same for any number. 0: none, a batch is made
            when it is asked for. None: this process's share of the cores if rows must be decoded
            (`Feature.decodes`); otherwise one, or none where nothing could go on beside it: one core for this
            process, and rows that memory holds (shards of up to 4 GiB on this machine).
        memory_bytes: what batches being made, waiting and in use may take; one is always made ahead.
        device: where tensors are wanted, as torch calls it. To a CUDA device they are copied ahead, from
            pinned memory and beside the model's work (`loader.staging`); to any other when they are handed
            out.
            None, or the CPU: they stay where they are.
        inputs, targets, weight: for a dataset, as a recipe says them.
        store: where a feed goes that has to be made, if not into the store of its dataset or recipe.
        events: told of choices, and of the progress of what has to be made.

    Raises:
        UserError: words that contradict each other; feeds that cannot be mixed or do not have what is named.
        ValueError: a number that cannot be.
    """

    def __init__(
        self,
        data: Data | Mapping[Data, float] | Sequence[tuple[Data, float]],
        split: str = "train",
        *,
        batch_size: int | None = None,
        seed: int | None = None,
        shuffle: bool | Literal["auto", "full", "blocks", "stored"] = True,
        rank: int | None = None,
        world: int | None = None,
        accumulate: int = 1,
        numpy: bool = False,
        threads: int | None = None,
        memory_bytes: int = HELD_BYTES,
        device: Any = None,
        block: int | Literal["auto"] = "auto",
        window: int | None = None,
        last: Literal["keep", "drop", "wrap"] = "keep",
        fraction: float | None = None,
        replacement: bool = False,
        weights: str | None = None,
        balance: str | None = None,
        mix: Mix | Mapping[str, Any] | None = None,
        epoch_rows: int | None = None,
        bucket: bool | int = False,
        order: TrainOrder | Mapping[str, Any] | str | None = None,
        inputs: Features | None = None,
        targets: Features | None = None,
        weight: str | None = None,
        store: Store | str | Path | None = None,
        events: Events | None = None,
    ) -> None:
        rank, world = place_in_world(rank, world)
        check_whole(
            batch_size=(batch_size, 1),
            world=(world, 1),
            accumulate=(accumulate, 1),
            rank=(rank, 0),
            threads=(threads, 0),
            memory_bytes=(memory_bytes, 0),
            seed=(seed, None),
        )
        if rank >= world:
            raise ValueError(f"rank must be below world ({world}); found {rank}")
        words = {
            "shuffle": (
                {True: "auto", False: "stored"}.get(shuffle, shuffle)
                if isinstance(shuffle, bool)
                else shuffle
            ),
            "block": block,
            "window": window,
            "last": last,
            "fraction": fraction,
            "replacement": replacement,
            "weights": weights,
            "balance": balance,
            "mix": mix,
            "epoch_rows": epoch_rows,
            "bucket": bucket,
        }
        # 0 is not False: it is told, and refused
        told = {
            word: value
            for word, value in words.items()
            if value is not None and value is not False and value != _UNTOLD.get(word)
        }
        if order is not None and told:
            raise UserError(f"`order` says all of it; {', '.join(told)} go not beside it")
        found = opened(
            data, inputs=inputs, targets=targets, weight=weight, order=told, store=store, events=events
        )
        recipe = found.recipe
        if order is None and not told and recipe is not None and split == "train":
            order = recipe.train.order
        several_feeds = len(found.feeds) > 1
        self.order = _as_order(told if order is None else order, mixed=several_feeds)
        """The words of the order."""
        self.feed = found.feeds[0]
        """The first of the feeds."""
        self.feeds = found.feeds
        check_alike(found.feeds)
        if batch_size is None:
            if recipe is None:
                raise UserError(
                    "how many rows has a batch? Give batch_size; it counts the rows of all processes together"
                )
            batch_size = batch_size_for(recipe, self.feed.sizes.get("train", 0))
        self.split, self.batch_size = split, batch_size
        self.seed = seed if seed is not None else recipe.seed if recipe is not None else 0
        self.rank, self.world, self.accumulate, self.numpy = rank, world, accumulate, numpy
        self.epoch = 0
        self.position = 0
        """The global batch that comes next."""
        self._parts = [
            Rows(feed, feed.shards(split), feed.holes(split), share)
            for feed, share in zip(found.feeds, found.weights, strict=True)
        ]
        self._holes = any(len(part.holes) for part in self._parts)
        self._far = any(isinstance(part.shards, Shards) and part.shards.is_far for part in self._parts)
        self._encoding = self.feed.encoding
        self._plain = self._encoding.plain
        self._settle(None, events)
        self.memory_bytes = memory_bytes
        if device is not None and numpy:
            raise ValueError("numpy arrays have no device; leave out either numpy=True or device")
        self.device = None if device is None else device_there(device)
        self.threads = self._worth(threads_per_process(world)) if threads is None else threads
        self._staging: Staging | None = None
        self.timings = Timings()
        """Where the seconds went, over all epochs."""
        self._row_bytes = _TOGETHER_BYTES
        self._augment = split == "train" and shuffle is not False and self._encoding.augments

    def _settle(self, shuffle: Any, events: Events | None = None) -> None:
        """Decide what the order means for these feeds; `shuffle` is what `auto` was, for a state that
        knows.
        """
        self._settled = resolve_order(
            self.order, self._parts, self.split, self.seed, batch_size=self.batch_size, shuffle=shuffle
        )
        self.shuffle = self._settled.shuffle
        """`full`, `blocks` or `stored`."""
        for part in self._parts if self._far else ():
            if isinstance(part.shards, Shards):
                advise(part.shards, self.shuffle, self.split)
        self._draws = self._settled.draws
        self.rows = self._draws.rows
        """Rows of an epoch, those that were taken out included."""
        self._batches = Batches(self.rows, self.batch_size, self.order.last)
        if self.rows and not len(self._batches):
            raise UserError(
                f"`last: drop` leaves no batch: an epoch of {self.split} has {self.rows} rows, and a batch"
                f" {self.batch_size}. Make batches smaller, or keep the last one"
            )
        self._empty: tuple[int, np.ndarray | None] = (-1, None)
        if self._settled.why and events is not None:
            block, window = self._settled.identity["block"], self.order.window
            events.say(
                f"rows are shuffled by blocks of {block} rows, {window} blocks at a time:"
                f" {self._settled.why}",
                shuffle="blocks",
                block=block,
                window=window,
            )

    def _worth(self, cores: int) -> int:
        """The threads that are worth their price."""
        if self._encoding.decodes:
            return cores
        disk = sum(shard_bytes(feed, self.split) for feed in self.feeds) > FULL_BYTES
        waits = self._far or disk or (self.device is not None and self.device.type != "cpu")
        return 1 if waits or cores > 1 else 0

    def __len__(self) -> int:
        """Global batches an epoch."""
        return len(self._batches)

    def global_rows(self, position: int) -> int:
        """Rows of a global batch of the present epoch, over all processes; without those that were taken
        out.
        """
        return self.rows_at(self.epoch, position)

    def rows_at(self, epoch: int, position: int) -> int:
        """Likewise of any epoch."""
        start, stop = self._batches.bounds(position)
        if not self._holes:
            return stop - start
        if self._empty[0] != epoch:
            self._empty = epoch, self._draws.empty(epoch)
        empty = self._empty[1]
        if empty is None:
            return int(self._live(self._draws.draw(epoch, np.arange(start, stop))).sum())
        before, after = (
            at // self.rows * len(empty) + int(np.searchsorted(empty, at % self.rows)) for at in (start, stop)
        )
        return stop - start - (after - before)

    def _live(self, drawn: Drawn) -> np.ndarray:
        """Which of the rows drawn were not taken out."""
        if drawn.source is None:
            return ~is_in(drawn.slots, self._parts[0].holes)
        gone = np.zeros(len(drawn.slots), bool)
        for number, part in enumerate(self._parts):
            gone |= (drawn.source == number) & is_in(drawn.slots, part.holes)
        return ~gone

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        check_whole(epoch=(epoch, 0))
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it is: the batch that comes next, and what must be equal for that to mean the same (not the
        world).
        """
        return {"epoch": self.epoch, "position": self.position, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        feeds: Any = (
            self.feed.id if len(self._parts) == 1 else {part.feed.id: part.weight for part in self._parts}
        )
        rows = sum(part.shards.rows for part in self._parts)
        return {
            "feed": feeds,
            "split": self.split,
            "rows": rows,
            "batch_size": self.batch_size,
            "seed": self.seed,
            **self._settled.identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where another loader was; it may have had another number of processes.

        Raises:
            UserError: it went through other rows, or in another order; or it is no state.
        """
        if not isinstance(state, Mapping) or not {"epoch", "position"} <= set(state):
            if isinstance(state, Mapping):
                found = ", ".join(map(str, state)) or "an empty one"
            else:
                found = type(state).__name__
            raise UserError(
                f"a state is what `state_dict()` gave, with `epoch` and `position`; found {found}"
            )
        theirs = {word: value for word, value in state.items() if word not in ("epoch", "position")}
        if isinstance(theirs.get("shuffle"), bool):  # as states were before there were words
            theirs["shuffle"] = "full" if theirs["shuffle"] else "stored"
        if (
            self.order.shuffle == "auto"
            and theirs.get("shuffle") in ("full", "blocks")
            and theirs["shuffle"] != self._settled.identity["shuffle"]
        ):
            self._settle(theirs["shuffle"])  # `auto` goes on as what it was
        mine = self._identity()
        differing = [
            f"{word} was {theirs.get(word)!r} and is {mine.get(word)!r}"
            for word in dict.fromkeys([*mine, *theirs])
            if theirs.get(word) != mine.get(word)
        ]
        if differing:
            raise UserError(
                f"this position belongs to another order of rows: {'; '.join(differing)}. Go on with what it"
                " had, or begin again."
            )
        epoch, position = int(state["epoch"]), int(state["position"])
        if epoch < 0 or not 0 <= position <= len(self):
            raise UserError(
                f"a state stands at one of the {len(self)} batches of an epoch, or at its end; found epoch"
                f" {epoch}, position {position}"
            )
        self.epoch, self.position = epoch, position

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
        """(position, this process's share) for each global batch of an epoch, from `start`.

        Does not move the loader.

        Close the iterator, or let go of it, to stop the threads that read ahead.
        """
        check_whole(epoch=(epoch, 0), start=(start, 0))
        keep_freed()  # a batch's memory is the next one's
        if self._staging is None and self.device is not None and self.device.type == "cuda":
            self._staging = Staging(self.device, slots=max(self.threads, 1) + 1)
        blocks = prefetch(
            self._blocks(epoch, start),
            partial(self._made, epoch),
            threads=self.threads,
            memory_bytes=self.memory_bytes,
            size=lambda made: made.size,
            timings=self.timings,
        )
        with closing(blocks):  # type: ignore[type-var]  # a generator
            for block in blocks:
                batches = self._handed(block)
                batches.reverse()
                while batches:
                    yield batches.pop()

    def _handed(self, block: _Block) -> list[tuple[int, dict[str, Any]]]:
        """A block's batches, with their positions."""
        if block.sent is not None and self._staging is not None:
            block.arrays, block.sent = self._staging.receive(block.sent), None
        elif self.device is not None:
            block.arrays = [
                {name: values.to(self.device) for name, values in arrays.items()} for arrays in block.arrays
            ]
        parts = [
            part
            for arrays, sizes in zip(block.arrays, block.sizes, strict=True)
            for part in self._parted(arrays, sizes)
        ]
        block.arrays = []
        return list(zip(block.positions, parts, strict=True))

    def _blocks(self, epoch: int, start: int) -> Iterator[_Block]:
        """Runs of consecutive batches that are read at once: a small batch alone would cost more to hand over
        than to gather.

        The first is a single batch, so that it comes soon; from it the bytes of a row are known. What is in a
        batch does not depend on the run it came in.
        """
        per_chunk = max(_BLOCK // self.batch_size, 1)
        share_rows = max(self.batch_size // (self.world * self.accumulate), 1)
        block = _Block([], [])
        first, chunk = start, 1  # so that the first batch waits for no other's place to be worked out
        while first < len(self):
            last = min(first + chunk, len(self))
            spans = [
                (position, *self._span(position, piece))
                for position in range(first, last)
                for piece in range(self.accumulate)
            ]
            places = np.concatenate([np.arange(low, high) for _, low, high in spans])
            drawn = self._draws.draw(epoch, places)
            if self._far:
                self._fetch_ahead(
                    epoch, self._batches.bounds(first)[0], self._batches.bounds(last - 1)[1], drawn
                )
            ends = np.cumsum([high - low for _, low, high in spans])
            if self._holes:
                live = self._live(drawn)
                drawn, ends = drawn.take(live), np.concatenate([[0], np.cumsum(live)])[ends]
            done = 0
            for (position, _, _), end in zip(spans, ends.tolist(), strict=True):
                block.positions.append(position)
                block.drawn.append(drawn.take(slice(done, end)))
                done = end
                if (
                    len(block.positions) * share_rows * self._row_bytes >= _TOGETHER_BYTES
                    or len(block.positions) * share_rows >= _TOGETHER_ROWS
                ):
                    yield block
                    block = _Block([], [])
            first, chunk = last, min(chunk * 8, per_chunk)
        if block.positions:
            yield block

    def _fetch_ahead(self, epoch: int, start: int, stop: int, drawn: Drawn) -> None:
        """Tell shards that lie in a bucket which of them are needed soon."""
        for number, part in enumerate(self._parts):
            if isinstance(part.shards, Shards) and part.shards.is_far:
                slots = drawn.slots if drawn.source is None else drawn.slots[drawn.source == number]
                part.shards.want(shards_ahead(self._draws, part.shards, epoch, start, stop, slots))

    def _span(self, position: int, piece: int) -> tuple[int, int]:
        start, stop = self._batches.bounds(position)
        return share(*share(start, stop, piece, self.accumulate), self.rank, self.world)

    def _made(self, epoch: int, block: _Block) -> _Block:
        """The batches of a block, read at once."""
        began = time.perf_counter()
        sizes = [len(drawn.slots) for drawn in block.drawn]
        drawn = Drawn.joined(block.drawn)
        stored = self._gather(drawn)
        rows = len(drawn.slots)
        read = time.perf_counter()
        keys = (
            augmentation_keys(self.seed, epoch, stored["row_id"], drawn.occurrence) if self._augment else None
        )
        if WEIGHT not in stored:
            stored[WEIGHT] = np.ones(rows, np.float32)
        if self._plain:
            block.sizes = [sizes]
            block.arrays = [stored]  # `collate` would change nothing
        else:
            block.sizes = [[size] for size in sizes]
            # each on its own: how far a text is padded is its batch's business
            for end, size in zip(np.cumsum(sizes).tolist(), sizes, strict=True):
                own = slice(end - size, end)
                block.arrays.append(
                    self._encoding.collate(
                        {name: values[own] for name, values in stored.items()},
                        None if keys is None else keys[own],
                    )
                )
        block.size = sum(values.nbytes for arrays in block.arrays for values in arrays.values())
        if rows:
            self._row_bytes = max(block.size // rows, 1)
        block.drawn.clear()
        decoded = time.perf_counter()
        if self._staging is not None:
            block.sent = self._staging.send(block.arrays)
            block.arrays.clear()
        elif not self.numpy:
            block.arrays = [_tensors(arrays) for arrays in block.arrays]
        self.timings.add(
            read=read - began,
            decode=decoded - read,
            copy=time.perf_counter() - decoded if self._staging is not None else 0.0,
        )
        return block

    def _gather(self, drawn: Drawn) -> dict[str, np.ndarray]:
        """The stored rows, of one feed or of several, without what they were drawn by."""
        if drawn.source is None:
            shards = self._parts[0].shards
            stored = shards.gather(drawn.slots) if self._plain else shards.gather(drawn.slots, ragged=True)
        else:
            stored = {}
            for number in np.unique(drawn.source).tolist() or [0]:
                mine = np.flatnonzero(drawn.source == number)
                for name, values in self._parts[number].shards.gather(drawn.slots[mine]).items():
                    if name not in stored:
                        stored[name] = np.empty((len(drawn.slots), *values.shape[1:]), values.dtype)
                    stored[name][mine] = values
        stored.pop(MIX, None)
        stored.pop(WEIGHTS, None)
        return stored

    def _parted(self, arrays: dict[str, Any], sizes: list[int]) -> list[dict[str, Any]]:
        """Arrays of several batches, as batches."""
        if len(sizes) == 1:
            return [arrays]
        if not self.numpy:  # torch cuts a tensor into all its parts at once
            return [
                dict(zip(arrays, row, strict=True))
                for row in zip(*(tensor.split(sizes) for tensor in arrays.values()), strict=True)
            ]
        ends = np.cumsum(sizes).tolist()
        return [
            {name: values[end - size : end] for name, values in arrays.items()}
            for end, size in zip(ends, sizes, strict=True)
        ]


@dataclass
class _Block:
    """Consecutive batches: which they are, then what they hold."""

    positions: list[int]
    drawn: list[Drawn]
    arrays: list[dict[str, Any]] = field(default_factory=list)
    """Arrays of all batches together, or of each on its own: as `sizes` says."""
    sizes: list[list[int]] = field(default_factory=list)
    """For each of `arrays`, the rows of its batches."""
    sent: Sent | None = None
    """The arrays, if they are on their way to a device."""
    size: int = 0
    """Bytes of the arrays."""


def _as_order(order: TrainOrder | Mapping[str, Any] | str, *, mixed: bool) -> TrainOrder:
    """The words as a record. An epoch of several feeds may be given its length, as one of drawn rows may.

    Raises:
        UserError: they contradict each other.
    """
    if isinstance(order, TrainOrder):
        return order
    words = {"shuffle": order} if isinstance(order, str) else dict(order)
    length = words.pop("epoch_rows", None) if mixed else None
    try:
        found = TrainOrder.model_validate(words)
    except ValidationError as error:
        raise RecipeError.of(flatten(error, words), where="the order of rows") from None
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise UserError(f"epoch_rows must be a number of rows from 1; found {length!r}")
    return found if length is None else found.model_copy(update={"epoch_rows": length})


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    from penstock.core.optional import require

    torch = require(
        "torch", extra="train", why="batches as tensors (ask the Loader for numpy=True to do without)"
    )
    return {name: torch.from_numpy(values) for name, values in arrays.items()}
