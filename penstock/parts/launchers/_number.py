"""How many processes a launcher is to start: so many, or from the least to the most; and when there is room
for more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field

from penstock.contracts.learn import Growth, Recovery
from penstock.contracts.part import mistakes
from penstock.core.errors import Outgrown, Problem

MOST = 1024
RETURN_SECONDS = 120.0
LOOK_SECONDS = 2.0
"""How often a cluster is asked whether it has room for more."""
One = Annotated[int, Field(ge=1, le=MOST)]


def _ordered(pair: tuple[int, int]) -> tuple[int, int]:
    if pair[0] > pair[1]:
        raise ValueError(f"the first is the least: write [{pair[1]}, {pair[0]}]")
    return pair


Between = Annotated[tuple[One, One], AfterValidator(_ordered)]


def fewest(processes: int | tuple[int, int], otherwise: int) -> int:
    """The least that will do; `otherwise` where the number is fixed."""
    return processes[0] if isinstance(processes, tuple) else otherwise


def most(processes: int | tuple[int, int]) -> int:
    """How many are wanted."""
    return processes[1] if isinstance(processes, tuple) else processes


def only_between(processes: int | tuple[int, int] | str, return_seconds: float) -> None:
    """Refuse a `return_seconds` that has nothing to do.

    Raises:
        ValueError: the number of processes is fixed.
    """
    if not isinstance(processes, tuple) and return_seconds != RETURN_SECONDS:
        raise mistakes(
            Problem(
                ("return_seconds",),
                "is how long fewer processes go on before more are taken in, and here their number is fixed"
                f" ({processes}). Write  processes: [least, most],  or leave it out",
            )
        )


def recovery(
    processes: int | tuple[int, int] | str, restarts: int, return_seconds: float
) -> Recovery:
    """What a launcher with these words does about losses."""
    return Recovery(
        restarts=restarts,
        fewest=processes[0] if isinstance(processes, tuple) else None,
        return_seconds=return_seconds,
    )


class Room:
    """Looks whether there is room for more processes than are at work.

    Args:
        size: how many are.
        grows: leave to stop them.
        room: for how many there is room, these among them. It is asked twice, since what clusters know of
            themselves lags behind; None: there always is, for all.
    """

    def __init__(
        self, size: int, grows: Growth | None, room: Callable[[], int] | None
    ) -> None:
        self._size, self._grows, self._room = size, grows, room
        self._next: float | None = None
        # With a cluster to ask, room counts once two looks have found it. Without one
        # all there is to ask for counts at once.
        self._seen = size if room else MOST

    def look(self, now: float, step: int) -> Outgrown | None:
        """What to stop them with, if there is room and it is time; `step` is the last that they have begun,
        -1 before the first.
        """
        grows = self._grows
        # Before their first step there is nothing to save yet.
        if grows is None or grows.to <= self._size or step < 0:
            return None
        # The wait begins with the first step, so that starting up does not use it up.
        if self._next is None:
            self._next = now + grows.after_seconds
        if now < self._next:
            return None
        # Clusters are asked no more often than this, whatever they answer.
        self._next = now + LOOK_SECONDS
        before, self._seen = self._seen, self._room() if self._room else grows.to
        # What only one of two looks has found may be an old tale of the cluster's.
        room = min(before, self._seen, grows.to)
        return (
            Outgrown(
                f"there is room for {room} of {grows.to} processes; at work: {self._size}",
                room,
                self._size,
                step,
            )
            if room > self._size
            else None
        )


__all__ = [
    "MOST",
    "RETURN_SECONDS",
    "Between",
    "One",
    "Room",
    "fewest",
    "most",
    "only_between",
    "recovery",
]
