"""The budget of threads: a thread that is itself one of several must not start threads of its own.

Whoever decodes or changes many rows spreads them over the cores. A loader that already has a thread for each
core runs its work `single_threaded`, so that threads are never multiplied by threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.core.cores import usable_cores

_here = threading.local()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Within it, this thread's work is not spread over others."""
    before = getattr(_here, "one", False)
    _here.one = True
    try:
        yield
    finally:
        _here.one = before


def thread_budget() -> int:
    """How many threads work may be spread over here: 1 within `single_threaded`, otherwise the cores this
    process may use.
    """
    if getattr(_here, "one", False):
        return 1
    return usable_cores()


def threads_per_process(world: int) -> int:
    """The threads that fall to one of `world` processes, of which those on this machine share it; at least
    one.

    How many are here is what torchrun calls LOCAL_WORLD_SIZE; without it, all are taken to be here.
    """
    local_world = os.environ.get("LOCAL_WORLD_SIZE", "")
    # Capped by the world: a launcher's variable may be left over from another job.
    here = min(int(local_world), world) if local_world.isdecimal() else world
    # Divided after `thread_budget`, which is 1 within `single_threaded`.
    return max(1, thread_budget() // max(here, 1))
