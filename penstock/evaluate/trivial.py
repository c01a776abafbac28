"""The trivial answer: one answer for all rows, from the training split's targets alone.

Classes: each class's share of the training split, so the commonest one is answered. Sets: each label's share.
Sequences: each label's share of the steps, at every step. Numbers: the mean. Texts: the commonest. Series:
the last value known, for ever (`forecast`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.contracts.value_counts import Counts
from penstock.encode.encoding import Encoding
from penstock.evaluate.forecast import Naive, naive_forecast
from penstock.evaluate.readable import facts_of, read
from penstock.metrics.exact import Cells

if TYPE_CHECKING:
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

_ANSWERS = {
    "binary": "probability",
    "category": "probabilities",
    "number": "value",
    "set": "probabilities",
    "sequence": "probabilities",
    "text": "text",
}
_MOST_TEXTS = 1_000_000
"""Different texts are counted up to so many, or 64 MiB of them; later ones are not the commonest any more."""


@dataclass
class Trivial:
    """One answer for all rows."""

    answer: str
    value: np.ndarray
    """A scalar, or `[K]`."""
    text: str
    """In words."""
    by_step: bool = False
    """Whether it is given at every step of a row."""

    def answers(
        self, truth: np.ndarray, columns: Mapping[str, pa.Array]
    ) -> dict[str, np.ndarray]:
        """Repeat the answer for each row of `truth` (and each step); the columns are not read."""
        repeated = truth.shape[:2] if self.by_step else truth.shape[:1]
        return {self.answer: np.broadcast_to(self.value, (*repeated, *self.value.shape))}


def trivial_answers(
    encoding: Encoding, dataset: Dataset | SampledDataset
) -> dict[str, Trivial | Naive]:
    """Find the trivial answer to each target in one pass over the training split's
    targets; for a series the naive repeat.
    """
    # A series without an input that holds it has no naive answer, and none at all.
    answers: dict[str, Trivial | Naive] = {
        name: naive
        for name in encoding.targets
        if (naive := naive_forecast(encoding, name)) is not None
    }
    answerable = {
        name: f.decoder for name, f in encoding.targets.items() if f.decoder in _ANSWERS
    }
    if not answerable:
        return answers
    if dataset.counts.get("train"):
        sums, texts = _count(encoding, dataset)
    else:
        sums, texts = _learnt(encoding), {}
        answerable = {name: kind for name, kind in answerable.items() if name in sums}
    for name, kind in answerable.items():
        if kind == "text":
            answers[name] = _commonest_text(texts[name])
        elif kind == "number":
            answers[name] = _mean(sums[name])
        elif kind == "set":
            answers[name] = _label_shares(
                sums[name], facts_of(encoding, name).get("classes") or []
            )
        else:
            classes = facts_of(encoding, name).get("classes") or []
            answers[name] = _class_shares(sums[name], classes, kind)
    return answers


def _learnt(encoding: Encoding) -> dict[str, Cells]:
    """Return the sums that targets have in what they learnt, where training rows are not
    at hand: classes by count, numbers by mean; weights are not in them.
    """
    sums: dict[str, Cells] = {}
    one = np.ones(1)
    for name, feature in encoding.targets.items():
        facts, cells = facts_of(encoding, name), Cells()
        if feature.decoder in ("binary", "category") and facts.get("counts"):
            counts = np.array(facts["counts"], np.float64)
            cells.add(np.arange(len(counts)), counts)
            sums[name] = cells
        elif feature.decoder == "number" and facts.get("mean") is not None:
            cells.add(0, one)
            cells.add(1, one * float(facts["mean"]))
            sums[name] = cells
    return sums


def _count(
    encoding: Encoding, dataset: Dataset | SampledDataset
) -> tuple[dict[str, Cells], dict[str, Counts]]:
    """Sum the training split's weights by target: of classes, by class; of a number,
    [weight, weight × value]; of a set, [weight, weight by label …]; of texts, by text.
    """
    # Without inputs, so that a row counts by its target alone.
    alone = Encoding({}, encoding.targets, encoding.fitted, weight=encoding.weight)
    sums = {name: Cells() for name in encoding.targets}
    texts = {
        name: Counts(_MOST_TEXTS)
        for name, feature in encoding.targets.items()
        if feature.decoder == "text"
    }
    for batch in (
        dataset.batches("train", columns=alone.columns(targets=True))
        if dataset.counts.get("train")
        else ()
    ):
        rows = read(alone, pa.Table.from_batches([batch]))
        weight = np.ones(len(rows.table)) if rows.weight is None else rows.weight
        for name, feature in encoding.targets.items():
            if feature.decoder == "number":
                sums[name].add(0, weight)
                # Exact, so the mean does not depend on the order of rows.
                sums[name].add_products(1, weight, rows.truth[name].astype(np.float64))
            elif feature.decoder == "text":
                texts[name].add(zip(rows.truth[name], weight.tolist(), strict=True))
            elif feature.decoder == "set":
                row, label = np.nonzero(rows.truth[name])
                sums[name].add(0, weight)
                if len(row):
                    # Cell 0 has the weight of all rows, so labels begin at 1.
                    sums[name].add(label + 1, weight[row])
            elif feature.decoder == "sequence":
                labels = rows.truth[name].astype(np.int64)
                # Where a row has no step, -1 stands.
                row, step = np.nonzero(labels >= 0)
                sums[name].add(labels[row, step], weight[row])
            elif feature.decoder in _ANSWERS:
                sums[name].add(rows.truth[name].astype(np.int64), weight)
    return sums, texts


def _commonest_text(counts: Counts) -> Trivial:
    often = counts.by_value
    # Of equally common texts the first by alphabet, whatever order the rows have.
    commonest = min(often, key=lambda text: (-often[text], text), default="")
    words = f"always answering {_short(commonest)!r}, the commonest text"
    return Trivial("text", np.array(commonest, object), words)


def _mean(sums: Cells) -> Trivial:
    total = sums.fraction(0)
    mean = float(sums.fraction(1) / total) if total else 0.0
    return Trivial("value", np.array(mean), f"always answering the mean, {mean:.4g}")


def _label_shares(sums: Cells, labels: Sequence[str]) -> Trivial:
    total, *counts = sums.floats(len(labels) + 1)
    # Without rows every share is 0, not NaN.
    shares = np.array(counts) / max(total, 1e-300)
    most = int(np.argmax(shares))
    words = (
        f"always answering each label's share ({str(labels[most])!r}, the commonest,"
        f" {shares[most]:.1%} of the training rows)"
    )
    return Trivial("probabilities", shares, words)


def _class_shares(sums: Cells, classes: Sequence[str], kind: str) -> Trivial:
    # Where the feature names no classes, the highest one seen tells how many there are.
    counts = sums.floats(len(classes) or max(sums.highest() + 1, 2))
    shares = counts / max(counts.sum(), 1e-300)
    most = int(np.argmax(shares))
    named = str(classes[most]) if classes else f"class {most}"
    steps = " steps" if kind == "sequence" else " rows"
    words = f"always answering {named!r} ({shares[most]:.1%} of the training{steps})"
    return Trivial(
        _ANSWERS[kind],
        np.array(shares[1]) if kind == "binary" else shares,
        words,
        by_step=kind == "sequence",
    )


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
