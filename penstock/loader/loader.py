"""Loader: feed + order → batches, for our trainer or for anybody's loop. Its whole state is a position.

A position is the number of a global batch within an epoch. Which rows that batch has is a pure function of
the seed, the epoch and the position (`order.order`, `order.samplers`, `order.mixture`), never of the number
of processes; each process yields its contiguous share of every global batch, which may be empty when the
batch is small.

Where to look: what an order means for the feeds at hand, `resolve_order`; which rows a batch has,
`epoch_plan`; how they become arrays, `batch_reader`; which process and which device, `options`. Recipes and
datasets are not known here: `penstock.Loader` prepares and encodes them, and opens this with the feed.

Threads read ahead (`loader.prefetch`), so that reading and the training step overlap: one where a batch is a
gather, which is as fast as memory, and one for each core where rows must be decoded. Where a gather is from
memory and this process has a single core, none: a thread would take its time from the step. Small batches are
gathered several at a time. Torch is imported by the first batch, not with this file; with `numpy=True` it
never is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from pydantic import ValidationError

from penstock.contracts.part import flatten
from penstock.core.errors import RecipeError, UserError
from penstock.core.events import Events
from penstock.core.memory import keep_freed
from penstock.core.threads import threads_per_process
from penstock.encode.feed import Feed
from penstock.loader.batch_reader import BatchReader
from penstock.loader.epoch_plan import EpochPlan, Share
from penstock.loader.feeds import Mixture, Rows, rows_of, shard_bytes, weighted
from penstock.loader.lookahead import advise
from penstock.loader.options import LoaderOptions, check_whole
from penstock.loader.prefetch import Timings, prefetch
from penstock.loader.resolve_order import FULL_BYTES, resolve_order
from penstock.order.order import Batches, Shuffle
from penstock.recipe.order import TrainOrder
from penstock.shards.shards import Shards

Order = TrainOrder | Mapping[str, Any] | str
"""An order of rows: the record, its words in a mapping, or the word of `shuffle` alone."""


class Loader:
    """Batches of a feed's split, in an order that is a function of seed and epoch.

        for batch in loader:                      # an epoch, from where `load_state_dict` put it
            loss(model(batch), batch["income.label"])

    A batch has the features' arrays by `<feature>.<array>` `[b, …]`, `row_id` int64 `[b, 2]` (the two halves
    of each row's md5) and `weight` float32 `[b]` (ones, if no weight is declared): torch tensors, or numpy
    arrays if asked for.

    Args:
        feeds: a feed, or several mixed by weights: `{feed: 0.7, other: 0.3}` or a list of (feed, weight).
        split: `train`, `validation` or `test`.
        batch_size: rows of a global batch, over all processes.
        seed: what the order is derived from.
        order: which rows come, and in which order: `recipe.order.TrainOrder`, a mapping of its words, or a
            word of `shuffle`.
        augment: whether features augment rows; only those of the training split ever are.
        members: of an ensemble whose members each learn in an order of their own. An epoch then has every row
            once for each, a batch equally many rows for each, and `member` int64 `[b]` says whose a row is.
        numpy: yield numpy arrays.
        options: this process's place, its threads, memory and device: `LoaderOptions`, or a mapping of its
            words.
        events: gets the choices.

    Raises:
        UserError: words that contradict each other; feeds that cannot be mixed or do not have what is named.
        ValueError: a number that cannot be.
    """

    def __init__(
        self,
        feeds: Feed | Mixture[Feed],
        *,
        split: str = "train",
        batch_size: int,
        seed: int = 0,
        order: Order = "auto",
        augment: bool = True,
        members: int | None = None,
        numpy: bool = False,
        options: LoaderOptions | Mapping[str, Any] | None = None,
        events: Events | None = None,
    ) -> None:
        check_whole(
            batch_size=(batch_size, members or 1), seed=(seed, None), members=(members, 1)
        )
        chosen, self.rank, self.world = LoaderOptions.of(options).placed()
        # Numpy's arrays cannot be elsewhere than in memory.
        if chosen.device is not None and numpy:
            raise ValueError(
                "numpy arrays have no device; leave out either numpy=True or device"
            )
        # One feed is a mixture of itself, so the code below knows one case.
        self._parts = rows_of(
            weighted({feeds: 1.0} if isinstance(feeds, Feed) else feeds), split
        )
        self.feeds = [part.feed for part in self._parts]
        self.feed = self.feeds[0]
        """The first of the feeds."""
        self.order = as_order(order, mixed=len(self.feeds) > 1)
        """The words of the order."""
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.members = members
        self.accumulate, self.numpy, self.device = chosen.accumulate, numpy, chosen.device
        self.memory_bytes = chosen.memory_bytes
        self.epoch = 0
        self.position = 0
        """The global batch that comes next."""
        self._share = Share(self.rank, self.world, self.accumulate)
        self._resolve(None, events)
        # After the order: where rows lie, and in which order they come, decides how
        # many threads are worth it.
        self.threads = (
            self._useful_threads() if chosen.threads is None else chosen.threads
        )
        self._reader = BatchReader(
            self._parts,
            seed=seed,
            # Only the training split is ever augmented, whatever is asked for.
            augment=augment and split == "train",
            numpy=numpy,
            device=self.device,
            threads=self.threads,
        )

    def _resolve(self, shuffle: Shuffle | None, events: Events | None = None) -> None:
        """Decide what the order means for these feeds; `shuffle` is what `auto` was, for a state that
        knows.
        """
        self._resolved = resolve_order(
            self.order,
            self._parts,
            self.split,
            self.seed,
            batch_size=self.batch_size,
            shuffle=shuffle,
            members=self.members,
        )
        self.shuffle = self._resolved.shuffle
        """`full`, `blocks` or `stored`."""
        # Said when the loader is made, and not after hours of fetching again and again.
        for shards in self._remote_shards():
            advise(shards, str(self.shuffle), self.split)
        draws = self._resolved.draws
        self.rows = draws.rows
        """Rows of an epoch, those that were taken out included."""
        batches = Batches(self.rows, self.batch_size, self.order.last)
        # An empty split is no mistake; one that loses its only batch is.
        if self.rows and not len(batches):
            raise UserError(
                f"`last: drop` leaves no batch: an epoch of {self.split} has {self.rows} rows, and a batch"
                f" {self.batch_size}. Make batches smaller, or keep the last one"
            )
        # A plan of its own for each resolved order: a state may bring another.
        self._plan = EpochPlan(self._parts, draws, batches)
        if self._resolved.why and events is not None:
            block, window = self._resolved.identity["block"], self.order.window
            events.say(
                f"Rows are shuffled in blocks of {block} rows, {window} blocks at a time:"
                f" {self._resolved.why}",
                shuffle="blocks",
                block=block,
                window=window,
            )

    def _remote_shards(self) -> list[Shards]:
        """Those that lie in a bucket."""
        each = [part.shards for part in self._parts]
        return [shards for shards in each if isinstance(shards, Shards) and shards.is_far]

    def _useful_threads(self) -> int:
        """The number of threads that pay: one a core where rows are decoded; one where reading
        waits or there is a second core; else none.
        """
        cores = threads_per_process(self.world)
        # Decoding is the work, so every core of this process takes part.
        if self.feed.encoding.decodes:
            return cores
        beyond_memory = (
            sum(shard_bytes(feed, self.split) for feed in self.feeds) > FULL_BYTES
        )
        # A copy to a device is waited for, as a disk or a bucket is.
        copies = self.device is not None and self.device.type != "cpu"
        waits = bool(self._remote_shards()) or beyond_memory or copies
        # One thread hides a wait; a second core lets even a plain gather go on beside
        # the step.
        return 1 if waits or cores > 1 else 0

    @property
    def timings(self) -> Timings:
        """Where the seconds went, over all epochs."""
        return self._reader.timings

    def __repr__(self) -> str:
        ids = [feed.id for feed in self.feeds]
        return (
            f"Loader({ids if len(ids) > 1 else ids[0]!r}, split={self.split!r}, batch_size={self.batch_size},"
            f" batches={len(self)}, shuffle={self.shuffle!r}, epoch={self.epoch}, position={self.position})"
        )

    def __len__(self) -> int:
        """Global batches an epoch."""
        return len(self._plan.batches)

    def global_rows(self, position: int) -> int:
        """Rows of a global batch of the present epoch, over all processes; without those that were taken
        out.
        """
        return self._plan.rows(self.epoch, position)

    def rows_at(self, epoch: int, *, position: int) -> int:
        """The rows of a global batch of any epoch, as `global_rows`."""
        return self._plan.rows(epoch, position)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        check_whole(epoch=(epoch, 0))
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The loader's state: the epoch, the batch that comes next, and the words that must be
        equal for it to mean the same.
        """
        return {"epoch": self.epoch, "position": self.position, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        parts: list[Rows] = self._parts
        # Not the world, the threads or the device: they change no global batch.
        weights = {part.feed.id: part.weight for part in parts}
        return {
            "feed": self.feed.id if len(parts) == 1 else weights,
            "split": self.split,
            "rows": sum(part.shards.rows for part in parts),
            "batch_size": self.batch_size,
            "seed": self.seed,
            **self._resolved.identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where another loader was; it may have had another number of processes.

        Raises:
            UserError: it went through other rows, or in another order; or it is no state.
        """
        if not isinstance(state, Mapping) or not {"epoch", "position"} <= set(state):
            words = (
                ", ".join(map(str, state))
                if isinstance(state, Mapping)
                else type(state).__name__
            )
            raise UserError(
                "a state is what `state_dict()` gave, with `epoch` and `position`; found"
                f" {words or 'an empty one'}"
            )
        theirs = {
            word: value
            for word, value in state.items()
            if word not in ("epoch", "position")
        }
        # States of the older format have a bool here.
        if isinstance(theirs.get("shuffle"), bool):
            theirs["shuffle"] = "full" if theirs["shuffle"] else "stored"
        shuffle = theirs.get("shuffle")
        is_other = (
            # Only between these two does `auto` choose.
            shuffle in ("full", "blocks")
            and shuffle != self._resolved.identity["shuffle"]
        )
        if self.order.shuffle == "auto" and is_other:
            self._resolve(shuffle)  # `auto` goes on as what it was
        mine = self._identity()
        differing = [
            f"{word} was {theirs.get(word)!r} and is {mine.get(word)!r}"
            for word in dict.fromkeys([*mine, *theirs])
            if theirs.get(word) != mine.get(word)
        ]
        if differing:
            raise UserError(
                f"This position belongs to another order of rows: {'; '.join(differing)}. Use"
                " the same settings, or start again."
            )
        epoch, position = int(state["epoch"]), int(state["position"])
        # The end of an epoch is a place as well: a state is saved there, too.
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
        for position, batch in self.batches(epoch, start=self.position):
            # All pieces of a global batch have one position, which is done with the
            # last piece.
            pieces += 1
            if pieces == self.accumulate:
                self.position, pieces = position + 1, 0
            yield batch
        # Only here, so that a loop which is left early stands where it stopped.
        self.set_epoch(epoch + 1)

    def batches(
        self, epoch: int, *, start: int = 0
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, this process's share) for each global batch of an epoch, from `start`.

        Does not move the loader.

        Close the iterator, or let go of it, to stop the threads that read ahead.
        """
        check_whole(epoch=(epoch, 0), start=(start, 0))
        keep_freed()  # a batch's memory is the next one's
        reader = self._reader
        reader.begin()
        # Asked for by the threads that read, so planning goes on beside the step as
        # well.
        planned = self._plan.blocks(
            epoch,
            start,
            batch_size=self.batch_size,
            share=self._share,
            # Asked each time, since the bytes of a row are known after the first block.
            row_bytes=lambda: reader.row_bytes,
        )
        blocks = prefetch(
            planned,
            partial(reader.read, epoch),
            threads=self.threads,
            memory_bytes=self.memory_bytes,
            size=lambda block: block.size_bytes,
            timings=reader.timings,
        )
        # Closed also where the consumer stops early, so that no thread is left.
        with closing(blocks):  # type: ignore[type-var]  # a generator
            for block in blocks:
                batches = reader.hand_over(block)
                batches.reverse()  # so that each is let go of as soon as it is handed out
                while batches:
                    yield batches.pop()


def as_order(order: Order, *, mixed: bool) -> TrainOrder:
    """Turn the words of an order into the record.

    Args:
        mixed: an epoch of several feeds may be given its length, as one of drawn rows may.

    Raises:
        UserError: they contradict each other.
    """
    if isinstance(order, TrainOrder):
        return order
    words = {"shuffle": order} if isinstance(order, str) else dict(order)
    # `TrainOrder` refuses a length for rows that come once; a mixture of feeds may have
    # one.
    length = words.pop("epoch_rows", None) if mixed else None
    try:
        record = TrainOrder.model_validate(words)
    except ValidationError as error:
        raise RecipeError.of(flatten(error, words), where="the order of rows") from None
    if length is not None and (
        isinstance(length, bool) or not isinstance(length, int) or length < 1
    ):
        raise UserError(f"epoch_rows must be a number of rows from 1; found {length!r}")
    return record if length is None else record.model_copy(update={"epoch_rows": length})
