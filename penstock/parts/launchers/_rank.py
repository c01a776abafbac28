"""The rank's end of the line home (`_line`): call the launcher, take the task, do it, send what came of it.

It runs in a process of somebody else's cluster, which knows a `Call` alone.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.contracts.learn import World
from penstock.core.errors import PenstockError, RankLost, StoreError, TrainingError
from penstock.core.heartbeat import HEARTBEAT, Heartbeat, prepare, read
from penstock.parts.launchers._door import dial

_BEAT_SECONDS = 0.5
_END_SECONDS = 30.0
"""How long a rank waits, once it has sent its outcome, for leave to end."""


@dataclass(frozen=True)
class Call:
    """What a cluster must bring to a rank."""

    host: str
    port: int
    key: bytes
    size: int
    """How many ranks there are."""
    path: tuple[str, ...]
    """Where the launcher's Python looks for modules, so that the function is found."""


def answer(call: Call, rank: int) -> None:
    """All that a rank does: call, take the task, do it, send the outcome.

    Best on a process's main thread, where signals are heard.
    """
    # Behind this machine's own paths, so that its packages are found first.
    sys.path.extend(p for p in call.path if p not in sys.path and os.path.exists(p))
    line = dial(call.host, call.port, call.key)
    here = _own_address(line)
    # Before the call, which tells the launcher its port.
    store, port = _open_store(here) if rank == 0 and call.size > 1 else (None, 0)
    line.send(("here", rank, socket.gethostname(), os.getpid(), here, port))
    try:
        data = line.recv_bytes()
    except EOFError:
        return  # called off
    with tempfile.TemporaryDirectory(prefix="penstock-rank-") as folder:
        prepare(heartbeat := Path(folder) / "pulse")
        # For the trainer in this process, which finds its heartbeat by the variable.
        os.environ[HEARTBEAT] = str(heartbeat)
        Heartbeat.here().start()
        over = threading.Event()
        # Beats and the outcome go over one line from two threads; mixed up, neither is
        # a message.
        writing = threading.Lock()
        blocked = threading.current_thread() is threading.main_thread()
        if blocked:  # until the trainer can act on it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_listen, args=(line, over), daemon=True).start()
        threading.Thread(
            target=_send_beats, args=(line, heartbeat, over, writing), daemon=True
        ).start()
        outcome = _do(data, store, here)
        with writing, contextlib.suppress(OSError):
            line.send_bytes(outcome)
        # Leave comes once the launcher has every rank's outcome, or has given up.
        over.wait(_END_SECONDS)
        if blocked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _do(data: bytes, store: Any, here: str) -> bytes:
    """The task, and what came of it."""
    home = ""
    try:
        # our launcher's words: it has proved to know the key
        world, place, home, function, arguments = pickle.loads(data)
        # As torchrun would set them, for code of the user's that looks for them.
        os.environ.update(place["environment"])
        # By default gloo takes the interface of the machine's name, which may not be
        # loopback.
        if here.startswith("127."):
            loopback = next(
                (name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None
            )
            if loopback:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        with _grouped(world, store, place):
            outcome: tuple[str, Any] = ("value", function(world, *arguments))
    except BaseException as error:  # noqa: BLE001 - whatever it is goes to the launcher, which raises it
        outcome = ("error", explained(error, home))
    # Pickled here, so that an answer that cannot be sent is told, and is no death.
    try:
        return pickle.dumps(outcome)
    except Exception as error:  # noqa: BLE001 - said in the outcome instead
        what = (
            f"{type(outcome[1]).__name__}: {outcome[1]}"
            if outcome[0] == "error"
            else f"its answer cannot be sent ({error})"
        )
        return pickle.dumps(
            ("error", TrainingError(f"a training process failed: {what}"))
        )


def explained(error: BaseException, home: str) -> BaseException:
    """An error as the launcher raises it: with what a user does about a store that this machine does not see,
    and a traceback for what is no error of ours. `home`: the machine where training was started.
    """
    is_elsewhere = home and socket.gethostname() != home
    if is_elsewhere and isinstance(error, (StoreError, FileNotFoundError)):
        message = error.message if isinstance(error, PenstockError) else str(error)
        return StoreError(
            f"{message} That was on {socket.gethostname()}; training was started on {home}. Every machine"
            " that trains must see the store at the same place: put it on a shared file system with --store."
        )
    if not isinstance(error, PenstockError):
        # A traceback is lost in pickling, and a note is not.
        error.add_note("".join(traceback.format_exception(error)).strip())
    return error


@contextmanager
def _grouped(world: World, store: Any, place: dict[str, Any]) -> Iterator[None]:
    if world.size == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    patience = datetime.timedelta(seconds=place["patience_seconds"])
    if store is None:
        # A client of the store that rank 0 keeps.
        store = _tcp_store()(place["host"], place["port"], None, False, timeout=patience)
    backend = "nccl" if place["gpus"] and torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(
            backend, store=store, rank=world.rank, world_size=world.size, timeout=patience
        )
        dist.barrier()  # a rank that had nothing to say would be gone before the others have reached it
    except RuntimeError as error:
        raise RankLost(
            f"Training process {world.rank} cannot reach the others:"
            f" {next(iter(str(error).splitlines()), '')}"
        ) from None
    try:
        yield
    finally:
        dist.destroy_process_group()


def _tcp_store() -> Any:
    """The class of torch's store over TCP, which torch does not list among its public names."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore


def _open_store(host: str) -> tuple[Any, int]:
    """The store at which ranks meet, listening on this address alone."""
    # Bound by us first, so that no other process can take the port in between.
    listening = socket.create_server((host, 0))
    port = listening.getsockname()[1]
    listener = listening.detach()  # the store closes the descriptor that it is given
    return (
        _tcp_store()(
            host,
            port,
            None,
            True,
            # The others come only after the launcher has told them the port.
            wait_for_workers=False,
            master_listen_fd=listener,
            use_libuv=True,
        ),
        port,
    )


def _own_address(line: Any) -> str:
    # A copy of the descriptor: closing `own` must not close the line.
    with socket.socket(fileno=os.dup(line.fileno())) as own:
        return str(own.getsockname()[0])


def _listen(line: Any, over: threading.Event) -> None:
    while True:
        try:
            word = line.recv()
        except (EOFError, OSError):
            # After leave to end, a closed line is as it should be.
            if over.is_set():
                return
            os._exit(1)  # the launcher is gone
        if word == "stop":
            # To the main thread, where Python runs its handlers.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        elif word == "end":
            over.set()
            return


def _send_beats(
    line: Any, heartbeat: Path, over: threading.Event, writing: threading.Lock
) -> None:
    while not over.wait(_BEAT_SECONDS):
        reading = read(heartbeat)
        with writing:
            try:
                # CPU seconds, by which the launcher tells a rank that computes from one
                # that waits.
                line.send(("pulse", reading.moves, reading.step, sum(os.times()[:2])))
            except OSError:
                return
