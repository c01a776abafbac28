"""Work over threads, and how much at once."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.encode.spread import in_order
from penstock.prepare.budget import BATCH_ROWS, even_part


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_results_come_in_order_and_few_are_under_way(num_workers) -> None:
    lock, under_way, most = threading.Lock(), [0], [0]

    def work(i: int) -> int:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.002 * (i % 3))
        with lock:
            under_way[0] -= 1
        return i * i

    assert list(in_order(work, range(20), num_workers=num_workers)) == [i * i for i in range(20)]
    assert most[0] <= num_workers


def test_the_first_failure_is_raised() -> None:
    def work(i: int) -> int:
        if i >= 3:
            raise ValueError(str(i))
        return i

    with pytest.raises(ValueError, match="3"):
        list(in_order(work, range(9), num_workers=3))


@settings(deadline=None)
@given(st.integers(1, 200_000))
def test_parts_are_even(rows: int) -> None:
    part = even_part(rows)
    assert 1 <= part <= max(rows, 1) and (
        part == BATCH_ROWS or part * -(-BATCH_ROWS // part) - BATCH_ROWS < part
    )
