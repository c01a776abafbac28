"""One ordered map for whoever works ahead (what it shares with the loader's prefetch is tested there)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from penstock.core.ordered_map import ordered_map
from penstock.core.wanted import is_wanted


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "penstock-map"]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order_whichever_is_ready_first(threads: int) -> None:
    second = threading.Event()

    def work(item: int) -> int:
        if item == 0 and threads > 1:
            assert second.wait(30), "nobody works ahead"
        if item == 1:
            second.set()
        return item * item

    assert list(ordered_map(work, range(20), threads=threads)) == [
        item * item for item in range(20)
    ]
    assert not workers()


def test_items_are_taken_only_as_far_ahead_as_is_allowed() -> None:
    taken: list[int] = []

    def items() -> Any:
        for item in range(100):
            taken.append(item)
            yield item

    results = ordered_map(lambda item: item, items(), threads=2, ahead=1)
    for number, result in enumerate(results):
        assert result == number and len(taken) <= number + 1 + 2 + 1
    assert len(taken) == 100


def test_who_closes_it_is_heard_by_work_that_takes_long() -> None:
    began, ended = threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item == 0:
            return item
        began.set()
        while is_wanted():
            ended.wait(0.001)
        ended.set()
        return item

    results: Any = ordered_map(work, range(9), threads=1)
    assert next(results) == 0 and began.wait(30)
    results.close()
    assert ended.is_set() and not workers()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_first_error_in_order_is_raised(threads: int) -> None:
    def work(item: int) -> int:
        if item >= 3:
            raise ValueError(str(item))
        return item

    seen: list[int] = []
    with pytest.raises(ValueError, match="3"):
        seen.extend(ordered_map(work, range(9), threads=threads))
    assert seen == [0, 1, 2] and not workers()
