"""Whether rows are the steps of a series: moments in time, each as far from the next as the others, beside
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from penstock.encode.series.windows import broken, usual_distance
from penstock.inspect.raw_column import Finding
from penstock.inspect.wording import key

LEAST = 100
"""Rows that must be looked at before anything is said of their distances."""
REGULAR = 0.95
_MICRO = 1_000_000


def note(
    table: pa.Table, columns: Sequence[Finding], target: Finding | None
) -> str | None:
    """How a recipe would forecast these rows, or None if they are no steps of one series."""
    numbers = [
        f.column for f in [*columns, *([target] if target else [])] if f.type == "number"
    ]
    if table.num_rows < LEAST or not numbers:
        return None
    for finding in columns:
        kind = table.schema.field(finding.column).type
        # Texts that look like times are left alone: distances need moments.
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            continue
        moments = (
            table.column(finding.column)
            .drop_null()
            .cast(pa.timestamp("us", tz=getattr(kind, "tz", None)))
            .cast(pa.int64())
            .to_numpy()
        )
        # Sorted, since a sample need not come in order.
        distances = np.diff(np.sort(moments)).astype(np.float64)
        usual = usual_distance(distances)
        if (
            len(moments) < LEAST
            or usual is None
            # One step in twenty may be missing or late.
            or (broken(distances, usual)).mean() > 1 - REGULAR
        ):
            continue
        wanted = (
            [target.column] if target is not None and target.type == "number" else numbers
        )
        listed = ", ".join(map(key, numbers[:20]))
        return (
            f"Rows are steps in time, {_said(usual)} apart. To forecast them:  samples: {{time:"
            f" {key(finding.column)}}}  split: {{by: time, on: {key(finding.column)}}}  inputs: {{past:"
            f" {{type: series, columns: [{listed}], window: 96}}}}  targets: {{next: {{type: series, columns:"
            f" [{', '.join(map(key, wanted[:20]))}], horizon: 24}}}}"
        )
    return None


def _said(distance_us: float) -> str:
    seconds = distance_us / _MICRO
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = seconds / size
            return (
                f"a{'n' if word == 'hour' else ''} {word}"
                if round(count, 1) == 1
                else f"{count:.3g} {word}s"
            )
    return f"{seconds:g} seconds"
