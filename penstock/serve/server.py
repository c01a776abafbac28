"""The server: uvicorn around the application, stopped gracefully; in the foreground (`serve`) or in a thread
(`Serving`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

import uvicorn

from penstock.bundle.bundle import Bundle
from penstock.core.errors import PenstockError, UserError
from penstock.core.events import Events
from penstock.core.paths import shown
from penstock.recipe.schema import Serve
from penstock.serve.app import create_app
from penstock.serve.connection import CONNECTIONS, Connection

STOP_SECONDS = 5
"""How long requests that were asked whole may go on once the server is to stop.

With the time that the answering thread gets (`batching.CLOSE_SECONDS`) it ends within eight seconds, whatever
clients do.
"""
OTHER_FILES = 64
"""Files that the process may open beside its connections."""


class _Told(logging.Handler):
    """Log handler that passes uvicorn's errors to the events; warnings concern clients
    and are dropped.
    """

    def __init__(self, events: Events) -> None:
        super().__init__(logging.ERROR)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self._events.warn(f"The HTTP server met a defect: {line}")


def _nothing(record: logging.LogRecord) -> bool:
    return False


class _Server(uvicorn.Server):
    """uvicorn's server, except that a signal ends it with success instead of being
    raised again.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Python sets signal handlers in the main thread only, and `Serving` runs in
        # another.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sign: signal.signal(sign, self.handle_exit) for sign in self._heard()}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)

    @staticmethod
    def _heard() -> list[signal.Signals]:
        """Return the signals that stop the server; SIGHUP is left out where it was
        ignored from the start, as under nohup.
        """
        return [
            signal.SIGINT,
            signal.SIGTERM,
            *(
                [signal.SIGHUP]
                if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
                else []
            ),
        ]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A second signal stops at once; what that breaks off is no defect.
        if self.should_exit and not self.force_exit:
            self.force_exit = True
            logging.getLogger("uvicorn.error").addFilter(_nothing)
        self.should_exit = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:  # the logger is the process's: another server of it is heard again
            logging.getLogger("uvicorn.error").removeFilter(_nothing)


def _listen(options: Serve) -> socket.socket:
    # Only an IPv6 address has a colon.
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # TCP by name: asyncio turns Nagle's algorithm off only for sockets that say so, and with it each answer
    # takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A restarted server can listen at once, while old connections linger in TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        # The queue of connections not yet accepted has uvicorn's own default length.
        listener.listen(2048)
    # Python raises these for what is no name of a machine at all.
    except (
        UnicodeError,
        TypeError,
        OverflowError,
    ):
        listener.close()
        raise UserError(
            f"cannot listen at {shown(options.host)}: it is neither an address nor a host"
            " name. Check serve.host (--host)."
        ) from None
    except OSError as error:
        listener.close()
        where = f"{options.host}:{options.port}"
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"{where} is in use by another program. Choose another port (serve.port, --port), or 0 for"
                " any that is free."
            ) from None
        if error.errno == errno.EACCES:
            raise UserError(
                f"This user may not listen at {where}: ports below 1024 are reserved. Choose"
                " a higher one (serve.port, --port)."
            ) from None
        raise UserError(
            f"cannot listen at {where}: {error.strerror or error}. Check serve.host and serve.port."
        ) from None
    listener.setblocking(False)
    return listener


def _make(
    bundle: Bundle, options: Serve, events: Events
) -> tuple[_Server, socket.socket, str]:
    app = create_app(bundle, options, events)
    # The port is taken last: with a bad bundle or no token, nothing listens.
    listener = _listen(options)
    host, port = listener.getsockname()[:2]
    # Brackets set the colons of an IPv6 address apart from the port's.
    shown = f"[{host}]" if ":" in host else host
    # Outside of the tree of loggers, which belongs to the application.
    log = logging.Logger("penstock.serve", logging.ERROR)
    log.addHandler(_Told(events))
    protocol: Any = functools.partial(Connection, log=log, most=_connections())
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        # With a configuration uvicorn would set up loggers of the whole process.
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=STOP_SECONDS,
        server_header=False,
    )
    return _Server(config), listener, f"http://{shown}:{port}"


def _connections() -> int:
    """Return the most connections at once: fewer than the files that the process may
    open.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        CONNECTIONS
        if files == resource.RLIM_INFINITY
        else max(min(CONNECTIONS, files - OTHER_FILES), 8)
    )


def serve(bundle: Bundle, options: Serve, events: Events) -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C; what is being answered then is finished first, for
    `STOP_SECONDS`.

    Raises:
        UserError: the port is in use, or a token is asked for and not there.
    """
    server, listener, url = _make(bundle, options, events)
    events.say(
        f"Serving {bundle.reference} ({bundle.name}) at {url}  (POST {url}/predict,"
        f" page with an example at {url}/docs)",
        url=url,
    )
    with contextlib.closing(listener):
        server.run(sockets=[listener])
    events.say("Stopped. Every request was answered or refused.")


class Serving:
    """A server in a thread of this process: `with Serving(bundle, Serve(port=0), events) as server: …
    server.url`.
    """

    def __init__(self, bundle: Bundle, options: Serve, events: Events) -> None:
        self._server, self._listener, self.url = _make(bundle, options, events)
        self._events = events
        self._thread = threading.Thread(
            target=self._run, name="penstock-serve", daemon=True
        )
        self._error: BaseException | None = None

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that started us
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 30
        # Polled, since uvicorn tells nobody that it has started.
        while not self._server.started:
            if (
                self._error is not None
                or not self._thread.is_alive()
                or time.monotonic() > deadline
            ):
                # The thread has ended and the port is free before the error is raised.
                self.stop()
                raise PenstockError("the server did not start") from self._error
            time.sleep(0.005)
        self._events.say(f"serving at {self.url}", url=self.url)
        return self

    def stop(self) -> None:
        """Finish what is being answered, then stop."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()

    def __exit__(self, *problem: object) -> None:
        self.stop()
