"""A part of a picture, enlarged to all of it (Szegedy et al. 2015): near or far, a thing is the same
thing.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from penstock.contracts.chance import uniform
from penstock.contracts.data import Augmentation
from penstock.formats.pictures import pillow, spread


class Crop(Augmentation):
    """A random part, brought back to the picture's size."""

    least: float = Field(0.35, gt=0, le=1)
    """The smallest part, as a share of the area."""
    stretch: float = Field(4 / 3, ge=1, le=4)
    """How much wider or higher than the picture the part may be; 1 keeps its shape."""
    chance: float = Field(1.0, ge=0, le=1)

    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        wanted, area, shape, down, across = uniform(np.array([key], np.uint64), 5)[
            0
        ].tolist()
        if wanted >= self.chance:
            return values.copy()
        height, width, channels = values.shape
        # The root: a share of the area is split over both sides.
        share = math.sqrt(self.least + area * (1 - self.least))
        bend = math.exp((2 * shape - 1) * math.log(self.stretch) / 2)
        tall, wide = min(1.0, share / bend) * height, min(1.0, share * bend) * width
        top, left = down * (height - tall), across * (width - wide)
        image = pillow()
        picture = image.fromarray(values[:, :, 0] if channels == 1 else values)
        part = picture.resize(
            (width, height),
            image.Resampling.BILINEAR,
            # Rounding may put an edge just outside of the picture, which Pillow
            # refuses.
            box=(left, top, min(left + wide, width), min(top + tall, height)),
        )
        return np.array(part, np.uint8).reshape(values.shape)

    def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        cropped = np.empty_like(values)
        chosen = keys.tolist()

        def work(row: int) -> None:
            cropped[row] = self.apply(values[row], chosen[row])

        spread(work, range(len(values)))
        return cropped
