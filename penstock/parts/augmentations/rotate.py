"""A picture turned a little: cameras are not held level."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from penstock.contracts.chance import uniform
from penstock.contracts.data import Augmentation
from penstock.formats.pictures import pillow, spread
from penstock.parts.augmentations._frame import Fill, framed


class Rotate(Augmentation):
    """Turned about its middle."""

    degrees: float = Field(15.0, gt=0, le=180)
    """The most, to either side."""
    fill: Fill = "reflect"
    """What comes in at the corners: the mirrored picture, its edge drawn on, or black."""
    chance: float = Field(1.0, ge=0, le=1)

    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        changed: np.ndarray = self.apply_all(values[None], np.array([key], np.uint64))[0]
        return changed

    def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        _, height, width, channels = values.shape
        drawn = uniform(keys, 2)
        around = 0 if self.fill == "black" else self._margin(height, width)
        # Padded all at once, since numpy's cost lies in the calls.
        framed_ = framed(values, around, around, self.fill)
        rotated = values.copy()
        image = pillow()

        def work(row: int) -> None:
            picture = framed_[row]
            turned = image.fromarray(
                picture[:, :, 0] if channels == 1 else picture
            ).rotate((2 * drawn[row, 1] - 1) * self.degrees, image.Resampling.BILINEAR)
            # The frame is cut off again, and with it what lies beyond the picture.
            whole = np.asarray(turned).reshape(picture.shape)
            rotated[row] = whole[around : around + height, around : around + width]

        spread(work, np.flatnonzero(drawn[:, 0] < self.chance).tolist())
        return rotated

    def _margin(self, height: int, width: int) -> int:
        """Pixels around a picture so that no turn of it shows what lies beyond: its diagonal, or less where
        turns are small.
        """
        most = math.radians(min(self.degrees, 90.0))
        reach = math.hypot(height, width) / 2
        small = (max(height, width) * math.sin(most) + 1) / 2
        return math.ceil(min(small, reach)) + 1
