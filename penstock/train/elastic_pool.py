"""How many processes are at work on a training as some are lost and others come back.

Pure: the caller brings the clock.

After a loss those that are left go on (where the launcher may take fewer), and when that has gone well for a
while, and there is room, more are taken in. Taking in must never be what ends a training: where the larger
number does not come to its first step, the smaller goes on as before; and while a loss more would leave no
restart for other troubles, nobody is taken in. The wait doubles whenever taking in has brought nothing.
"""

from __future__ import annotations

from penstock.contracts.learn import Growth, Recovery
from penstock.core.errors import Outgrown, PenstockError, RankLost, UserError


class ElasticPool:
    """The processes of one training.

    Args:
        recovery: what the launcher allows.
        full: how many were asked for.
    """

    def __init__(self, recovery: Recovery, full: int) -> None:
        self._recovery, self._full = recovery, full
        self._losses: list[float] = []
        self._wait = recovery.return_seconds
        self._before: int | None = None
        """How many were at work before more were last taken in; None if nobody was since the last loss."""
        self.processes = full
        """How many are to be started next."""
        self.restarts = self.taken_in = 0
        """How often training was started again: after a loss, and for more processes."""

    @property
    def may_shrink(self) -> bool:
        """Whether fewer than were asked for may be at work."""
        return self._recovery.fewest is not None

    def growth(self, now: float) -> Growth | None:
        """Leave to stop those that are started now for a larger number; None where the number is fixed."""
        recovery = self._recovery
        if recovery.fewest is None:
            return None
        # So many losses within the window still leave one restart for other troubles.
        recent, spared = self._recent(now), max(recovery.restarts - 1, 1)
        # Seconds till enough of them have left the window.
        left = (
            recent[-spared] + recovery.window_seconds - now
            if len(recent) >= spared
            else 0.0
        )
        return Growth(self._full, max(self._wait, left))

    def lost(self, error: RankLost, now: float) -> bool:
        """Note a loss of ranks; whether training may start again, with `processes` ranks."""
        self._losses = [*self._recent(now), now]
        if len(self._losses) > self._recovery.restarts:
            return False
        self.restarts += 1
        # The loss follows on taking more in, which has brought nothing: wait longer
        # next time.
        if self._before is not None:
            self._wait, self._before = 2 * self._wait, None
        if self._recovery.fewest is not None:
            there = min(error.size or self.processes, self.processes)
            # where all went, none is less there than others
            gone = len(error.ranks) if len(error.ranks) < there else 0
            self.processes = max(self._recovery.fewest, there - gone)
        return True

    def outgrown(self, error: Outgrown) -> None:
        """Note that there is room for more ranks, and set `processes` to the larger number."""
        if self._before is not None and error.size <= self._before:
            self._wait *= 2  # the last time has brought nothing
        self.taken_in += 1
        self._before = error.size
        self.processes = min(error.room, self._full)

    def falls_back(self, error: PenstockError) -> bool:
        """Whether those that were there before go on, since with more not even a first step was begun.

        That is no loss.
        """
        if (
            self._before is None
            or self.processes <= self._before
            or not isinstance(error, (RankLost, UserError))
            # -1 where no rank has begun a step.
            or getattr(error, "step", -1) >= 0
        ):
            return False
        self._wait, self.processes, self._before = 2 * self._wait, self._before, None
        return True

    def _recent(self, now: float) -> list[float]:
        return [at for at in self._losses if now - at < self._recovery.window_seconds]


__all__ = ["ElasticPool"]
