"""Rows for the members of an ensemble: each member has an order of its own, and an epoch is all of them.

    position   0 1 2 3 4 5 …      of 3 members
    member     0 1 2 0 1 2 …
    its own    0 0 0 1 1 1 …      position in its own order

So every run of positions, whatever process has it, has near-equally many rows for each member; a global batch
of N · b rows has b for each. It is a function of the position alone, as every order is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.order.samplers import Drawn, Draws

_BEYOND = 2**44
"""More than any occurrence of a row in one member's epoch, so that members augment it each otherwise."""


class OfMembers:
    """Draws for N members, in turn.

    Args:
        each: what each member draws: of equally many positions.
    """

    def __init__(self, each: Sequence[Draws]) -> None:
        self._each = tuple(each)

    @property
    def rows(self) -> int:
        """Positions of an epoch: those of all members together."""
        return self._each[0].rows * len(self._each)

    def draw(self, epoch: int, positions: np.ndarray) -> Drawn:
        """As `Draws.draw`; `member` says whose each row is."""
        members = len(self._each)
        member, own = positions % members, positions // members
        slots = np.empty(len(positions), np.int64)
        occurrence = np.empty(len(positions), np.int64)
        source: np.ndarray | None = None
        for number, draws in enumerate(self._each):
            mine = np.flatnonzero(member == number)
            drawn = draws.draw(epoch, own[mine])
            slots[mine] = drawn.slots
            occurrence[mine] = drawn.occurrence + np.int64(number) * _BEYOND
            if drawn.source is not None:
                source = np.zeros(len(positions), np.int64) if source is None else source
                source[mine] = drawn.source
        return Drawn(slots, occurrence, source, member)

    def empty(self, epoch: int) -> np.ndarray | None:
        """As `Draws.empty`."""
        places = []
        for number, draws in enumerate(self._each):
            own = draws.empty(epoch)
            if own is None:
                return None
            places.append(own * len(self._each) + number)
        return np.sort(np.concatenate(places))


__all__ = ["OfMembers"]
