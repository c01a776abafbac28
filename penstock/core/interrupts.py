"""Ctrl-C, SIGTERM and SIGHUP, from the first moment of a command to its last.

One policy for the whole process, since a signal handler is the whole process's:

- A section that can end well (a training step, a launcher with ranks) is `graceful`: the first signal asks it
  to stop, and it saves a checkpoint. The second one insists.
- Everywhere else the first signal raises `KeyboardInterrupt` in the main thread.
- From then on the process unwinds. Further signals are ignored, so that none strikes a clean-up half-way.
  Whoever insists `FORCED_AFTER` times more ends the process at once, still with the sentence.
- What a signal interrupts may answer with an error of its own (DuckDB says "Query interrupted"). So the edge
  asks `is_stopping` before it reports an error.

`advice` says how to go on; the innermost text at the moment of the signal is the one that is shown. Where
SIGINT was ignored from the start (`command &` in a script), or SIGHUP (`nohup`), it stays ignored, as the
system's convention is; SIGTERM is heard there too. SIGHUP comes when the terminal goes: what is said then
reaches nobody, and the checkpoint is saved. Outside the main thread Python allows no handlers, and nothing
here acts.

This file is imported before anything else of a command, so it imports nothing but signals.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

FORCED_AFTER = 3
"""How many signals are ignored while the process unwinds, until the next one ends it at once."""
EXIT_CODE = 130
"""What a command that was interrupted ends with: 128 + SIGINT, as shells count."""
AGAIN = "Nothing incomplete was saved. Run the same command again to start over."
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STDERR = 2


class StopRequest:
    """Whether, and by which signals, a graceful section has been asked to stop."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self.signals: list[int] = []
        """The signals that have asked it to stop, in order."""

    @property
    def is_made(self) -> bool:
        """Whether it was asked to stop."""
        return bool(self.signals)


class Interrupts:
    """How this process answers signals; the one instance is `interrupts` below."""

    def __init__(self) -> None:
        # A stack: the innermost section knows best how to go on.
        self._advice: list[str] = []
        self._request: StopRequest | None = None
        self._deferrals = 0
        self._is_pending = False
        self._is_unwinding = False
        self._ignored = 0
        self._depth = 0
        self._is_command = False
        self._exit_code: int | None = None
        self._shown: str | None = None

    # -- what the edge asks ----------------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has come and the process is about to end."""
        return self._is_unwinding or self._is_pending

    @property
    def sentence(self) -> str:
        """The sentence that ends a stopped command; it says how to go on, with the
        advice that held at the moment of the signal.
        """
        advice = self._shown or self._innermost()
        return advice if advice.startswith("Stopped") else f"Stopped. {advice}"

    def check(self) -> None:
        """Stop here, between two stages, if a signal has come that nothing has acted
        on.

        Raises:
            KeyboardInterrupt: one has.
        """
        if self.is_stopping and not self._deferrals:
            self._unwind()

    # -- what sections say -----------------------------------------------------------------------------------

    @contextmanager
    def installed(self, *, is_command: bool = False) -> Iterator[Interrupts]:
        """Handle signals within.

        Nested use changes nothing; the outermost one forgets what happened when it ends.

        Args:
            is_command: the process is one command of the user's, so one that insists may end it at once. A
                Python session of the user's own is never ended.
        """
        self._depth += 1
        # Only the outermost `installed` takes over, so nested ones cannot restore the
        # wrong handlers.
        previous = self._take_over() if self._depth == 1 else {}
        self._is_command = self._is_command or is_command
        try:
            yield self
        finally:
            self._depth -= 1
            if self._depth == 0:
                _restore(previous)
                self._forget()

    def keep(self) -> None:
        """Handle signals from now on until the process ends, of which one command is all."""
        self._depth += 1
        self._is_command = True
        # the first that is registered is the last that runs
        atexit.register(_deafen, list(self._take_over()))

    def over(self, exit_code: int) -> None:
        """The command has ended and has said all it had to say; a signal that comes now is too late for
        more.
        """
        # From here on `_ignore` ends the process with the command's own code, not 130.
        self._is_unwinding, self._exit_code = True, exit_code

    @contextmanager
    def graceful(self, tell: Callable[[], None] = lambda: None) -> Iterator[StopRequest]:
        """The first signal within only asks; the section then ends by itself.

        Args:
            tell: called once, in the signal handler: pass the wish on. It must neither block nor take a lock.
        """
        outer, request = self._request, StopRequest(tell)
        with self.installed():
            # Again, though `installed` has: Ray and Spark put handlers of their own into a process.
            previous = self._take_over()
            self._request = request
            try:
                yield request
            except BaseException:
                # It failed on its way out: further signals must not strike its
                # clean-up.
                self._is_unwinding = self._is_unwinding or request.is_made
                raise
            else:
                if (
                    request.is_made
                ):  # it was over before it could act: what to do now is another thing
                    self._is_pending, self._shown = True, None
            finally:
                self._request = outer
                _restore(previous)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A signal within is acted on at the end: for what must be whole, such as a new run and the word of
        it.
        """
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1
        # Outside of `finally`: an error of the body must not be replaced by the
        # interrupt.
        if self._is_pending:
            self.check()

    @contextmanager
    def advice(self, text: str) -> Iterator[None]:
        """While the body runs, a user who stops the command is told `text` (whole
        sentences).
        """
        self._advice.append(text)
        try:
            yield
        finally:
            self._advice.pop()

    # -- signals ---------------------------------------------------------------------------------------------

    def _take_over(self) -> dict[int, Any]:
        """Install this object as the handler. Returns the handlers before it, to be
        restored.
        """
        # `signal.signal` raises outside of the main thread.
        if threading.current_thread() is not threading.main_thread():
            return {}
        heard = [
            number
            for number in _SIGNALS
            # Ignored from the start (`nohup`, a background job): it stays so.
            if signal.getsignal(number) is not signal.SIG_IGN
        ]
        return {number: signal.signal(number, self._handle) for number in heard}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.receive(number)

    def receive(self, number: int) -> None:
        """What the handler does with a signal, in the main thread.

        Raises:
            KeyboardInterrupt: nothing graceful is at work, or it insists.
        """
        request = self._request
        # The order matters: unwinding wins over everything, then grace, then deferral.
        if self._is_unwinding:
            self._ignore()
        elif request is not None and not request.is_made:
            self._accept(request, number)
        elif self._deferrals:
            self._is_pending = True
        else:
            # The second signal to a graceful section: it insists, and unwinds.
            if request is not None:
                request.signals.append(number)
            self._unwind()

    def _accept(self, request: StopRequest, number: int) -> None:
        request.signals.append(number)
        # Kept now: the advice will have been popped when the sentence is shown.
        self._shown = self._innermost()
        # In a user's own session nothing is written to the terminal from a handler.
        if self._is_command:
            _write(
                "\nStopping: saving a checkpoint first. Press Ctrl-C again to stop at once.\n"
            )
        request._tell()

    def _unwind(self) -> None:
        self._shown = self._shown or self._innermost()
        self._is_unwinding = True
        raise KeyboardInterrupt

    def _ignore(self) -> None:
        self._ignored += 1
        # A Python session of the user's is never ended, however often Ctrl-C comes.
        if self._ignored <= FORCED_AFTER or not self._is_command:
            return
        if self._exit_code is None:
            _write(f"\npenstock: {self.sentence}\n")
        # what it has started sees its pipe close, and ends
        os._exit(EXIT_CODE if self._exit_code is None else self._exit_code)

    def _innermost(self) -> str:
        return self._advice[-1] if self._advice else AGAIN

    def _forget(self) -> None:
        self._is_pending = self._is_unwinding = self._is_command = False
        self._ignored, self._shown = 0, None


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _deafen(numbers: Iterable[int]) -> None:
    """Ignore `numbers` (signals) in the last moment of a process, when its exit code
    stands.

    Python puts the system's own handlers back before it takes itself apart, which takes a second where torch
    was loaded; the next signal would be its end, not 130.
    """
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _write(text: str) -> None:
    """Straight to standard error: a handler may run while a lock of `sys.stderr` is held."""
    try:
        os.write(_STDERR, text.encode())
    except OSError:
        return  # nobody listens there any more


interrupts = Interrupts()
"""This process's."""

__all__ = [
    "AGAIN",
    "EXIT_CODE",
    "FORCED_AFTER",
    "Interrupts",
    "StopRequest",
    "interrupts",
]
