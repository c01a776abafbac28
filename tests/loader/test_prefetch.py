from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.threads import single_threaded, thread_budget, threads_per_process
from penstock.loader.prefetch import SPARE, Timings, prefetch


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "penstock-loader"]


@settings(deadline=None, max_examples=40)
@given(
    jobs=st.lists(st.integers(0, 3), max_size=30),
    threads=st.integers(0, 5),
    memory=st.none() | st.integers(0, 40),
)
def test_whatever_threads_and_memory_all_comes_in_order(
    jobs: list[int], threads: int, memory: int | None
) -> None:
    def make(job: tuple[int, int]) -> tuple[int, int]:
        time.sleep(job[1] / 5_000)
        return job

    numbered = list(enumerate(jobs))
    assert (
        list(
            prefetch(
                iter(numbered),
                make,
                threads=threads,
                memory_bytes=memory,
                size=lambda made: 1 + made[1],
            )
        )
        == numbered
    )
    assert not workers()


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_an_error_comes_in_its_turn_and_ends_all(threads: int) -> None:
    def make(job: int) -> int:
        if job == 5:
            raise OSError("the disk went away")
        if job < 5:
            time.sleep(0.01)
        return job

    seen: list[int] = []
    with pytest.raises(OSError, match="the disk went away"):
        seen.extend(prefetch(iter(range(100)), make, threads=threads))
    assert seen == [0, 1, 2, 3, 4] and not workers()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_of_the_jobs_comes_after_what_was_asked_for_before(threads: int) -> None:
    def jobs() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("no third")

    found = prefetch(jobs(), str, threads=threads)
    assert [next(found), next(found)] == ["1", "2"]
    with pytest.raises(ValueError, match="no third"):
        next(found)
    assert not workers()


def test_an_earlier_error_wins_over_a_later_one_that_came_sooner() -> None:
    later = threading.Event()

    def make(job: int) -> int:
        if job == 0:
            later.wait(5)
            raise ValueError("first")
        later.set()
        raise ValueError("second")

    with pytest.raises(ValueError, match="first"):
        list(prefetch(iter(range(2)), make, threads=2))


class Scale:
    """How much is held at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = self.asked = 0

    def make(self, job: int) -> int:
        with self.lock:
            self.now += 1
            self.asked += 1
            self.most = max(self.most, self.now)
        return job

    def done(self) -> None:
        with self.lock:
            self.now -= 1


@pytest.mark.parametrize(
    ("memory", "most"), [(None, 3 + SPARE), (400, 4), (100, 2), (0, 2)]
)
def test_no_more_is_held_than_there_is_room_for(memory: int | None, most: int) -> None:
    """Being made, waiting and in the consumer's hands: at least one is made ahead of what it holds."""
    scale = Scale()
    for i, _ in enumerate(
        prefetch(
            iter(range(40)),
            scale.make,
            threads=3,
            memory_bytes=memory,
            size=lambda made: 100,
        )
    ):
        if i < 5:
            time.sleep(0.02)  # let them run as far as they may
        scale.done()
    assert scale.asked == 40 and scale.most <= most


def test_closed_at_once_it_leaves_no_thread() -> None:
    found: Any = prefetch(iter(range(1000)), lambda job: job, threads=4)
    next(found)
    assert len(workers()) == 4
    found.close()
    assert not workers()
    for _ in prefetch(iter(range(1000)), lambda job: job, threads=2):
        break
    assert not workers(), "let go of, it ends too"


def test_work_of_a_thread_is_not_spread_again() -> None:
    assert (
        list(prefetch(iter(range(4)), lambda job: thread_budget(), threads=2)) == [1] * 4
    )
    with single_threaded():
        assert thread_budget() == threads_per_process(1) == 1
        with single_threaded():
            pass
        assert thread_budget() == 1
    assert threads_per_process(10_000) == 1 and threads_per_process(1) == thread_budget()


def test_waiting_is_timed_and_having_is_not() -> None:
    timings = Timings()
    list(
        prefetch(
            iter(range(3)),
            lambda job: time.sleep(0.02),
            timings=timings,
            size=lambda made: 0,
        )
    )
    assert timings.seconds()["wait"] > 0.01 and timings.seconds()["read"] == 0
