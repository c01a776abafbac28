"""Going on in the middle: the first batch at half an epoch after opening, over a feed of a million rows and
over the order of a hundred million; and the same rows in the same order when the number of processes changes
from 1 to 2 to 3 and back to 1.

Opening (the manifest is read and the shards are mapped) is not counted; it is stated. The hundred million
rows are no file: an order of that many is asked for its batches in the middle, which is what seeking takes
before anything is read.

    BENCH_TABLE_ROWS=1000000 python -m benchmarks resume
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks._feeds import Encoded, tabular
from benchmarks.harness import say, scratch, size
from penstock.core.store import Store
from penstock.encode.feed import Feed
from penstock.loader.loader import Loader
from penstock.order.order import Batches, Order

BATCH, SEED, TIMES, MOST_MS = 4096, 7, 20, 50.0


def bench() -> None:
    with scratch("resume") as folder:
        made = tabular(folder, size("TABLE_ROWS", 1_050_000))
        opened, seeks, starts = [], [], []
        for epoch in range(TIMES):
            start = time.perf_counter()
            loader = _loader(made)
            opened.append(time.perf_counter() - start)
            starts.append(_first(loader, epoch, 0))
            seeks.append(_first(_loader(made), epoch, len(loader) // 2))
        worst = float(np.max(seeks)) * 1e3
        rows = made.feed.rows["train"]
        say(
            name=f"the first batch at half an epoch of {rows:,} rows",
            value=float(np.median(seeks)) * 1e3,
            unit="ms",
            goal=f"≤ {MOST_MS:g}",
            holds=float(np.median(seeks)) * 1e3 <= MOST_MS,
            slowest_ms=round(worst, 2),
            at_the_beginning_ms=round(float(np.median(starts)) * 1e3, 2),
            opening_ms=round(float(np.median(opened)) * 1e3, 2),
            times=TIMES,
            shuffle=_loader(made).shuffle,
        )
        for many in (1_000_000, 100_000_000):
            took = []
            for epoch in range(TIMES):
                batches = Batches(many, BATCH)
                start = time.perf_counter()
                low, high = batches.bounds(len(batches) // 2)
                Order(many, SEED, epoch).slots(np.arange(low, high))
                took.append(time.perf_counter() - start)
            say(
                name=f"the order's batch at half an epoch of {many:,} rows",
                value=float(np.median(took)) * 1e3,
                unit="ms",
                goal=f"≤ {MOST_MS:g}",
                holds=float(np.median(took)) * 1e3 <= MOST_MS,
                times=TIMES,
            )
        alone = _ids(made, [1])
        changing = _ids(made, [1, 2, 3, 1])
        same = bool(len(alone) == rows and np.array_equal(alone, changing))
        say(
            name="the same rows in the same order at 1 → 2 → 3 → 1 processes, of one",
            value=float(len(changing)),
            unit="rows",
            goal="identical, each once",
            holds=same and len(np.unique(alone, axis=0)) == rows,
        )


def _loader(made: Encoded, *, rank: int = 0, world: int = 1) -> Loader:
    return Loader(
        Feed.open(Store(made.store), id=made.feed.id),
        batch_size=BATCH,
        seed=SEED,
        options={"rank": rank, "world": world},
    )


def _first(loader: Loader, epoch: int, position: int) -> float:
    """Seconds from a state to the first batch."""
    start = time.perf_counter()
    loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "position": position})
    batches = iter(loader)
    next(batches)
    seconds = time.perf_counter() - start
    batches.close()  # type: ignore[attr-defined]
    return seconds


def _ids(made: Encoded, worlds: list[int]) -> np.ndarray:
    """The row ids of one epoch in global order, its parts gone through by so many processes each, every part
    resumed from the one before.
    """
    state = _loader(made).state_dict()
    whole = len(_loader(made))
    found: list[np.ndarray] = []
    for n, world in enumerate(worlds):
        upto = whole * (n + 1) // len(worlds)
        by_rank = []
        for rank in range(world):
            loader = _loader(made, rank=rank, world=world)
            loader.load_state_dict(state)
            batches = iter(loader)
            by_rank.append(
                [next(batches)["row_id"].numpy() for _ in range(upto - state["position"])]
            )
            at = loader.state_dict()
            batches.close()  # type: ignore[attr-defined]
        found += [rows for together in zip(*by_rank, strict=True) for rows in together]
        state = at
    return np.concatenate(found)
