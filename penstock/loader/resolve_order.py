"""What an order's words mean for feeds at hand: `TrainOrder` + feeds → `Draws`, and what must stay equal for
a position to mean the same.

The one place where order meets data: how many rows a shard has, which class a row is of, what weighs how
much. Columns are read once, when a loader is made, and only where the words name one; taking up a position
reads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.core.errors import UserError
from penstock.core.identity import derive_seed
from penstock.core.near import did_you_mean
from penstock.encode.order_columns import MIX, WEIGHTS, group_of
from penstock.encode.series.windows import WindowShards
from penstock.loader.feeds import Rows, column, shard_bytes
from penstock.order.length_buckets import SPAN, Bucketed, Lengths
from penstock.order.members import OfMembers
from penstock.order.mixture import LONGEST_PERIOD, Group, Mixture, members, order_within
from penstock.order.order import Order, Shuffle
from penstock.order.samplers import Drawn, Draws, Once, Replaced, Subset, running_sums
from penstock.recipe.order import TrainOrder

if TYPE_CHECKING:
    from penstock.encode.feed import Feed
    from penstock.shards.shards import Shards

FULL_BYTES = 4 * 2**30
"""Up to so many bytes of shards `auto` is `full`: rows from everywhere are then rows from the page cache, on
any machine that trains.
"""


@dataclass(frozen=True)
class ResolvedOrder:
    """An order applied to feeds."""

    draws: Draws
    shuffle: Shuffle
    why: str | None
    """Why `auto` became `blocks`, if it did."""
    identity: dict[str, Any]
    """What must be equal for a position to mean the same; words that say nothing are left out."""


def resolve_order(
    order: TrainOrder,
    parts: Sequence[Rows],
    split: str,
    seed: int,
    *,
    batch_size: int,
    shuffle: Shuffle | None = None,
    members: int | None = None,
    rows_seed: int | None = None,
) -> ResolvedOrder:
    """Work out the draws that an order means for these feeds.

    Args:
        parts: the feeds; several are a mixture by their weights.
        batch_size: rows of a global batch, for `bucket`.
        shuffle: what `auto` is taken as; decided by the bytes of the shards unless given.
        members: of an ensemble, each of which gets an order of its own; None: rows are for all.
        rows_seed: of the choice of a fraction of the rows; `seed` unless given.

    Raises:
        UserError: the feeds do not have what the order names.
    """
    if members is not None:
        each = [
            resolve_order(
                order,
                parts,
                split,
                derive_seed(seed, "member", member),
                batch_size=batch_size // members,
                shuffle=shuffle,
                # All learn from the same rows.
                rows_seed=seed,
            )
            for member in range(members)
        ]
        return replace(
            each[0],
            draws=OfMembers([resolved.draws for resolved in each]),
            identity={**each[0].identity, "members": members},
        )
    chosen, why = _shuffle(order, parts, split, shuffle)
    # The same rows of a feed in every epoch, whatever order they then come in.
    rows_seed = seed if rows_seed is None else rows_seed
    subsets = [
        Subset.fraction(part.shards.rows, order.fraction, rows_seed) for part in parts
    ]
    # All of the epoch 0: drawing sets the epoch.
    orders = [
        Order(
            subset.rows, seed, 0, chosen, _block(order, part.shards, subset), order.window
        )
        for part, subset in zip(parts, subsets, strict=True)
    ]
    _check_drawn(order, several_feeds=len(parts) > 1)
    draws = _draws(order, parts, subsets, orders, seed)
    # Last, since it deals out again what all the other words have drawn.
    if order.bucket:
        draws = Bucketed(
            draws,
            batch_size=batch_size,
            span=SPAN if order.bucket is True else order.bucket,
            seed=seed,
            lengths=_lengths(parts),
        )
    return ResolvedOrder(
        draws, chosen, why, _identity(order, chosen, [own.block for own in orders])
    )


def _check_drawn(order: TrainOrder, *, several_feeds: bool) -> None:
    drawn = order.draws
    if several_feeds and drawn:
        raise UserError(
            f"`{drawn}` cannot go with a mixture of feeds, which draws rows by the feeds' weights; leave one"
            " of them out"
        )
    # Rows that come once have an epoch of their own length.
    if order.epoch_rows is not None and not drawn and not several_feeds:
        raise UserError(
            "epoch_rows is for rows that are drawn (`replacement`, `weights`, `balance`, `mix`, several"
            " feeds); otherwise an epoch has each row once"
        )


def _draws(
    order: TrainOrder,
    parts: Sequence[Rows],
    subsets: Sequence[Subset],
    orders: Sequence[Order],
    seed: int,
) -> Draws:
    """The row at each position of an epoch, before rows of like length are put together."""
    # Each feed is one group, with an order of its own; an epoch is as long as all
    # together.
    if len(parts) > 1:
        groups = [
            Group(f"the feed {part.feed.id}", subset.rows, own, subset.slots)
            for part, subset, own in zip(parts, subsets, orders, strict=True)
        ]
        weights = [part.weight for part in parts]
        return Mixture.of(
            groups, weights, rows=order.epoch_rows, seed=seed, of_feeds=True
        )
    if order.draws in ("mix", "balance"):
        return _grouped(order, parts[0], subsets[0], orders[0], seed)
    if order.draws in ("weights", "replacement"):
        return _replaced(order, parts[0], subsets[0], seed)
    # Holes are known here, so that batches can be counted without a draw; a mixture
    # finds them by drawing.
    return Once(subsets[0], orders[0], parts[0].holes)


_IDENTIFYING = (
    "last",
    "fraction",
    "replacement",
    "weights",
    "balance",
    "mix",
    "epoch_rows",
    "bucket",
)
"""Words that a position depends on; those that are as usual are left out of an identity, so that a word which
is added later changes no position that was saved before it.
"""


def _identity(
    order: TrainOrder, shuffle: Shuffle, blocks: Sequence[int]
) -> dict[str, Any]:
    is_drawn = order.draws in ("weights", "replacement")
    # Drawn rows come by chance whatever `shuffle` says, so it must not tell two states
    # apart.
    identity: dict[str, Any] = {"shuffle": "drawn" if is_drawn else shuffle}
    if identity["shuffle"] == "blocks":
        # One feed, one number.
        identity["block"] = list(blocks) if len(blocks) > 1 else blocks[0]
        identity["window"] = order.window
    words = order.to_dict()
    return identity | {
        word: words[word] for word in _IDENTIFYING if words[word] != _USUAL[word]
    }


_USUAL = TrainOrder().to_dict()


def _shuffle(
    order: TrainOrder, parts: Sequence[Rows], split: str, given: Shuffle | None
) -> tuple[Shuffle, str | None]:
    if order.shuffle != "auto":
        return order.shuffle, None
    if given is not None:
        return given, None
    size = sum(shard_bytes(part.feed, split) for part in parts)
    # Drawn rows come from everywhere, block or no block.
    if size <= FULL_BYTES or order.draws in ("weights", "replacement"):
        return "full", None
    return (
        "blocks",
        (
            f"the shards of {split} have {size / 2**30:.1f} GiB, more than the {FULL_BYTES / 2**30:g} up to"
            " which rows are shuffled one by one"
        ),
    )


def _block(order: TrainOrder, shards: Shards | WindowShards, subset: Subset) -> int:
    """Rows of a block: as declared, or those of a shard, times the share of the subset."""
    # A shard, since a shard is what is fetched or mapped at once.
    rows = order.block if order.block != "auto" else max(shards.rows_by_shard, default=1)
    # A subset keeps the stored order, so its rows of one shard are that much fewer.
    return max(rows * subset.rows // max(subset.of, 1), 1)


def _lengths(parts: Sequence[Rows]) -> Lengths:
    """A function that gives the length of each row drawn: the values of all its ragged arrays
    together, by the shards' offsets.
    """
    arrays = [part.shards.ragged() for part in parts]
    # A feed without rows has no layout to ask.
    if not all(arrays) and any(part.shards.rows for part in parts):
        raise UserError(
            "bucket puts rows of like length together, but no feature has a length of its own (texts, sets"
            " and sequences have); leave it out"
        )

    def lengths(drawn: Drawn) -> np.ndarray:
        counts = np.zeros(len(drawn.slots), np.int64)
        for number, part in enumerate(parts):
            # One feed: all rows are its own.
            mine = (
                np.flatnonzero(drawn.source == number)
                if drawn.source is not None
                else np.arange(len(drawn.slots))
            )
            # A row may have several texts; together they are what is padded.
            for array in arrays[number]:
                counts[mine] += part.shards.lengths(drawn.slots[mine], array)
        return counts

    return lengths


# -- rows that are drawn -------------------------------------------------------------------------------------


def _replaced(order: TrainOrder, part: Rows, subset: Subset, seed: int) -> Replaced:
    sums = None
    if order.weights is not None:
        # The weight of the loss would be applied twice.
        if order.weights == part.feed.encoding.weight:
            raise UserError(
                f"{order.weights!r} is already the weight of the rows. Drawn by it too, a row"
                " would come more often and also count more"
            )
        _stored(part.feed, "weights", order.weights)
        # Read once, when the loader is made; drawing looks into the sums alone.
        sums = running_sums(lambda: column(part.shards, WEIGHTS), subset)
    return Replaced(subset, order.epoch_rows or subset.rows, seed, part.holes, sums)


def _grouped(
    order: TrainOrder, part: Rows, subset: Subset, whole: Order, seed: int
) -> Mixture | Replaced:
    if order.mix is not None:
        _stored(part.feed, "mix", order.mix.by)
        names = list(order.mix.weights)
        weights = [order.mix.weights[name] for name in names]
        slots_by_group = _members_of_values(part, subset, order.mix.by, names)
    else:
        names, slots_by_group = _members_of_classes(part, subset, order.balance or "")
        # Every class as often as any other.
        weights = [1.0] * len(names)
    if not subset.rows:  # an empty split has no groups, and an empty epoch
        return Replaced(subset, order.epoch_rows or 0, seed)
    groups = [
        Group(
            name,
            len(slots),
            # As large a share of a group as of the whole, so that a window reads as
            # much.
            order_within(whole, len(slots), subset.rows),
            # The slots lie in one list for all groups; a group looks up its part of it.
            slots.__getitem__,
        )
        for name, slots in zip(names, slots_by_group, strict=True)
    ]
    return Mixture.of(groups, weights, rows=order.epoch_rows, seed=seed)


def _stored(feed: Feed, word: str, name: str) -> None:
    """Check that the feed's rows have the column that the order names."""
    has = feed.manifest.get("order", {}).get(word)
    if has != name:
        note = f"; it holds {has!r}" if has else ""
        raise UserError(
            f"the feed {feed.id} does not hold the column {name!r} to draw rows by{note}. Name it when it is"
            f" encoded: `train.order.{word}` of the recipe, or penstock.encode(…, {word}=…)"
        )


def _members_of_values(
    part: Rows, subset: Subset, by: str, names: list[str]
) -> list[np.ndarray]:
    # Values are stored as hashes, so names are hashed in the same way.
    hashes = np.array([group_of(name.strip()) for name in names], np.int64)
    if len(np.unique(hashes)) < len(hashes):
        raise UserError(f"mix.weights names a value of {by!r} twice")
    # Sorted once, so that each column is looked up by bisection.
    ranked = np.argsort(hashes)

    def codes() -> Iterator[np.ndarray]:
        for values in column(part.shards, MIX):
            # A value beyond the last gets the last's place, and differs from it.
            at = np.minimum(np.searchsorted(hashes[ranked], values), len(hashes) - 1)
            # A value that no weight names is of no group, and is counted below.
            yield np.where(hashes[ranked][at] == values, ranked[at], -1)

    slots = members(codes, len(names), subset)
    # Rows without a weight would never come; that must be said, not guessed.
    if others := subset.rows - sum(map(len, slots)):
        raise UserError(
            f"mix.weights names the values {', '.join(names)} of {by!r}, but {others:,} of {subset.rows:,}"
            " rows have another or none. Give each a weight (0 leaves its rows out), or filter them with"
            " `where`"
        )
    return slots


def _members_of_classes(
    part: Rows, subset: Subset, name: str
) -> tuple[list[str], list[np.ndarray]]:
    encoding = part.feed.encoding
    features = {**encoding.inputs, **encoding.targets}
    able = [
        each
        for each, feature in features.items()
        if feature.type in ("category", "binary")
    ]
    if name not in able:
        raise UserError(
            f"balance is {name!r}, which is no category or binary feature of the feed"
            f" {part.feed.id}.{did_you_mean(name, able)} Those are: {', '.join(able) or 'none'}"
        )
    specs = features[name].spec(encoding.fitted[name])
    # A category has its number, a target its label, a binary input its value.
    array = next(each for each in ("index", "label", "value") if each in specs)
    scale = 1 if array == "index" else 2  # a binary input that is missing is a half

    def codes() -> Iterator[np.ndarray]:
        for values in column(part.shards, f"{name}.{array}"):
            yield (np.asarray(values) * scale).astype(np.int64)

    # No, missing and yes of a binary input are 0, 1 and 2.
    classes = (specs[array].cardinality or 0) if array == "index" else 3
    by_class = members(codes, classes, subset)
    # Classes that no row has cannot be drawn.
    there = [number for number, slots in enumerate(by_class) if len(slots)]
    if len(there) > LONGEST_PERIOD:
        raise UserError(
            f"balance: {name!r} has {len(there):,} classes; at most {LONGEST_PERIOD:,} can be drawn equally"
            " often"
        )
    return [f"class {number} of {name}" for number in there], [
        by_class[number] for number in there
    ]
