"""Ctrl-C and SIGTERM in a training process: it finishes its step, saves and says how to go on.

A second one insists.
"""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack

from penstock.core.interrupts import StopRequest, interrupts


class Stop:
    """Within this context a signal sets `asked`.

    Outside the main thread, where Python allows no handlers, it never is.
    """

    def __init__(self) -> None:
        self._request: StopRequest | None = None
        self._stack = ExitStack()

    @property
    def asked(self) -> bool:
        """Whether training is to stop after the step in progress."""
        return self._request is not None and self._request.is_made

    def __enter__(self) -> Stop:
        self._request = self._stack.enter_context(interrupts.graceful())
        if threading.current_thread() is threading.main_thread():
            # A launcher may have blocked SIGTERM until somebody can act on it: that is now.
            mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            self._stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.__exit__(*problem)  # type: ignore[arg-type]
