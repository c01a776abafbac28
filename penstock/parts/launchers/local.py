"""Processes on this machine.

One process is a plain call. More are fresh Python processes (not forks: threads and CUDA do not survive those; not
`multiprocessing`, which would import the user's script again): each gets its function by pickle over its own pipe and
sends one outcome back over another. Each child is in a session of its own, so Ctrl-C reaches the parent alone, which
hands it on once, as SIGTERM; a child whose parent dies sees its pipe close and ends, so that none is left behind.

Ranks meet through a file (PENSTOCK_RENDEZVOUS) on loopback: no port to be taken by somebody else. OMP_NUM_THREADS and
OMP_WAIT_POLICY=passive are set before a child starts: spinning OpenMP workers of several processes on the same cores
cost up to ten times their work.
"""

from __future__ import annotations

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
from typing import Annotated, Any, Literal

from pydantic import Field

from penstock.contracts.learn import Launcher, World
from penstock.core.errors import Interrupted, PenstockError, TrainingError

RENDEZVOUS = "PENSTOCK_RENDEZVOUS"
_GRACE_SECONDS = 2.0
"""How long the others may take to end by themselves once a rank has failed."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Local(Launcher):
    """This machine's cores."""

    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """`auto`: what a short measurement at the start finds fastest."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Threads within an operation, per process; `auto`: measured as well."""

    def limits(self) -> tuple[int | None, int | None]:
        return (None if self.processes == "auto" else self.processes, None if self.threads == "auto" else self.threads)

    def launch(self, function: Callable[..., Any], arguments: tuple[Any, ...], *, processes: int, threads: int) -> Any:
        if processes == 1:
            return function(World(threads=threads), *arguments)
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            ranks = [_start(rank, processes, threads, function, arguments, Path(folder)) for rank in range(processes)]
            try:
                with _handing_on(ranks) as asked:
                    _wait(ranks)
            finally:
                for rank in ranks:
                    rank.end()
        return _verdict(ranks, asked)


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    outcome_pipe: int
    received: bytearray = field(default_factory=bytearray)
    outcome: tuple[str, Any] | None = None
    ended_order: int | None = None

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        os.close(self.outcome_pipe)


def _start(number: int, processes: int, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...], folder: Path) -> _Rank:
    reading, writing = os.pipe()
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive",
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        RENDEZVOUS: f"file://{folder / 'rendezvous'}",
    }
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback:
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback)
    # SIGTERM stays blocked in the child until whoever can act on it unblocks it (the trainer): one that comes while torch
    # is still being imported waits, instead of killing a process that would have saved a checkpoint.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import {__name__} as here; here.child()"],
            stdin=subprocess.PIPE, stdout=2, pass_fds=(writing,), start_new_session=True,  # stdout stays the parent's alone
            env={**environment, "PENSTOCK_OUTCOME": str(writing), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
    rank = _Rank(number, process, reading)
    task = pickle.dumps((World(rank=number, size=processes, local_rank=number, threads=threads), function, arguments))
    assert process.stdin is not None
    try:
        process.stdin.write(len(task).to_bytes(8, "big") + task)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died already: `_verdict` says so
    return rank


def child() -> None:
    """What a child process runs: read the task, do it, send the outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C that reaches us anyhow: the parent hands on its own
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
        what = f"{type(outcome[1]).__name__}: {outcome[1]}" if outcome[0] == "error" else f"its answer cannot be sent ({error})"
        message = pickle.dumps(("error", TrainingError(f"a training process failed: {what}")))
    with os.fdopen(int(os.environ["PENSTOCK_OUTCOME"]), "wb") as pipe:
        pipe.write(message)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the thread that watches the parent holds stdin; nothing is left to tidy


def _die_with_parent(stdin: int) -> None:
    os.read(stdin, 1)  # returns only at the end of the pipe: the parent is gone
    os._exit(1)


def _wait(ranks: list[_Rank]) -> None:
    """Gather outcomes until all have ended, or until the grace is over after one failed."""
    deadline = float("inf")
    with selectors.DefaultSelector() as selector:
        for rank in ranks:
            selector.register(rank.outcome_pipe, selectors.EVENT_READ, rank)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(timeout=0.2):
                rank = key.data
                if chunk := os.read(rank.outcome_pipe, 1 << 20):
                    rank.received += chunk
                    continue
                selector.unregister(rank.outcome_pipe)
                rank.ended_order = sum(r.ended_order is not None for r in ranks)
                if rank.received:
                    rank.outcome = pickle.loads(bytes(rank.received))
                else:
                    rank.process.wait()
                if rank.outcome is None or rank.outcome[0] == "error":
                    deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)


def _verdict(ranks: list[_Rank], asked: list[int]) -> Any:
    """Rank 0's value, or the one error that explains the rest."""
    ended = sorted((r for r in ranks if r.ended_order is not None), key=lambda r: r.ended_order or 0)
    errors = [(r, r.outcome[1]) for r in ended if r.outcome and r.outcome[0] == "error"]
    ours = sorted(((r, e) for r, e in errors if isinstance(e, PenstockError)), key=lambda pair: pair[0].number)
    dead = [r for r in ended if r.outcome is None]
    if ours:
        raise ours[0][1]
    if dead:
        if asked:
            raise Interrupted("stopped before training had begun; nothing was lost.")
        raise TrainingError(f"{_how_it_died(dead[0])} The other {len(ranks) - 1} were stopped.")
    if errors:
        raise errors[0][1]
    if asked:
        raise KeyboardInterrupt  # the function was over before it heard
    assert ranks[0].outcome is not None
    return ranks[0].outcome[1]


def _how_it_died(rank: _Rank) -> str:
    code = rank.process.returncode
    if code is not None and code < 0:
        why = " That is what the system does when memory runs out: train with fewer processes or a smaller batch_size." if -code == signal.SIGKILL else ""
        return f"training process {rank.number} was killed by {signal.Signals(-code).name}.{why}"
    return f"training process {rank.number} ended with code {code} and without a word."


@contextmanager
def _handing_on(ranks: list[_Rank]) -> Iterator[list[int]]:
    """The first Ctrl-C or SIGTERM goes to each child, once; a second one ends them."""
    asked: list[int] = []

    def hand_on(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may handle signals; there Ctrl-C ends the whole process, and the children with it
        return
    before = {number: signal.signal(number, hand_on) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
