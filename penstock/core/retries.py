"""Trying again what fails in ways that pass, within bounds.

Waits double and are drawn at random between zero and their bound ("full jitter": Brooker, Exponential Backoff
And Jitter, AWS Architecture Blog 2015), so that a thousand processes that were refused together do not return
together.

Every wait on the network ends: `PENSTOCK_REMOTE_TIMEOUT` (seconds of silence, 30),
`PENSTOCK_REMOTE_ATTEMPTS` (8) and `PENSTOCK_REMOTE_SECONDS` (no attempt begins after so many, 120) say when.
A training has more to lose than somebody at a terminal: what it reads within `listening(…, waiting=…)` is
bound by the seconds alone, unless attempts are set. (What it writes, checkpoints, waits nowhere:
`train.checkpoint_uploader` sends them again.)
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from penstock.core.errors import StoreError
from penstock.core.listeners import current_listener, notify_retry
from penstock.core.remote_errors import GaveUp, first_line, transient

_jitter = random.Random()
"""Chance of its own: waiting for a store must not move the generator that a user's program draws from."""
T = TypeVar("T")
_ANY = 1_000_000
"""Attempts, where the seconds alone bound."""


@dataclass(frozen=True)
class Patience:
    """How long to go on trying."""

    attempts: int = 8
    """Requests in all, the first included: with the waits below about 13 seconds on average."""
    seconds: float = 120.0
    """No attempt begins after so many seconds."""
    timeout_seconds: float = 30.0
    """Of silence on a connection, after which an attempt has failed."""
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 20.0

    @classmethod
    def from_environment(cls, *, lasting: bool = False) -> Patience:
        """`PENSTOCK_REMOTE_ATTEMPTS`, `PENSTOCK_REMOTE_SECONDS`, `PENSTOCK_REMOTE_TIMEOUT`; the defaults
        where they are not set.

        Args:
            lasting: any number of attempts where they are not set.

        Raises:
            StoreError: one of them is no positive number.
        """
        values: dict[str, float] = {}
        defaults = {
            "attempts": _ANY if lasting else cls.attempts,
            "seconds": cls.seconds,
            "timeout": cls.timeout_seconds,
        }
        for word, default in defaults.items():
            name = f"PENSTOCK_REMOTE_{word.upper()}"
            text = os.environ.get(name) or str(default)
            try:
                value = float(text)
            except ValueError:
                value = 0.0
            # Infinite seconds would wait for ever; less than one attempt asks nothing.
            if not 0 < value < float("inf") or (word == "attempts" and value < 1):
                raise StoreError(
                    f"the environment variable {name} must be a positive number; found {text!r}"
                )
            values[word] = value
        return cls(int(values["attempts"]), values["seconds"], values["timeout"])

    def waits(self, chance: Callable[[], float] | None = None) -> Iterator[float]:
        """Seconds to wait before the second attempt, the third, …: doubling bounds, and anything below them
        with equal chance.
        """
        # The wait before attempt n is at most 0.2 s · 2^(n-2), and never above 20 s.
        bound = self.first_wait_seconds
        for _ in range(self.attempts - 1):
            # From zero on ("full jitter"): equal waits would bring all processes back
            # at once.
            yield (chance or _jitter.random)() * bound
            bound = min(bound * 2, self.longest_wait_seconds)


def retry(
    ask: Callable[[], T],
    *,
    what: str,
    patience: Patience | None = None,
    is_read: bool = False,
) -> T:
    """`ask()`, asked again while it fails in a way that passes.

    Args:
        what: told when it is tried again: `read s3://team/penstock/…`.
        is_read: somebody waits for what is read; see `listening`.

    Raises:
        GaveUp: it still failed at the bound.
        Exception: whatever `ask` raises that does not pass, at once.
    """
    # Only reads are patient for a training; its writes are sent again elsewhere.
    listener = current_listener() if is_read else None
    waiting = listener.waiting if listener else None
    bound = patience or Patience.from_environment(lasting=waiting is not None)
    began, waits, tries = time.monotonic(), bound.waits(), 0
    while True:
        tries += 1
        try:
            return ask()
        except Exception as error:
            # What is final is told at once: no credentials, no such bucket.
            if not transient(error):
                raise
            wait, elapsed = next(waits, None), time.monotonic() - began
            # Ends before a wait that would pass the bound, not after it.
            if wait is None or elapsed + wait > bound.seconds:
                raise GaveUp(
                    f"{first_line(error)} (given up after {tries} attempt{'s' if tries > 1 else ''} in"
                    f" {elapsed:.0f} s)"
                ) from error
            # Told before the wait, so that a user sees why nothing moves.
            notify_retry(f"could not {what} ({first_line(error)}); trying again", tries)
            if waiting is not None:
                waiting()
            time.sleep(wait)
