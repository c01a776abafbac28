"""Rows that can be judged: those whose inputs, targets and weight the features accept, with their truths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from penstock.encode.encoding import Encoding

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


def read(encoding: Encoding, table: pa.Table) -> Readable:
    """Accept the rows of a prepared table; returns those whose inputs, targets and
    weight are all acceptable.
    """
    accepted = encoding.accept(table, targets=True)
    reasons = [str(problems[0]) for _, problems in sorted(accepted.refused.items())]
    if accepted.refused:
        good = np.ones(len(table), bool)
        good[list(accepted.refused)] = False
        table, accepted = table.filter(pa.array(good)), accepted.kept()
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
    )


def facts_of(encoding: Encoding, target: str) -> dict[str, Any]:
    """Return the facts of a target's arrays: `classes`, `mean`, `std`, `counts`, where
    there are any.
    """
    facts: dict[str, Any] = {}
    for spec in encoding.targets[target].spec(encoding.fitted[target]).values():
        facts |= spec.facts
    return facts
