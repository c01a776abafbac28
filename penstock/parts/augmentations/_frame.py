"""What stands beside a picture when it is moved or turned: shared by `shift` and `rotate`."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Fill = Literal["reflect", "edge", "black"]


def framed(values: np.ndarray, down: int, across: int, fill: Fill) -> np.ndarray:
    """Pictures `[n, H, W, C]` with `down` rows above and below and `across` columns at each side."""
    widths = ((0, 0), (down, down), (across, across), (0, 0))
    if fill == "black":
        return np.pad(values, widths)
    # `symmetric` works for a picture of one pixel, too.
    mode: Any = "symmetric" if fill == "reflect" else "edge"
    return np.pad(values, widths, mode=mode)
