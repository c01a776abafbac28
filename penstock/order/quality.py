"""How good a shuffle is: measures of an order against what a true shuffle would give.

Pure, but for the labels handed in.

A model that learns from data sorted by label (or by time, or by user) needs that rows which lie together do
not come together. Four measures, each with the value that a true shuffle has:

    moved        mean distance that a row moves, as a share of the rows: 1/3
    neighbours   correlation of the slots of rows that come one after another: 0
    run          mean length of runs of one label: 1 / (1 - sum of squared shares)
    batch        how far the shares of labels in a batch are from those of all, in multiples of chance: 1
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.order.order import Order

MOST = 1_000_000


@dataclass(frozen=True)
class Quality:
    """Measures of an order, and what a true shuffle of the same rows would have."""

    moved: float
    """Mean distance that a row moves, as a share of the rows; 1/3 in a true shuffle, 0 in stored order."""
    neighbours: float
    """Correlation of the slots of neighbours; 0 in a true shuffle, 1 in stored order."""
    run: float
    """Mean length of runs of one label."""
    true_run: float
    """That of a true shuffle."""
    longest: int
    """The longest run of one label."""
    batch: float
    """Root of the chi-squared of the batches' labels over its expectation: 1 in a true shuffle, more if
    batches have too much of some label.
    """


def quality(
    order: Order, labels: np.ndarray | None = None, *, batch_size: int = 256
) -> Quality:
    """Measure an order.

    Args:
        order: the epoch to look at; of a long one, the first and the middle million positions.
        labels: whole numbers from 0, the label of each slot `[rows]`; ten equal runs unless given: data
            sorted by label.
        batch_size: rows of a batch, for `batch`.

    Raises:
        ValueError: there are fewer than two batches, or not one label a row.
    """
    n = order.rows
    if n < 2 * batch_size:
        raise ValueError(
            f"a shuffle of {n} rows in batches of {batch_size} cannot be judged; give at least two batches"
        )
    if labels is not None and len(labels) != n:
        raise ValueError(f"there are {n} rows; found {len(labels)} labels")
    # Two stretches of a long order: its beginning, where windows grow, and its middle.
    spans = [(0, n)] if n <= MOST else [(0, MOST // 2), (n // 2, n // 2 + MOST // 2)]
    moved, runs, longest, rows, chi, freedom = 0.0, 0, 0, 0, 0.0, 0
    pairs = []
    counts = (
        # Ten runs of equal length, as data sorted by label has them.
        np.bincount(labels) if labels is not None else np.diff(np.arange(11) * n // 10)
    )
    # A label that no row has would divide by zero below.
    shares = counts[counts > 0] / n
    for start, stop in spans:
        positions = np.arange(start, stop)
        slots = order.slots(positions)
        label = (
            labels[slots]
            if labels is not None
            else np.searchsorted(np.arange(1, 11) * n // 10, slots, side="right")
        ).astype(np.int64)
        moved += float(np.abs(slots - positions).sum())
        pairs.append(np.stack([slots[:-1], slots[1:]]))
        # Where the label changes; runs are between these.
        edges = np.flatnonzero(np.diff(label)) + 1
        lengths = np.diff(np.concatenate([[0], edges, [len(label)]]))
        runs, longest, rows = (
            runs + len(lengths),
            max(longest, int(lengths.max())),
            rows + len(label),
        )
        # A batch that is not full has another expectation.
        whole = len(label) // batch_size
        table = np.zeros((whole, len(counts)))
        np.add.at(
            table,
            (np.repeat(np.arange(whole), batch_size), label[: whole * batch_size]),
            1,
        )
        expected = shares * batch_size
        chi += float(((table[:, counts > 0] - expected) ** 2 / expected).sum())
        # Shares sum to 1, so one label of each batch is not free.
        freedom += whole * (len(shares) - 1)
    both = np.concatenate(pairs, axis=1).astype(np.float64)
    return Quality(
        moved / rows / n,
        float(np.asarray(np.corrcoef(both))[0, 1]),
        rows / runs,
        # With one label only, a run never ends; the bound keeps it a number.
        1 / max(1 - float((shares**2).sum()), 1e-12),
        longest,
        float(np.sqrt(chi / max(freedom, 1))),
    )
