"""Confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70) as sums that add up piece by piece.

    pass 1   `SelfConfidence`: of each class, the mean probability that the model gives it among the rows
             labelled so: the class's threshold
    pass 2   `ConfidentJoint`: how many rows with the label `given` are confidently of the class `likely`;
             and how the margins between the two are spread, for each pair
    then     `Rule`: of each pair of classes as many rows are suspect as the joint says, those with the
             largest margins ("prune by noise rate")

Both passes hold whole numbers alone, so the order of rows, and how they are cut into pieces, change nothing.
What is held grows with the classes, never with the rows.

Given up: within a pair the cut falls between two of some thousand bins of the margin, not between two rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_CLASSES = 300
_ONE = 2**30
"""What a probability of 1 is in whole numbers, so that sums are exact: 2^33 rows fit."""
_TOLERANCE = 1e-6
"""Below a threshold by so much is still confident: sums of probabilities are not exact to the last bit."""
_CELLS = 2**22
_MOST_BINS = 4096
_LEAST_BINS = 32


class SelfConfidence:
    """The mean probability of each class among the rows that are labelled so.

    Args:
        classes: K, how many there are.
    """

    def __init__(self, classes: int) -> None:
        self._sums = np.zeros(classes, np.int64)
        self.rows = np.zeros(classes, np.int64)
        """Rows labelled as each class, `[K]`."""
        self.agreed = 0
        """Rows whose label is the likeliest class."""

    def update(self, probabilities: np.ndarray, given: np.ndarray) -> None:
        """Add rows.

        Args:
            probabilities: out of fold, `[N, K]`.
            given: the labels, `[N]` of 0 … K-1.
        """
        own = probabilities[np.arange(len(given)), given]
        whole = np.rint(own.astype(np.float64) * _ONE).astype(np.int64)
        np.add.at(self._sums, given, whole)
        self.rows += np.bincount(given, minlength=len(self.rows))
        self.agreed += int((_likeliest(probabilities, given) == given).sum())

    def merge(self, other: SelfConfidence) -> None:
        """Add what another has seen."""
        self._sums += other._sums
        self.rows += other.rows
        self.agreed += other.agreed

    def thresholds(self) -> np.ndarray:
        """From which probability on a row is confidently of each class, `[K]`; never, of one without rows."""
        means = self._sums / np.maximum(self.rows, 1) / _ONE
        return np.where(self.rows > 0, np.maximum(means, 2 * _TOLERANCE), 2.0)


class ConfidentJoint:
    """Counts of given labels against confident ones, and of the margins of each pair.

    Args:
        thresholds: of `SelfConfidence`, `[K]`.
        rows: labelled as each class, `[K]`.
    """

    def __init__(self, thresholds: np.ndarray, rows: np.ndarray) -> None:
        self.thresholds, self.rows = thresholds, rows
        classes = len(thresholds)
        self.counts = np.zeros((classes, classes), np.int64)
        """Rows by given and confident class, `[K, K]`."""
        self.bins = bins_of(classes)
        self._margins = np.zeros((classes, classes, self.bins), np.int64)

    def update(self, probabilities: np.ndarray, given: np.ndarray) -> None:
        """Add rows: probabilities `[N, K]`, labels `[N]`."""
        classes = len(self.thresholds)
        confident = probabilities >= self.thresholds - _TOLERANCE
        number = confident.sum(axis=1)
        # Confident of several classes: the likeliest of all.
        guess = np.where(
            number > 1, probabilities.argmax(axis=1), confident.argmax(axis=1)
        )
        sure = number > 0
        pairs = given[sure] * classes + guess[sure]
        counts = np.bincount(pairs, minlength=classes * classes)
        self.counts += counts.reshape(classes, classes)
        places = _binned(_margins(probabilities, given), self.bins)
        cells = given[:, None] * classes + np.arange(classes)
        flat = (cells * self.bins + places).ravel()
        size = self._margins.size
        self._margins += np.bincount(flat, minlength=size).reshape(self._margins.shape)

    def merge(self, other: ConfidentJoint) -> None:
        """Add what another, with the same thresholds, has counted."""
        self.counts += other.counts
        self._margins += other._margins

    def joint(self) -> np.ndarray:
        """Rows by given and true class as estimated, `[K, K]`: a row sums to the rows labelled so."""
        counts = self.counts.astype(np.float64)
        # Each class has one right row at least.
        np.fill_diagonal(counts, np.maximum(np.diagonal(counts), 1))
        return np.asarray(counts / counts.sum(axis=1, keepdims=True) * self.rows[:, None])

    def rule(self) -> Rule:
        """Which rows are suspect."""
        joint = self.joint()
        wanted = np.rint(joint).astype(np.int64)
        np.fill_diagonal(wanted, 0)
        # The only row of a class is no error that a model without it could find.
        wanted[self.rows <= 1] = 0
        # `[K, K, bins + 1]`: rows in a bin and above it, down to none.
        above = np.cumsum(self._margins[:, :, ::-1], axis=2)[:, :, ::-1]
        above = np.concatenate([above, np.zeros((*wanted.shape, 1), np.int64)], axis=2)
        apart = np.abs(above - wanted[:, :, None])
        # The last of equally near bins: rather too few rows.
        cuts = self.bins - apart[:, :, ::-1].argmin(axis=2)
        return Rule(self.thresholds, joint, cuts, self.bins)


@dataclass(frozen=True)
class Rule:
    """What makes a row suspect: facts of the size of the classes, which judge each row by itself."""

    thresholds: np.ndarray
    """`[K]`."""
    joint: np.ndarray
    """Rows by given and true class, as estimated, `[K, K]`."""
    cuts: np.ndarray
    """The bin of the margin from which on a row is suspect, by given and likely class, `[K, K]`."""
    bins: int

    def judge(self, probabilities: np.ndarray, given: np.ndarray) -> Judged:
        """Judge rows: probabilities `[N, K]`, labels `[N]`."""
        margins = _margins(probabilities, given)
        own = np.arange(len(given))
        over = _binned(margins, self.bins) >= self.cuts[given]
        over[own, given] = False
        likely = _likeliest(probabilities, given)
        margins[own, given] = -np.inf
        confidence = probabilities[own, given].astype(np.float64)
        if probabilities.shape[1] > 1:
            margin = (1 - margins.max(axis=1)) / 2
        else:
            margin = np.ones(len(given))
        # A label that the model would give as well is no error.
        return Judged(over.any(axis=1) & (likely != given), likely, confidence, margin)

    def wrong(self) -> float:
        """How many labels are wrong, as estimated."""
        return float(self.joint.sum() - np.trace(self.joint))

    def pairs(self) -> list[tuple[int, int, float]]:
        """Given class, true class and the rows that are so, as estimated; the most first."""
        off = self.joint.copy()
        np.fill_diagonal(off, 0)
        order = np.argsort(-off, axis=None, kind="stable")
        places = [divmod(int(place), len(off)) for place in order]
        return [(i, k, float(off[i, k])) for i, k in places if off[i, k] > 0]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "thresholds": self.thresholds.tolist(),
            "joint": self.joint.tolist(),
            "cuts": self.cuts.tolist(),
            "bins": self.bins,
        }


@dataclass(frozen=True)
class Judged:
    """What a rule says of rows."""

    suspect: np.ndarray
    """`[N]` of booleans."""
    likely: np.ndarray
    """The likeliest class, `[N]`; the given one where both are equally likely."""
    self_confidence: np.ndarray
    """The probability of the given label, `[N]`: the lower the worse."""
    margin: np.ndarray
    """How far the given label lies before the likeliest other, from 0 (the worst) to 1, `[N]`."""


def bins_of(classes: int) -> int:
    """Of the margins of a pair: fewer where there are many pairs."""
    return int(np.clip(_CELLS // classes**2, _LEAST_BINS, _MOST_BINS))


def _likeliest(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    nudged = probabilities.astype(np.float64)
    nudged[np.arange(len(given)), given] += _TOLERANCE
    return np.asarray(nudged.argmax(axis=1))


def _margins(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """How much likelier each class is than the given one, `[N, K]` of -1 … 1."""
    values = probabilities.astype(np.float64)
    return np.asarray(values - values[np.arange(len(given)), given][:, None])


def _binned(margins: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each margin; they are narrower towards -1 and 1, where confident models crowd."""
    share = 0.5 + np.arcsin(np.clip(margins, -1, 1)) / np.pi
    return np.asarray(np.minimum((share * bins).astype(np.int64), bins - 1))
