"""Ordered map: items → results, in the order of the items, computed by threads before they are asked for.

How far ahead is bounded twice: by a number of results, and by bytes. The size of a result is known once there
was one, so the first is computed alone. With the most that any result took, so many are held (being computed,
waiting, in the consumer's hands) as fit; one beyond what the consumer holds is always allowed, or nothing
would move.

With no thread, each result is computed when it is asked for: where there is one core and nothing to wait for,
handing over (a lock, a wake-up: some 30 µs) would only cost.

Threads, not processes: Arrow, numpy, hashing and the decoders of pictures let go of the interpreter lock, and
a process would pass copies about. What an item becomes must not depend on the others.

What this file refuses to know: what items are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from penstock.core.listeners import as_here
from penstock.core.wanted import until

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    ahead: int = 1,
    memory_bytes: int | None = None,
    size: Callable[[Result], int] = lambda result: 0,
    waited: Callable[[float], None] = lambda seconds: None,
    name: str = "penstock-map",
) -> Iterator[Result]:
    """`work(item)` for each item, in order.

    >>> list(ordered_map(lambda x: x * x, range(5), threads=2))
    [0, 1, 4, 9, 16]

    Args:
        work: called by several threads at once. It may ask `core.wanted.is_wanted`, which is False once the
            consumer has closed the iterator, and end early.
        items: asked for by one thread at a time, not always the same one.
        threads: how many; with 0, the consumer's own.
        ahead: results that are held beyond those being computed, the one in the consumer's hands included.
        memory_bytes: what all these may take.
        size: bytes of a result.
        waited: gets the seconds that the consumer had to wait, each time.
        name: of the threads.

    Close the iterator, or let go of it, to stop the threads; none is left once it is closed. An error of
    `items` or of `work` is raised when its turn comes, after every result before it.
    """
    iterator = iter(items)
    if not threads:
        yield from _as_asked(work, iterator, waited)
        return
    # `threads` results are being computed, and `ahead` more wait or are in use.
    queue = _Queue(work, iterator, threads + ahead, memory_bytes, size)
    workers = [
        threading.Thread(target=as_here(queue.run), name=name, daemon=True)
        for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    try:
        while (taken := queue.take(waited)) is not None:
            if isinstance(taken[0], _Failed):
                raise taken[0].error
            yield taken[0]
            taken = None  # the consumer's, who may have let go of it
    # Also when the consumer breaks off: a generator's `close` raises here.
    finally:
        queue.stop()
        for worker in workers:
            worker.join()


def _as_asked(
    work: Callable[[Item], Result], items: Iterator[Item], waited: Callable[[float], None]
) -> Iterator[Result]:
    while True:
        began = time.perf_counter()
        item = next(items, _END)
        if item is _END:
            return
        result = work(item)  # type: ignore[arg-type]  # an item
        # Let go before the hand-over, or two items would be in memory while the
        # consumer works.
        del item
        waited(time.perf_counter() - began)
        yield result
        del result  # the consumer's, who may have let go of it


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


class _Queue(Generic[Item, Result]):
    """What consumer and threads share.

    `_gate` guards everything but the items, which `_source` guards: working out the next item may take a
    while, and must not keep the consumer from results that are there.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Iterator[Item],
        most: int,
        memory_bytes: int | None,
        size: Callable[[Result], int],
    ) -> None:
        self._work, self._items, self._size = work, items, size
        self._most, self._memory = most, memory_bytes
        self._gate, self._source = threading.Condition(), threading.Lock()
        # By the item's number; in a tuple, so that a result of None is still a result.
        self._results: dict[int, tuple[Any]] = {}
        self._taken = 0
        """Items that were taken from `items`."""
        self._given = 0
        """Results handed to the consumer."""
        self._held = 0
        """Results being computed or waiting."""
        self._hands = 0
        """1 while the consumer has one."""
        # Bytes of the largest result so far; None until one is there.
        self._largest: int | None = None
        self._end: int | None = None
        """How many results there are, once that is known."""
        self._stopped = threading.Event()

    # -- the threads' side -----------------------------------------------------------------------------------

    def run(self) -> None:
        # `is_wanted` in `work` asks this event, so long work can end early.
        with until(self._stopped):
            while self._admitted():
                # Number and item are taken together, or results would change places.
                with self._source:
                    number = self._taken
                    self._taken += 1
                    item, failed = self._next()
                if item is None:
                    self._put(number, failed or _END, 0)
                    return
                try:
                    result: Any = self._work(item[0])
                    size = self._size(result)
                except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that asked
                    self._put(number, _Failed(error), 0)
                    return
                self._put(number, result, size)
                # The queue holds it alone now; a local name would keep it through the
                # next wait.
                del result, item

    def _next(self) -> tuple[tuple[Item] | None, _Failed | None]:
        # Another thread found the end while this one waited for the source.
        if self._end is not None or self._stopped.is_set():
            return None, None
        try:
            return (next(self._items),), None
        except StopIteration:
            return None, None
        except BaseException as error:  # noqa: BLE001 - as above
            return None, _Failed(error)

    def _admitted(self) -> bool:
        """Wait for room for one more result; False when there is no more to do."""
        with self._gate:
            while not (self._stopped.is_set() or self._end is not None):
                # One is always allowed, even above the memory bound, or nothing would
                # move.
                if self._held == 0 or self._held + self._hands < self._limit():
                    self._held += 1
                    return True
                self._gate.wait()
            return False

    def _limit(self) -> int:
        if self._memory is None:
            return self._most
        # Until the first size is known, results come one at a time.
        if self._largest is None:
            return 1
        return min(self._most, self._memory // max(self._largest, 1))

    def _put(self, number: int, result: Any, size: int) -> None:
        with self._gate:
            if result is _END or isinstance(
                result, _Failed
            ):  # nothing comes after the end, nor after an error
                # The lowest number wins: an earlier error is raised before a later end.
                self._end = number if self._end is None else min(self._end, number)
            self._largest = max(size, self._largest or 0)
            # An end holds no memory; an error is delivered like a result, in its turn.
            if result is _END:
                self._held -= 1
            else:
                self._results[number] = (result,)
            self._gate.notify_all()

    # -- the consumer's side ---------------------------------------------------------------------------------

    def take(self, waited: Callable[[float], None]) -> tuple[Any] | None:
        """What comes next; None at the end."""
        with self._gate:
            # Asking for the next says that the consumer has let go of the last.
            if self._hands:
                self._hands = 0
                self._gate.notify_all()
            if self._given not in self._results:
                began = time.perf_counter()
                # Each put wakes all, since only the number that is due helps the
                # consumer.
                while self._given not in self._results:
                    if self._end is not None and self._given >= self._end:
                        return None
                    self._gate.wait()
                waited(time.perf_counter() - began)
            result = self._results.pop(self._given)
            self._given += 1
            self._held -= 1
            self._hands = 1
            return result

    def stop(self) -> None:
        with self._gate:
            self._stopped.set()
            # Frees them at once; the threads see the event and end.
            self._results.clear()
            self._gate.notify_all()
