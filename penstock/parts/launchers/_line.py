"""The line home: what a launcher says to ranks that somebody else's cluster runs for it (Ray, Spark), and
they to it.

A cluster starts n processes and tells each the call: where its launcher listens, a key that both prove to
know (HMAC) before a byte is read, and its rank. The rank calls, says where it is, and rank 0 opens the store
at which all meet (on the address that it calls from, so on loopback where the launcher is). Then each gets
its task; sends its pulse, which tells a stalled rank from one that computes; and one outcome. A line that
ends without an outcome is a death at the one end and, at the other, a launcher that is gone: the rank ends
itself, so that none is left behind whatever becomes of the cluster.

So errors come back as they were, once, whatever wraps a cluster would put around them; a wish to stop reaches
a rank as SIGTERM in its main thread, which the trainer understands. This is the launcher's end;
`_rank` is a rank's.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from penstock.contracts.learn import Growth, World
from penstock.core.errors import Interrupted, RankLost
from penstock.parts.launchers._door import Door
from penstock.parts.launchers._number import Room
from penstock.parts.launchers._rank import Call
from penstock.parts.launchers._watched import (
    PATIENCE,
    Stall,
    StopRequest,
    WatchedRank,
    find_stall,
    last_step,
    verdict,
)

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 3.0
"""How long the others may take to end by themselves once a rank has failed."""


@dataclass(kw_only=True)
class _Rank(WatchedRank):
    line: Connection
    host: str
    pid: int
    address: str
    port: int
    cpu: float = 0.0

    def __str__(self) -> str:
        return f"training process {self.number} (pid {self.pid} on {self.host})"

    def cpu_seconds(self) -> float:
        return self.cpu

    def how_it_died(self) -> str:
        return f"{self} ended without an error message: it was killed, or its machine is gone."


@dataclass
class Line:
    """The launcher's end for `size` ranks; listens on `host` alone."""

    host: str
    size: int
    stall_seconds: float

    def __post_init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._ranks: dict[int, _Rank] = {}
        self._lock = threading.Lock()
        self._request = StopRequest(partial(self._say, "stop"))
        self._door = Door(self.host, self._key, backlog=self.size + 8, welcome=self._hear)

    @property
    def call(self) -> Call:
        return Call(
            self.host,
            self._door.port,
            self._key,
            self.size,
            # Absolute, since `''` and relative paths are other folders where a rank
            # runs.
            tuple(dict.fromkeys(os.path.abspath(p) for p in sys.path)),
        )

    def _hear(self, line: Any) -> None:
        rank: _Rank | None = None
        try:
            _, number, host, pid, address, port = line.recv()
            now = time.monotonic()
            rank = _Rank(
                number=number,
                line=line,
                host=host,
                pid=pid,
                address=address,
                port=port,
                beat_at=now,
                moved_at=now,
            )
            # Callers come in threads of their own.
            with self._lock:
                self._ranks[number] = rank
            while rank.outcome is None:
                # Our own rank: it has proved to know the key of this launch (`multiprocessing.connection`).
                message = pickle.loads(line.recv_bytes())
                now = time.monotonic()
                # Any message is a sign of life.
                rank.beat_at = now
                if message[0] != "pulse":
                    rank.outcome = message
                    break
                _, moves, step, rank.cpu = message
                # Life alone is no progress: only a move puts off a stall.
                if moves != rank.moves:
                    rank.moves, rank.step, rank.moved_at, rank.cpu_at_move = (
                        moves,
                        step,
                        now,
                        rank.cpu,
                    )
        except (EOFError, OSError):
            pass  # `verdict` says so
        if rank is not None:
            # Last of all: whoever sees it ended may rely on its outcome.
            rank.ended = time.monotonic()

    def run(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        threads: int,
        gpus: bool,
        ended: Callable[[], str | None],
        start_seconds: float,
        grows: Growth | None = None,
        room: Callable[[], int] | None = None,
    ) -> Any:
        """Give every rank its task when all have called, and return rank 0's value.

        Args:
            ended: why the cluster says that it is over before all have told their outcomes; None while it is
                not.
            start_seconds: how long ranks may take to call.
            grows: leave to stop them for a larger number.
            room: for how many processes the cluster has room, these among them.

        Raises:
            PenstockError: the error that a rank raised, once.
            RankLost: a rank died or stalled.
            Outgrown: there is room for more.
            TrainingError: the cluster does not start them.
        """
        with self._request.listening():
            # No rank gets its task before all have called: those that began would wait
            # in vain.
            self._wait_for_all(ended, start_seconds)
            self._give(function, arguments, threads, gpus)
            stall = self._wait(ended, Room(self.size, grows, room))
        ranks = sorted(self._ranks.values(), key=lambda rank: rank.number)
        with self._request.explaining():
            return verdict(ranks, stall=stall, asked=self._request.by, blame_errors=True)

    def _wait_for_all(
        self, ended: Callable[[], str | None], start_seconds: float
    ) -> None:
        until = time.monotonic() + start_seconds
        while len(self._ranks) < self.size:
            if self._request.by:
                raise Interrupted(
                    "Stopped before training had started; nothing was lost."
                )
            why = ended()
            # What the cluster says is over explains more than a time that is up.
            if why is None and time.monotonic() > until:
                why = (
                    f"only {len(self._ranks)} of {self.size} processes have called within"
                    f" {start_seconds:.0f} s"
                )
            if why is not None:
                raise RankLost(
                    f"the cluster did not start all {self.size} training processes: {why}",
                    tuple(sorted(set(range(self.size)) - set(self._ranks))),
                    size=self.size,
                )
            time.sleep(_LOOK_SECONDS)

    def _give(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        threads: int,
        gpus: bool,
    ) -> None:
        # Ranks of one machine are numbered there, too.
        by_host: dict[str, list[int]] = {}
        for number in range(self.size):
            by_host.setdefault(self._ranks[number].host, []).append(number)
        # Rank 0 keeps the store at which all meet.
        first = self._ranks[0]
        for rank in self._ranks.values():
            local = by_host[rank.host]
            world = World(
                rank=rank.number,
                size=self.size,
                # By order of rank among those of one machine.
                local_rank=local.index(rank.number),
                threads=threads,
            )
            environment = {
                "RANK": str(rank.number),
                "WORLD_SIZE": str(self.size),
                "LOCAL_RANK": str(world.local_rank),
                "LOCAL_WORLD_SIZE": str(len(local)),
                "MASTER_ADDR": first.address,
                "MASTER_PORT": str(first.port),
                "OMP_NUM_THREADS": str(threads),
                "OMP_WAIT_POLICY": "passive",
            }
            place = {
                "host": first.address,
                "port": first.port,
                "gpus": gpus,
                # As long as the launcher itself is patient: it is the one that can name
                # the rank.
                "patience_seconds": PATIENCE * self.stall_seconds,
                "environment": environment,
            }
            # Stalls are counted from here: waiting for the others to call was none.
            rank.beat_at = rank.moved_at = time.monotonic()
            # A line that is broken by now shows as a rank that has ended.
            with contextlib.suppress(OSError):
                rank.line.send_bytes(
                    pickle.dumps(
                        (world, place, socket.gethostname(), function, arguments)
                    )
                )

    def _wait(self, ended: Callable[[], str | None], room: Room) -> Stall | None:
        """Until all have ended, or the grace is over after one failed; or until one has stalled."""
        deadline = float("inf")
        ranks = list(self._ranks.values())
        while any(rank.ended is None for rank in ranks) and time.monotonic() < deadline:
            now = time.monotonic()
            if any(rank.failed for rank in ranks):
                # Not later at the next failure: the grace counts from the first.
                deadline = min(deadline, now + _GRACE_SECONDS)
            elif ended() is not None and deadline == float("inf"):
                deadline = now + _GRACE_SECONDS  # lines end a moment after
            elif deadline == float("inf"):
                # None has failed so far. Once one has failed the others stand still,
                # which is no stall.
                silent = "stopped, hanging in native code, or its machine is gone"
                if stall := find_stall(
                    ranks, now, stall_seconds=self.stall_seconds, silent=silent
                ):
                    return stall
                # Ranks that have been asked to stop are not asked again for room.
                outgrown = (
                    None
                    if self._request.is_passed_on
                    else room.look(now, last_step(ranks))
                )
                if outgrown is not None:
                    self._request.make_room(outgrown)
            time.sleep(_LOOK_SECONDS)
        return None

    def _say(self, word: str) -> None:
        # A copy, since callers are added by threads of their own.
        for rank in list(self._ranks.values()):
            with contextlib.suppress(OSError, ValueError):
                rank.line.send(word)

    def close(self) -> None:
        """End the ranks that are at their end, and hang up on the others, which ends those too."""
        # Before hanging up: a rank that hears it ends well, one whose line breaks ends
        # with 1.
        self._say("end")
        self._door.close()
        for rank in list(self._ranks.values()):
            with contextlib.suppress(OSError):
                rank.line.close()


def address_towards(host: str) -> str:
    """The address of this machine that `host` would see (nothing is sent)."""
    # A datagram socket only looks up the route when it is connected.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])
