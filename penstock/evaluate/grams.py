"""Sums from which a ridge regression over the windows of a series follows in closed form.

Every window is taken relative to its own level (its last value, the mean of its end, or its whole mean), so
that a series may drift. Sums of products of windows, and of windows with what came after, are all that is
kept: W² numbers a variable, however many rows there are. The error on the validation split follows from its
sums too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LEVELS = ("last", "end", "mean")
"""What a window is taken relative to."""
_END = 0.03
"""The part of a window whose mean is its `end`."""
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties, in units of the mean square of the windows' values."""

_MOST = 6_000_000
"""Numbers of sums that are kept for a level, of all variables."""


def level_of(windows: np.ndarray, level: str) -> np.ndarray:
    """Return what windows `[N, W]` are taken relative to, `[N, 1]`."""
    if level == "last":
        return windows[:, -1:]
    steps = windows.shape[1]
    start = 0 if level == "mean" else steps - max(int(steps * _END), 1)
    return np.asarray(windows[:, start:].mean(axis=1, keepdims=True))


@dataclass
class Sums:
    """Sums of products, of one variable and level."""

    windows: np.ndarray
    """`[W + 1, W + 1]`: of windows (and a one, for the constant) with themselves."""
    both: np.ndarray
    """`[W + 1, H]`: of windows with what came after."""
    square: float = 0.0
    """Of what came after, with itself."""
    rows: int = 0

    @classmethod
    def empty(cls, window: int, horizon: int) -> Sums:
        """Return sums of nothing."""
        return cls(np.zeros((window + 1, window + 1)), np.zeros((window + 1, horizon)))

    def add(self, windows: np.ndarray, after: np.ndarray) -> None:
        """Add rows: `[N, W]` and `[N, H]`, both relative to the level."""
        x = np.concatenate([windows, np.ones((len(windows), 1))], axis=1)
        self.windows += x.T @ x
        self.both += x.T @ after
        self.square += float((after**2).sum())
        self.rows += len(x)

    def plus(self, other: Sums) -> Sums:
        """Return both together."""
        return Sums(
            self.windows + other.windows,
            self.both + other.both,
            self.square + other.square,
            self.rows + other.rows,
        )

    def solved(self, strength: float) -> np.ndarray:
        """Return the weights `[W + 1, H]` of the ridge regression; the constant is not penalised."""
        size = len(self.windows) - 1
        scale = float(np.trace(self.windows[:size, :size])) / max(size, 1)
        penalty = np.full(size + 1, strength * max(scale, 1e-12))
        penalty[-1] = 1e-9 * max(self.rows, 1)
        weights: np.ndarray = np.linalg.solve(self.windows + np.diag(penalty), self.both)
        return weights

    def error(self, weights: np.ndarray) -> float:
        """Return the sum of squared errors of weights on these rows."""
        fitted = float((weights * (self.windows @ weights)).sum())
        return self.square - 2 * float((weights * self.both).sum()) + fitted


@dataclass
class Grams:
    """Sums by level and variable."""

    window: int
    horizon: int
    variables: int
    sums: dict[str, list[Sums]] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = {
            level: [
                Sums.empty(self.window, self.horizon)
                for _ in range(self.variables if self.is_apart else 1)
            ]
            for level in LEVELS
        }

    @property
    def is_apart(self) -> bool:
        """Whether each variable has sums of its own: not where these would fill the memory."""
        return self.variables * (self.window + 1) ** 2 <= _MOST

    def add(self, windows: np.ndarray, after: np.ndarray) -> None:
        """Add rows `[N, W, V]` with what came after `[N, H, V]`; a variable's row with a gap is left out."""
        for v in range(self.variables):
            whole = np.isfinite(after[:, :, v]).all(axis=1)
            x, y = windows[whole, :, v], after[whole, :, v]
            for level, sums in self.sums.items():
                base = level_of(x, level)
                sums[v if self.is_apart else 0].add(x - base, y - base)

    def together(self, level: str) -> Sums:
        """Return the sums of all variables together."""
        total = Sums.empty(self.window, self.horizon)
        for sums in self.sums[level]:
            total = total.plus(sums)
        return total
