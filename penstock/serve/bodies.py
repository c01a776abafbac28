"""Request bodies, read within a time limit and within one budget of bytes for all
requests.

One request may have `serve.max_request_bytes`. All that are being read or answered share a budget
(`bytes_in_flight`); it is charged as bytes arrive, not as they are announced, so a client holds no more of it
than it has sent. The first `FREE_BYTES` of each body are not charged: small requests are answered while large
ones wait, and the number of connections bounds what they take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.exceptions import HTTPException

from penstock.core.errors import PenstockError
from penstock.serve.reading import Malformed, TooLarge

IDLE_SECONDS = 10.0
"""How long a body may pause."""
BODY_SECONDS = 60.0
"""How long a body may take as a whole."""
FREE_BYTES = 2**16


class Busy(PenstockError):
    """The server has no room for another request, or it is stopping; a 503 over HTTP."""


class Late(PenstockError):
    """A body did not come in time; a 408 over HTTP."""


class HungUp(PenstockError):
    """The client is gone, so no answer is written."""


def bytes_in_flight(max_request_bytes: int) -> int:
    """Return the budget of all bodies together, in bytes: two of the largest, at least
    16 MiB.
    """
    return max(2 * max_request_bytes, 16 * 2**20)


class Budget:
    """Counts the bytes of all request bodies that are held now."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """One request's share, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.used -= share.charged


class Share:
    """One request's share of a `Budget`."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.charged = 0

    def check(self, size: int) -> None:
        """Check that a body of `size` bytes fits into the budget now.

        Raises:
            Busy: it could not.
        """
        # `used` includes what this request is charged already, which must not count
        # twice.
        if (
            self._budget.used - self.charged + max(size - FREE_BYTES, 0)
            > self._budget.total
        ):
            raise Busy(
                f"the requests that are being answered hold {self._budget.used >> 20} MiB already; ask again"
                " later"
            )

    def grow(self, size: int) -> None:
        """Charge the budget for a body that has `size` bytes by now.

        Raises:
            Busy: the budget is spent.
        """
        self.check(size)
        charge = max(size - FREE_BYTES, 0)
        self._budget.used += charge - self.charged
        self.charged = charge


async def body_of(request: Request, share: Share, *, most: int) -> bytes | bytearray:
    """Read the whole body of a request.

    Args:
        share: charged with its bytes.
        most: bytes that one body may have.

    Raises:
        HTTPException: 411 or 415.
        Malformed: the length is no number.
        TooLarge: as soon as it is known.
        Busy: the budget of all requests is spent.
        Late: it did not come in time.
        HungUp: the client is gone.
    """
    # Refused by the headers alone, before a byte of the body is read.
    _stated(request, share, most)
    loop = asyncio.get_running_loop()
    whole = bytearray()
    last = loop.time() + BODY_SECONDS
    try:
        async with asyncio.timeout(IDLE_SECONDS) as limit:
            while True:
                message = await request.receive()
                if message["type"] != "http.request":
                    raise HungUp("the client hung up before its request was whole")
                part: bytes = message.get("body", b"")
                size = len(whole) + len(part)
                # Refused and charged before the part is kept.
                if size > most:
                    raise TooLarge(
                        f"the body has more than {most} bytes (serve.max_request_bytes)"
                    )
                share.grow(size)
                # A body that comes in one message is handed on without a copy.
                if not whole and not message.get("more_body", False):
                    return part
                whole += part
                if not message.get("more_body", False):
                    return whole
                # Each pause is bounded, and the whole: a client that drips bytes ends
                # at `last`.
                limit.reschedule(min(loop.time() + IDLE_SECONDS, last))
    except TimeoutError:
        raise Late(
            f"the body paused for {IDLE_SECONDS:g} seconds, or took {BODY_SECONDS:g} as a whole; send less in"
            " one request"
        ) from None


def _stated(request: Request, share: Share, most: int) -> None:
    """Refuse a body by its headers alone: its encoding, and its stated length."""
    headers = request.headers
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise HTTPException(
            415,
            f"a body in the encoding {encoding[:40]!r} is not read; send it uncompressed",
        )
    length = headers.get("content-length")
    # A chunked body states no length; its bytes are counted as they come.
    if length is None:
        if "transfer-encoding" not in headers:
            raise HTTPException(
                411, "the request has no body; send one, with its Content-Length"
            )
        return
    # `isdecimal` alone takes digits of other scripts.
    if not (length.isascii() and length.isdecimal()):
        raise Malformed("Content-Length is no whole number")
    # Nineteen digits hold any 64-bit length; longer ones are too large without being
    # converted.
    if len(length) > 19 or int(length) > most:
        raise TooLarge(
            f"the body has {length[:19]} bytes; at most {most} are taken (serve.max_request_bytes)"
        )
    share.check(int(length))
