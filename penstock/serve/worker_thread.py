"""One thread that runs tasks of the event loop one after another.

Like an executor of one thread, but: a thing that nobody waits for any more is not begun, what the thread was
told last is visible (a hang can be seen), and the thread is a daemon, so that the process ends though a thing
never does.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class WorkerThread:
    """A daemon thread, started with its first task."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # Monotonic seconds, None when idle. The thread writes it and the event loop
        # reads it: one reference, so no lock.
        self._since: float | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread; return or raise what it does."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            if outcome.cancelled():
                return
            value: Any = None
            problem: BaseException | None = None
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001
                # Raised again where it is awaited; the thread goes on.
                problem = error
            self._since = None  # before anyone hears of the outcome
            try:
                loop.call_soon_threadsafe(_settle, outcome, value, problem)
            except RuntimeError:  # the loop is closed: nobody waits
                return

        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._work, name=self._name, daemon=True
            )
            self._thread.start()
        self._todo.put(run)
        return await outcome

    @property
    def busy_seconds(self) -> float:
        """How many seconds the present task has taken so far; 0 when idle."""
        # Read once: the thread may clear it between the test and the subtraction.
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """Let the thread end once its tasks are done, without waiting for it."""
        self._todo.put(None)

    def _work(self) -> None:
        while (run := self._todo.get()) is not None:
            self._since = time.monotonic()
            run()
            self._since = None
            del run  # it holds the request until the next one comes


def _settle(
    outcome: asyncio.Future[Any], value: Any, problem: BaseException | None
) -> None:
    # Cancelled while the thread worked.
    if outcome.done():
        return
    if problem is None:
        outcome.set_result(value)
    elif isinstance(problem, Exception) and not isinstance(problem, StopIteration):
        outcome.set_exception(problem)
    else:  # a future refuses to hold the one, and the others would end the event loop
        stands_in = RuntimeError(f"{type(problem).__name__} was raised")
        stands_in.__cause__ = problem
        outcome.set_exception(stands_in)
