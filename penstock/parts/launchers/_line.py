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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from penstock.contracts.learn import Growth, World
from penstock.core.errors import Interrupted, Outgrown, PenstockError, RankLost
from penstock.core.interrupts import interrupts
from penstock.parts.launchers._door import Door
from penstock.parts.launchers._number import Room
from penstock.parts.launchers._rank import Call

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 3.0
"""How long the others may take to end by themselves once a rank has failed."""
_PATIENCE = 5
"""How many times longer one may take that computes, or has not begun its first step."""
_COMPUTING = 0.05
"""Seconds of processor time a second, above which a rank that stands still is taken to compute."""


@dataclass
class _Rank:
    number: int
    line: Connection
    host: str
    pid: int
    address: str
    port: int
    heard_at: float
    moved_at: float
    moves: int = 0
    step: int = -1
    cpu: float = 0.0
    cpu_then: float = 0.0
    outcome: tuple[str, Any] | None = None
    ended: float | None = None

    def __str__(self) -> str:
        return f"training process {self.number} (pid {self.pid} on {self.host})"


@dataclass
class Line:
    """The launcher's end for `size` ranks; listens on `host` alone."""

    host: str
    size: int
    stall_seconds: float
    asked: list[int] = field(default_factory=list)
    """The signals by which the user has asked to stop."""

    def __post_init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._ranks: dict[int, _Rank] = {}
        self._lock = threading.Lock()
        self._is_stopping = False
        self._outgrown: Outgrown | None = None
        self._door = Door(self.host, self._key, backlog=self.size + 8, welcome=self._hear)

    @property
    def call(self) -> Call:
        return Call(
            self.host,
            self._door.port,
            self._key,
            self.size,
            tuple(dict.fromkeys(os.path.abspath(p) for p in sys.path)),
        )

    def _hear(self, line: Any) -> None:
        rank: _Rank | None = None
        try:
            _, number, host, pid, address, port = line.recv()
            now = time.monotonic()
            rank = _Rank(number, line, host, pid, address, port, now, now)
            with self._lock:
                self._ranks[number] = rank
            while rank.outcome is None:
                # Our own rank: it has proved to know the key of this launch (`multiprocessing.connection`).
                message = pickle.loads(line.recv_bytes())
                now = time.monotonic()
                rank.heard_at = now
                if message[0] != "pulse":
                    rank.outcome = message
                    break
                _, moves, step, rank.cpu = message
                if moves != rank.moves:
                    rank.moves, rank.step, rank.moved_at, rank.cpu_then = moves, step, now, rank.cpu
        except (EOFError, OSError):
            pass  # `_verdict` says so
        if rank is not None:
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
        with self._handing_on():
            self._wait_for_all(ended, start_seconds)
            self._give(function, arguments, threads, gpus)
            stalled, why = self._wait(ended, Room(self.size, grows, room))
        try:
            return self._verdict(stalled, why)
        except Interrupted:
            if self._outgrown is None or self.asked:
                raise
            raise self._outgrown from None

    def _wait_for_all(self, ended: Callable[[], str | None], start_seconds: float) -> None:
        until = time.monotonic() + start_seconds
        while len(self._ranks) < self.size:
            if self.asked:
                raise Interrupted("stopped before training had begun; nothing was lost.")
            why = ended()
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
        self, function: Callable[..., Any], arguments: tuple[Any, ...], threads: int, gpus: bool
    ) -> None:
        # Ranks of one machine are numbered there, too.
        by_host: dict[str, list[int]] = {}
        for number in range(self.size):
            by_host.setdefault(self._ranks[number].host, []).append(number)
        first = self._ranks[0]
        for rank in self._ranks.values():
            local = by_host[rank.host]
            world = World(
                rank=rank.number, size=self.size, local_rank=local.index(rank.number), threads=threads
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
                "patience_seconds": _PATIENCE * self.stall_seconds,
                "environment": environment,
            }
            rank.heard_at = rank.moved_at = time.monotonic()
            with contextlib.suppress(OSError):
                rank.line.send_bytes(pickle.dumps((world, place, socket.gethostname(), function, arguments)))

    def _wait(self, ended: Callable[[], str | None], room: Room) -> tuple[list[_Rank], str]:
        deadline = float("inf")
        ranks = list(self._ranks.values())
        while any(rank.ended is None for rank in ranks) and time.monotonic() < deadline:
            now = time.monotonic()
            if any(
                rank.ended is not None and (rank.outcome is None or rank.outcome[0] == "error")
                for rank in ranks
            ):
                deadline = min(deadline, now + _GRACE_SECONDS)
            elif (why := ended()) is not None and deadline == float("inf"):
                deadline = now + _GRACE_SECONDS  # lines end a moment after
            elif deadline == float("inf"):
                stalled, why = self._stalled(ranks, now)
                if stalled:
                    return stalled, why
                if (
                    not self._is_stopping
                    and (outgrown := room.look(now, max(rank.step for rank in ranks))) is not None
                ):
                    self._outgrown = outgrown
                    self._stop()
            time.sleep(_LOOK_SECONDS)
        return [], ""

    def _stalled(self, ranks: list[_Rank], now: float) -> tuple[list[_Rank], str]:
        """As the local launcher judges: who shows no life; failing that, who is behind where all stand
        still.
        """
        living = [rank for rank in ranks if rank.ended is None]
        if silent := [rank for rank in living if now - rank.heard_at > self.stall_seconds]:
            return (
                silent,
                (
                    f"has shown no life for {self.stall_seconds:g} s: it was stopped, hangs in native code,"
                    " or its machine is gone"
                ),
            )
        still = [rank for rank in living if rank.moves and now - rank.moved_at > self.stall_seconds]
        if not living or len(still) < len(living):
            return [], ""
        behind = min(rank.step for rank in still)
        longest = min(now - rank.moved_at for rank in still)
        computes = any(rank.cpu - rank.cpu_then > _COMPUTING * (now - rank.moved_at) for rank in still)
        if (behind < 0 or computes) and longest < _PATIENCE * self.stall_seconds:
            return [], ""
        return [
            rank for rank in still if rank.step == behind
        ], f"has got nowhere for {longest:.0f} s, though it lives"

    def _verdict(self, stalled: list[_Rank], why: str) -> Any:
        """Rank 0's value, or the one error that explains the rest."""
        ranks = sorted(self._ranks.values(), key=lambda rank: rank.number)
        step = max(rank.step for rank in ranks)
        errors = [
            rank.outcome[1]
            for rank in sorted(ranks, key=lambda r: r.ended or float("inf"))
            if rank.outcome and rank.outcome[0] == "error"
        ]
        ours = [
            rank.outcome[1] for rank in ranks if rank.outcome and isinstance(rank.outcome[1], PenstockError)
        ]
        parted = [error for error in ours if isinstance(error, RankLost)]  # they tell of somebody else's end
        if own := [error for error in ours if not isinstance(error, RankLost)]:
            raise own[0]
        if stalled:
            names = " and ".join(f"{rank}, in step {max(rank.step, 0)}," for rank in stalled)
            raise RankLost(
                f"{names} {why}. All {self.size} were stopped. If its steps do take so long, raise"
                " launcher.stall_seconds.",
                tuple(r.number for r in stalled),
                step,
                self.size,
            )
        if dead := [rank for rank in ranks if rank.ended is not None and rank.outcome is None]:
            if self.asked:
                raise Interrupted(
                    "stopped before training had begun; nothing was lost."
                    if step < 0
                    else f"{dead[0]} ended while it was being stopped; what was saved before stands."
                )
            if real := [error for error in errors if not isinstance(error, RankLost)]:
                raise real[0]
            rest = f" The other {self.size - len(dead)} were stopped." if len(dead) < self.size else ""
            raise RankLost(
                f"{dead[0]} ended without a word: it was killed, or its machine is gone.{rest}",
                tuple(rank.number for rank in dead),
                step,
                self.size,
            )
        if errors:
            raise next((error for error in errors if not isinstance(error, RankLost)), None) or parted[0]
        if silent := [rank.number for rank in ranks if rank.ended is None]:
            raise RankLost(
                f"the cluster has ended training process {silent[0]} without a word.",
                tuple(silent),
                step,
                self.size,
            )
        if self.asked:
            raise KeyboardInterrupt  # the function was over before it heard
        assert ranks[0].outcome is not None
        return ranks[0].outcome[1]

    @contextmanager
    def _handing_on(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM goes to each rank, once; a second one ends them."""
        with interrupts.graceful(self._stop) as request:
            self.asked = request.signals
            yield

    def _stop(self) -> None:
        """Pass on the wish to stop, once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._say("stop")

    def _say(self, word: str) -> None:
        for rank in list(self._ranks.values()):
            with contextlib.suppress(OSError, ValueError):
                rank.line.send(word)

    def close(self) -> None:
        """End the ranks that are at their end, and hang up on the others, which ends those too."""
        self._say("end")
        self._door.close()
        for rank in list(self._ranks.values()):
            with contextlib.suppress(OSError):
                rank.line.close()


def address_towards(host: str) -> str:
    """The address of this machine that `host` would see (nothing is sent)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])
