"""Prefetch: batches read by threads before they are asked for, by `core.ordered_map`; and where time went.

An item is a block of consecutive batches, so that handing over is paid once for many small batches. Each
thread's work stays within it (`core.threads`): there is one for each core already where rows are decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from penstock.core.ordered_map import ordered_map
from penstock.core.threads import single_threaded

Job = TypeVar("Job")
Block = TypeVar("Block")

SPARE = 2
"""Blocks held beyond those being read: one in the consumer's hands and one waiting hide a read; more would
only hold memory.
"""
_NAME = "penstock-loader"


class Timings:
    """Where a loader's seconds went: `read` (from disk, memory map or bucket), `decode` (decode, augment,
    pad), `copy` (to a device), all summed over threads, and `wait`, the consumer's seconds without a batch.
    Safe to add to from any thread.
    """

    STAGES = ("read", "decode", "copy", "wait")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(self.STAGES, 0.0)

    def add(self, **seconds: float) -> None:
        """Add seconds to stages, by name."""
        # Several threads add; a sum is read and written in two steps.
        with self._lock:
            for stage, value in seconds.items():
                self._seconds[stage] += value

    def seconds(self) -> dict[str, float]:
        """By stage, so far."""
        with self._lock:
            return dict(self._seconds)


def prefetch(
    jobs: Iterator[Job],
    read: Callable[[Job], Block],
    *,
    threads: int = 1,
    memory_bytes: int | None = None,
    size: Callable[[Block], int] = lambda block: 0,
    timings: Timings | None = None,
) -> Iterator[Block]:
    """`read(job)` for each job, in order.

    Args:
        jobs: asked for by one thread at a time.
        read: called by several threads at once; each of its calls stays within its thread.
        threads: how many; with 0, the consumer's own.
        memory_bytes: what may be held in all: being read, waiting, and in the consumer's hands.
        size: bytes of a block.
        timings: gets `wait`.

    Close the iterator, or let go of it, to stop the threads; `Raises` as `core.ordered_map`.
    """

    def within(job: Job) -> Block:
        # Arrow and numpy would start a team for each call, on cores that the other
        # threads have.
        with single_threaded():
            return read(job)

    def waited(seconds: float) -> None:
        if timings is not None:
            timings.add(wait=seconds)

    return ordered_map(
        within,
        jobs,
        threads=threads,
        ahead=SPARE,
        memory_bytes=memory_bytes,
        size=size,
        waited=waited,
        name=_NAME,
    )
