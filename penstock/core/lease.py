"""Leases: of all processes on all machines that share a store, one at a time works on a thing.

    .leases/<name>/<token>.json    who holds it; made by a conditional create: one of two that want it gets it
    .leases/<name>/<token>.beat    a count that the holder raises while it lives, or the word `released`
    .leases/<name>/<token>.lock    on the holder's machine only: locked by the kernel while the holder lives

The token is a number that grows with each holder. Only the holder of the highest one may write: a holder that
was taken for dead (it was stopped, or cut off) finds a higher token before its next write, and is refused
(the fencing token of Gray and Cheriton's leases, SOSP 1989, as told by Kleppmann, 2016). It is written into
what the holder makes.

Whether a holder lives is asked of the kernel, where the observer is on the holder's machine. Elsewhere the
observer watches the count by its own monotonic clock: a holder whose count stands still for the lease's
seconds is dead. No two clocks are compared, and no file's time is read, so neither a wrong clock nor the age
of a copy matters. What one process has observed is remembered on its machine, so that the next need not watch
again.

A backend without a conditional create (`Bucket.create`) gets the protocol of Fischer: write, wait for longer
than a write may take, and read back; whose writing stands has the token.

What this file refuses to know: what is worked on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from penstock.core.drafts import temporary_file
from penstock.core.errors import LeaseLost, StoreError
from penstock.core.identity import fingerprint
from penstock.core.jsons import parsed
from penstock.core.listeners import in_silence
from penstock.core.shelf import Shelf

FOLDER = ".leases"
LEASE_SECONDS = 30.0
"""A holder whose count stands still for so long is dead."""
_BEATS = 6
"""How often a holder raises its count within that time."""
_MOST_SECONDS = 3600.0
"""A holder may ask for a longer time than ours, up to this."""
# Seconds between two looks at a count, at most: each look is a request where the store
# is a bucket.
_LOOK_SECONDS = 0.25
_RELEASED = "released"
# UTC, to the second; `_IS_MOMENT` is its exact counterpart, since the text comes from
# another process.
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"
_IS_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
# How often a race for a token, or for a lock file's folder, is run again.
_TRIES = 20


@cache
def boot() -> str:
    """An id of this machine's kernel since it was started; the same in all its
    containers.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        # Without /proc the host name stands in; containers of one machine then differ.
        return socket.gethostname()


def lease_seconds() -> float:
    """`PENSTOCK_LEASE_SECONDS`, or 30.

    Raises:
        StoreError: it is no positive number.
    """
    text = os.environ.get("PENSTOCK_LEASE_SECONDS") or str(LEASE_SECONDS)
    try:
        seconds = float(text)
    # Falls into the check below, so that a word and a number out of range get one
    # sentence.
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MOST_SECONDS:
        raise StoreError(
            "the environment variable PENSTOCK_LEASE_SECONDS must be a number of seconds up to"
            f" {_MOST_SECONDS:.0f}; found {text!r}"
        )
    return seconds


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease, or held it last."""

    token: int
    host: str = ""
    boot: str = ""
    pid: int = 0
    seconds: float = LEASE_SECONDS
    since: str = ""
    """When it took the lease, by its own clock, in UTC: to be shown, never compared."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @classmethod
    def of(cls, token: int, content: bytes | None) -> Holder:
        """Read a holder's record. One that cannot be read gives a holder with its token
        only.
        """
        try:
            facts = parsed(content or b"{}")
            # Clamped: a foreign record must not make an observer watch for ever.
            seconds = min(max(float(facts["seconds"]), 0.0), _MOST_SECONDS)
            since = _moment(facts.get("since"))
            return cls(
                token,
                str(facts["host"]),
                str(facts["boot"]),
                int(facts["pid"]),
                seconds,
                since,
            )
        except (ValueError, KeyError, TypeError):
            return cls(token)


def _moment(text: object) -> str:
    """`text` if it is a moment as records have it, empty otherwise: any other text of
    another process is never shown.
    """
    return text if isinstance(text, str) and _IS_MOMENT.fullmatch(text) else ""


class Held(StoreError):
    """Another living process holds the lease."""

    def __init__(self, message: str, holder: Holder | None = None) -> None:
        super().__init__(message)
        self.holder = holder


@dataclass
class Leased:
    """The lease on one thing, as it lies in a store: looked at, waited for, and compared with a token.

    Args:
        shelf: where its files lie.
        local: the store's folder on this machine (a bucket's mirror), for lock files.
        name: of the thing, without `/`.
        store: the store's URL.
    """

    shelf: Shelf
    local: Path
    name: str
    store: str

    @property
    def folder(self) -> str:
        """Where the files of this name stand, relative to the store."""
        return f"{FOLDER}/{self.name}"

    def key(self, token: int, kind: str) -> str:
        """The key of a token's file: `json` or `lock`. Ten digits, so that keys sort as tokens do."""
        return f"{self.folder}/{token:010d}.{kind}"

    def lock_file(self, token: int) -> Path:
        """The file that the holder on this machine keeps locked with `flock`."""
        return self.local / self.key(token, "lock")

    def top(self) -> int:
        """The highest token given so far; 0 if there is none."""
        # Only `json` counts: a lock or beat without a record belongs to nobody.
        tokens = [0]
        for key in self.shelf.below(self.folder):
            number, _, kind = key.rsplit("/", 1)[-1].partition(".")
            if kind == "json" and number.isdecimal():
                tokens.append(int(number))
        return max(tokens)

    def record(self, token: int) -> bytes | None:
        """What its holder wrote of itself, as it stands; None where it was let go for good, and for 0."""
        return self.shelf.read(self.key(token, "json")) if token else None

    def holder(self, token: int) -> Holder:
        """Who holds or held the name with `token`, from what they wrote of themselves."""
        return Holder.of(token, self.record(token))

    def check(self, token: int) -> None:
        """Raise unless `token` may still write.

        Raises:
            LeaseLost: another process has a higher one.
            StoreError: the store cannot be read.
        """
        top = self.top()
        # A higher token fences this one off, whether or not its holder still lives.
        if top > token:
            raise LeaseLost(
                f"{self.name} was taken over by {self.holder(top)} (token {top} after"
                f" {token}), because this process was silent for too long or seemed dead. It"
                " writes nothing more."
            )

    def is_held(
        self, token: int, *, watching: Callable[[Holder], None] | None = None
    ) -> bool:
        """Whether the holder of `token`, the highest one, lives and has not let go.

        This may take the lease's seconds.

        Args:
            watching: called before a watch begins.
        """
        # The released word is the cheapest proof, so it is read before anything is
        # watched.
        if not token or self._beat(token) == _RELEASED:
            return False
        record = self.record(token)
        if record is None:  # it was let go for good between two looks
            return False
        holder = Holder.of(token, record)
        # The kernel's answer is instant and exact; the count is watched only where
        # there is none.
        known = self._by_kernel(token, holder)
        return self._by_count(token, holder, watching) if known is None else known

    def is_left(self) -> bool:
        """Whether its last holder is known to be gone: it has let go, or died on this
        machine. Never watches.
        """
        top = self.top()
        return (
            # `is False`, not falsy: None means that only another kernel knows.
            self._beat(top) == _RELEASED
            or self._by_kernel(top, self.holder(top)) is False
        )

    def was_here(self, token: int) -> bool:
        """Whether the holder of `token` worked on this machine, in this very folder."""
        return token > 0 and self.lock_file(token).exists()

    def _beat(self, token: int) -> str:
        return (self.shelf.read(self.key(token, "beat")) or b"").decode(
            "ascii", "replace"
        )

    def _by_kernel(self, token: int, holder: Holder) -> bool | None:
        """Whether its lock is held; None where only another kernel knows."""
        lock_file = self.lock_file(token)
        # Locks seen across machines (NFS) prove nothing, so both the boot and the file
        # must be this machine's.
        if holder.boot != boot() or not lock_file.exists():
            return None
        try:
            return _is_locked(lock_file)
        except OSError:  # a file system without locks
            return None

    def _by_count(
        self, token: int, holder: Holder, watching: Callable[[Holder], None] | None
    ) -> bool:
        # A record may say 0 seconds; a watch needs some time to see a beat at all.
        seconds = max(holder.seconds, 0.1)
        beat, now = self._beat(token), time.monotonic()
        before = _Seen.recall(self)
        since = now
        # What an earlier process of this machine saw shortens this watch.
        if before is not None and before.token == token:
            # It stands still: the watch goes on from the moment it was first seen so.
            if before.beat == beat:
                since = before.at
            # It has moved within the lease's seconds, so the holder lives; no watch is
            # needed.
            elif now - before.at <= seconds:
                _Seen(token, beat, now).remember(self)
                return beat != _RELEASED
        # `since`, not `now`: several short-lived observers together complete one watch.
        _Seen(token, beat, since).remember(self)
        if time.monotonic() - since < seconds and watching is not None:
            watching(holder)
        while time.monotonic() - since < seconds:
            # Short leases, as tests set them, are looked at as often as their holders
            # beat.
            time.sleep(min(_LOOK_SECONDS, seconds / _BEATS))
            latest = self._beat(token)
            # A vanished count with a vanished record is a lease that was ended, not a
            # holder that moved on.
            if not latest and self.record(token) is None:
                return False
            if latest != beat:
                _Seen(token, latest, time.monotonic()).remember(self)
                return latest != _RELEASED
        return False


def _is_locked(path: Path) -> bool:
    """Whether a process has the file locked.

    A shared lock asks, so that those who ask do not mislead each other.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    # Closing the descriptor lets go of the shared lock.
    finally:
        os.close(file)
    return False


def _opened(path: Path) -> int:
    """A lock file, open, and made with its folder if it is not there.

    Others may be letting go for good, with whom the folder goes.
    """
    # Between mkdir and open, another holder's `end` may remove the empty folder.
    for attempt in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, FileExistsError) as error:
            # a file lies there, or the system lets nobody make folders there (/proc)
            if attempt == _TRIES - 1:
                raise NotADirectoryError(
                    errno.ENOTDIR, "no folder can be made there", str(path.parent)
                ) from error
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class _Seen:
    """A count, and when it was first seen by this machine's monotonic clock."""

    token: int
    beat: str
    at: float

    @staticmethod
    def _path(leased: Leased) -> Path:
        home = Path(
            os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock"
        )
        # The boot is part of the name, so monotonic times of different boots never
        # meet.
        return home / "leases" / f"{fingerprint(leased.store, leased.name, boot())}.json"

    @classmethod
    def recall(cls, leased: Leased) -> _Seen | None:
        try:
            token, beat, at = parsed(cls._path(leased).read_text("utf-8"))
            sighting = cls(int(token), str(beat), float(at))
        except (OSError, ValueError, TypeError):
            return None
        # Where `boot` is a mere host name a restart sets the clock back; a time ahead
        # of it is discarded.
        return sighting if sighting.at <= time.monotonic() else None

    def remember(self, leased: Leased) -> None:
        path = self._path(leased)
        with contextlib.suppress(
            OSError
        ):  # without the memory the next one watches for itself
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_file(path) as (file, name):
                os.write(file, json.dumps([self.token, self.beat, self.at]).encode())
                os.replace(name, path)


@dataclass
class Lease:
    """A lease that this process holds, until it is released or lost. Its count is raised by a thread."""

    leased: Leased
    token: int
    before: int
    """The token before it; 0 if it is the first."""
    seconds: float
    is_active: bool = False
    """Whether somebody in this process works under it at this moment."""
    _file: int | None = field(default=None, repr=False)
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)
    _pid: int = field(default_factory=os.getpid, repr=False)

    @classmethod
    def acquire(
        cls,
        leased: Leased,
        *,
        least: int = 0,
        watching: Callable[[Holder], None] | None = None,
        is_active: bool = False,
    ) -> Lease:
        """Take the lease if it is free.

        Args:
            least: the token is higher than this one, which is known from what was made under an earlier
                lease.
            watching: called before a holder elsewhere is watched, which takes up to its lease's seconds.
            is_active: somebody in this process works under it from the first moment.

        Raises:
            Held: a living process holds it.
            StoreError: the store cannot be written.
        """
        for _ in range(_TRIES):
            # Both are read before the watch: `_taken` compares them again once the
            # token is made.
            top = leased.top()
            last = leased.record(top)
            if top and leased.is_held(top, watching=watching):
                holder = leased.holder(top)
                raise Held(f"{leased.name} is being worked on by {holder}.", holder)
            # `least` keeps tokens growing where the lease's files were ended and begin
            # anew.
            lease = cls._taken(
                leased, max(top, least) + 1, top, last, is_active=is_active
            )
            if lease is not None:
                return lease
        raise Held(f"{leased.name} is being taken by other processes all the time.")

    @classmethod
    def _taken(
        cls,
        leased: Leased,
        token: int,
        before: int,
        last: bytes | None,
        *,
        is_active: bool,
    ) -> Lease | None:
        """The lease with this token, or None if another was quicker.

        The record of the token before must be what it was (`last`): where it was let go for good meanwhile,
        tokens begin anew, and another may be taking a lower one at this moment.
        """
        lease = cls(leased, token, before, lease_seconds(), is_active)
        # The lock comes before the record: whoever reads the record on this machine
        # must find the lock held.
        if not lease._hold():
            return None
        facts = {
            "token": token,
            "host": socket.gethostname(),
            "boot": boot(),
            "pid": os.getpid(),
            "seconds": lease.seconds,
            "since": time.strftime(_MOMENT, time.gmtime()),
            # `Bucket.create` tells writers apart by content, so two records are never
            # equal.
            "nonce": secrets.token_hex(8),
        }
        is_mine = False
        try:
            record = json.dumps(facts).encode()
            is_made = leased.shelf.create(leased.key(token, "json"), record)
            # Created is not yet won: a higher token or an ended predecessor means that
            # another may hold it.
            is_mine = is_made and leased.top() == token and leased.record(before) == last
            if is_made and not is_mine:
                lease._drop(token, "json")
        finally:
            # Also after an error: a lock left behind would say that this process holds
            # the token.
            if not is_mine:
                lease._unlock()
        if not is_mine:
            return None
        lease._start()
        return lease

    def _hold(self) -> bool:
        """Lock the file that tells other processes of this machine that this one lives.

        Returns False where another process has it locked.
        """
        path = self.leased.lock_file(self.token)
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:  # a file system without locks: others watch our count
            os.close(file)
            path.unlink(missing_ok=True)
            return True
        self._file = file
        return True

    def _unlock(self) -> None:
        # Closing is unlocking: `flock` belongs to the open file description.
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _start(self) -> None:
        # The last holder's lock file stays one token longer: `was_here` asks it whose
        # copy is the newest.
        for token in {self.before, self.before - 1} - {0, -1}:
            self._drop(
                token, "json", "beat", *(() if token == self.before else ("lock",))
            )
        thread = threading.Thread(target=self._beat, name="penstock-lease", daemon=True)
        thread.start()

    def _drop(self, token: int, *kinds: str) -> None:
        with contextlib.suppress(OSError, StoreError):  # what stays there harms nobody
            for kind in kinds:
                if kind == "lock":
                    self.leased.lock_file(token).unlink(missing_ok=True)
                else:
                    self.leased.shelf.drop(self.leased.key(token, kind))

    def _beat(self) -> None:
        count = 0
        # Six beats fit into the lease's seconds, so a few may fail before others take
        # over.
        while not self._over.wait(self.seconds / _BEATS):
            count += 1
            # A store that cannot be written now is written at the next beat. The holder's run has words of
            # its own for a store that refuses; another run in this process has nothing to do with it.
            with contextlib.suppress(Exception), in_silence():
                self._put(str(count))

    def _put(self, word: str) -> None:
        # Serialised, so that a beat under way cannot overwrite `released`.
        with self._writing:
            if word == _RELEASED or not self._over.is_set():
                self.leased.shelf.write(
                    self.leased.key(self.token, "beat"), word.encode()
                )

    def check(self) -> None:
        """Raise unless this process may still write.

        Raises:
            LeaseLost: another has taken over.
            StoreError: the store cannot be read.
        """
        self.leased.check(self.token)

    def release(self) -> None:
        """Let go. Errors of the store are ignored: other processes then find out by
        watching.
        """
        # A forked child inherits the object, not the lease.
        if self._over.is_set() or self._pid != os.getpid():
            return
        # Set before the word is written: from here on no beat can follow it.
        self._over.set()
        with contextlib.suppress(Exception):
            self._put(_RELEASED)
        self._unlock()

    @property
    def is_over(self) -> bool:
        """Whether it was released."""
        return self._over.is_set()

    def abandon(self) -> None:
        """Drop the lease in a forked child, without releasing it: the parent still
        holds it.
        """
        self._unlock()
        self._over.set()

    def end(self) -> None:
        """Let go and remove the files: the work is finished, and no later token is
        needed.
        """
        if self._pid != os.getpid():
            return
        # `released` stands before files go, so that whoever reads between two removals
        # sees a free lease.
        self.release()
        self._drop(
            self.token, "json", "beat", "lock"
        )  # who looks meanwhile finds `released`, or no record
        self._drop(self.before, "lock")
        # The folder goes only if it is empty: another may have begun a new token in it.
        with contextlib.suppress(OSError):
            (self.leased.local / self.leased.folder).rmdir()


_mine: dict[tuple[str, str, str], Lease] = {}
"""The leases of this process, by store, local folder and name."""


def mine(leased: Leased) -> Lease | None:
    """This process's lease on it, if it holds one."""
    lease = _mine.get(_place(leased))
    return lease if lease is not None and not lease.is_over else None


def take(
    leased: Leased,
    *,
    least: int = 0,
    watching: Callable[[Holder], None] | None = None,
    is_active: bool = False,
) -> Lease:
    """Take the lease for this process.

    A lease that this process already holds, and does not use, is released and followed
    by a new one.

    Args and `Raises` as `Lease.acquire`; Held: also where this process is using its
    lease.
    """
    before = mine(leased)
    # A lease that nobody uses any more is given up and followed by a higher token, as
    # between processes.
    if before is not None:
        if before.is_active:
            raise Held(
                f"{leased.name} is being worked on by this very process.",
                leased.holder(before.token),
            )
        before.release()
    lease = Lease.acquire(leased, least=least, watching=watching, is_active=is_active)
    # Noted only once it is held, so that a refused attempt leaves no trace.
    _mine[_place(leased)] = lease
    return lease


def _place(leased: Leased) -> tuple[str, str, str]:
    return leased.store, str(leased.local), leased.name


def _close_in_child() -> None:
    """Close the lock files that a forked child has inherited, and with them the
    parent's locks in this process.
    """
    for lease in _mine.values():
        lease.abandon()
    _mine.clear()


# An inherited descriptor would keep the lock alive after the parent's death.
os.register_at_fork(after_in_child=_close_in_child)

__all__ = [
    "FOLDER",
    "Held",
    "Holder",
    "Lease",
    "Leased",
    "boot",
    "lease_seconds",
    "mine",
    "take",
]
