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
    """Within the body, `is_wanted` of this thread is True until `stop` is set."""
    before = getattr(_here, "stop", None)
    _here.stop = stop
    try:
        yield
    finally:
        _here.stop = before


def is_bounded() -> bool:
    """Whether this thread runs within `until`, so that its work may become unwanted."""
    return getattr(_here, "stop", None) is not None


def is_wanted() -> bool:
    """Whether what this thread makes is still wanted; True outside of `until`."""
    stop: threading.Event | None = getattr(_here, "stop", None)
    return stop is None or not stop.is_set()
