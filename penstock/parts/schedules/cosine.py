"""Half a cosine from the declared rate to the floor (Loshchilov and Hutter 2017, "SGDR"; no restarts)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from penstock.contracts.optim import Schedule


class Cosine(Schedule):
    """After the warm-up the rate falls along half a cosine, slowly at both ends."""

    others: ClassVar[Mapping[str, str]] = {"factor": "plateau", "patience": "plateau"}

    floor: float = Field(0.01, ge=0, le=1)
    """The least rate, as a share of `lr`."""

    def after_warmup(self, step: int, total: int) -> float:
        # At most to the end: a step past `total` stays at the floor instead of rising
        # again.
        fallen = 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))
        return self.floor + (1 - self.floor) * fallen
