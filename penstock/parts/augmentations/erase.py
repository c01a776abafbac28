"""Random erasing (Zhong, Zheng, Kang, Li and Yang 2020): a thing is still known when a part of it is
hidden.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from penstock.contracts.chance import uniform
from penstock.contracts.data import Augmentation
from penstock.contracts.part import mistakes
from penstock.core.errors import Problem


class Erase(Augmentation):
    """A rectangle painted over."""

    least: float = Field(0.02, gt=0, le=1)
    """The smallest rectangle, as a share of the area."""
    most: float = Field(0.2, gt=0, le=1)
    """The largest."""
    fill: Literal["noise", "grey", "black"] = "noise"
    chance: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _in_order(self) -> Erase:
        if self.most < self.least:
            raise mistakes(
                Problem(
                    ("most",),
                    f"must be at least `least` ({self.least:g}); found {self.most:g}",
                )
            )
        return self

    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        # All numbers are drawn at once from the row's key, so that any order of work
        # gives the same picture.
        wanted, area, shape, down, across = uniform(np.array([key], np.uint64), 5)[
            0
        ].tolist()
        changed = values.copy()
        if wanted >= self.chance:
            return changed
        height, width, channels = values.shape
        # The root: a share of the area is split over both sides.
        share = math.sqrt(self.least + area * (self.most - self.least))
        # The paper's aspect ratios, 0.3 to 3.3.
        bend = math.exp((2 * shape - 1) * math.log(3.3) / 2)
        tall = min(height, max(1, round(share * bend * height)))
        wide = min(width, max(1, round(share / bend * width)))
        top, left = int(down * (height - tall + 1)), int(across * (width - wide + 1))
        paint: int | np.ndarray = {"grey": 128, "black": 0, "noise": 0}[self.fill]
        if self.fill == "noise":
            paint = np.random.Generator(np.random.Philox(key)).integers(
                0, 256, (tall, wide, channels), np.uint8
            )
        changed[top : top + tall, left : left + wide] = paint
        return changed
