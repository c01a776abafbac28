"""Who is told of what happens far away: retries, and what could not be read.

Whoever listens (`listening`) is told of retries once in a while; without a listener a notice is a Python
warning. A listener is of a thread and of the threads that work for it (`as_here`).
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from penstock.core.events import Events
from penstock.core.redact import redacted

P = ParamSpec("P")
T = TypeVar("T")
_NOTIFY_SECONDS = 10.0
"""Between two notices of retries to one listener: an outage is no flood of lines."""


# Compared by identity: two trainings may listen with equal fields.
@dataclass(eq=False)
class Listener:
    """Where notices of one `listening` go. After it has ended, its `outer` listener
    takes over.
    """

    events: Events
    waiting: Callable[[], None] | None
    outer: Listener | None

    def root(self) -> Listener:
        """The outermost of the listeners around this one; there is one for each
        training.
        """
        return self if self.outer is None else self.outer.root()


_current: ContextVar[Listener | None] = ContextVar("penstock_listener", default=None)
_active: list[Listener] = []
_last_told: dict[int, float] = {}
"""When each outermost listener, by its `id`, was last told of a retry; by the monotonic clock."""
_lock = threading.Lock()
"""Guards the two above; events are emitted without it, since a listener may be slow."""
_is_silent: ContextVar[bool] = ContextVar("penstock_silent", default=False)


@contextmanager
def in_silence() -> Iterator[None]:
    """Send no notices of retries while the body runs: for housekeeping that may fail."""
    before = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(before)


@contextmanager
def listening(
    events: Events, *, waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Send notices of retries and refusals to `events` while the body runs, from this
    thread and from threads that work for it (`as_here`).

    Two trainings in one process, each in a thread of its own, hear each of its own. A thread that nobody has
    given a listener is heard by the only one there is; where there are several, it cannot be known whose it
    is.

    Args:
        waiting: given where an object store that refuses for a minute or two must not end what is done;
            called before each wait for what is read, so that whoever watches knows that it is still tried.
    """
    outer = _current.get()
    # Patience is inherited: an inner listener must not shorten an outer one's.
    listener = Listener(events, waiting or (outer.waiting if outer else None), outer)
    with _lock:
        _active.append(listener)
    _current.set(listener)
    try:
        yield
    finally:
        with _lock:
            _active.remove(listener)
            # Its `id` may be given to another object later.
            _last_told.pop(id(listener), None)
        _current.set(outer)


def as_here(work: Callable[P, T]) -> Callable[P, T]:
    """Wrap `work` so that another thread that calls it uses this thread's listener."""
    # Taken now, in the thread that gives the work away.
    listener = _current.get()

    @wraps(work)
    def within(*arguments: P.args, **words: P.kwargs) -> T:
        before = _current.get()
        _current.set(listener)
        try:
            return work(*arguments, **words)
        finally:
            _current.set(before)

    return within


def current_listener() -> Listener | None:
    """The listener for notices of this thread; None where there is none, or where it
    cannot be known.
    """
    listener = _current.get()
    with _lock:
        while (
            listener is not None and listener not in _active
        ):  # its body has ended, and this thread goes on
            listener = listener.outer
        if listener is not None:
            return listener
        # A thread of nobody's: told only where there is just one training to be meant.
        roots = {active.root() for active in _active}
        return _active[-1] if len(roots) == 1 else None


def notify(text: str, **fields: object) -> None:
    """Send a warning to the innermost listener; without one it becomes a Python
    warning.
    """
    listener = current_listener()
    if listener is not None:
        listener.events.warn(text, **fields)
    else:
        warnings.warn(redacted(text), RuntimeWarning, stacklevel=2)


def notify_retry(text: str, tries: int) -> None:
    """Warn the listener that something is tried again, at most once in
    `_NOTIFY_SECONDS`.

    Without a listener nothing is said: nothing is lost yet, and giving up raises an
    error.
    """
    listener = None if _is_silent.get() else current_listener()
    if listener is None:
        return
    whose = id(listener.root())
    with _lock:
        now = time.monotonic()
        # The first is never quiet: its last time lies `_NOTIFY_SECONDS` ago by default.
        is_quiet = now - _last_told.get(whose, -_NOTIFY_SECONDS) < _NOTIFY_SECONDS
        if not is_quiet:
            _last_told[whose] = now
    # Outside of the lock, since a sink may write to a slow disk.
    if not is_quiet:
        listener.events.warn(text, attempt=tries)
