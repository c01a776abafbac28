"""Forecasts from a source whose rows are steps of series, as the training data had them.

The steps are sorted by series and time; each series is forecast from its latest whole window, or, asked for, from every
step that has one. What is written beside a forecast are the series' names and the last known time. A step that cannot be
taken is no part of a window; it is written aside with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from penstock.bundle.bundle import Bundle
from penstock.bundle.rows import absent_columns
from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract
from penstock.data.encoding import Accepted
from penstock.data.steps import RANK, windows_of
from penstock.formats.write import TableWriter
from penstock.recipe.schema import Recipe


@dataclass
class Steps:
    """Rows that are steps, to be forecast."""

    recipe: Recipe
    files: list[Path | str]
    columns: list[str]
    kept: tuple[str, ...]
    """Columns that go beside a forecast."""
    aside: str
    """Where refused steps go."""
    refused: int = 0

    @classmethod
    def of(cls, bundle: Bundle, extract: Extract, keep: tuple[str, ...], output: str) -> Steps | None:
        """None if the bundle knows no steps, or the rows are whole samples as requests have them.

        Raises:
            RequestError: the rows are neither.
        """
        recipe = bundle.recipe()
        present = set(extract.schema.names)
        if recipe.samples is None or set(bundle.columns) <= present:
            return None
        spanning = {name for name, feature in recipe.inputs.items() if feature.spans}
        series = [column for name in spanning for column in recipe.inputs[name].columns(name)]
        plain = [name for name in bundle.columns if name not in spanning]
        needed = [*recipe.samples.entity, recipe.samples.time, *sorted(series), *plain, *keep]
        if absent := [name for name in dict.fromkeys(needed) if name not in present]:
            raise absent_columns(absent, list(extract.schema.names))
        kept = tuple(name for name in dict.fromkeys([*recipe.samples.entity, recipe.samples.time, *bundle.keep, *keep]) if name in present)
        return cls(recipe, list(extract.parquet), list(dict.fromkeys([*kept, *bundle.columns])), kept, f"{output}.refused.jsonl")

    def windows(self, scratch: Path, *, every: bool) -> Iterator[pa.Table]:
        """Samples as requests have them."""
        with ExitStack() as stack:
            writers: list[TableWriter] = []

            def set_aside(table: pa.Table, accepted: Accepted) -> None:
                if not writers:
                    writers.append(stack.enter_context(TableWriter(self.aside)))
                order = sorted(accepted.refused)
                rows = table.drop_columns([c for c in (RANK, ROW_FILE, ROW_NUMBER) if c in table.column_names]).take(pa.array(order))
                writers[0].write(rows.append_column("refused", pa.array(["; ".join(map(str, accepted.refused[row])) for row in order])))
                self.refused += len(order)

            yield from windows_of(self.files, self.recipe, self.columns, scratch, every=every, set_aside=set_aside)
