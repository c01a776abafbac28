"""Middleware for every request: its id, the bearer token, and the meters.

Plain ASGI, to cost next to nothing.

Open without a token: the health endpoints, since whoever probes them (a load balancer, Kubernetes) has no
secrets, and the page, which is an empty shell until its visitor types the token in.

A defect ends here: the client gets a 500 with the request's id and no traceback, the events get the
traceback. A client that hangs up is no defect: nothing is said.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from penstock.core.events import Events
from penstock.serve.bodies import HungUp
from penstock.serve.metering import Meters

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/v2/health/live", "/v2/health/ready", "/docs")
GONE = 499
"""What a client that hung up is counted under; nobody gets it."""
_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Gate:
    """ASGI middleware around the application.

    Args:
        token: the bearer token asked for; None for none.
        route_of: a path → the route it is counted under (few, so that a scanner does not fill the meters).
    """

    def __init__(
        self,
        app: App,
        *,
        token: str | None,
        meters: Meters,
        events: Events,
        route_of: Callable[[str], str],
    ) -> None:
        self._app = app
        self._token = token.encode() if token else None
        self._meters = meters
        self._events = events
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Messages of the server's start and end come from no client.
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        # Counted where the application ends without beginning an answer.
        status, started = 500, False

        async def send_on(message: MutableMapping[str, Any]) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message = {
                    **message,
                    "headers": [
                        *message.get("headers", []),
                        (b"x-request-id", request_id.encode()),
                    ],
                }
            await send(message)

        self._meters.in_flight.inc()
        try:
            if (
                self._token is not None
                and scope["path"] not in OPEN
                and not self._may_pass(headers.get(b"authorization", b""))
            ):
                self._meters.error("unauthorised")
                await _refuse(send_on, request_id)
            else:
                await self._app(scope, receive, send_on)
        except (HungUp, ClientDisconnect):
            status = GONE
        except asyncio.CancelledError:  # the server stops now, whatever is being answered
            # An answer that has begun cannot change its status. The task ends either
            # way, so the error is not raised again.
            if not started:
                stopping = "the server is stopping; ask another, or later"
                await _answer(
                    send_on, 503, _error(stopping, request_id), (b"retry-after", b"1")
                )
        except Exception as error:  # noqa: BLE001
            # The one place where a defect is told; the server goes on for the others.
            self._meters.error("defect")
            trace = "".join(traceback.format_exception(error))
            self._events.warn(
                f"Request {request_id} met a defect: {trace}", request_id=request_id
            )
            # An answer that has begun cannot change its status.
            if not started:
                defect = f"a defect of this server's ({type(error).__name__}); its log says more"
                await _answer(send_on, 500, _error(defect, request_id))
        finally:
            self._meters.in_flight.dec()
            self._meters.request(
                self._route_of(scope["path"]), status, time.perf_counter() - start
            )

    def _may_pass(self, authorization: bytes) -> bool:
        # Names of schemes are case-insensitive. Comparing in constant time does not
        # tell how much of a guess is right.
        scheme, _, given = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(
            given.strip(), self._token or b""
        )


async def _refuse(send: Send, request_id: str) -> None:
    asks = "this server asks for a bearer token: send the header  Authorization: Bearer <token>"
    await _answer(send, 401, _error(asks, request_id), (b"www-authenticate", b"Bearer"))


def _request_id(headers: dict[bytes, bytes]) -> str:
    """Return the client's own request id if it is harmless, else a new one: other text
    could forge log lines.
    """
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex


def _error(text: str, request_id: str) -> bytes:
    return to_json({"error": text, "request_id": request_id})


async def _answer(
    send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]
) -> None:
    usual = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*usual, *headers]}
    )
    await send({"type": "http.response.body", "body": body})
