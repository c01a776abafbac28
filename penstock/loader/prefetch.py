"""Ahead: jobs → what they make, in the order of the jobs, made by threads before it is asked for.

A job is a run of consecutive batches, so that handing over (a lock, a wake-up: some 30 µs) is paid once for
many small batches. Several threads may make several jobs at once; whatever their number, what comes out is
the same and in order.

How far ahead is bounded twice: by a number of jobs, and by bytes. The size of a job is known once one was
made, so the first is made alone. With the most that any job took, so many are held (being made, waiting, in
the consumer's hands) as fit; one beyond what the consumer holds is always allowed, or nothing would move.

With no thread, each job is made when it is asked for: where there is one core and nothing to wait for,
handing over would only cost.

Threads, not processes: numpy's gathers and the decoders of pictures let go of the interpreter lock, and a
process would pass copies about. What this file refuses to know: rows, features, tensors.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from penstock.core.listeners import as_here
from penstock.core.threads import single_threaded

Job = TypeVar("Job")
Made = TypeVar("Made")

SPARE = 2
"""Jobs held beyond those being made: one in the consumer's hands and one waiting hide a read; more would only
hold memory.
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
        with self._lock:
            for stage, value in seconds.items():
                self._seconds[stage] += value

    def seconds(self) -> dict[str, float]:
        """By stage, so far."""
        with self._lock:
            return dict(self._seconds)


def prefetch(
    jobs: Iterator[Job],
    make: Callable[[Job], Made],
    *,
    threads: int = 1,
    memory_bytes: int | None = None,
    size: Callable[[Made], int] = lambda made: 0,
    timings: Timings | None = None,
) -> Iterator[Made]:
    """`make(job)` for each job, in order.

    Args:
        jobs: asked for by one thread at a time.
        make: called by several threads at once; each of its calls stays within its thread (`core.threads`).
        threads: how many; with 0, the consumer's own.
        memory_bytes: what may be held in all: being made, waiting, and in the consumer's hands.
        size: bytes that a made job takes.
        timings: gets `wait`.

    Close the iterator, or let go of it, to stop the threads; none is left once it is closed. An error of
    `jobs` or of `make` is raised when its turn comes, after all that was made before it.
    """
    if not threads:
        yield from _as_asked(jobs, make, timings)
        return
    line = _Line(jobs, make, threads, memory_bytes, size)
    crew = [threading.Thread(target=as_here(line.work), name=_NAME, daemon=True) for _ in range(threads)]
    for thread in crew:
        thread.start()
    try:
        while (found := line.take(timings)) is not None:
            if isinstance(found[0], _Failed):
                raise found[0].error
            yield found[0]
            found = None  # the consumer's, who may have let go of it
    finally:
        line.stop()
        for thread in crew:
            thread.join()


def _as_asked(jobs: Iterator[Job], make: Callable[[Job], Made], timings: Timings | None) -> Iterator[Made]:
    while True:
        began = time.perf_counter()
        with single_threaded():
            job = next(jobs, _END)
            if job is _END:
                return
            made = make(job)  # type: ignore[arg-type]  # a job
        del job
        if timings is not None:
            timings.add(wait=time.perf_counter() - began)
        yield made
        del made  # the consumer's, who may have let go of it


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


class _Line(Generic[Job, Made]):
    """What consumer and threads share.

    `_gate` guards everything but the jobs, which `_source` guards: working out the next job may take a while,
    and must not keep the consumer from what is made.
    """

    def __init__(
        self,
        jobs: Iterator[Job],
        make: Callable[[Job], Made],
        threads: int,
        memory_bytes: int | None,
        size: Callable[[Made], int],
    ) -> None:
        self._jobs, self._make, self._size = jobs, make, size
        self._most, self._memory = threads + SPARE, memory_bytes
        self._gate, self._source = threading.Condition(), threading.Lock()
        self._made: dict[int, tuple[Any]] = {}
        self._asked = 0
        """Jobs that were taken from `jobs`."""
        self._given = 0
        """Jobs handed to the consumer."""
        self._held = 0
        """Jobs being made or waiting."""
        self._hands = 0
        """1 while the consumer has one."""
        self._largest: int | None = None
        self._end: int | None = None
        """How many jobs there are, once that is known."""
        self._stopped = False

    # -- the threads' side -----------------------------------------------------------------------------------

    def work(self) -> None:
        with single_threaded():
            while self._admitted():
                with self._source:
                    number = self._asked
                    self._asked += 1
                    job, failed = self._next()
                if job is None:
                    self._put(number, failed or _END, 0)
                    return
                try:
                    made: Any = self._make(job[0])
                    size = self._size(made)
                except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that asked
                    self._put(number, _Failed(error), 0)
                    return
                self._put(number, made, size)
                del made, job

    def _next(self) -> tuple[tuple[Job] | None, _Failed | None]:
        if self._end is not None:
            return None, None
        try:
            return (next(self._jobs),), None
        except StopIteration:
            return None, None
        except BaseException as error:  # noqa: BLE001 - as above
            return None, _Failed(error)

    def _admitted(self) -> bool:
        """Wait for room for one more job; False when there is no more to do."""
        with self._gate:
            while not (self._stopped or self._end is not None):
                if self._held == 0 or self._held + self._hands < self._limit():
                    self._held += 1
                    return True
                self._gate.wait()
            return False

    def _limit(self) -> int:
        if self._memory is None:
            return self._most
        if self._largest is None:
            return 1
        return min(self._most, self._memory // max(self._largest, 1))

    def _put(self, number: int, made: Any, size: int) -> None:
        with self._gate:
            if made is _END or isinstance(made, _Failed):  # nothing comes after the end, nor after an error
                self._end = number if self._end is None else min(self._end, number)
            self._largest = max(size, self._largest or 0)
            if made is _END:
                self._held -= 1
            else:
                self._made[number] = (made,)
            self._gate.notify_all()

    # -- the consumer's side ---------------------------------------------------------------------------------

    def take(self, timings: Timings | None) -> tuple[Any] | None:
        """What comes next; None at the end."""
        with self._gate:
            if self._hands:
                self._hands = 0
                self._gate.notify_all()
            if self._given not in self._made:
                began = time.perf_counter()
                while self._given not in self._made:
                    if self._end is not None and self._given >= self._end:
                        return None
                    self._gate.wait()
                if timings is not None:
                    timings.add(wait=time.perf_counter() - began)
            found = self._made.pop(self._given)
            self._given += 1
            self._held -= 1
            self._hands = 1
            return found

    def stop(self) -> None:
        with self._gate:
            self._stopped = True
            self._made.clear()
            self._gate.notify_all()
