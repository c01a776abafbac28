"""Which shards a loader will read soon, in the order in which it needs them: what to fetch ahead from a
bucket.

By blocks it follows from the order alone, windows ahead, without looking at a row; as stored, from where one
stands. Rows drawn from everywhere say only which shards the next of them lie in.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock.core.listeners import notify
from penstock.order.samplers import Draws, Once
from penstock.shards.shards import Shards

STORED_AHEAD = 4
"""Shards that are fetched ahead where rows come as they are stored."""


def shards_ahead(
    draws: Draws, shards: Shards, epoch: int, start: int, stop: int, slots: np.ndarray
) -> list[int]:
    """The shards that positions from `start` on need, in order of first need.

    Args:
        stop: up to here the caller knows the `slots` that it reads, int64 `[k]`; beyond, one looks as far as
            the order allows.
    """
    # Only here does a position say which block it reads without a draw.
    if isinstance(draws, Once) and draws.subset.is_all and draws.rows:
        order = replace(draws.order, epoch=epoch)
        stop = min(stop, draws.rows)
        if order.shuffle == "blocks":
            # A window more than the caller reads, since all its blocks are wanted with
            # its first batch.
            blocks = (
                order.blocks(start, min(stop + order.window * order.block, draws.rows))
                if start < stop
                else np.empty(0, np.int64)
            )
            # A block need not be a shard: it may begin in one and end in another.
            first = shards.at(blocks * order.block)
            last = shards.at(np.minimum((blocks + 1) * order.block, draws.rows) - 1)
            return list(
                dict.fromkeys(
                    shard
                    for low, high in zip(first.tolist(), last.tolist(), strict=True)
                    for shard in range(low, high + 1)
                )
            )
        if order.shuffle in (False, "stored") and start < stop:
            # Stored rows come one shard after another.
            low, high = shards.at(np.array([start, stop - 1])).tolist()
            return list(
                range(low, min(high + STORED_AHEAD, len(shards.rows_by_shard) - 1) + 1)
            )
    # From everywhere: the next shards are those of the rows just drawn, in the order of
    # their first row.
    distinct, at = np.unique(shards.at(slots), return_index=True)
    needed: list[int] = distinct[np.argsort(at)].tolist()
    return needed


def advise(shards: Shards, shuffle: str, split: str) -> None:
    """Give notice if rows are shuffled one by one over remote shards that do not fit into the
    cache.
    """
    if shuffle == "full" and (why := shards.beyond_cache()):
        notify(
            f"rows of {split} are shuffled one by one over shards in a bucket, and {why}: shards are fetched"
            " again and again. Shuffle by `blocks` (`train.order: blocks`), or raise `resources.cache`."
        )
