"""The feeds that a loader reads: one, or several mixed by weights, of which any batch may have rows."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from penstock.core.errors import UserError
from penstock.encode.series.windows import WindowShards
from penstock.order.samplers import NO_HOLES

if TYPE_CHECKING:
    from penstock.encode.feed import Feed
    from penstock.shards.shards import Shards

Each = TypeVar("Each")
Mixture = Mapping[Each, float] | Sequence[tuple[Each, float]]
"""`{a: 0.7, b: 0.3}`, or the same as a list of pairs."""


@dataclass(frozen=True)
class Rows:
    """One feed's split."""

    feed: Feed
    shards: Shards | WindowShards
    holes: np.ndarray = field(default_factory=NO_HOLES.copy)
    """Slots of rows that were taken out, int64, ascending."""
    weight: float = 1.0
    """Its share of a mixture."""


def weighted(mixture: Mixture[Each]) -> list[tuple[Each, float]]:
    """A mixture as pairs.

    Raises:
        UserError: it is none, or a weight is no number.
    """
    pairs: list[Any] = (
        list(mixture.items()) if isinstance(mixture, Mapping) else list(mixture)
    )
    # Pairs must be tuples, or a list of two feeds would pass for a feed and its weight.
    if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise UserError(
            "A mixture is {feed: weight, …} or a list of (feed, weight), with at least"
            " one feed"
        )
    weights = [weight for _, weight in pairs]
    if any(
        # Python counts a bool as a number; as a weight it is a mistake.
        isinstance(weight, bool) or not isinstance(weight, numbers.Real)
        for weight in weights
    ):
        raise UserError(
            f"the weights of a mixture are numbers; found {', '.join(map(repr, weights))}"
        )
    return [(each, float(weight)) for each, weight in pairs]


def rows_of(pairs: Sequence[tuple[Feed, float]], split: str) -> list[Rows]:
    """The rows of a split of feeds with their weights.

    Raises:
        UserError: a feed comes twice, or rows of all of them cannot be in one batch.
    """
    feeds = [feed for feed, _ in pairs]
    ids = [feed.id for feed in feeds]
    # One feed twice would be two groups, each of which draws all of its rows.
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise UserError(
            f"the mixture has the feed {twice[0]} more than once; name it once, with the sum of its weights"
        )
    check_alike(feeds)
    return [
        Rows(feed, feed.shards(split), feed.holes(split), weight)
        for feed, weight in pairs
    ]


def check_alike(feeds: Sequence[Feed]) -> None:
    """Check that rows of all these feeds can be in one batch.

    Raises:
        UserError: they are encoded otherwise; names the first that differs.
    """
    first = feeds[0].encoding
    for feed in feeds[1:]:
        other, between = (
            feed.encoding,
            f"the feeds {feeds[0].id} and {feed.id} cannot be mixed:",
        )
        for side in ("inputs", "targets"):
            ours, theirs = getattr(first, side), getattr(other, side)
            # In their order, too: it is the order of the arrays in a batch.
            if list(ours) != list(theirs):
                raise UserError(
                    f"{between} the {side} of one are {', '.join(ours) or 'none'}, of the other"
                    f" {', '.join(theirs) or 'none'}"
                )
            for name in ours:
                where = f"{between} {side}.{name}"
                # Declarations first: what is declared otherwise is also learnt
                # otherwise, and this sentence is plainer.
                if ours[name].to_dict() != theirs[name].to_dict():
                    raise UserError(f"{where} is declared otherwise in each")
                _check_fitted_alike(where, first.fitted[name], other.fitted[name])
        if first.weight != other.weight:
            raise UserError(
                f"{between} the weight of one is {first.weight!r}, of the other {other.weight!r}"
            )


def _check_fitted_alike(
    where: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> None:
    # What a feature says of its data (`said`) is no part of the arrays.
    facts = {*ours, *theirs} - {"said"}
    differing = sorted(fact for fact in facts if ours.get(fact) != theirs.get(fact))
    if differing:
        shown = f"{_short(ours.get(differing[0]))} and {_short(theirs.get(differing[0]))}"
        raise UserError(
            f"{where} was fitted with a different {differing[0]!r} in each ({shown})."
            " Encode one like the other: penstock.encode(…, like=feed)"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:37]}…"


def shard_bytes(feed: Feed, split: str) -> int:
    """Bytes of all the shards that a split's rows are gathered from."""
    # Samples are cut out of steps that are stored once for all splits.
    names = ("steps", "singles", split) if feed.samples is not None else (split,)
    files = feed.manifest.get("files", {})
    shards = feed.manifest["shards"]
    return sum(
        int(files[file]["size_bytes"])
        for name in names
        for file in shards.get(name, ())
        if file in files
    )


def column(shards: Shards | WindowShards, name: str) -> Iterator[np.ndarray]:
    """One dense array of all rows, shard by shard."""
    # Windows have one column for all of them: there are no shards of samples.
    if isinstance(shards, WindowShards):
        yield shards.column(name)
        return
    for shard in range(len(shards.rows_by_shard)):
        yield shards.views(shard)[name]
