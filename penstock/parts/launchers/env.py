"""One rank of a world that somebody else started: torchrun, Slurm's srun, Kubernetes, MPI.

All processes run the same command. Rank 0 does it: it prepares, encodes, packs, judges and prints; the others
wait for what it launches, take part in that, and end as it ends, with the same error and so the same exit
code. They meet at a small store of torch's (kept by torchrun where it runs them, by rank 0 elsewhere), which
also carries rank 0's heartbeat: preparing may take hours, and only a rank 0 that shows no life for
`stall_seconds` is given up. What is launched goes through it by name, as JSON (`_messages`): the store proves
nothing of who speaks, so nothing that is said there brings code. Nothing else is agreed on beforehand, so no
rank has to guess what another has found done.

torchrun keeps its store when it starts the processes anew, and an agent that has just come counts restarts
from 0; so what was said before is still there, and no number tells it apart. Each process therefore greets
rank 0 with a word of its own, and is answered with the word under which all speak this time.

Whoever started the processes starts them again when some are lost (`torchrun --max-restarts`, a Job's
backoffLimit, sbatch --requeue), or with another number when machines go and come (`torchrun --nnodes 1:4`);
so `run` goes on with a training of the same that was interrupted (`goes_on`). What is refused here: anything
about training, and any number of processes but the one that is there.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field

from penstock.contracts.learn import Growth, Launcher, World
from penstock.core.cores import usable_cores
from penstock.core.errors import (
    RankLost,
    StoreError,
    TrainingError,
    UserError,
)
from penstock.core.optional import require
from penstock.parts.launchers import _messages
from penstock.parts.launchers._messages import Outcome
from penstock.parts.launchers._places import Place, place_of

_LOOK_SECONDS = 0.2
_BEAT_SECONDS = 1.0
_GRACE_SECONDS = 3.0
"""How long rank 0 waits for another's error that explains its own."""
_LATE_SECONDS = 60.0
"""How long rank 0 waits, when it is done, for those that have not arrived."""
_PATIENCE = 5
"""How many times `stall_seconds` one collective may take: others compile, judge, or write a checkpoint
meanwhile.
"""
_WORD = re.compile(rb"[0-9a-f]{16}")
"""The word by which a process greets, and under which all speak."""
_ABSENT = b"absent"
"""What a rank that cannot take part says in the place of its device."""
_stores: dict[tuple[str, int, str], Any] = {}
"""The stores that this process has opened: rank 0's stay open as long as it lives, and so may be met at
again.
"""
_meetings = 0
_leading: _Meeting | None = None
"""Where rank 0 of this process does a command."""


class Env(Launcher):
    """The processes that are there already."""

    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """Threads within an operation, per process; `auto`: its share of this machine's cores."""
    start_seconds: float = Field(600.0, ge=1)
    """How long the other processes may take to arrive."""
    stall_seconds: float = Field(120.0, ge=1)
    """A process that shows no life for so long is taken for lost; one that waits for others in the training,
    after five times as long.
    """

    def limits(self) -> tuple[int | None, int | None]:
        place = place_of(os.environ)
        # Its share, as the other processes of this machine compute beside it.
        share = None if place.size == 1 else max(1, usable_cores() // place.local_size)
        return place.size, share if self.threads == "auto" else self.threads

    def here(self) -> World:
        place = place_of(os.environ)
        return World(place.rank, place.size, place.local_rank)

    def goes_on(self) -> bool:
        return True

    def lead(self, command: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        global _leading
        place = place_of(os.environ)
        # A command within a command that is led already needs no second meeting.
        if place.size == 1 or _leading is not None:
            return command()
        meeting = _Meeting(place, self.start_seconds, self.stall_seconds)
        try:
            if place.rank:
                return meeting.follow()
            _leading = meeting
            return meeting.lead(command)
        finally:
            _leading = None
            meeting.close()

    def launch(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        processes: int,
        threads: int,
        grows: Growth | None = None,
    ) -> Any:
        place = place_of(os.environ)
        # The other ranks hear of no task, and go on waiting for the end.
        if processes == 1:
            return function(World(threads=threads), *arguments)
        if processes != place.size:
            raise UserError(
                f"launcher: env: {processes} processes are wanted, and {place.by} has started {place.size}."
                " Start the right number."
            )
        # what a loader's threads share the cores by
        os.environ.setdefault("LOCAL_WORLD_SIZE", str(place.local_size))
        if _leading is not None:
            return _leading.launch(function, arguments, threads)
        # every rank calls this with the same function
        meeting = _Meeting(place, self.start_seconds, self.stall_seconds)
        try:
            ended = (
                meeting.follow()
                if place.rank
                else meeting.lead(
                    lambda: {"value": meeting.launch(function, arguments, threads)}
                )
            )
            if "value" not in ended:
                raise TrainingError("rank 0 says that it ended, and not with what value.")
            return ended["value"]
        finally:
            meeting.close()


class _Meeting:
    """Where ranks meet: who has work says so, all say that they live, and rank 0 says how it ended."""

    def __init__(self, place: Place, start_seconds: float, stall_seconds: float) -> None:
        require("torch", extra="train", why="training in several processes")
        self._place, self._start, self._stall = place, start_seconds, stall_seconds
        self._over = threading.Event()
        global _meetings
        _meetings += 1  # alike at every rank: all run the same command
        self._number, self._tasks = _meetings, 0
        self._word = secrets.token_hex(8)
        self._greeted: dict[int, bytes] = {}
        try:
            where = (place.host, place.port, place.attempt)
            # Opened once a process: the port of a store that stays open cannot be bound
            # again.
            if where not in _stores:
                _stores[where] = self._open(start_seconds)
            self._store = _stores[where]
            # A connection of its own: the other may wait in a call while the heartbeat must
            # go on.
            self._heartbeats = self._store.clone()
            if place.rank:
                self._word = self._answered(start_seconds)
        except (RuntimeError, OSError) as error:
            reason = next(iter(str(error).splitlines()), "")
            raise TrainingError(
                f"rank {place.rank} of {place.size} ({place.by}) did not meet the others at"
                f" {place.host}:{place.port} within {start_seconds:g} s: {reason} Is MASTER_ADDR a name of"
                " rank 0's machine that this one can reach, is MASTER_PORT free there, and were all processes"
                " started?"
            ) from None
        self._store.set(self._key(f"host/{place.rank}"), socket.gethostname())
        threading.Thread(target=self._beat, daemon=True).start()

    def _open(self, seconds: float) -> Any:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        place = self._place
        patience = datetime.timedelta(seconds=seconds)
        if place.rank == 0 and not place.is_hosted:
            # Bound by us: the store itself would listen on every address, even where
            # loopback will do.
            listening = socket.create_server(
                (
                    "127.0.0.1" if place.host in ("127.0.0.1", "localhost") else "",
                    place.port,
                )
            )
            listener = listening.detach()
            return TCPStore(
                place.host,
                place.port,
                None,
                True,
                patience,
                # A rank that comes late is the business of greetings, and must not
                # block rank 0 here.
                wait_for_workers=False,
                master_listen_fd=listener,
            )
        return TCPStore(place.host, place.port, None, False, patience)

    def _hall(self) -> str:
        return f"penstock/{self._place.attempt}/{self._number}"

    def _key(self, word: str) -> str:
        return f"{self._hall()}/{self._word}/{word}"

    def _answered(self, seconds: float) -> str:
        """Rank 0's answer to our greeting: the word under which all speak.

        Raises:
            RuntimeError: there is none within so many seconds.
        """
        answer = f"{self._hall()}/answer/{self._word}"
        self._store.set(f"{self._hall()}/hello/{self._place.rank}", self._word)
        until = time.monotonic() + seconds
        # Asked for, not waited for: `get` would block for as long as the store's own
        # limit.
        while not self._store.check([answer]):
            if time.monotonic() > until:
                raise RuntimeError("rank 0 does not answer.")
            time.sleep(_LOOK_SECONDS)
        word = self._store.get(answer)
        if not _WORD.fullmatch(word):
            raise RuntimeError("what answers there is not rank 0.")
        return str(word.decode())

    def _greet(self) -> None:
        """Rank 0 answers those that have greeted it since it last looked (and those of before, who are not
        there to hear it).
        """
        for rank in range(1, self._place.size):
            hello = f"{self._hall()}/hello/{rank}"
            # Another word from the same rank comes from a process that was started
            # anew.
            if (
                self._heartbeats.check([hello])
                and (word := self._heartbeats.get(hello)) != self._greeted.get(rank)
                and _WORD.fullmatch(word)
            ):
                self._heartbeats.set(f"{self._hall()}/answer/{word.decode()}", self._word)
                self._greeted[rank] = word

    def _beat(self) -> None:
        is_first = self._place.rank == 0
        with contextlib.suppress(
            RuntimeError
        ):  # the store is gone, and so is what we would tell
            while not self._over.is_set():
                if is_first:
                    self._greet()
                # A counter that changes is a sign of life without any comparison of
                # clocks.
                self._heartbeats.add(self._key(f"beat/{self._place.rank}"), 1)
                # Looks often until all have come, as each waits for its answer.
                self._over.wait(
                    _LOOK_SECONDS
                    if is_first and len(self._greeted) < self._place.size - 1
                    else _BEAT_SECONDS
                )

    def _said(self, word: str) -> dict[str, Any] | None:
        """What was said under this word, if anything has been.

        Raises:
            TrainingError: it makes no sense.
        """
        key = self._key(word)
        return _messages.read(self._store.get(key)) if self._store.check([key]) else None

    def _say(self, word: str, message: bytes) -> None:
        self._store.set(self._key(word), message)

    # -- rank 0 ----------------------------------------------------------------------------------------------

    def lead(self, command: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do the command, and tell the others how it ended."""
        try:
            value = command()
        except BaseException as error:
            # Ctrl-C and SystemExit, too: the others must hear of every end.
            self._end(_messages.outcome(error=error))
            raise
        self._end(_messages.outcome(value))
        return value

    def _end(self, message: bytes) -> None:
        # A store that is gone has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._say("end", message)
            until = time.monotonic() + min(self._start, _LATE_SECONDS)
            while len(self._greeted) < self._place.size - 1 and time.monotonic() < until:
                time.sleep(_LOOK_SECONDS)  # one that comes late would wait for an answer
            until = time.monotonic() + _GRACE_SECONDS
            while (
                # Adding 0 reads a counter, also one that nobody has made yet.
                self._store.add(self._key("ended"), 0) < self._place.size - 1
                and time.monotonic() < until
            ):
                time.sleep(_LOOK_SECONDS)  # rank 0 may be the one that keeps the store

    def launch(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], threads: int
    ) -> Any:
        """Have every rank run it, this one too."""
        # Counted at every rank alike, so that words of one task are not taken for
        # another's.
        self._tasks += 1
        message = _messages.task(socket.gethostname(), threads, function, arguments)
        self._say(f"task/{self._tasks}", message)
        try:
            return self._take_part(function, arguments, threads)
        except Exception as error:  # noqa: BLE001 - what explains it is raised in its place
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> BaseException:
        """The error that explains the rest: another rank's own, a death, or this one."""
        if not isinstance(
            error, (RankLost, RuntimeError)
        ):  # torch says with the latter that a peer has gone
            return error
        until = time.monotonic() + _GRACE_SECONDS
        others = range(1, self._place.size)
        # Before the grace, to see whose counter stands still over it.
        before = self._beats()
        errors: dict[int, Outcome] = {}
        while time.monotonic() < until and len(errors) < len(others):
            for rank in others:
                if rank not in errors and (report := self._report_of(rank)) is not None:
                    errors[rank] = report
            # An error of its own explains the rest; a RankLost only tells of somebody
            # else.
            if any(not isinstance(each.error, RankLost) for each in errors.values()):
                break
            time.sleep(_LOOK_SECONDS)
        own = [
            each
            for _, each in sorted(errors.items())
            if each.error is not None and not isinstance(each.error, RankLost)
        ]
        # Ours are plain sentences, and go before what a library has raised.
        for each in sorted(own, key=lambda each: not each.is_plain):
            assert each.error is not None
            return each.error
        after = self._beats()
        if silent := [
            # No word, and no beat in a time of three beats.
            rank
            for rank in others
            if rank not in errors and after[rank] == before[rank]
        ]:
            names = " and ".join(
                f"training process {rank} ({self._host(rank)})" for rank in silent
            )
            return RankLost(
                f"{names} ended without an error message, or was stopped.",
                tuple(silent),
                getattr(error, "step", -1),
            )
        return error

    def _report_of(self, rank: int) -> Outcome | None:
        """The error that a rank has reported, if it has."""
        try:
            message = self._said(f"error/{self._tasks}/{rank}")
            return None if message is None else _messages.read_outcome(message)
        except TrainingError as nonsense:
            return Outcome(error=nonsense)

    def _beats(self) -> list[int]:
        return [
            self._store.add(self._key(f"beat/{rank}"), 0)
            for rank in range(self._place.size)
        ]

    def _host(self, rank: int) -> str:
        key = self._key(f"host/{rank}")
        if not self._store.check([key]):
            return "which never arrived"
        # A name, as `gethostname` gives one: whatever else is there is not shown.
        name = re.sub(r"[^\w.-]", "?", self._store.get(key).decode("utf-8", "replace"))
        return f"on {name[:255]}"

    # -- the others ------------------------------------------------------------------------------------------

    def follow(self) -> dict[str, Any]:
        """Take part in what rank 0 launches until it says how it ended: its value, or its error."""
        task, beats, heard_at = 1, -1, time.monotonic()
        try:
            # Its end first: rank 0 may have failed before it has launched anything.
            while True:
                if (ended := self._said("end")) is not None:
                    self._store.add(self._key("ended"), 1)
                    break
                if (asked := self._said(f"task/{task}")) is not None:
                    self._join_in(task, asked)
                    task, heard_at = task + 1, time.monotonic()
                    continue
                # Of rank 0's life and not its progress: preparing may take hours
                # without any word.
                now = self._store.add(self._key("beat/0"), 0)
                if now != beats:
                    beats, heard_at = now, time.monotonic()
                elif time.monotonic() - heard_at > self._stall:
                    raise RankLost(
                        f"rank 0 has been silent for {self._stall:g} s; rank {self._place.rank} gives"
                        " up.",
                        (0,),
                    )
                time.sleep(_LOOK_SECONDS)
        except RuntimeError as error:
            raise RankLost(
                f"rank 0 is gone, and with it the place where rank {self._place.rank} met it"
                f" ({next(iter(str(error).splitlines()), '')}).",
                (0,),
            ) from None
        outcome = _messages.read_outcome(ended)
        if outcome.error is not None:
            raise outcome.error
        if not isinstance(outcome.value, dict):
            raise TrainingError("rank 0 says that it ended, and not with what.")
        return outcome.value

    def _join_in(self, task: int, asked: dict[str, Any]) -> None:
        self._tasks = task
        home = socket.gethostname()
        try:
            try:
                ask = _messages.read_task(asked)
            except BaseException:
                # The others wait for each rank's device, and would do so for minutes.
                self._tell_device(_ABSENT)
                raise
            home = ask.home
            self._take_part(ask.function, ask.arguments, ask.threads)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - rank 0 raises it, and then we do
            if (
                isinstance(error, (StoreError, FileNotFoundError))
                and socket.gethostname() != home
            ):
                error = StoreError(
                    f"{error} That was on {socket.gethostname()}; rank 0 runs on {home}. Every machine that"
                    " trains must see the store at the same place: put it on a shared file system with"
                    " --store."
                )
            self._say(f"error/{task}/{self._place.rank}", _messages.outcome(error=error))

    # -- all -------------------------------------------------------------------------------------------------

    def _take_part(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], threads: int
    ) -> Any:
        place = self._place
        with self._grouped():
            return function(
                World(place.rank, place.size, place.local_rank, threads), *arguments
            )

    @contextmanager
    def _grouped(self) -> Iterator[None]:
        import torch
        import torch.distributed as dist

        if self._place.host in ("127.0.0.1", "localhost"):
            loopback = next(
                (name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None
            )
            if loopback:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        # NCCL wants an accelerator for each process; schedulers may show each process only its own.
        mine = (
            str(
                torch.cuda.get_device_properties(
                    # Without isolation by the scheduler all see the same devices, and
                    # the local rank tells which is theirs.
                    self._place.local_rank % torch.cuda.device_count()
                ).uuid
            )
            if torch.cuda.is_available()
            else "none"
        )
        self._tell_device(mine.encode())
        # `get` waits for each rank's word, so that all come to the same answer.
        devices = {
            self._store.get(self._key(f"device/{self._tasks}/{rank}"))
            for rank in range(self._place.size)
        }
        if _ABSENT in devices:
            raise RankLost("A training process could not take part.")
        backend = (
            "nccl"
            if len(devices) == self._place.size and b"none" not in devices
            else "gloo"
        )
        # Keys of an earlier task's group are still in the store.
        store = dist.PrefixStore(self._key(f"group/{self._tasks}"), self._store)  # type: ignore[attr-defined]
        try:
            dist.init_process_group(
                backend,
                store=store,
                rank=self._place.rank,
                world_size=self._place.size,
                timeout=datetime.timedelta(seconds=_PATIENCE * self._stall),
            )
            # A rank that had nothing to say would be gone before the others have reached it.
            dist.barrier()
        except RuntimeError as error:
            raise RankLost(
                f"Training process {self._place.rank} cannot reach the others:"
                f" {next(iter(str(error).splitlines()), '')}"
            ) from None
        try:
            yield
        finally:
            dist.destroy_process_group()

    def _tell_device(self, device: bytes) -> None:
        self._store.set(self._key(f"device/{self._tasks}/{self._place.rank}"), device)

    def close(self) -> None:
        self._over.set()
        sys.stdout.flush()
