"""One of several changes, drawn for each row: a small random augmentation policy (after Cubuk et al. 2020,
RandAugment).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from penstock.contracts.chance import salted, uniform
from penstock.contracts.data import Augmentation


class Choice(Augmentation):
    """For each row `times` draws from `of`, each with the same chance, one after another."""

    of: tuple[Augmentation, ...] = Field(min_length=1)
    """What may be drawn: `[rotate, colour, {type: erase, chance: 1}]`."""
    times: int = Field(1, ge=1, le=10)
    chance: float = Field(1.0, ge=0, le=1)
    """Of each draw; otherwise nothing is done in its stead."""

    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        changed: np.ndarray = self.apply_all(values[None], np.array([key], np.uint64))[0]
        return changed

    def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        changed = values.copy()
        for draw in range(self.times):
            # A key of its own for each draw, and below for each augmentation, so that
            # no two draw alike.
            own = salted(keys, draw)
            drawn = uniform(own, 2)
            which = np.where(
                drawn[:, 0] < self.chance,
                (drawn[:, 1] * len(self.of)).astype(np.int64),
                -1,
            )
            for place, augmentation in enumerate(self.of):
                # Rows that drew the same are changed together.
                rows = np.flatnonzero(which == place)
                if len(rows):
                    changed[rows] = augmentation.apply_all(
                        changed[rows], salted(own[rows], place)
                    )
        return changed
