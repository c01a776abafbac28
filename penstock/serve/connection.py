"""One connection: uvicorn's HTTP/1.1 protocol, with limits on what a client may do
before the application sees a request.

uvicorn reads and writes HTTP well, but trusts its clients to come to an end: half a request, or an answer
that nobody fetches, stays open for ever. So each connection here has a timer for whatever it waits for:

    the head of a request    HEAD_SECONDS     408, closed
    the body of a request    (`bodies`)       408, closed
    the rest of a body that was refused       REST_SECONDS, then aborted
    the end of a client that was refused      LINGER_SECONDS, then aborted
    an answer being fetched  FETCH_SECONDS    aborted
    the next request         uvicorn's own timer, closed

What is no HTTP, or too much of it, is answered in JSON like every other error (uvicorn writes plain text):
400, 431 for heads over HEAD_BYTES, 503 beyond the most connections. h11 is named, not chosen by what is
installed: these are its hooks.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import h11
from pydantic_core import to_json
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

HEAD_SECONDS = 10.0
REST_SECONDS = 10.0
LINGER_SECONDS = 2.0
"""How long a client may go on sending after it was refused.

Closing with unread bytes would take the answer back from it.
"""
FETCH_SECONDS = 60.0
HEAD_BYTES = 32 * 2**10
HEAD_FIELDS = 128
CONNECTIONS = 1_000
"""The most connections at once; fewer where the process may not open so many files."""
_CHUNKS_BEFORE_COUNTING = 4_096
_LEAST_CHUNK_BYTES = 32
"""What the chunks of a body hold on average: each costs as much as a thousand bytes do."""

Timer = asyncio.TimerHandle


class _Parser(h11.Connection):
    """h11's parser, with limits on the size of heads and the number of chunks."""

    _chunks = 0
    _chunk_bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            # A connection serves many requests; each is counted by itself.
            self._chunks = self._chunk_bytes = 0
            fields = list(event.headers)
            # Four bytes a field are its `: ` and the end of its line.
            size = len(event.target) + sum(
                len(name) + len(value) + 4 for name, value in fields
            )
            if size > HEAD_BYTES or len(fields) > HEAD_FIELDS:
                raise h11.RemoteProtocolError(
                    "the head of the request is too long", error_status_hint=431
                )
        elif isinstance(event, h11.Data) and event.chunk_end:
            self._chunks += 1
            self._chunk_bytes += len(event.data)
            if (
                self._chunks > _CHUNKS_BEFORE_COUNTING
                and self._chunk_bytes < self._chunks * _LEAST_CHUNK_BYTES
            ):
                raise h11.RemoteProtocolError("the body comes in chunks of a few bytes")
        return event


class Connection(H11Protocol):
    """A client's connection, with a timer for everything that it waits for.

    Args:
        log: where uvicorn's own words go (its logger writes to stderr where nobody has set one up).
        most: the most connections at once.
    """

    def __init__(
        self, config: Config, *args: Any, log: logging.Logger, most: int, **more: Any
    ) -> None:
        super().__init__(config, *args, **more)
        self.logger = log
        self.access_log = False
        # Replaces uvicorn's parser; HEAD_BYTES bounds a head that is not whole yet.
        self.conn = _Parser(h11.SERVER, HEAD_BYTES)
        self._most = most
        self._ended = False
        self._head_timer: Timer | None = None
        self._rest_timer: Timer | None = None
        self._fetch_timer: Timer | None = None

    # -- what the event loop tells ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, or refuse where there are too many connections."""
        super().connection_made(transport)
        # Without a buffer, so that uvicorn hears of every answer that is not fetched at
        # once.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self._most:
            self.refuse(
                503,
                f"the server has {self._most} connections, and takes no more; ask again later",
                linger=False,
            )
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every timer: none may act on a connection that is gone."""
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes; while a head is not whole, its timer runs."""
        # What a refused client still sends is dropped, so that it can finish sending.
        if self._ended or self.transport.is_closing():
            return
        super().data_received(data)
        if self._ended:
            return
        # IDLE means that the head of the next request is not whole yet.
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._head_timer = _stop(self._head_timer)

    def pause_writing(self) -> None:
        """An answer is not fetched: end the connection if that lasts."""
        super().pause_writing()
        if self._fetch_timer is None:
            self._fetch_timer = self.loop.call_later(FETCH_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The answer is being fetched again."""
        super().resume_writing()
        self._fetch_timer = _stop(self._fetch_timer)

    # -- what uvicorn tells ----------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Start a timer for the rest of a body that was answered before it was read."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.SEND_BODY:
            # Refused before its body was read. Closing at once would take the answer from a client that is
            # still sending.
            self._rest_timer = self._rest_timer or self.loop.call_later(
                REST_SECONDS, self.transport.abort
            )

    def handle_events(self) -> None:
        """Handle parsed events, unless the connection ends; stop a body's timer once
        the body is read.
        """
        if self._ended:  # a pipelined request behind one that was refused
            return
        super().handle_events()
        if (
            self._rest_timer is not None
            and not self._ended
            and self.conn.their_state is not h11.SEND_BODY
        ):
            self._rest_timer = _stop(self._rest_timer)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP: 431 where the head is too large, else 400."""
        # uvicorn calls this while it handles h11's error, which says more than `msg`.
        error = sys.exc_info()[1]
        hint = getattr(error, "error_status_hint", 400)
        if hint == 431:
            self.refuse(
                431,
                f"the head of the request has more than {HEAD_BYTES} bytes or {HEAD_FIELDS} fields; send"
                " less",
            )
        else:
            self.refuse(
                400, f"this is not HTTP/1.1 as it is read here: {str(error)[:200]}"
            )

    def shutdown(self) -> None:
        """Stop: finish the answer to a whole request, and turn an unfinished request
        away.
        """
        cycle = self.cycle
        if self._ended or cycle is None or cycle.response_complete:
            self._close()
        elif cycle.more_body and not cycle.response_started:
            # The rest of the body may never come, so the server does not wait for it.
            self.refuse(503, "the server is stopping; ask another, or later")
        else:
            # uvicorn closes the connection once this answer is written.
            cycle.keep_alive = False

    # -- ends ------------------------------------------------------------------------------------------------

    def refuse(self, status: int, text: str, *, linger: bool = True) -> None:
        """Answer with an error without the application, then close; with `linger` only
        after LINGER_SECONDS, in which what the client still sends is dropped.
        """
        if self._ended:
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the application still says goes nowhere
            # Wakes an application that waits for the rest of the body.
            self.cycle.message_event.set()
        # In any other state an answer has begun, and a second one would corrupt it.
        if (
            self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE)
            and not self.transport.is_closing()
        ):
            body = to_json({"error": text})
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            if status == 503:
                headers.append((b"retry-after", b"1"))
            response = h11.Response(
                status_code=status, headers=headers, reason=STATUS_PHRASES[status]
            )
            for part in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(part) or b"")
        self._stop_timers()
        # The timer of idle connections must not close this one while the client still
        # sends.
        self._unset_keepalive_if_required()
        self._ended = True
        if (
            not linger
            or self.transport.is_closing()
            or not self.transport.can_write_eof()
        ):
            self._close()
            return
        # Half closed: the client sees the answer's end, and what it still sends is
        # read.
        self.transport.write_eof()
        # Reading may be paused, and closing with unread bytes resets the connection.
        self.flow.resume_reading()
        self._rest_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            return
        # Bytes have come, so a request was begun; without any the client is idle, and
        # no answer is due.
        if self.conn.trailing_data[0]:
            self.refuse(
                408,
                f"the head of the request did not come within {HEAD_SECONDS:g} seconds",
            )
        else:
            self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_timers(self) -> None:
        self._head_timer = _stop(self._head_timer)
        self._rest_timer = _stop(self._rest_timer)
        self._fetch_timer = _stop(self._fetch_timer)


def _stop(timer: Timer | None) -> Timer | None:
    if timer is not None:
        timer.cancel()
    return None
