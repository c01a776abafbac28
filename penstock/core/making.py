"""One maker at a time: of all processes that share a store, one makes an artefact; the others wait, and use
what it made.

    .leases/making-<fingerprint of the artefact's name>/…   a lease (`core.lease`) while it is made

Names of artefacts follow from their inputs, so processes that would make the same ask for the same lease, on
whatever machine they are. A holder that dies is taken over: its own machine asks the kernel, another watches
its count. Publishing is safe without a lease, too (equal names have equal content, and the first to publish
stands); it spares the work, and for a training, whose name is new each time, it keeps one recipe from being
trained twice.

What this file refuses to know: what is made, and how.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from penstock.core.errors import StoreError
from penstock.core.events import Events
from penstock.core.identity import fingerprint
from penstock.core.interrupts import interrupts
from penstock.core.lease import FOLDER, Held, Holder, Lease, Leased, take
from penstock.core.store import Store, as_store_error

PREFIX = "making-"
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0
"""Seconds between two looks at who holds it."""

Made = TypeVar("Made")


def made_once(
    store: Store,
    name: str,
    what: str,
    events: Events,
    *,
    find: Callable[[], Made | None],
    make: Callable[[], Made],
    waits: bool = True,
) -> Made:
    """Return what `find` finds, or else what `make` makes, while no other process
    makes the same.

    Args:
        store: of the artefact.
        name: that follows from all that decides the artefact's content.
        what: it is, in words.
        find: looks for it in the store; asked when no other process makes it any more.
        waits: for another that makes it; otherwise it is made beside that one.

    Raises:
        StoreError: the store cannot be written; and whatever `find` and `make` raise.
        KeyboardInterrupt: the user stops the waiting.
    """
    with making(store, name, what, events, waits=waits) as waited:
        # Looked for under the lease: another may have published it while this process
        # waited.
        value = find()
        if value is None:
            return make()
        if waited:
            events.say(f"Using {what}, which the other process made")
        return value


@contextmanager
def making(
    store: Store, name: str, what: str, events: Events, *, waits: bool = True
) -> Iterator[bool]:
    """Hold the lease on making the artefact `name` while the body runs.

    Yields whether another one was waited for.

    Args and `Raises` as `made_once`.
    """
    # A fingerprint, since names have slashes and a lease's name is one step of a path.
    leased = store.leased(PREFIX + fingerprint(name))
    _sweep(store)
    lease, waited = _taken(store, leased, what, events, waits=waits)
    try:
        yield waited
    except BaseException:
        if lease is not None:
            lease.release()  # its tokens go on: others may be taking it at this very moment
        raise
    # Finished, so nobody needs a higher token: the lease's files go.
    if lease is not None:
        lease.end()


def _taken(
    store: Store, leased: Leased, what: str, events: Events, *, waits: bool
) -> tuple[Lease | None, bool]:
    """Take the lease. Returns it, and whether another process held it before; no lease
    where another holds it and `waits` is False.
    """

    def watching(holder: Holder) -> None:
        events.say(
            f"{holder} was making {what} and did not report its end. Waiting up to"
            f" {holder.seconds:.0f} s to see whether it is still running"
        )

    maker: Holder | None = None
    looks, wait = 0, _FIRST_WAIT
    while True:
        try:
            with as_store_error(store.folder):
                lease = take(leased, watching=watching, is_active=True)
            if maker is not None:
                events.say(f"{maker} is no longer making {what}")
            return lease, maker is not None
        except Held as refusal:
            # Making it twice is safe: the first to publish stands.
            if not waits:
                events.say(
                    f"{refusal.holder or 'another process'} is making {what} as well; this process"
                    " does not wait for it"
                )
                return None, False
            looks += 1
            # The first refusal is not told: most holders are done within the first wait
            # of 0.1 s.
            is_news = (
                looks > 1
                and refusal.holder is not None
                and (maker is None or maker.token != refusal.holder.token)
            )
            if is_news:
                maker = refusal.holder
                since = (
                    f" since {maker.since}" if maker is not None and maker.since else ""
                )
                events.say(
                    f"{maker} has been making {what}{since}. Waiting for its result. Ctrl-C ends"
                    " the waiting, not that process."
                )
        # A signal that a section only noted must end the waiting too.
        interrupts.check()
        time.sleep(wait)
        wait = min(wait * 1.5, _LONGEST_WAIT)


def _sweep(store: Store) -> None:
    """Remove the leases that killed makers left in a local store. It never fails."""
    # In a bucket each name would cost several requests.
    if store.is_remote:
        return
    with contextlib.suppress(OSError, StoreError):
        names = [
            entry.name
            for entry in os.scandir(store.folder / FOLDER)
            if entry.name.startswith(PREFIX)
        ]
        for name in names:
            leased = store.leased(name)
            with contextlib.suppress(OSError, StoreError):
                # No record: an empty folder that its holder could not remove.
                if not leased.top():
                    (store.folder / leased.folder).rmdir()
                # `is_left` never watches, so the sweep takes no time; a lease it cannot
                # judge stays.
                elif leased.is_left():
                    # Acquired before it is ended: another process may want the same
                    # name at this moment.
                    Lease.acquire(leased).end()


__all__ = ["made_once", "making"]
