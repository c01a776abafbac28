"""Files that lie far away, opened one by one as they are needed, and fetched ahead of need.

`get` gives a file, opened; it waits for it if it must. `want` says what will be needed soon, in order: a few
threads fetch that in the background, never more than fits. They end when there is nothing to do, so none is
left behind.

A file is mapped from the node's cache (`shards.cache`), or held in memory where the cache can keep no copy.
Either way only so many are held open, the most recently used: a mapping of an evicted copy still takes its
place on the disk.

What this file refuses to know: what is in the files; who needs them when.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from penstock.core.listeners import as_here, notify
from penstock.core.store import Member
from penstock.shards.cache import Cache

Opened = TypeVar("Opened")

HELD_BYTES = 2**30
"""What files may take in memory, where the cache keeps no copies, unless told otherwise."""
THREADS = 4
"""Files on their way at once."""


class RemoteFiles(Generic[Opened]):
    """Files of an artefact in a bucket.

    Args:
        members: the files; they are known by their places in this list.
        cache: the node's copies.
        opens: what is made of a file's content, by `get`'s first caller; called by any thread.
        memory_bytes: the most that content takes in memory where the cache keeps no copy; one file is always
            held.
    """

    def __init__(
        self,
        members: Sequence[Member],
        cache: Cache,
        opens: Callable[[Member, pa.Buffer], Opened],
        *,
        memory_bytes: int = HELD_BYTES,
    ) -> None:
        self.members, self.cache = list(members), cache
        self.size_bytes = sum(m.size_bytes for m in members)
        self._opens, self._memory_bytes = opens, memory_bytes
        self._gate = threading.Lock()
        self._held: OrderedDict[int, tuple[Opened, bool]] = OrderedDict()
        """Opened files and whether they take memory; the least recently used first."""
        # Two bounds: memory that content takes, and disk that mappings of evicted
        # copies still take.
        self._taken = {True: 0, False: 0}
        """Bytes of held files: in memory, and mapped."""
        self._under_way: dict[int, Future[Opened]] = {}
        self._coming: deque[int] = deque()
        self._ahead: dict[int, int] = {}
        """Bytes of files that were, or are being, fetched ahead and are not used yet."""
        self._in_use: Counter[int] = Counter()
        self._workers = 0
        self._fetched: set[int] = set()
        self._told = False

    # -- who needs them --------------------------------------------------------------------------------------

    def get(self, place: int) -> Opened:
        """Return the file at `place`, opened; fetch it, or wait for the thread that does.

        Raises:
            StoreError: it cannot be fetched, or is damaged.
        """
        with self._gate:
            if (entry := self._held.get(place)) is not None:
                # Moved to the end: what was used last is closed last.
                self._held.move_to_end(place)
                if self._ahead.pop(place, None) is not None:
                    # It was fetched ahead and is used now, so there is room for the
                    # next.
                    self._send()
                return entry[0]
            future = self._under_way.get(place)
            # Whoever comes first fetches; all others wait for the same future.
            mine = future is None
            if future is None:
                future = self._under_way[place] = Future()
        # Outside the gate: a fetch may take minutes.
        if mine:
            self._fetch(place, future)
        opened = future.result()
        with self._gate:
            if self._ahead.pop(place, None) is not None:
                self._send()
        return opened

    @contextmanager
    def using(self, places: Sequence[int]) -> Iterator[None]:
        """A context in which the files at `places` are needed: they are fetched before all others,
        and kept open while the body runs, as far as the bounds allow.
        """
        with self._gate:
            self._in_use.update(places)
            lacking = [
                p for p in places if p not in self._held and p not in self._under_way
            ]
            # One that is lacking is fetched by the caller itself; only more, or ones
            # behind others, need the threads.
            if len(lacking) > 1 or (lacking and self._coming):
                # To the front: this batch needs them, the others are for later.
                rest = [p for p in self._coming if p not in set(lacking)]
                self._coming = deque([*lacking, *rest])
                self._send()
        try:
            yield
        finally:
            with self._gate:
                self._in_use.subtract(places)

    def want(self, places: Iterable[int]) -> None:
        """Fetch the files at `places` ahead, in this order; files asked for by an earlier call and
        not by this one are dropped from the queue.
        """
        with self._gate:
            wanted = list(dict.fromkeys(places))
            keep = set(wanted)
            # What is no longer wanted does not count against what may be fetched ahead.
            self._ahead = {p: size for p, size in self._ahead.items() if p in keep}
            self._coming = deque(
                p for p in wanted if p not in self._held and p not in self._under_way
            )
            self._send()

    # -- fetching (`_gate` is held in those that say so) -----------------------------------------------------

    def _budget(self) -> int:
        """The most bytes that are fetched ahead: half of what can be kept, so that files in use are
        not pushed out.
        """
        return (self.cache.limit_bytes if self.cache.is_on else self._memory_bytes) // 2

    def _next(self) -> int | None:
        """With the gate held: take the next file to fetch from the queue, if there is room for it.

        Until the first file is here it has the line for itself.
        """
        # The first batch waits for one file: the whole line is its own until then.
        if not self._fetched and self._under_way:
            return None
        while self._coming:
            place = self._coming[0]
            if place in self._held or place in self._under_way:
                self._coming.popleft()
                continue
            if (
                # With nothing ahead, one is fetched whatever its size.
                self._ahead
                and sum(self._ahead.values()) + self.members[place].size_bytes
                > self._budget()
            ):
                return None
            return self._coming.popleft()
        return None

    def _send(self) -> None:
        """With the gate held: start as many threads as there is work for."""
        threads = THREADS if self._fetched else int(not self._under_way)
        for _ in range(min(threads - self._workers, len(self._coming))):
            self._workers += 1
            # Daemons: a hanging connection must not keep a process from ending.
            # `as_here`: what they say goes to this thread's listeners.
            threading.Thread(
                target=as_here(self._work), name="penstock-far", daemon=True
            ).start()

    def _work(self) -> None:
        gone = False
        try:
            while True:
                with self._gate:
                    place = self._next()
                    if place is None:
                        # Counted down under the same gate that found no work, so that
                        # the next request starts another thread.
                        self._workers -= 1
                        gone = True
                        return
                    future: Future[Opened] = Future()
                    self._under_way[place] = future
                    # Reserved before the fetch begins, so that several threads do not
                    # each find the same room.
                    self._ahead[place] = self.members[place].size_bytes
                self._fetch(place, future)
        finally:
            if not gone:  # whoever listens may raise
                with self._gate:
                    self._workers -= 1

    def _fetch(self, place: int, future: Future[Opened]) -> None:
        """Fetch and open a file, and give the result or the error to `future`. A failed fetch is
        tried again when the file is needed again.
        """
        # No lock is held here: reading and checking take the time.
        member = self.members[place]
        try:
            content = self.cache.open(member)
            in_memory = content is None
            opened = self._opens(
                member, read_whole(member) if content is None else content
            )
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that needs the file
            with self._gate:
                # Forgotten, so that the next who needs it tries again.
                del self._under_way[place]
                self._ahead.pop(place, None)
            future.set_exception(error)
            return
        with self._gate:
            del self._under_way[place]
            self._held[place] = (opened, in_memory)
            self._taken[in_memory] += member.size_bytes
            # A second fetch of a file that is not kept: shards go round. That is said
            # once.
            again = (
                in_memory
                and place in self._fetched
                and not (self.cache.is_on and member.size_bytes <= self.cache.limit_bytes)
            )
            self._fetched.add(place)
            self._let_go()
            self._send()
            again, self._told = again and not self._told, self._told or again
        # After the gate, since waiters take it at once.
        future.set_result(opened)
        if again:
            notify(
                f"files of {member.url.rsplit('/', 1)[0]} are fetched more than once: the cache keeps no"
                f" copies of them, and memory holds {self._memory_bytes:,} of their {self.size_bytes:,}"
                " bytes. Give the cache room (`resources.cache`, PENSTOCK_CACHE), or shuffle by `blocks`"
                " with a smaller window."
            )

    def _let_go(self) -> None:
        """With the gate held: close the least recently used files until the bounds are met, those
        in use or fetched ahead last, and never the newest.
        """
        most = {
            True: self._memory_bytes,
            # A mapping of an evicted copy holds its disk. If everything fits, all may
            # stay open; else half is left for copies on their way.
            False: (
                self.cache.limit_bytes
                if self.size_bytes <= self.cache.limit_bytes
                else self.cache.limit_bytes // 2
            ),
        }
        for in_memory in (True, False):
            while self._taken[in_memory] > most[in_memory]:
                # The newest was opened for somebody who is about to use it.
                newest = next(reversed(self._held))
                some = [
                    p
                    for p, (_, kind) in self._held.items()
                    if kind is in_memory and p != newest
                ]
                if not some:
                    break
                # the first of the least wanted
                # Neither in use nor fetched ahead; among these the one that was used
                # longest ago, as they are in that order.
                oldest = min(some, key=lambda p: (self._in_use[p] > 0, p in self._ahead))
                del self._held[oldest]
                self._taken[in_memory] -= self.members[oldest].size_bytes


def read_whole(member: Member) -> pa.Buffer:
    """Read a file's content into memory and check it; damaged content is fetched once more.

    Raises:
        StoreError: it cannot be fetched, or is damaged.
    """
    # One allocation of the known size: no pieces that are joined at the end.
    content = np.empty(member.size_bytes, np.uint8)
    actual = ""
    # A broken transfer is commoner than a broken file.
    for _ in range(2):
        digest, at = hashlib.sha256(), 0
        for piece in member.pieces():
            digest.update(piece)
            content[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        if (actual := digest.hexdigest()) == member.sha256:
            return pa.py_buffer(content)
    raise member.damaged(actual)


class RangeMemory:
    """Ranges of remote files that were read once, for a reader that comes again; bounded, the first stay."""

    def __init__(self, most_bytes: int = 64 * 2**20) -> None:
        self._free = most_bytes
        self._ranges: dict[tuple[str, int, int], bytes] = {}
        self._lock = threading.Lock()

    def read(self, member: Member, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file; `Raises` as `Member.range`."""
        key = (member.url, start, stop)
        content = self._ranges.get(key)
        if content is None:
            content = member.range(start, stop)
            with self._lock:
                if len(content) <= self._free and key not in self._ranges:
                    self._ranges[key] = content
                    self._free -= len(content)
        return content


class Ranges(io.RawIOBase):
    """A remote file that is read by ranges, for readers that need a part of it; only sizes are
    checked.

    Args:
        memory: holds what was read, where the file will be read again.
    """

    def __init__(self, member: Member, memory: RangeMemory | None = None) -> None:
        self._member, self._at = member, 0
        self._range = member.range if memory is None else partial(memory.read, member)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = (
            offset
            + {
                io.SEEK_SET: 0,
                io.SEEK_CUR: self._at,
                # Parquet's readers look for the footer, from the end.
                io.SEEK_END: self._member.size_bytes,
            }[whence]
        )
        return self._at

    def read(self, size: int = -1) -> bytes:
        # A negative size is the rest of the file.
        stop = (
            self._member.size_bytes
            if size < 0
            else min(self._at + size, self._member.size_bytes)
        )
        content = self._range(self._at, stop) if stop > self._at else b""
        self._at += len(content)
        return content
