"""A picture moved by some pixels: what it shows does not depend on where exactly it stands."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from penstock.contracts.chance import uniform
from penstock.contracts.data import Augmentation
from penstock.parts.augmentations._frame import Fill, framed


class Shift(Augmentation):
    """Moved by whole pixels, up or down and sideways: the usual padding and random crop of small pictures (He
    et al. 2016).
    """

    by: float = Field(0.125, gt=0, le=1)
    """The most, as a share of height and width; 4 of 32 pixels."""
    fill: Fill = "reflect"
    """What comes in from outside: the mirrored picture, its edge drawn on, or black."""
    chance: float = Field(1.0, ge=0, le=1)

    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        changed: np.ndarray = self.apply_all(values[None], np.array([key], np.uint64))[0]
        return changed

    def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        _, height, width, _ = values.shape
        down, across = round(self.by * height), round(self.by * width)
        drawn = uniform(keys, 3)
        moved = drawn[:, 2] < self.chance
        # A row that is not moved starts at the frame's width, where the picture itself
        # begins.
        tops = np.where(moved, (drawn[:, 0] * (2 * down + 1)).astype(np.int64), down)
        lefts = np.where(moved, (drawn[:, 1] * (2 * across + 1)).astype(np.int64), across)
        around = framed(values, down, across, self.fill)
        shifted = np.empty_like(values)
        for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            shifted[i] = around[i, top : top + height, left : left + width]
        return shifted
