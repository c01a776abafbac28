"""Decisions made after training, such as thresholds, that turn a program's answers into
words.

A binary target is answered by the threshold 0.5. A feature with a `decide` of its own (a set's thresholds)
decides on the validation split, by the answers of the trained network there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from penstock.bundle import card, export
from penstock.contracts.features import DecidingFeature
from penstock.contracts.tensors import joined
from penstock.core.errors import BundleError
from penstock.core.events import Events
from penstock.encode.encoding import Encoding
from penstock.encode.series.sampled_dataset import SampledDataset
from penstock.prepare.dataset import Dataset

BATCH_ROWS = 8_192
"""Rows that are answered at once, where they are not wide."""
DECIDED_ROWS = 200_000
DECIDED_BYTES = 128 * 2**20
"""Of answers and truths, where they are wide (thousands of labels): a decision is made on as many rows as
take so much.
"""


class Answered(NamedTuple):
    """The rows of one split to decide on, batch by batch."""

    answers: list[dict[str, np.ndarray]]
    """`<target>.<answer>` → `[rows, …]`."""
    truths: list[dict[str, np.ndarray]]
    """target → `[rows, …]`."""
    weights: list[np.ndarray]
    """`[rows]`; none where rows are not weighted."""
    read: int
    """Rows that the features accepted."""


def decide(
    program: Any, encoding: Encoding, dataset: Dataset | SampledDataset, events: Events
) -> dict[str, dict[str, Any]]:
    """Return by target what turns answers into words: the threshold 0.5 for a binary
    target, and what a feature decides itself on the validation split (its first 200,000
    rows, or 128 MiB of answers; rows of the training split, with a warning, if there
    are none).

    Raises:
        BundleError: neither split has a row that the features accept.
    """
    decision: dict[str, dict[str, Any]] = {
        # Only a binary target gives one probability.
        name: {"threshold": 0.5} if f"{name}.probability" in program.output_names else {}
        for name in encoding.targets
    }
    deciding = {
        name: feature
        for name, feature in encoding.targets.items()
        if isinstance(feature, DecidingFeature)
    }
    if not deciding:
        return decision
    # Rows that the training has seen would flatter thresholds.
    batches = _answer(program, encoding, dataset, "validation", deciding)
    if not batches.read:
        batches = _answer(program, encoding, dataset, "train", deciding)
        if batches.read:
            events.warn(
                "There are no validation rows to choose the threshold of"
                f" {', '.join(deciding)}. The training rows are used, so the threshold may be"
                " too optimistic"
            )
    if not batches.answers:
        raise BundleError(
            f"{dataset.reference} has no row on which to decide for {', '.join(deciding)}."
        )
    weight = np.concatenate(batches.weights) if batches.weights else None
    for name, feature in deciding.items():
        answers = {
            key.rpartition(".")[2]: joined([batch[key] for batch in batches.answers])
            for key in batches.answers[0]
            if key.rpartition(".")[0] == name
        }
        # Where truths vary in length, -1 fills the steps that are not there.
        truth = joined([batch[name] for batch in batches.truths], fill=-1)
        decision[name] |= feature.decide(answers, truth, weight, encoding.fitted[name])
        events.say(
            f"Chosen for {name} on {len(truth):,} rows: {card.decided(decision[name])}",
            target=name,
        )
    return decision


def _answer(
    program: Any,
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    split: str,
    deciding: Collection[str],
) -> Answered:
    """Answer a split's rows with torch, until there are enough to decide on."""
    batches = Answered([], [], [], 0)
    size = 0
    columns = encoding.columns(targets=True)
    for batch in dataset.batches(
        split, columns=columns, rows=encoding.rows_at_once(BATCH_ROWS)
    ):
        # Rows that a feature refuses, for an input or a target, are left out.
        accepted = encoding.accept(pa.Table.from_batches([batch]), targets=True).usable()
        if accepted.rows:
            stored = encoding.encode(accepted)
            # Answers of targets that need no decision are let go at once: they may be wide.
            answers = {
                key: values
                for key, values in export.run_torch(
                    program, encoding.collate(stored)
                ).items()
                if key.rpartition(".")[0] in deciding
            }
            truths = {
                name: values
                for name, values in encoding.truth(stored).items()
                if name in deciding
            }
            # Answers and truths are kept for all rows until the decision, so their
            # bytes bound the memory.
            size += sum(values.nbytes for values in (*answers.values(), *truths.values()))
            batches.answers.append(answers)
            batches.truths.append(truths)
            batches.weights.extend([stored["weight"]] if "weight" in stored else [])
        batches = batches._replace(read=batches.read + accepted.rows)
        if batches.read >= DECIDED_ROWS or size >= DECIDED_BYTES:
            break
    return batches


__all__ = ["decide"]
