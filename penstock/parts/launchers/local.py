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
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from penstock.contracts.learn import Growth, Launcher, Recovery, World
from penstock.core.errors import PenstockError, TrainingError
from penstock.core.heartbeat import HEARTBEAT, Heartbeat, prepare, read
from penstock.core.interrupts import interrupts
from penstock.parts.launchers._number import (
    RETURN_SECONDS,
    Between,
    One,
    Room,
    only_between,
    recovery,
)
from penstock.parts.launchers._watched import (
    Stall,
    StopRequest,
    WatchedRank,
    find_stall,
    last_step,
    verdict,
)

RENDEZVOUS = "PENSTOCK_RENDEZVOUS"
_PARENT = "PENSTOCK_PARENT"
_GRACE_SECONDS = 2.0
"""How long the others may take to end by themselves once a rank has failed."""
_LOOK_SECONDS = 0.2


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
        # Training begins with the most; fewer go on after losses only.
        processes = (
            self.processes[1] if isinstance(self.processes, tuple) else self.processes
        )
        return (
            None if processes == "auto" else processes,
            None if self.threads == "auto" else self.threads,
        )

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
            request = StopRequest(partial(_stop, ranks))
            try:
                with (
                    interrupts.deferred()
                ):  # a process that is started is in `ranks`, and so is ended
                    for number in range(processes):
                        ranks.append(
                            _start(
                                number,
                                processes,
                                threads,
                                function,
                                arguments,
                                Path(folder),
                            )
                        )
                with request.listening():
                    stall = _wait(ranks, request, grows, self.stall_seconds)
            finally:
                # Whatever ends the launch, no child is left behind.
                for rank in ranks:
                    rank.end()
            with request.explaining():
                return verdict(ranks, stall=stall, asked=request.by, blame_errors=False)


@dataclass(kw_only=True)
class _Rank(WatchedRank):
    process: subprocess.Popen[bytes]
    outcome_pipe: int
    heartbeat: Path
    received: bytearray = field(default_factory=bytearray)
    beats: int = -1
    """How often it has shown life; -1: nobody has looked yet."""

    def __str__(self) -> str:
        return f"training process {self.number} (pid {self.process.pid})"

    def end(self) -> None:
        """Kill it if it lives, and let go of what was opened for it."""
        if self.process.poll() is None:
            self.process.kill()
        # Reaps it, or it would stay in the table of processes.
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        os.close(self.outcome_pipe)

    def look(self, now: float) -> None:
        """Read its heartbeat."""
        reading = read(self.heartbeat)
        is_first = self.beats < 0
        self.step = reading.step
        if reading.beats != self.beats:
            self.beats, self.beat_at = reading.beats, now
        # The first look starts the clock, whatever it finds.
        if is_first or reading.moves != self.moves:
            self.moves, self.moved_at = reading.moves, now
            self.cpu_at_move = self.cpu_seconds()

    def cpu_seconds(self) -> float:
        import psutil

        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def how_it_died(self) -> str:
        code = self.process.returncode
        # It left by itself, and no signal is to be explained.
        if code is None or code >= 0:
            return f"{self} ended with code {code} and without a word."
        # SIGKILL that nobody here has sent
        why = (
            " That is what the system does when memory runs out: train with fewer processes or a smaller"
            " batch_size."
            if -code == signal.SIGKILL
            else ""
        )
        return f"{self} was killed by {signal.Signals(-code).name}.{why}"


def _start(
    number: int,
    processes: int,
    threads: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    folder: Path,
) -> _Rank:
    reading, writing = os.pipe()
    # Before the child starts, which opens the file and does not make it.
    prepare(folder / f"pulse-{number}")
    environment = _environment(number, processes, threads, folder)
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
            # All that a child inherits beside the standard streams.
            pass_fds=(writing,),
            # A terminal sends Ctrl-C to its whole session: the parent alone shall hear
            # it.
            start_new_session=True,
            env={
                **environment,
                "PENSTOCK_OUTCOME": str(writing),
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            },
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # While we hold this end open too, reading would never come to the end of the
        # pipe.
        os.close(writing)
    rank = _Rank(
        number=number,
        process=process,
        outcome_pipe=reading,
        heartbeat=folder / f"pulse-{number}",
    )
    task = pickle.dumps(
        (
            World(rank=number, size=processes, local_rank=number, threads=threads),
            function,
            arguments,
        )
    )
    assert process.stdin is not None
    try:
        # The child reads so many bytes and then only waits for the end of the pipe.
        process.stdin.write(len(task).to_bytes(8, "big") + task)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died already: `verdict` says so
    return rank


def _environment(
    number: int, processes: int, threads: int, folder: Path
) -> dict[str, str]:
    """A child's variables: its place among the ranks, its threads, and where it meets the others."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # Spinning OpenMP workers of several ranks on the same cores would cost far more
        # than they bring.
        "OMP_WAIT_POLICY": "passive",
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        RENDEZVOUS: f"file://{folder / 'rendezvous'}",
        HEARTBEAT: str(folder / f"pulse-{number}"),
        _PARENT: str(os.getpid()),
    }
    loopback = next(
        (name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None
    )
    if loopback:
        # Not over the user's own choice. By itself gloo takes the interface of the
        # machine's name.
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback)
    return environment


def child() -> None:
    """What a child process runs: read the task, do it, send the outcome."""
    _be_killed_with_parent()
    Heartbeat.here().start()
    # Beside a session of its own: only the parent decides when a child stops.
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
    ):  # one that reaches us anyhow: the parent hands on its own
        signal.signal(number, signal.SIG_IGN)
    stdin = sys.stdin.buffer
    size = int.from_bytes(stdin.read(8), "big")
    data = stdin.read(size)
    threading.Thread(target=_die_with_parent, args=(stdin.fileno(),), daemon=True).start()
    try:
        world, function, arguments = pickle.loads(
            data
        )  # the parent's own words, over a private pipe
        outcome: tuple[str, Any] = ("value", function(world, *arguments))
    except BaseException as error:  # noqa: BLE001 - whatever it is goes to the parent, which raises it
        # A traceback is lost in pickling, and a note is not.
        if not isinstance(error, PenstockError):
            error.add_note("".join(traceback.format_exception(error)).strip())
        outcome = ("error", error)
    try:
        # Pickled here, so that an answer that cannot be sent is told, and is no death.
        message = pickle.dumps(outcome)
    except Exception as error:  # noqa: BLE001 - said in the outcome instead
        what = (
            f"{type(outcome[1]).__name__}: {outcome[1]}"
            if outcome[0] == "error"
            else f"its answer cannot be sent ({error})"
        )
        message = pickle.dumps(
            ("error", TrainingError(f"a training process failed: {what}"))
        )
    with os.fdopen(int(os.environ["PENSTOCK_OUTCOME"]), "wb") as pipe:
        # The length first, so that half an outcome is known as a death.
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
        # 1 is PR_SET_PDEATHSIG.
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(os.environ[_PARENT]):
        os._exit(1)  # it died before we could ask


def _outcome(received: bytes) -> tuple[str, Any] | None:
    """What a rank has said; None if it died before it had said all of it."""
    if len(received) < 8 or len(received) != 8 + int.from_bytes(received[:8], "big"):
        return None
    outcome: tuple[str, Any] = pickle.loads(
        received[8:]
    )  # our own child's words, over a private pipe
    return outcome


def _wait(
    ranks: list[_Rank], request: StopRequest, grows: Growth | None, stall_seconds: float
) -> Stall | None:
    """Gather outcomes until all have ended, or until the grace is over after one failed; or until one has
    stalled, which is returned.
    """
    deadline = float("inf")
    room = Room(len(ranks), grows, None)  # on this machine there always is room
    with selectors.DefaultSelector() as selector:
        for rank in ranks:
            selector.register(rank.outcome_pipe, selectors.EVENT_READ, rank)
        while selector.get_map() and time.monotonic() < deadline:
            # Waits for words, and no longer than till the next look at the heartbeats.
            for key, _ in selector.select(timeout=_LOOK_SECONDS):
                rank = key.data
                if chunk := os.read(rank.outcome_pipe, 1 << 20):
                    rank.received += chunk
                    continue
                # An empty read is the end of the pipe, and of the child.
                selector.unregister(rank.outcome_pipe)
                rank.ended = sum(other.ended is not None for other in ranks)
                rank.outcome = _outcome(bytes(rank.received))
                # `how_it_died` reads its exit code.
                if rank.outcome is None:
                    rank.process.wait()
                if rank.failed:
                    deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
            now = time.monotonic()
            for rank in ranks:
                rank.look(now)
            # One has failed: that the others get nowhere now is no stall.
            if deadline < float("inf"):
                continue
            if stall := find_stall(
                ranks,
                now,
                stall_seconds=stall_seconds,
                silent="stopped, or hangs in native code",
            ):
                return stall
            outgrown = None if request.outgrown else room.look(now, last_step(ranks))
            if outgrown is not None:
                request.make_room(outgrown)
    for rank in ranks:
        rank.look(time.monotonic())  # the last step of each, for the message
    return None


def _stop(ranks: list[_Rank]) -> None:
    for rank in ranks:
        # One that has ended is not signalled: its number may be another process's by
        # now.
        if rank.process.poll() is None:
            rank.process.send_signal(signal.SIGTERM)
