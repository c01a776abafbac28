"""Rows that can be judged: those whose inputs, targets and weight the features accept, with their truths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from penstock.encode.encoding import Accepted, Encoding

BATCH = 8_192
"""Rows that are read at once, where they are not wide."""


@dataclass
class Readable:
    """The acceptable rows of a table, with their truths and weights."""

    table: pa.Table
    columns: Mapping[str, pa.Array]
    """Canonical columns by feature."""
    truth: dict[str, np.ndarray]
    weight: np.ndarray | None
    reasons: list[str]
    """Why the others were refused, one a row."""
    unanswered: dict[str, np.ndarray]
    """By target the weights of the refused rows whose truth is known all the same: the model cannot answer
    them, or not with a class that it never saw.
    """


def read(encoding: Encoding, table: pa.Table) -> Readable:
    """Accept the rows of a prepared table; returns those whose inputs, targets and
    weight are all acceptable.
    """
    accepted = encoding.accept(table, targets=True)
    reasons = [str(problems[0]) for _, problems in sorted(accepted.refused.items())]
    unanswered = {
        name: _unanswered(encoding, accepted, name) for name in encoding.targets
    }
    if accepted.refused:
        good = np.ones(len(table), bool)
        good[list(accepted.refused)] = False
        table, accepted = table.filter(pa.array(good)), accepted.usable()
    # Only targets are encoded: the truth needs no inputs.
    stored = {
        f"{name}.{array}": values
        for name, feature in encoding.targets.items()
        for array, values in feature.encode(
            accepted.columns[name], encoding.fitted[name]
        ).items()
    }
    return Readable(
        table,
        accepted.columns,
        encoding.truth(stored),
        None if accepted.weight is None else accepted.weight.astype(np.float64),
        reasons,
        unanswered,
    )


def _unanswered(encoding: Encoding, accepted: Accepted, target: str) -> np.ndarray:
    """Return the weights of the refused rows whose truth of `target` is known, though no answer can be given.

    A row that only another target makes refused is none of them: the model answers it.
    """
    feature = encoding.targets[target]
    own = {*feature.columns(target), encoding.weight}
    inputs = {
        column for name, each in encoding.inputs.items() for column in each.columns(name)
    }
    # A class that the training split lacks is a truth, though no model could answer it.
    strange = feature.unknown(accepted.columns[target], encoding.fitted[target])
    rows = set(strange.rows.tolist())
    for row, problems in accepted.refused.items():
        columns = {str(problem.path[0]) for problem in problems}
        if columns & inputs and not columns & own:
            rows.add(row)
    if accepted.weight is None:
        return np.ones(len(rows))
    return accepted.weight[sorted(rows)].astype(np.float64)


def facts_of(encoding: Encoding, target: str) -> dict[str, Any]:
    """Return the facts of a target's arrays: `classes`, `mean`, `std`, `counts`, where
    there are any.
    """
    facts: dict[str, Any] = {}
    for spec in encoding.targets[target].spec(encoding.fitted[target]).values():
        facts |= spec.facts
    return facts
