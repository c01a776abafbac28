"""Processes of a Ray cluster: one that runs already, by its address, or one started here and stopped here.

Each process is an actor of its own in one placement group, and calls home (`_line`): so the errors of
Penstock come back as they were, a stalled process is told from one that computes, and a wish to stop reaches
the training as SIGTERM on its main thread. Ray Train's `TorchTrainer` was weighed and left: it runs the
function beside the main thread, where Python hears no signals, wraps what is raised, starts a controller of
its own (seconds), and restarts by itself what our trainer restarts from its own checkpoints.

Ray is kept quiet: no usage statistics, no dashboard, no logs of workers on our screen; a cluster started here
listens on loopback. What is refused here: anything about training.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from penstock.contracts.learn import Growth, Launcher, Recovery
from penstock.core.errors import UserError
from penstock.core.optional import require
from penstock.parts.launchers._line import Line, address_towards
from penstock.parts.launchers._number import (
    RETURN_SECONDS,
    Between,
    One,
    fewest,
    most,
    only_between,
    recovery,
)
from penstock.parts.launchers._rank import answer

_WHY = "launcher: ray"
_OBJECTS_BYTES = 100 * 2**20
"""Of a cluster started here: nothing goes through Ray's object store."""


_ANSWER_SECONDS = 10.0
_ASIDE_SECONDS = 2.0
"""How long Ray may take to set aside what is free."""
_SETTLE_SECONDS = 30.0
"""How long to wait for room that Ray says is there, before fewer processes are taken: it finds out that a
node is gone within some 15 s.
"""


class Ray(Launcher):
    """Ray's cores and accelerators."""

    address: str | None = None
    """None starts a cluster on this machine, for this training.

    `auto` finds the one that runs here (or that RAY_ADDRESS names); `host:6379` or `ray://host:10001` names
    one.
    """
    processes: One | Between = 1
    """`[2, 8]`: eight, or as many as the cluster has room for, down to two; when some are lost, those that
    are left; and more again when there is room (`return_seconds`).
    """
    gpus: int = Field(0, ge=0, le=1)
    """Accelerators for each process."""
    cpus: int = Field(1, ge=1)
    """Cores that Ray sets aside for each process; it computes with so many threads."""
    start_seconds: float = Field(180.0, ge=1)
    """How long the cluster may take to make room and to start the processes."""
    restarts: int = Field(3, ge=0)
    """How often within an hour training starts again from its last checkpoint, by itself, after processes
    died or stalled. Errors of the model or the data never start it again.
    """
    return_seconds: float = Field(RETURN_SECONDS, ge=1)
    """With `processes: [2, 8]`: how long fewer than eight go on before more may be taken in; where there is
    room they then save a checkpoint, and all go on from it. Not while a loss more would leave none of
    `restarts` for other troubles.
    """
    stall_seconds: float = Field(120.0, ge=1)
    """A process that shows no life, or waits and gets nowhere, for so long is taken for lost; one that gets
    nowhere and computes, for five times as long.
    """

    @model_validator(mode="after")
    def _with_a_range(self) -> Self:
        only_between(self.processes, self.return_seconds)
        return self

    def needs_trust(self) -> str | None:
        if self.address is None:
            return None
        return f"launcher: ray hands code to the cluster {self.address}, and believes its answers"

    def limits(self) -> tuple[int | None, int | None]:
        return most(self.processes), self.cpus

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
        with (
            self._cluster(processes) as (ray, host),
            self._room(ray, processes) as (group, size),
        ):
            line = Line(host, size, self.stall_seconds)
            actors: list[Any] = []
            # Asked for room while the ranks are at work.
            more = _More(ray, self._each(), size)
            try:
                actors += [
                    self._actor(ray, group, number, threads) for number in range(size)
                ]
                # Nothing is waited for here: what ranks answer comes over the line, and
                # `ended` looks at these.
                answers = [
                    actor.run.remote(line.call, number)
                    for number, actor in enumerate(actors)
                ]
                return line.run(
                    function,
                    arguments,
                    threads=threads,
                    gpus=self.gpus > 0,
                    ended=lambda: _ended(ray, answers),
                    start_seconds=self.start_seconds,
                    grows=grows,
                    room=lambda: more.room(grows, lambda: self._fits(ray, self._each())),
                )
            finally:
                # Before the kill: it gives ranks that have told their outcome leave to
                # end.
                line.close()
                for actor in actors:
                    with suppress(ray.exceptions.RayError):
                        ray.kill(actor)
                more.close()

    # -- what Ray is asked for -------------------------------------------------------------------------------

    @contextmanager
    def _cluster(self, processes: int) -> Iterator[tuple[Any, str]]:
        """Ray, connected, and the address of this machine that its workers see.

        What was started here is stopped here.
        """
        # Before Ray is imported, in case it reads them then.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # else a warning; no process here asks for 0 and wants one
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray = require("ray", extra="ray", why=_WHY)
        if ray.is_initialized():  # the user's own; it is left running
            yield ray, ray.util.get_node_ip_address()
            return
        quiet: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": "ERROR",
            "configure_logging": True,
        }
        try:
            if self.address is None:
                ray.init(
                    address="local",
                    include_dashboard=False,
                    # A rank asks for its cores even where the machine has fewer, and
                    # they share them then.
                    num_cpus=max(
                        max(processes, most(self.processes)) * self.cpus,
                        os.cpu_count() or 1,
                    ),
                    object_store_memory=_OBJECTS_BYTES,
                    _node_ip_address="127.0.0.1",
                    **quiet,
                )
                host = "127.0.0.1"
            else:
                as_client = self.address.startswith("ray://")
                there = _answering(ray, self.address)
                # where several nodes share an address, Ray would not find ours
                ours = (
                    {"_node_ip_address": there}
                    if there.startswith("127.") and not as_client
                    else {}
                )
                ray.init(address=self.address, **quiet, **ours)
                # A client is no node of the cluster, so its own address is found by the
                # way to it.
                host = (
                    address_towards(there)
                    if as_client
                    else ray.util.get_node_ip_address()
                )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if self.address is None:
                raise UserError(f"Ray does not start on this machine: {reason}") from None
            raise UserError(
                f"there is no Ray cluster at {self.address!r}: {reason} Start one with  ray start --head,  or"
                " leave launcher.address out to have one started for the training."
            ) from None
        try:
            yield ray, host
        finally:
            ray.shutdown()

    @contextmanager
    def _room(self, ray: Any, processes: int) -> Iterator[tuple[Any, int]]:
        """A placement group for as many processes as there is room for, and how many these are.

        Raises:
            UserError: there is room for too few.
        """
        from ray.util.placement_group import placement_group, remove_placement_group

        each = self._each()
        least = fewest(self.processes, processes)
        # No more than the nodes can hold, and never fewer than the recipe allows.
        size = max(min(processes, self._fits(ray, each)), least)
        group = placement_group([each] * size, strategy="PACK")
        try:
            # Where fewer will do, room that may never come is not awaited for long.
            is_there = group.wait(
                min(_SETTLE_SECONDS, self.start_seconds)
                if least < size
                else self.start_seconds
            )
            if not is_there and least < size:
                remove_placement_group(group)
                time.sleep(1.0)  # Ray counts what was given back a moment later
                # Now by what is free, too, as others may hold what the nodes could fit.
                size = max(min(size, self._fits(ray, each), self._free(ray, each)), least)
                group = placement_group([each] * size, strategy="PACK")
                is_there = group.wait(self.start_seconds)
            if not is_there:
                total = {word: ray.cluster_resources().get(word, 0) for word in each}
                free = {word: ray.available_resources().get(word, 0) for word in each}
                raise UserError(
                    f"the Ray cluster has no room for {size} processes with {_amounts(each)} each: it has"
                    f" {_amounts(total)} in all, {_amounts(free)} free, and made none within"
                    f" {self.start_seconds:g} s. Ask for fewer (launcher.processes, launcher.cpus,"
                    " launcher.gpus), or add machines."
                )
            yield group, size
        finally:
            with suppress(ray.exceptions.RayError):
                remove_placement_group(group)

    def _each(self) -> dict[str, int]:
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}

    def _fits(self, ray: Any, each: dict[str, int]) -> int:
        # Ray lists nodes that are gone as well.
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return sum(
            # By node, since a process cannot be spread over two.
            min(int(node.get(word, 0) // amount) for word, amount in each.items())
            for node in nodes
        )

    def _free(self, ray: Any, each: dict[str, int]) -> int:
        free = ray.available_resources()
        return min(int(free.get(word, 0) // amount) for word, amount in each.items())

    def _actor(self, ray: Any, group: Any, number: int, threads: int) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        where = PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=number
        )
        variables = {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "passive",
        }
        return (
            ray.remote(_Process)
            .options(
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                # An actor that Ray started again would know of no task: restarts are
                # the trainer's.
                max_restarts=0,
                scheduling_strategy=where,
                runtime_env={"env_vars": variables},
            )
            .remote()
        )


class _More:
    """Room for more processes than are at work, set aside until these have made way: what is free in sum need
    not be free where a process fits, and others ask, too.
    """

    def __init__(self, ray: Any, each: dict[str, int], size: int) -> None:
        self._ray, self._each, self._size = ray, each, size
        self._group: Any = None
        self._count = 0
        self._refused = 0
        """How many could not be set aside when it was last tried."""

    def room(self, grows: Growth | None, fits: Callable[[], int]) -> int:
        """For how many processes there is room, those at work among them.

        Where not all that are wanted can be set aside, half as many are tried the next time.
        """
        from ray.util.placement_group import placement_group

        try:
            # Set aside at an earlier look, and still held.
            if self._group is not None and self._group.wait(0.1):
                return self._size + self._count
            self.close()
            self._count = min(grows.to if grows else 0, fits()) - self._size
            if self._refused > 1:
                # Halving finds a number that fits within a few looks.
                self._count = min(self._count, self._refused // 2)
            if self._count <= 0:
                return self._size
            self._group = placement_group([self._each] * self._count, strategy="PACK")
            if self._group.wait(_ASIDE_SECONDS):
                return self._size + self._count
            self._refused = self._count
        except (self._ray.exceptions.RayError, OSError):
            pass  # it does not say, and if it is gone `_ended` does
        self.close()
        return self._size

    def close(self) -> None:
        """Give back what was set aside."""
        from ray.util.placement_group import remove_placement_group

        if self._group is not None:
            with suppress(self._ray.exceptions.RayError):
                remove_placement_group(self._group)
            self._group = None


class _Process:
    """An actor: a process of Ray's with nothing else in it."""

    def run(self, call: Any, rank: int) -> None:
        answer(call, rank)


def _answering(ray: Any, address: str) -> str:
    """The host at an address, where something answers there within seconds (Ray itself would try for
    minutes); none for `auto`.

    Raises:
        OSError: nothing does.
        ValueError: it is no address.
    """
    # Without `//` the host would be parsed as a scheme.
    url = urlsplit(address if "://" in address else f"//{address}")
    if not url.hostname or url.port is None:
        return ""
    host = url.hostname
    # by these Ray means this machine's own address
    if not url.scheme and host in ("127.0.0.1", "localhost", "::1"):
        host = ray.util.get_node_ip_address()
    try:
        socket.create_connection((host, url.port), _ANSWER_SECONDS).close()
    except OSError as error:
        raise OSError(
            f"{host}:{url.port} does not answer ({error.strerror or error})."
        ) from None
    return host


def _ended(ray: Any, answers: list[Any]) -> str | None:
    """Why Ray says that a process is over before its time, if it does."""
    # Only those that are over by now: nobody is waited for.
    done, _ = ray.wait(answers, num_returns=len(answers), timeout=0)
    for ref in done:
        try:
            ray.get(ref)
        except ray.exceptions.RayError as error:
            if "No module named 'penstock" in str(error):
                return "the Python of its workers has no Penstock; install the same version on every machine"
            return next(
                (line.strip() for line in str(error).splitlines() if line.strip()),
                type(error).__name__,
            )
    return None


def _amounts(amounts: dict[str, Any]) -> str:
    return " and ".join(f"{amount:g} {word}" for word, amount in amounts.items())
