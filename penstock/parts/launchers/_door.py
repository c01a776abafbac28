"""The door of a launcher's line: who may come in, and for how long one may stand in it.

Anybody on the network can call a listening port: a scanner, a rank of another job, somebody who says nothing,
somebody who says one byte a second. So each caller is asked for the key in a thread of its own, within a
bounded time, a bounded number of bytes and a bounded number of callers, and none of them keeps another
waiting.

The handshake is that of `multiprocessing.connection`: both ends prove by an HMAC that they know the key.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

HANDSHAKE_SECONDS = 10.0
"""How long a caller may take to prove that it knows the key."""
_CALLERS = 128
"""Callers at the door at once. One more, and the one that has stood there longest is sent away."""
_DIAL_SECONDS = 60.0
"""How long a rank tries to reach its launcher."""
_DIAL_PAUSE_SECONDS = 0.2
# All that a stranger's bytes can make the handshake raise.
_REFUSALS = (
    multiprocessing.AuthenticationError,
    EOFError,
    OSError,
    AssertionError,
    ValueError,
)


class Door:
    """Listens on `host` alone, and hands each caller that knows the key to `welcome`, in a thread of its own.

    Args:
        key: what a caller must know.
        backlog: callers that the system may keep waiting.
        welcome: gets the connection, and owns it.

    Raises:
        OSError: nothing can listen there.
    """

    def __init__(
        self,
        host: str,
        key: bytes,
        *,
        backlog: int,
        welcome: Callable[[Connection], None],
    ) -> None:
        self._key, self._welcome = key, welcome
        self._callers: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self._socket = socket.create_server((host, 0), backlog=backlog)
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(
            target=self._accept, name="penstock-door", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Listen no more, send away who stands at the door, and end the thread. Those that came in stay."""
        self._is_closed = True
        _hang_up(self._socket)  # wakes `accept`, which closing alone does not
        self._thread.join()
        self._socket.close()
        with self._lock:
            for caller in self._callers:
                _hang_up(caller)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                if self._is_closed:
                    return
                # it hung up before it was heard, or there are no descriptors at the moment
                time.sleep(_DIAL_PAUSE_SECONDS)
                continue
            self._admit(caller)
            threading.Thread(
                target=self._receive, args=(caller,), name="penstock-caller", daemon=True
            ).start()

    def _admit(self, caller: socket.socket) -> None:
        with self._lock:
            self._callers.append(caller)
            # `close` may have gone through the list before this one was in it.
            if self._is_closed:
                _hang_up(caller)
            # The oldest one has had the longest to prove that it knows the key.
            if len(self._callers) > _CALLERS:
                _hang_up(self._callers.pop(0))

    def _receive(self, caller: socket.socket) -> None:
        # A descriptor of its own: the connection outlives `caller`, which is for
        # hanging up.
        connection = Connection(os.dup(caller.fileno()))
        try:
            with _Deadline(caller, HANDSHAKE_SECONDS):
                # We ask first and answer second; `_dialled` does it the other way
                # round.
                deliver_challenge(connection, self._key)
                answer_challenge(connection, self._key)
        except _REFUSALS:
            connection.close()
            return
        finally:
            with self._lock:
                # `_admit` may have sent it away to make room.
                if caller in self._callers:
                    self._callers.remove(caller)
            caller.close()
        self._welcome(connection)


class _Deadline:
    """Hangs up on a socket after some seconds, unless the body has ended by then.

    Whoever reads from it gets an `EOFError` or `OSError`.

    Raises:
        EOFError: the time was up; raised at the end of the body, whatever it had come to.
    """

    def __init__(self, line: socket.socket, seconds: float) -> None:
        self._line = line
        self._is_over = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *problem: object) -> None:
        self._timer.cancel()
        # Under the lock the timer has hung up, or the body is over in time: never both.
        with self._lock:
            if self._is_over:
                raise EOFError("it took too long")
            self._is_over = True

    def _end(self) -> None:
        with self._lock:
            if not self._is_over:
                self._is_over = True
                _hang_up(self._line)


def _hang_up(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not `close`, which would not wake a thread that reads from the socket.
        line.shutdown(socket.SHUT_RDWR)


def dial(host: str, port: int, key: bytes) -> Connection:
    """A connection to the door at `host:port`, both ends having proved that they know the key.

    Raises:
        AuthenticationError: the other end knows another key.
        OSError: nobody answers there in time.
    """
    until = time.monotonic() + _DIAL_SECONDS
    while True:
        try:
            return _dialled(host, port, key)
        except multiprocessing.AuthenticationError:
            # Another key will not become the right one.
            raise
        except (EOFError, OSError) as error:
            # Where nobody listens the launcher has ended, and none will come in its
            # place.
            if time.monotonic() > until or isinstance(error, ConnectionRefusedError):
                raise OSError(
                    f"the launcher at {host}:{port} does not answer: {error}"
                ) from None
            time.sleep(_DIAL_PAUSE_SECONDS)


def _dialled(host: str, port: int, key: bytes) -> Connection:
    with socket.create_connection((host, port), timeout=HANDSHAKE_SECONDS) as line:
        # `Connection` reads blockingly; from here on the deadline bounds the time.
        line.settimeout(None)
        connection = Connection(os.dup(line.fileno()))
        try:
            with _Deadline(line, HANDSHAKE_SECONDS):
                # The launcher asks first: in the other order both would wait for each
                # other.
                answer_challenge(connection, key)
                deliver_challenge(connection, key)
        except BaseException:
            connection.close()
            raise
        return connection


__all__ = ["Door", "dial"]
