"""Ranks as a launcher sees them, here or on a cluster: who is stalled, what came of all, how they stop.

In lockstep all ranks stand still when one does. So the one to name is the one that shows no life; failing
that, those that are behind.

What this file refuses to know: how ranks are started, and over what they say how they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstock.core.errors import Interrupted, Outgrown, PenstockError, RankLost
from penstock.core.interrupts import interrupts

PATIENCE = 5
"""How many times longer one may take that computes, or has not begun its first step: compiling, fetching
weights.
"""
_COMPUTING = 0.05
"""Cores that a process keeps busy if it computes."""


@dataclass(kw_only=True)
class WatchedRank(ABC):
    """One rank, and what was last seen of it. Times are seconds of the launcher's own clock."""

    number: int
    beat_at: float = 0.0
    """When it last showed life."""
    moved_at: float = 0.0
    """When it last got on."""
    moves: int = 0
    """How often it has got on; 0 before it is at work, when nobody expects it to."""
    step: int = -1
    """The last step that it has begun; -1 before the first."""
    cpu_at_move: float = 0.0
    """CPU seconds that it had used when it last got on."""
    outcome: tuple[str, Any] | None = None
    """`("value", …)` or `("error", …)`; None while it is at work, and of one that died."""
    ended: float | None = None
    """When it ended, or which it was to end: only the order counts. None while it lives."""

    @abstractmethod
    def cpu_seconds(self) -> float:
        """CPU seconds that it has used."""

    @abstractmethod
    def how_it_died(self) -> str:
        """A sentence on its end without an outcome."""

    @property
    def failed(self) -> bool:
        """Whether it ended, and not with a value."""
        return self.ended is not None and (
            self.outcome is None or self.outcome[0] == "error"
        )

    def computes(self, now: float) -> bool:
        """Whether it has been busy since it last got on."""
        # Over all of the time since, so that a short burst does not count.
        return self.cpu_seconds() - self.cpu_at_move > _COMPUTING * (now - self.moved_at)


class Stall(NamedTuple):
    """Ranks that are taken for lost."""

    ranks: Sequence[WatchedRank]
    why: str


def find_stall(
    ranks: Sequence[WatchedRank], now: float, *, stall_seconds: float, silent: str
) -> Stall | None:
    """Whether somebody is stalled.

    Args:
        silent: why one may show no life, for the message.
    """
    living = [rank for rank in ranks if rank.ended is None]
    # First, since the others only wait for one that is lifeless.
    if lifeless := [rank for rank in living if now - rank.beat_at > stall_seconds]:
        return Stall(
            lifeless, f"has been silent for {stall_seconds:g} s: it was {silent}"
        )
    still = [
        # A rank that is not at work yet has no moves, and need not make any.
        rank
        for rank in living
        if rank.moves and now - rank.moved_at > stall_seconds
    ]
    # In lockstep all stand still when one does: while some move, nobody is stalled.
    if not living or len(still) < len(living):
        return None
    behind = min(rank.step for rank in still)
    # So long at least all of them have stood still.
    longest = min(now - rank.moved_at for rank in still)
    # A first step may compile for minutes, and a large one compute for as long: both are no stall yet.
    is_patient = behind < 0 or any(rank.computes(now) for rank in still)
    # The bound holds for those that compute as well: an endless loop computes, too.
    if is_patient and longest < PATIENCE * stall_seconds:
        return None
    # Those that are ahead have come to the collective in which they wait for the
    # others.
    return Stall(
        [rank for rank in still if rank.step == behind],
        f"has got nowhere for {longest:.0f} s, though it lives",
    )


def last_step(ranks: Sequence[WatchedRank]) -> int:
    """The last step that any of them has begun; -1 before the first."""
    return max((rank.step for rank in ranks), default=-1)


def verdict(
    ranks: Sequence[WatchedRank],
    *,
    stall: Stall | None,
    asked: Sequence[int],
    blame_errors: bool,
) -> Any:
    """Rank 0's value, or the one error that explains the rest.

    Args:
        ranks: all of them, by number.
        asked: the signals by which the user has asked to stop.
        blame_errors: where one died and another raised, the error explains both: a cluster ends the others by
            itself once one has failed. Otherwise the death does, which the others' errors follow from.
    """
    size, step = len(ranks), last_step(ranks)
    in_order = sorted(
        (rank for rank in ranks if rank.outcome), key=lambda rank: rank.ended or 0
    )
    errors = [
        rank.outcome[1]
        for rank in in_order
        if rank.outcome and rank.outcome[0] == "error"
    ]
    # A RankLost tells of somebody else's end, so it explains nothing while there is another error.
    own = [error for error in errors if not isinstance(error, RankLost)]
    # By number and not by time, so that the same failure always gives the same
    # sentence. Errors that are not ours come later, as a death may explain them.
    for rank in ranks:
        if (
            rank.outcome
            and isinstance(rank.outcome[1], PenstockError)
            and rank.outcome[1] in own
        ):
            raise rank.outcome[1]
    # Before deaths and losses, which may follow from it.
    if stall is not None:
        names = " and ".join(
            f"{rank}, in step {max(rank.step, 0)}," for rank in stall.ranks
        )
        raise RankLost(
            f"{names} {stall.why}. All {size} were stopped. If steps really take that"
            " long, raise launcher.stall_seconds.",
            tuple(rank.number for rank in stall.ranks),
            step,
            size,
        )
    if dead := [
        rank for rank in ranks if rank.ended is not None and rank.outcome is None
    ]:
        raise _of_the_dead(dead, size, step, asked, own if blame_errors else [])
    if errors:
        # A rank's own error goes before the losses that others report.
        raise (own or errors)[0]
    if silent := [rank.number for rank in ranks if rank.ended is None]:
        raise RankLost(
            f"the cluster ended training process {silent[0]} without an error message.",
            tuple(silent),
            step,
            size,
        )
    if asked:
        raise KeyboardInterrupt  # the function was over before it heard
    assert ranks[0].outcome is not None
    return ranks[0].outcome[1]


def _of_the_dead(
    dead: Sequence[WatchedRank],
    size: int,
    step: int,
    asked: Sequence[int],
    errors: Sequence[BaseException],
) -> BaseException:
    # The others mostly follow from the first.
    first = min(dead, key=lambda rank: rank.ended or 0)
    # Before the first step there is nothing that could have been saved.
    if asked and step < 0:
        return Interrupted("Stopped before training had started; nothing was lost.")
    if asked:
        return Interrupted(
            f"{first.how_it_died()} It was being stopped; earlier checkpoints are kept."
        )
    if errors:
        return errors[0]
    others = ""
    if len(dead) < size:
        others = f" The other {size - len(dead)} were stopped."
    elif size > 1:
        others = f" All {size} ended."
    return RankLost(
        f"{first.how_it_died()}{others}", tuple(rank.number for rank in dead), step, size
    )


@dataclass
class StopRequest:
    """A wish to stop, which each rank hears once."""

    tell: Callable[[], None]
    """Tells every rank."""
    by: list[int] = field(default_factory=list)
    """The signals by which the user has asked."""
    is_passed_on: bool = False
    outgrown: Outgrown | None = None
    """Why the launcher itself has asked, if it did: there is room for more ranks."""

    def pass_on(self) -> None:
        """Tell the ranks, if they have not been told."""
        if not self.is_passed_on:
            self.is_passed_on = True
            self.tell()

    def make_room(self, outgrown: Outgrown) -> None:
        """Ask them to stop for a larger number."""
        self.outgrown = outgrown
        self.pass_on()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM goes to each rank, once; a second one ends them."""
        with interrupts.graceful(self.pass_on) as request:
            self.by = request.signals
            yield

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Ranks that stopped for a larger number were not interrupted by the user: `Outgrown` says so."""
        try:
            yield
        except Interrupted:
            # Where the user has asked as well, that is what counts.
            if self.outgrown is None or self.by:
                raise
            raise self.outgrown from None
