"""Work spread over threads, with results in the order of the items and few of them in memory at once.

Arrow and numpy let go of the interpreter's lock in all that takes long, so threads suffice; what an item
becomes must not depend on the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from penstock.core.listeners import as_here

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(work: Callable[[Item], Made], items: Iterable[Item], *, num_workers: int) -> Iterator[Made]:
    """`work(item)` for each item, in order; items are taken by the caller's thread, at most `hands + 1` are
    under way.

    >>> list(in_order(lambda x: x * x, range(5), hands=2))
    [0, 1, 4, 9, 16]
    """
    if num_workers < 2:
        yield from map(work, items)
        return
    under_way: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="penstock-encode") as pool:
        try:
            for item in items:
                under_way.append(pool.submit(as_here(work), item))
                if len(under_way) > num_workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for waiting in under_way:
                waiting.cancel()
