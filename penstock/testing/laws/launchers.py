"""The laws of launchers: `check(Launcher.load("local"))`.

They start real processes, a few seconds each. Where somebody else starts the processes (`env`), every one of
them checks the laws, in step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from penstock.contracts.learn import Growth, Launcher, World
from penstock.contracts.tasks import launchable
from penstock.core.errors import Interrupted, Outgrown, PenstockError, RecipeError
from penstock.core.heartbeat import Heartbeat
from penstock.testing.laws import _learning as _
from penstock.train.collectives import gathered
from penstock.train.parallel import joined
from penstock.train.stop import Stop

Law = Callable[[Launcher], None]


@launchable
def _where(world: World, word: str) -> tuple[str, int, int, int]:
    return word, world.rank, world.size, world.threads


@launchable
def _meet(world: World) -> tuple[float, list[Any] | None]:
    with joined(world):
        number = torch.tensor([float(world.rank + 1)])
        if world.size > 1:
            dist.all_reduce(number)
        return float(number), gathered((world.rank, world.local_rank), world)


@launchable
def _refuse(world: World) -> None:
    if world.rank == world.size - 1:
        raise RecipeError("the last rank refuses")
    if world.size > 1:
        _meet(world)


def one(launcher: Launcher) -> None:
    """One process: rank 0 of 1, with the arguments and threads given; its value comes back."""
    value = launcher.launch(_where, ("word",), processes=1, threads=1)
    assert value == ("word", 0, 1, 1), f"one: expected ('word', 0, 1, 1); found {value}"


def two(launcher: Launcher) -> None:
    """Two processes reach each other; rank 0's value comes back."""
    total, ranks = launcher.launch(_meet, (), processes=2, threads=1)
    assert total == 3.0, f"two: the sum over ranks is 3; found {total}"
    assert ranks is not None and [rank for rank, _local in ranks] == [
        0,
        1,
    ], f"two: expected ranks 0 and 1; found {ranks}"


def errors(launcher: Launcher) -> None:
    """The error that a rank raised comes back as it was, and ends the others."""
    for processes in (1, 2):
        raised: PenstockError | None = None
        try:
            launcher.launch(_refuse, (), processes=processes, threads=1)
        except PenstockError as error:
            raised = error
        assert isinstance(raised, RecipeError) and "the last rank refuses" in str(
            raised
        ), f"errors: expected the rank's own RecipeError; found {raised!r}"


@launchable
def _stopped(world: World) -> None:
    with Stop() as stop:
        Heartbeat.here().progress(0)  # at work
        until = time.monotonic() + 60.0
        while time.monotonic() < until:
            if stop.asked:
                raise Interrupted("stopped, as was asked")
            time.sleep(0.02)


def grows(launcher: Launcher) -> None:
    """Where fewer may be at work than were asked for, they are stopped once there is room for more."""
    least = launcher.recovery().fewest
    most, _threads = launcher.limits()
    if least is None or most is None or least == most:
        return
    room = 0
    try:
        launcher.launch(_stopped, (), processes=least, threads=1, grows=Growth(most, 0.5))
    except Outgrown as error:
        room = error.room
    assert least < room <= most, (
        f"grows: expected to be stopped within a minute since there is room for {least + 1} to {most}; found"
        f" {room or 'that it was not'}"
    )


def limits(launcher: Launcher) -> None:
    """Processes and threads are whole numbers of at least 1, or None for a measurement."""
    for value in launcher.limits():
        assert value is None or (isinstance(value, int) and value >= 1), (
            f"limits: found {launcher.limits()}"
        )


def declared(launcher: Launcher) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", launcher)


def light(launcher: Launcher) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", launcher)


LAWS: tuple[Law, ...] = (limits, declared, light, one, two, errors, grows)


def check(launcher: Launcher) -> None:
    """Judge one launcher by every law.

    Raises:
        AssertionError: it breaks a law.
    """
    for law in LAWS:
        law(launcher)
