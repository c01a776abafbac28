"""A column of moments: whether rows stand in its order, file by file, what its step is, and where it gaps."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

_STEPS = 10_000
"""Different steps that are held of a file; of more there is no usual one."""
_FILES = 1_000
"""Files whose steps are held."""
_SHOWN = 20
_SECOND = 1_000_000


class Order:
    """Steps from each row to the next of the same file, in microseconds."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self._first: dict[int, float] = {}
        # A file may have a step of its own; None where it has too many.
        self._steps: dict[int, Counter[float] | None] = {}
        self.forward = self.same = self.back = 0

    def update(self, moments: np.ndarray, files: np.ndarray) -> None:
        """Take a batch.

        Args:
            moments: microseconds, NaN where missing `[N]`.
            files: the file of each `[N]`.
        """
        for file in np.unique(files):
            mine = moments[files == file]
            mine = mine[np.isfinite(mine)]
            if not len(mine):
                continue
            last = self._last.get(int(file))
            self._first.setdefault(int(file), float(mine[0]))
            self._last[int(file)] = float(mine[-1])
            steps = np.diff(mine if last is None else np.append(last, mine))
            self.forward += int((steps > 0).sum())
            self.same += int((steps == 0).sum())
            self.back += int((steps < 0).sum())
            self._count(int(file), steps[steps > 0])

    def _count(self, file: int, steps: np.ndarray) -> None:
        if file not in self._steps and len(self._steps) >= _FILES:
            return
        counts_of = self._steps.setdefault(file, Counter())
        if counts_of is None:
            return
        values, counts = np.unique(steps, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            counts_of[value] += count
        if len(counts_of) > _STEPS:
            self._steps[file] = None

    def result(self) -> dict[str, Any]:
        """Plain data: `step_seconds` where most steps are alike, and the `gaps` that are longer."""
        pairs = self.forward + self.same + self.back
        facts: dict[str, Any] = {
            "files": len(self._first),
            "forward": self.forward,
            "same": self.same,
            "back": self.back,
            "sorted": pairs > 0 and self.back == 0,
        }
        steps: Counter[float] = Counter()
        longer: Counter[float] = Counter()
        for counts_of in self._steps.values():
            if not counts_of:
                continue
            usual, often = counts_of.most_common(1)[0]
            if often >= 0.5 * counts_of.total():
                steps[usual] += counts_of.total()
                longer.update({s: n for s, n in counts_of.items() if s > 1.5 * usual})
        if steps:
            facts["step_seconds"] = steps.most_common(1)[0][0] / _SECOND
            facts["gaps"] = longer.total()
            facts["longest_gaps_seconds"] = [
                step / _SECOND for step in sorted(longer, reverse=True)[:_SHOWN]
            ]
        return facts
