"""How many processes are at work on a training as some are lost and others come back. Pure: the caller brings the clock.

After a loss those that are left go on (where the launcher may take fewer), and when that has gone well for a while, and there
is room, more are taken in. Taking in must never be what ends a training: each loss counts against the restarts that are
allowed, so more are not taken in while one more loss would be the last.
"""

from __future__ import annotations

from penstock.contracts.learn import Growth, Recovery
from penstock.core.errors import Outgrown, RankLost


class Crew:
    """The processes of one training.

    Args:
        recovery: what the launcher allows.
        full: how many were asked for.
    """

    def __init__(self, recovery: Recovery, full: int) -> None:
        self._recovery, self._full = recovery, full
        self._losses: list[float] = []
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
        recent = self._recent(now)
        wait = recovery.return_seconds
        if recovery.restarts and len(recent) >= recovery.restarts:
            wait = max(wait, recent[-recovery.restarts] + recovery.window_seconds - now)
        return Growth(self._full, wait)

    def lost(self, error: RankLost, now: float) -> bool:
        """Some were lost: whether training may be started again, with `processes`."""
        self._losses = [*self._recent(now), now]
        if len(self._losses) > self._recovery.restarts:
            return False
        self.restarts += 1
        if self._recovery.fewest is not None:
            there = min(error.size or self.processes, self.processes)
            gone = len(error.ranks) if len(error.ranks) < there else 0  # where all went, none is less there than others
            self.processes = max(self._recovery.fewest, there - gone)
        return True

    def outgrown(self, error: Outgrown) -> None:
        """There is room for more."""
        self.taken_in += 1
        self.processes = min(error.room, self._full)

    def _recent(self, now: float) -> list[float]:
        return [at for at in self._losses if now - at < self._recovery.window_seconds]


__all__ = ["Crew"]
