"""All rows measured in one pass, column by column and split by split.

What a sample says decides how a column is measured (as a number, a moment, a text, a picture, …) and where
its bins lie; then every row counts. Memory: one batch, and by column a bounded summary; nothing grows with
the rows but hashes of them, up to a limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.cores import usable_cores
from penstock.inspect.profile.moments import Order
from penstock.inspect.profile.numbers import Numbers, Scale, as_doubles
from penstock.inspect.profile.rows import Rows
from penstock.inspect.profile.shapes import Lengths, Pictures, Present, can_open
from penstock.inspect.profile.words import Words
from penstock.inspect.raw_column import Finding, Look

ALL = ""
"""The split of rows that are in none."""


class Measure(Protocol):
    """What is counted of one column of one split."""

    count: int
    missing: int

    def update(self, column: pa.Array) -> None:
        """Take a batch."""

    def merge(self, other: Self) -> None:
        """Add what `other` has measured."""

    def result(self) -> dict[str, Any]:
        """Plain data."""


@dataclass
class _Column:
    """One column: what it is, and what is counted of it by split."""

    name: str
    type: pa.DataType
    kind: str
    scale: Scale | None
    by_split: dict[str, Any]
    order: Order | None

    def measure(self, split: str) -> Any:
        if split not in self.by_split:
            self.by_split[split] = _new(self.kind, self.scale)
        return self.by_split[split]


def _new(kind: str, scale: Scale | None) -> Any:
    if kind in ("number", "moment"):
        return Numbers(scale)
    plain = {"text": Words, "image": Pictures, "list": Lengths, "other": Present}
    return plain[kind]()


class Measures:
    """Takes batches, and gives the columns as plain data.

    Args:
        looks: each column, as the sample has it, in order.
        findings: by column what `look` says it is.
    """

    def __init__(
        self, looks: Mapping[str, Look], findings: Mapping[str, Finding]
    ) -> None:
        self._columns = [
            _column(name, x, findings.get(name)) for name, x in looks.items()
        ]
        self._rows = Rows()
        self._compared = [
            c.name for c in self._columns if c.kind not in ("image", "other")
        ]
        self.rows: dict[str, int] = {}
        self._pool = ThreadPoolExecutor(usable_cores(), "profile")

    def texts(self) -> list[str]:
        """The columns of texts: they may come with dictionaries."""
        return [c.name for c in self._columns if c.kind == "text"]

    def update(self, split: str, batch: pa.RecordBatch, files: np.ndarray) -> None:
        """Take rows of one split.

        Args:
            batch: has every column; others are not looked at.
            files: the file of each row `[N]`.
        """
        self.rows[split] = self.rows.get(split, 0) + batch.num_rows

        def measure(column: _Column) -> None:
            values = _plain(batch.column(column.name))
            column.measure(split).update(values)
            if column.order is not None:
                column.order.update(as_doubles(values), files)

        tasks = [self._pool.submit(measure, column) for column in self._columns]
        tasks.append(
            self._pool.submit(self._rows.add, split, batch.select(self._compared))
        )
        for task in tasks:
            task.result()

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()

    def columns(self) -> list[dict[str, Any]]:
        """Each column over all splits, and `splits` with each one's own where there are several."""
        return [self._told(column) for column in self._columns]

    def _told(self, column: _Column) -> dict[str, Any]:
        whole = _new(column.kind, column.scale)
        for measure in column.by_split.values():
            whole.merge(measure)
        facts: dict[str, Any] = {
            "name": column.name,
            "type": str(column.type),
            "measured_as": column.kind,
            **_common(whole),
        }
        if column.order is not None:
            facts["order"] = column.order.result()
        if len(column.by_split) > 1:
            facts["splits"] = {
                split or "rows": _common(measure)
                for split, measure in column.by_split.items()
            }
        return facts

    def counts_of(self, name: str) -> dict[str, int]:
        """How often each text of a column occurs, over all splits; empty for columns of other kinds."""
        column = next(c for c in self._columns if c.name == name)
        whole = Words()
        for measure in column.by_split.values():
            if not isinstance(measure, Words):
                return {}
            whole.merge(measure)
        return whole.counts()

    def examples_of(self, name: str) -> dict[str, str]:
        """By suspicion a text of a column that has it; not to be shown where it is private."""
        column = next(c for c in self._columns if c.name == name)
        examples: dict[str, str] = {}
        for measure in column.by_split.values():
            if isinstance(measure, Words):
                examples = {**measure.examples, **examples}
        return examples

    def equal_rows(self) -> dict[str, Any] | None:
        """As `Rows.result`."""
        return self._rows.result()


def _common(measure: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "rows": measure.count + measure.missing,
        "missing": measure.missing,
    }
    if isinstance(measure, (Numbers, Words)):
        facts["distinct"] = min(measure.distinct.count(), measure.count)
        facts["distinct_exact"] = measure.distinct.is_exact
    own: dict[str, Any] = measure.result()
    return facts | own


def _column(name: str, look: Look, finding: Finding | None) -> _Column:
    kind = _kind(look.type, finding)
    scale = None
    if kind in ("number", "moment"):
        scale = Scale.of(as_doubles(look.raw))
    order = Order() if kind == "moment" else None
    return _Column(name, look.type, kind, scale, {}, order)


def _kind(kind: pa.DataType, finding: Finding | None) -> str:
    if finding is not None and finding.type == "image" and can_open():
        return "image"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "moment"
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind) or pa.types.is_time(kind):
        return "number"
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_duration(kind)
    ):
        return "number"
    if pa.types.is_string(kind):
        return "text"
    if (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    ):
        return "list"
    return "other"


def _plain(column: pa.Array) -> pa.Array:
    """A column without wrapping, its texts as `string`, dictionaries kept."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_dictionary(kind) and not pa.types.is_string(kind.value_type):
        return _plain(column.dictionary_decode())
    return column
