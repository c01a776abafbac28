"""How figures are taken: interleaved pairs, medians, bootstrap bounds of the ratio; one JSON line a figure.

Machines are noisy and get slower and faster in waves, so ours and the other's run alternate, and the ratio is taken
within each pair.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class Cannot(Exception):
    """This machine cannot run the benchmark; the message says why."""


@dataclass(frozen=True)
class Pairs:
    """Seconds of interleaved runs."""

    ours: np.ndarray
    other: np.ndarray

    @property
    def ratio(self) -> float:
        """Median over pairs of other ÷ ours: above 1, ours is faster."""
        return float(np.median(self.other / self.ours))

    def bounds(self, *, confidence: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
        """Bootstrap bounds of the median ratio."""
        ratios = self.other / self.ours
        rng = np.random.default_rng(0)
        medians = np.median(rng.choice(ratios, (resamples, len(ratios))), axis=1)
        edge = (1 - confidence) / 2
        return float(np.quantile(medians, edge)), float(np.quantile(medians, 1 - edge))


def interleave(ours: Callable[[], object], other: Callable[[], object], *, pairs: int = 10, cpu: bool = False) -> Pairs:
    """Run both, alternately, `pairs` times; the first of a pair changes each time.

    Args:
        cpu: take the process's CPU seconds instead of the wall's.
    """
    clock = time.process_time if cpu else time.perf_counter
    seconds: dict[str, list[float]] = {"ours": [], "other": []}
    ours(), other()  # warm
    for i in range(pairs):
        for name, run in (("ours", ours), ("other", other)) if i % 2 else (("other", other), ("ours", ours)):
            gc.collect()
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return Pairs(np.array(seconds["ours"]), np.array(seconds["other"]))


def say(*, name: str, value: float, unit: str, ours: str = "penstock", other: str | None = None, ratio: float | None = None, goal: str | None = None, holds: bool | None = None, **more: object) -> None:
    """Print one figure as a JSON line."""
    line = {"name": name, "ours": ours, "other": other, "value": round(value, 6), "unit": unit, "ratio": None if ratio is None else round(ratio, 3), "goal": goal, "holds": holds, **more}
    print(json.dumps(line), flush=True)
