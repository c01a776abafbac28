"""A picture in a mirror: what is left may as well be right."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from penstock.contracts.chance import uniform
from penstock.contracts.data import Augmentation


class Flip(Augmentation):
    """Mirrored. Not for what has a side, such as writing."""

    axis: Literal["horizontal", "vertical", "both"] = "horizontal"
    """`horizontal` exchanges left and right, `vertical` top and bottom; `both` does either, each with the
    same chance.
    """
    chance: float = Field(0.5, ge=0, le=1)

    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        changed: np.ndarray = self.apply_all(values[None], np.array([key], np.uint64))[0]
        return changed

    def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        # Both are drawn whatever the axis, so that a row's numbers do not depend on it.
        sideways, upright = (uniform(keys, 2) < self.chance).T
        flipped = values.copy()
        if self.axis != "vertical":
            flipped[sideways] = flipped[sideways, :, ::-1]
        if self.axis != "horizontal":
            flipped[upright] = flipped[upright, ::-1]
        return flipped
