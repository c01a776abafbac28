"""Forecasts from a source whose rows are steps of series, as in the training data.

The steps are sorted by series and time; each series is forecast from its latest whole window, or, asked for,
from every step that has one. What is written beside a forecast are the series' names and the last known time.
A step that cannot be taken is no part of a window; it is written aside with its reason. A series without a
whole window is answered with nulls and its reason in the column `refused`, so that every series that came in
is in the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.bundle.bundle import Bundle
from penstock.bundle.rows import absent_columns
from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract
from penstock.contracts.features import SeriesFeature
from penstock.contracts.sql import bind
from penstock.core.events import Events
from penstock.encode.encoding import Accepted
from penstock.encode.series.forecast_windows import windows_of
from penstock.encode.series.steps import RANK
from penstock.encode.series.unforecast import Tally, Unforecast
from penstock.encode.series.windows import Reach
from penstock.formats.learnt import KEPT, MISFIT, as_text
from penstock.formats.write import TableWriter
from penstock.recipe.names import REFUSED, kept_names
from penstock.recipe.schema import Recipe


@dataclass
class Steps:
    """The steps of a source, to be forecast from."""

    recipe: Recipe
    files: list[Path | str]
    columns: list[str]
    carried: tuple[str, ...]
    """Columns that go beside a forecast."""
    texts: list[str]
    """Those of them in which some values are not of their type."""
    misfits: frozenset[str]
    """All columns in which some are not."""
    aside: str
    """Where refused steps go."""
    distance: float | None = None
    """How far apart steps were where the bundle learnt."""
    refused: int = 0
    tally: Tally = field(default_factory=Tally)
    _lacking: list[tuple[pa.Table, list[str]]] = field(default_factory=list)

    @classmethod
    def of(
        cls, bundle: Bundle, extract: Extract, keep: tuple[str, ...], output: str
    ) -> Steps | None:
        """Return the source's steps; None if the bundle knows no steps, or the rows are
        whole samples as requests have them.

        Raises:
            RequestError: the rows are neither.
        """
        present = set(extract.schema.names)
        if set(bundle.columns) <= present:
            return None  # before the recipe is asked for, which may name code that is not trusted
        recipe = bundle.recipe()
        # A bundle of plain rows; a missing column is told when rows are answered.
        if recipe.samples is None:
            return None
        spanning = {
            name
            for name, feature in recipe.inputs.items()
            if isinstance(feature, SeriesFeature)
        }
        series = [
            column for name in spanning for column in recipe.inputs[name].columns(name)
        ]
        plain = [name for name in bundle.columns if name not in spanning]
        time = _time_columns(recipe, present)
        needed = [
            *recipe.samples.entity,
            *time,
            *sorted(series),
            *plain,
            *keep,
        ]
        if absent := [name for name in dict.fromkeys(needed) if name not in present]:
            raise absent_columns(absent, list(extract.schema.names))
        carried = tuple(
            name
            for name in dict.fromkeys(
                [*recipe.samples.entity, *time, *bundle.keep, *keep]
            )
            if name in present
        )
        # Kept columns go out as they were written, so values of other types make them
        # text.
        texts = [name for name in carried if name in extract.misfits and name not in time]
        # Values that are not of a plain input's type travel beside it, for the feature
        # to judge.
        beside = [
            MISFIT + name
            for name in plain
            if name in extract.misfits and name not in recipe.samples.entity
        ]
        as_written = [KEPT + name for name in texts]
        columns = [*carried, *bundle.columns, *beside, *as_written]
        return cls(
            recipe,
            list(extract.parquet),
            list(dict.fromkeys(columns)),
            carried,
            texts,
            extract.misfits,
            f"{output}.refused.jsonl",
            bundle.distance,
        )

    def windows(self, scratch: Path, *, every: bool) -> Iterator[pa.Table]:
        """Yield windows as requests have them."""
        with ExitStack() as stack:
            writers: list[TableWriter] = []

            def set_aside(table: pa.Table, accepted: Accepted) -> None:
                # Opened with the first refused step, so that no empty file is left
                # behind.
                if not writers:
                    writers.append(stack.enter_context(TableWriter(self.aside)))
                # In the order of the steps.
                order = sorted(accepted.refused)
                ours = [
                    # Penstock's own columns mean nothing to a reader.
                    c
                    for c in table.column_names
                    if c in (RANK, ROW_FILE, ROW_NUMBER) or c.startswith((MISFIT, KEPT))
                ]
                rows = (
                    _as_read(table, self.misfits).drop_columns(ours).take(pa.array(order))
                )
                writers[0].write(
                    rows.append_column(
                        "refused",
                        pa.array(
                            ["; ".join(map(str, accepted.refused[row])) for row in order]
                        ),
                    )
                )
                self.refused += len(order)

            assert self.recipe.samples is not None
            # Only inputs count: a forecast needs no step of its own horizon.
            needed = Reach.of(self.recipe.inputs.values(), ()).steps
            unforecast = Unforecast(needed, self.recipe.samples.entity, self._lack)
            self.tally = unforecast.tally
            yield from windows_of(
                self.files,
                self.recipe,
                self.columns,
                scratch,
                every=every,
                set_aside=set_aside,
                unforecast=unforecast,
                distance=self.distance,
                texts=self.texts,
            )

    def _lack(self, last: pa.Table, reasons: list[str]) -> None:
        columns = {
            name: last[KEPT + name if name in self.texts else name]
            for name in self.carried
        }
        self._lacking.append((pa.table(columns), reasons))

    def lacking(self, answers: pa.Schema) -> Iterator[pa.Table]:
        """Yield the series found since the last call to have no forecast, as rows of
        the output: nulls, and the reason.

        Args:
            answers: the columns of an answer.
        """
        # Emptied as they are written: each series is told once.
        while self._lacking:
            table, reasons = self._lacking.pop(0)
            names = kept_names(self.carried, answers.names)
            nulls = {
                column.name: pa.nulls(table.num_rows, column.type) for column in answers
            }
            yield pa.table(
                {
                    **{own: table[name] for name, own in names.items()},
                    **nulls,
                    REFUSED: pa.array(reasons, pa.string()),
                }
            )

    def say(self, counts: dict[str, Any], events: Events) -> None:
        """Report what became of every step and series, in the counts and as events."""
        tally = self.tally
        counts |= {
            "series": tally.series,
            "steps": {
                "taken": tally.steps,
                "too_few": tally.left,
                "refused": self.refused,
                "unreadable": counts["unreadable"],
            },
        }
        # Steps that were refused are rows that came in, too.
        counts["refused"] += self.refused
        events.say(
            f"{counts['rows']:,} steps = {tally.steps:,} in series with a forecast +"
            f" {tally.left:,} in series without one + {self.refused:,} refused +"
            f" {counts['unreadable']:,} unreadable; {tally.series:,} series ="
            f" {tally.forecast:,} with a forecast + {tally.refused:,} without"
        )
        if self.refused:
            events.warn(
                f"{self.refused:,} steps were refused and are in no window. They are in"
                f" {self.aside} with their reasons"
            )
        if tally.refused:
            events.warn(
                f"{tally.refused:,} of {tally.series:,} series have no complete window, so"
                f" they have no forecast. The column `{REFUSED}` says why"
            )
        if tally.late:
            events.warn(
                f"{tally.late:,} series have later steps that are in no complete window"
                " (after a gap or a refused step). Their forecast starts from the time given"
                " beside it"
            )


def _time_columns(recipe: Recipe, present: set[str]) -> list[str]:
    """The columns of a source that order the steps: none where they follow one another as rows do, and what
    the time is derived from where it is no column.
    """
    assert recipe.samples is not None
    time = recipe.samples.time
    if time is None:
        return []
    if time in present or time not in recipe.derive:
        return [time]
    return list(bind(recipe.derive[time], sorted(present)).columns)


def _as_read(table: pa.Table, misfits: frozenset[str]) -> pa.Table:
    """Restore the values that do not fit a column's type, as text."""
    for name in misfits:
        beside = MISFIT + name
        if beside in table.column_names:
            text = as_text(table[name].combine_chunks(), table[beside].combine_chunks())
            table = table.set_column(table.column_names.index(name), name, text)
    return table
