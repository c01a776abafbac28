"""The feed's own quarantine: rows that no feature can encode, with their reasons."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import REJECT_SCHEMA, ROW_ID
from penstock.core.errors import Problem
from penstock.core.wording import counted, without_values
from penstock.encode.encoding import Accepted

_SHOWN_BYTES = 64
MOST_REASONS = 200
"""So many different reasons are counted apart; what comes later is counted by column.

Every row's own is in the quarantine.
"""
_MOST_TOLD = 5
"""Reasons that a warning gives."""
_EXAMPLE_ROWS = 1_024
_ROW_SHOWN = 120
"""Characters of an example row."""


class Quarantine:
    """Refused rows with their reasons, as Parquet; one entry a row, whatever the number of its problems."""

    def __init__(self, path: Path) -> None:
        self.by_split: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._writer = pq.ParquetWriter(path, REJECT_SCHEMA, compression="zstd")

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, *problem: object) -> None:
        self._writer.close()

    def add(self, table: pa.Table, accepted: Accepted, split: str) -> None:
        """Keep the rows of `table` that were refused; `accepted` tells which, and why.

        Raises:
            StoreError: they cannot be written.
        """
        if not accepted.refused:
            return
        # In the order of rows, whichever column refused them first.
        order = sorted(accepted.refused)
        rows = table.take(pa.array(order)).to_pylist()
        entries = [
            self._entry(row, accepted.refused[place])
            for row, place in zip(rows, order, strict=True)
        ]
        self._writer.write_table(pa.Table.from_pylist(entries, REJECT_SCHEMA))
        self.by_split[split] += len(entries)

    def _entry(self, row: dict[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
        """A refused row as `REJECT_SCHEMA` has it; its first problem is counted."""
        column = str(problems[0].path[0])
        text = f"{column}: {problems[0].text}"
        # a reason may hold the row's own value: without a limit, the counts would be as large as the data
        counted = text in self.reasons or len(self.reasons) < MOST_REASONS
        self.reasons[text if counted else f"{column}: another reason"] += 1
        return {
            # Taken out of the row, which is stored beside it as JSON.
            "row_id": row.pop(ROW_ID),
            "file": None,
            "line": None,
            "stage": "feature",
            "column": column,
            "reason": problems[0].text
            if len(problems) == 1
            else "; ".join(map(str, problems)),
            "row": json.dumps(row, default=_plain, ensure_ascii=False),
        }


def commonest(reasons: Mapping[str, int], path: Path) -> str:
    """Return the commonest reasons in words, each with how many rows have it and the first of them.

    Args:
        reasons: `column: reason` → rows.
        path: the quarantine's file.
    """
    grouped: Counter[str] = Counter()
    for reason, count in reasons.items():
        grouped[without_values(reason)] += count
    examples = _examples(path)
    often = "; ".join(
        f"{counted(count, 'row')}: {examples.get(reason, reason)}"
        for reason, count in grouped.most_common(_MOST_TOLD)
    )
    rest = len(grouped) - _MOST_TOLD
    return often + (f"; and {counted(rest, 'more reason')}" if rest > 0 else "")


def _examples(path: Path) -> dict[str, str]:
    """Return by reason, without the rows' own values, that of the first row and the row's beginning."""
    examples: dict[str, str] = {}
    with pq.ParquetFile(path) as file:
        # Common reasons are among the first rows; of others the reason alone is given.
        batch = next(file.iter_batches(_EXAMPLE_ROWS), None)
    for row in [] if batch is None else batch.to_pylist():
        reason, text = f"{row['column']}: {row['reason']}", row["row"]
        beginning = text if len(text) <= _ROW_SHOWN else f"{text[:_ROW_SHOWN]} …"
        examples.setdefault(without_values(reason), f"{reason}, such as {beginning}")
    return examples


def _plain(value: object) -> str:
    """What JSON does not know, as text; bytes that are more than a word only by their number and hash (the
    dataset has them).
    """
    if isinstance(value, bytes) and len(value) > _SHOWN_BYTES:
        return f"{len(value):,} bytes, sha256 {hashlib.sha256(value).hexdigest()}"
    return str(value)
