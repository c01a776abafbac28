"""Processes on this machine.

One process is a plain call. More are fresh Python processes (not forks: threads and CUDA do not survive
those; not `multiprocessing`, which would import the user's script again): each gets its function by pickle
over its own pipe and sends one outcome back over another, its length first: half an outcome is a death. Each
child is in a session of its own, so Ctrl-C reaches the parent alone, which hands it on once, as SIGTERM; a
child whose parent dies is killed by the system where that is possible (even if it is stopped), and elsewhere
sees its pipe close and ends, so that none is left behind.

Each child has a pulse (`core.heartbeat`). One whose interpreter shows no life, and one that waits and gets
nowhere, for `stall_seconds`, are taken for lost and named; one that gets nowhere but computes is given five
times as long. What is done about lost processes is the trainer's: it starts again from its last checkpoint.

Ranks meet through a file (PENSTOCK_RENDEZVOUS) on loopback: no port to be taken by somebody else.
OMP_NUM_THREADS and OMP_WAIT_POLICY=passive are set before a child starts: spinning OpenMP workers of several
processes on the same cores cost up to ten times their work.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from penstock.contracts.learn import Growth, Launcher, Recovery, World
from penstock.core.errors import Interrupted, Outgrown, PenstockError, RankLost, TrainingError
from penstock.core.heartbeat import HEARTBEAT, Heartbeat, Reading, prepare, read
from penstock.core.interrupts import interrupts
from penstock.parts.launchers._number import RETURN_SECONDS, Between, One, Room, only_between, recovery

RENDEZVOUS = "PENSTOCK_RENDEZVOUS"
_PARENT = "PENSTOCK_PARENT"
_GRACE_SECONDS = 2.0
"""How long the others may take to end by themselves once a rank has failed."""
_LOOK_SECONDS = 0.2
_PATIENCE = 5
"""How many times longer one may take that computes, or has not begun its first step: compiling, fetching
weights.
"""
_COMPUTING = 0.05
"""Cores that a process keeps busy if it computes."""


class Local(Launcher):
    """This machine's cores."""

    processes: One | Between | Literal["auto"] = "auto"
    """`auto`: what a short measurement at the start finds fastest.

    `[1, 4]`: four, and when some are lost those that are left, down to one; four again after
    `return_seconds`.
    """
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """Threads within an operation, per process; `auto`: measured as well."""
    restarts: int = Field(3, ge=0)
    """How often within an hour training starts again from its last checkpoint, by itself, after processes
    died or stalled. Errors of the model or the data never start it again.
    """
    return_seconds: float = Field(RETURN_SECONDS, ge=1)
    """With `processes: [1, 4]`: how long fewer go on after a loss; then they save a checkpoint, and all go on
    from it. Not while a loss more would leave none of `restarts` for other troubles.
    """
    stall_seconds: float = Field(120.0, ge=1)
    """A process that shows no life, or waits and gets nowhere, for so long is taken for lost; one that gets
    nowhere and computes, for five times as long.
    """

    @model_validator(mode="after")
    def _with_a_range(self) -> Self:
        only_between(self.processes, self.return_seconds)
        return self

    def limits(self) -> tuple[int | None, int | None]:
        processes = self.processes[1] if isinstance(self.processes, tuple) else self.processes
        return (None if processes == "auto" else processes, None if self.threads == "auto" else self.threads)

    def recovery(self) -> Recovery:
        return recovery(self.processes, self.restarts, self.return_seconds)

    def launch(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        processes: int,
        threads: int,
        grows: Growth | None = None,
    ) -> Any:
        # with [1, n] one process can be lost and replaced, too
        if processes == 1 and not isinstance(self.processes, tuple):
            return function(World(threads=threads), *arguments)
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            ranks: list[_Rank] = []
            watch = _Watch(ranks, self.stall_seconds)
            try:
                with interrupts.deferred():  # a process that is started is in `ranks`, and so is ended
                    for number in range(processes):
                        ranks.append(_start(number, processes, threads, function, arguments, Path(folder)))
                with _handing_on(ranks) as asked:
                    outgrown = _wait(ranks, watch, asked, grows)
            finally:
                for rank in ranks:
                    rank.end()
            try:
                return _verdict(ranks, asked.by, watch)
            except Interrupted:
                if outgrown is None or asked.by:
                    raise
                raise outgrown from None


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    outcome_pipe: int
    received: bytearray = field(default_factory=bytearray)
    outcome: tuple[str, Any] | None = None
    ended_order: int | None = None
    heartbeat: Path = Path()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        os.close(self.outcome_pipe)


def _start(
    number: int,
    processes: int,
    threads: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    folder: Path,
) -> _Rank:
    reading, writing = os.pipe()
    prepare(folder / f"pulse-{number}")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        RENDEZVOUS: f"file://{folder / 'rendezvous'}",
        HEARTBEAT: str(folder / f"pulse-{number}"),
        _PARENT: str(os.getpid()),
    }
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback:
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback)
    # SIGTERM stays blocked in the child until whoever can act on it unblocks it (the trainer): one that comes
    # while torch is still being imported waits, instead of killing a process that would have saved a
    # checkpoint.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import {__name__} as here; here.child()"],
            # stdout stays the parent's alone
            stdin=subprocess.PIPE,
            stdout=2,
            pass_fds=(writing,),
            start_new_session=True,
            env={
                **environment,
                "PENSTOCK_OUTCOME": str(writing),
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            },
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
    rank = _Rank(number, process, reading, heartbeat=folder / f"pulse-{number}")
    task = pickle.dumps(
        (World(rank=number, size=processes, local_rank=number, threads=threads), function, arguments)
    )
    assert process.stdin is not None
    try:
        process.stdin.write(len(task).to_bytes(8, "big") + task)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died already: `_verdict` says so
    return rank


def child() -> None:
    """What a child process runs: read the task, do it, send the outcome."""
    _be_killed_with_parent()
    Heartbeat.here().start()
    for number in (signal.SIGINT, signal.SIGHUP):  # one that reaches us anyhow: the parent hands on its own
        signal.signal(number, signal.SIG_IGN)
    stdin = sys.stdin.buffer
    size = int.from_bytes(stdin.read(8), "big")
    data = stdin.read(size)
    threading.Thread(target=_die_with_parent, args=(stdin.fileno(),), daemon=True).start()
    try:
        world, function, arguments = pickle.loads(data)  # the parent's own words, over a private pipe
        outcome: tuple[str, Any] = ("value", function(world, *arguments))
    except BaseException as error:  # noqa: BLE001 - whatever it is goes to the parent, which raises it
        if not isinstance(error, PenstockError):
            error.add_note("".join(traceback.format_exception(error)).strip())
        outcome = ("error", error)
    try:
        message = pickle.dumps(outcome)
    except Exception as error:  # noqa: BLE001 - said in the outcome instead
        what = (
            f"{type(outcome[1]).__name__}: {outcome[1]}"
            if outcome[0] == "error"
            else f"its answer cannot be sent ({error})"
        )
        message = pickle.dumps(("error", TrainingError(f"a training process failed: {what}")))
    with os.fdopen(int(os.environ["PENSTOCK_OUTCOME"]), "wb") as pipe:
        pipe.write(len(message).to_bytes(8, "big") + message)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the thread that watches the parent holds stdin; nothing is left to tidy


def _die_with_parent(stdin: int) -> None:
    os.read(stdin, 1)  # returns only at the end of the pipe: the parent is gone
    os._exit(1)


def _be_killed_with_parent() -> None:
    """Linux kills us when the parent dies, which reaches a stopped process as well."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(os.environ[_PARENT]):
        os._exit(1)  # it died before we could ask


def _outcome(received: bytes) -> tuple[str, Any] | None:
    """What a rank has said; None if it died before it had said all of it."""
    if len(received) < 8 or len(received) != 8 + int.from_bytes(received[:8], "big"):
        return None
    found: tuple[str, Any] = pickle.loads(received[8:])  # our own child's words, over a private pipe
    return found


def _wait(ranks: list[_Rank], watch: _Watch, asked: _Asked, grows: Growth | None) -> Outgrown | None:
    """Gather outcomes until all have ended, or until the grace is over after one failed; or until one has
    stalled.

    Returns:
        Why they were asked to stop, if they were for a larger number: on this machine there always is room.
    """
    deadline = float("inf")
    outgrown: Outgrown | None = None
    room = Room(len(ranks), grows, None)
    with selectors.DefaultSelector() as selector:
        for rank in ranks:
            selector.register(rank.outcome_pipe, selectors.EVENT_READ, rank)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(timeout=_LOOK_SECONDS):
                rank = key.data
                if chunk := os.read(rank.outcome_pipe, 1 << 20):
                    rank.received += chunk
                    continue
                selector.unregister(rank.outcome_pipe)
                rank.ended_order = sum(r.ended_order is not None for r in ranks)
                rank.outcome = _outcome(bytes(rank.received))
                if rank.outcome is None:
                    rank.process.wait()
                if rank.outcome is None or rank.outcome[0] == "error":
                    deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
            if deadline == float("inf") and watch.look(time.monotonic()):
                return outgrown
            if (
                deadline == float("inf")
                and outgrown is None
                and (outgrown := room.look(time.monotonic(), watch.step()))
            ):
                asked.pass_on()
    return outgrown


@dataclass
class _Seen:
    """What was last seen of a rank, and when it last changed."""

    beats: int = 0
    moves: int = 0
    step: int = -1
    beat_at: float = 0.0
    moved_at: float = 0.0
    cpu: float = 0.0
    """CPU seconds it had used when it last moved."""


class _Watch:
    """Tells ranks that are stalled from ranks that compute.

    In lockstep all stand still when one does, so the one to name is the one that shows no life; failing that,
    those that are behind.
    """

    def __init__(self, ranks: list[_Rank], stall_seconds: float) -> None:
        self._ranks, self._stall = ranks, stall_seconds
        self._seen: dict[int, _Seen] = {}
        self.stalled: list[_Rank] = []
        self.why = ""

    def look(self, now: float) -> bool:
        """Whether somebody is stalled."""
        living = [rank for rank in self._ranks if rank.ended_order is None]
        for rank in living:
            self._note(rank, read(rank.heartbeat), now)
        silent = [rank for rank in living if now - self._seen[rank.number].beat_at > self._stall]
        if silent:
            self.stalled = silent
            self.why = f"has shown no life for {self._stall:g} s: it was stopped, or hangs in native code"
            return True
        still = [
            rank
            for rank in living
            if self._seen[rank.number].moves and now - self._seen[rank.number].moved_at > self._stall
        ]
        if not living or len(still) < len(living):
            return False
        behind = min(self._seen[rank.number].step for rank in still)
        longest = min(now - self._seen[rank.number].moved_at for rank in still)
        patient = behind < 0 or any(self._computes(rank, now) for rank in still)
        if patient and longest < _PATIENCE * self._stall:
            return False
        self.stalled = [rank for rank in still if self._seen[rank.number].step == behind]
        self.why = f"has got nowhere for {longest:.0f} s, though it lives"
        return True

    def _note(self, rank: _Rank, reading: Reading, now: float) -> None:
        seen = self._seen.get(rank.number)
        if seen is None:
            self._seen[rank.number] = _Seen(
                reading.beats, reading.moves, reading.step, now, now, _cpu_seconds(rank.process.pid)
            )
            return
        if reading.beats != seen.beats:
            seen.beats, seen.beat_at = reading.beats, now
        if reading.moves != seen.moves:
            seen.moves, seen.step, seen.moved_at, seen.cpu = (
                reading.moves,
                reading.step,
                now,
                _cpu_seconds(rank.process.pid),
            )

    def _computes(self, rank: _Rank, now: float) -> bool:
        seen = self._seen[rank.number]
        return _cpu_seconds(rank.process.pid) - seen.cpu > _COMPUTING * (now - seen.moved_at)

    def step(self) -> int:
        """The last step that was begun."""
        return max((read(rank.heartbeat).step for rank in self._ranks), default=-1)


def _cpu_seconds(pid: int) -> float:
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _verdict(ranks: list[_Rank], asked: list[int], watch: _Watch) -> Any:
    """Rank 0's value, or the one error that explains the rest."""
    ended = sorted((r for r in ranks if r.ended_order is not None), key=lambda r: r.ended_order or 0)
    errors = [(r, r.outcome[1]) for r in ended if r.outcome and r.outcome[0] == "error"]
    ours = sorted(
        ((r, e) for r, e in errors if isinstance(e, PenstockError)), key=lambda pair: pair[0].number
    )
    dead = [r for r in ended if r.outcome is None]
    parted = [e for _, e in ours if isinstance(e, RankLost)]  # they tell of somebody else's end
    ours = [(r, e) for r, e in ours if not isinstance(e, RankLost)]
    if ours:
        raise ours[0][1]
    if watch.stalled:
        stalled = " and ".join(
            f"training process {rank.number} (pid {rank.process.pid}, in step"
            f" {max(read(rank.heartbeat).step, 0)})"
            for rank in watch.stalled
        )
        raise RankLost(
            f"{stalled} {watch.why}. "
            f"All {len(ranks)} were stopped. If its steps do take so long, raise launcher.stall_seconds.",
            tuple(r.number for r in watch.stalled),
            watch.step(),
            len(ranks),
        )
    if dead:
        if asked:
            raise Interrupted(
                "stopped before training had begun; nothing was lost."
                if watch.step() < 0
                else f"{_how_it_died(dead[0])} It was being stopped; what was saved before stands."
            )
        others = (
            f" The other {len(ranks) - len(dead)} were stopped."
            if len(dead) < len(ranks)
            else f" So were all {len(ranks)}."
            if len(ranks) > 1
            else ""
        )
        raise RankLost(
            f"{_how_it_died(dead[0])}{others}", tuple(r.number for r in dead), watch.step(), len(ranks)
        )
    if errors:
        raise next((e for _, e in errors if not isinstance(e, RankLost)), None) or parted[0]
    if asked:
        raise KeyboardInterrupt  # the function was over before it heard
    assert ranks[0].outcome is not None
    return ranks[0].outcome[1]


def _how_it_died(rank: _Rank) -> str:
    code = rank.process.returncode
    if code is not None and code < 0:
        why = (
            " That is what the system does when memory runs out: train with fewer processes or a smaller"
            " batch_size."
            if -code == signal.SIGKILL
            else ""
        )
        return (
            f"training process {rank.number} (pid {rank.process.pid}) was killed by"
            f" {signal.Signals(-code).name}.{why}"
        )
    return (
        f"training process {rank.number} (pid {rank.process.pid}) ended with code {code} and without a word."
    )


@dataclass
class _Asked:
    """A wish to stop, which each rank hears once."""

    ranks: list[_Rank]
    by: list[int] = field(default_factory=list)
    """The signals by which the user has asked."""
    is_passed_on: bool = False

    def pass_on(self) -> None:
        """Tell the ranks, if they have not been told."""
        if self.is_passed_on:
            return
        self.is_passed_on = True
        for rank in self.ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(signal.SIGTERM)


@contextmanager
def _handing_on(ranks: list[_Rank]) -> Iterator[_Asked]:
    """The first Ctrl-C or SIGTERM goes to each child, once; a second one ends them."""
    asked = _Asked(ranks)
    with interrupts.graceful(asked.pass_on) as request:
        asked.by = request.signals
        yield asked
