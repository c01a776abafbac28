"""Another light: brightness, contrast and the strength of colours changed a little."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from penstock.contracts.chance import uniform
from penstock.contracts.data import Augmentation

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""How bright red, green and blue are to the eye (ITU-R BT.601)."""


class Colour(Augmentation):
    """Brighter or darker, flatter or harder, paler or stronger: each multiplied by a factor from 1 - x to 1 +
    x.
    """

    brightness: float = Field(0.2, ge=0, le=1)
    contrast: float = Field(0.2, ge=0, le=1)
    saturation: float = Field(0.2, ge=0, le=1)
    """Of no effect on a grey picture."""
    chance: float = Field(1.0, ge=0, le=1)

    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        changed: np.ndarray = self.apply_all(values[None], np.array([key], np.uint64))[0]
        return changed

    def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        drawn = uniform(keys, 4)
        chosen = np.flatnonzero(drawn[:, 3] < self.chance)
        changed = values.copy()
        # Floats of a few pictures at a time stay in the cache.
        for start in range(0, len(chosen), 64):
            rows = chosen[start : start + 64]
            # One factor a picture for each property, `[3, n, 1, 1, 1]`.
            spans = np.array([self.brightness, self.contrast, self.saturation])
            light, contrast, strength = (
                (1 + (2 * drawn[rows, :3] - 1) * spans)
                .astype(np.float32)
                .T[:, :, None, None, None]
            )
            pixels = values[rows].astype(np.float32) * light
            # A grey picture has no saturation.
            if values.shape[3] == 3:
                grey = (pixels * _GREY).sum(axis=3, keepdims=True)
                pixels = grey + (pixels - grey) * strength
            else:
                grey = pixels
            # Row by row in doubles, so that a row's mean does not depend on how many others are summed beside
            # it.
            middle = np.array([part.mean(dtype=np.float64) for part in grey], np.float32)[
                :, None, None, None
            ]
            pixels = middle + (pixels - middle) * contrast
            changed[rows] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return changed
