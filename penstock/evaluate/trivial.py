"""The trivial answer: what one would say of every row, knowing the training split's targets and nothing of the row.

Classes: each class's share of the training split, so the commonest one is answered. Numbers: the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.evaluate.answers import facts_of, weights
from penstock.metrics.exact import Cells

if TYPE_CHECKING:
    from penstock.contracts.data import Feature, Fitted
    from penstock.data.dataset import Dataset
    from penstock.data.encoding import Encoding

_ANSWERS = {"binary": "probability", "category": "probabilities", "number": "value"}


@dataclass
class Trivial:
    """One answer for all rows."""

    answer: str
    value: np.ndarray
    """A scalar, or `[K]`."""
    text: str
    """In words."""

    def answers(self, rows: int) -> dict[str, np.ndarray]:
        return {self.answer: np.broadcast_to(self.value, (rows, *self.value.shape))}


def trivial_answers(encoding: Encoding, dataset: Dataset) -> dict[str, Trivial]:
    """The trivial answer to each target that is a class or a number, from one pass over the training split's targets."""
    sums = {name: Cells() for name in encoding.targets}
    columns = sorted({c for name, feature in encoding.targets.items() for c in feature.columns(name)} | ({encoding.weight} if encoding.weight else set()))
    for batch in dataset.batches("train", columns) if dataset.counts.get("train") else ():
        table = pa.Table.from_batches([batch])
        weight = weights(encoding, table)
        for name, feature in encoding.targets.items():
            truth, good = _truth(feature, name, table, encoding.fitted[name])
            counted = np.ones(len(truth)) if weight is None else weight[good]
            counted = np.where(np.isfinite(counted) & (counted > 0), counted, 0.0)
            if feature.decoder == "number":
                sums[name].add(0, counted)
                sums[name].add_products(1, counted, truth.astype(np.float64))
            else:
                sums[name].add(truth.astype(np.int64), counted)
    found = {}
    for name, feature in encoding.targets.items():
        if feature.decoder not in _ANSWERS:
            continue
        facts = facts_of(encoding, name)
        if feature.decoder == "number":
            total = sums[name].fraction(0)
            mean = float(sums[name].fraction(1) / total) if total else 0.0
            found[name] = Trivial("value", np.array(mean), f"always answering the mean, {mean:.4g}")
            continue
        names = facts.get("classes") or []
        counts = sums[name].floats(max(len(names), 2)) if names else _all_counts(sums[name])
        share = counts / max(counts.sum(), 1e-300)
        top = int(np.argmax(share))
        called = str(names[top]) if names else f"class {top}"
        text = f"always answering {called!r} ({share[top]:.1%} of the training rows)"
        found[name] = Trivial(_ANSWERS[feature.decoder], np.array(share[1]) if feature.decoder == "binary" else share, text)
    return found


def _all_counts(cells: Cells) -> np.ndarray:
    return cells.floats(max(cells.highest() + 1, 2))


def _truth(feature: Feature, name: str, table: pa.Table, fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
    """The truths of the rows that have one, and where those are."""
    columns = [table.column(c).combine_chunks() for c in feature.columns(name)]
    canonical, refused = feature.accept(columns)
    good = np.asarray(canonical.is_valid()).astype(bool).copy()
    good[refused.rows] = False
    good[feature.unknown(canonical, fitted).rows] = False
    return feature.truth(feature.encode(canonical.filter(pa.array(good)), fitted), fitted), good
