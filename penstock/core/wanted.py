"""Whether what a thread makes is still wanted by whoever started it.

A thread that makes things ahead is joined when its user ends, also where that is by Ctrl-C. Work that may
take long asks here, and ends when nobody waits for it any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()


@contextmanager
def until(stop: threading.Event) -> Iterator[None]:
    """Within, what this thread makes is wanted until `stop` is set."""
    before = getattr(_here, "stop", None)
    _here.stop = stop
    try:
        yield
    finally:
        _here.stop = before


def is_bounded() -> bool:
    """Whether somebody may stop wanting what this thread makes."""
    return getattr(_here, "stop", None) is not None


def is_wanted() -> bool:
    """Whether what this thread makes is still wanted."""
    stop: threading.Event | None = getattr(_here, "stop", None)
    return stop is None or not stop.is_set()
