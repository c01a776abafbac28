"""The threshold of each label: from which probability on it is given.

Each serves the F1 of its label on the validation split. Of a label with few examples there the best threshold
is mostly chance, so in the log-odds it is drawn towards the one that serves all labels together.
"""

from __future__ import annotations

import numpy as np

PRIOR = 10.0
"""With so many examples in the validation split, a label's own best threshold counts half."""


def thresholds(
    shares: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """The threshold of each label `[K]` that serves its F1 on `shares` `[N, K]`, drawn towards a common one
    where there are few examples.

    A label without examples gets the common one. Lipton, Elkan and Naryanaswamy 2014 show why the best is
    about half the best F1, and why it is badly known for a rare label.
    """
    if not len(shares):
        return np.full(shares.shape[1], 0.5)
    weights = np.ones(len(shares)) if weight is None else np.asarray(weight, np.float64)
    # Log-odds from -6 (a probability of 0.25 %) to 3 (95 %) in steps of 0.05.
    grid = np.linspace(-6.0, 3.0, 181)
    # a label at a time: never all as doubles
    scores = np.stack(
        [
            _f1(_odds(shares[:, k]), truth[:, k], weights, grid)
            for k in range(shares.shape[1])
        ]
    )
    # Weights rather than rows: a row of weight 0 is no example.
    examples = np.array([weights[truth[:, k]].sum() for k in range(shares.shape[1])])
    with_examples = examples > 0
    if not with_examples.any():
        return np.full(shares.shape[1], 0.5)
    # The mean of the labels' F1, so that each label counts alike however rare it is.
    common = _top(grid, scores[with_examples].mean(axis=0))
    own = np.array([_top(grid, score) for score in scores])
    # PRIOR acts as so many examples that vote for the common threshold.
    trust = examples / (examples + PRIOR)
    chosen = np.where(with_examples, trust * own + (1 - trust) * common, common)
    return np.asarray(1 / (1 + np.exp(-chosen)))


def _odds(shares: np.ndarray) -> np.ndarray:
    """The logarithm of the odds, as doubles."""
    # In single precision a share may be 0 or 1, whose odds are infinite.
    clipped = np.clip(shares.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _f1(
    odds: np.ndarray, truth: np.ndarray, weight: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """F1 at each threshold of `grid`, from the weights above it."""
    order = np.argsort(odds, kind="stable")
    # side="left": a share that equals the threshold counts as given, as in `decode`.
    cut = np.searchsorted(odds[order], grid, side="left")
    # Cumulative weights with 0 in front, `[N + 1]`: the last less the one at a cut is
    # the weight at or above it.
    every, true = (
        np.concatenate([[0.0], np.cumsum(w[order])]) for w in (weight, weight * truth)
    )
    positives, hits = every[-1] - every[cut], true[-1] - true[cut]
    # F1 is twice the hits over given plus true; the floor spares 0 / 0 where there is
    # neither.
    return np.asarray(2 * hits / np.maximum(positives + true[-1], 1e-12))


def _top(grid: np.ndarray, score: np.ndarray) -> float:
    """The middle of where the score, smoothed over its neighbours, is within a hundredth of its best: a peak
    of one point is chance.
    """
    # Triangular weights over 11 points of the grid, of which the two at the ends weigh
    # nothing.
    width = 5
    kernel = np.bartlett(2 * width + 1)
    smooth = np.convolve(
        np.pad(score, width, mode="edge"), kernel / kernel.sum(), mode="valid"
    )
    near = np.flatnonzero(smooth >= 0.99 * smooth.max())
    best = int(np.argmax(smooth))
    # The unbroken run of near-best points from the best one upwards; a second peak does
    # not count.
    run = near[
        (near >= best)
        & (near - best == np.arange(len(near)) - np.searchsorted(near, best))
    ]
    # And the run downwards.
    left = near[
        (near <= best)
        & (best - near == np.searchsorted(near, best) - np.arange(len(near)))
    ]
    return float((grid[run[-1]] + grid[left[0]]) / 2)
