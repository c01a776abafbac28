"""Words about rows: what is joined, how rows are split, what a sample is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from penstock.contracts.data import Source
from penstock.contracts.part import Strict, mistakes
from penstock.core.errors import Problem
from penstock.recipe.identifiers import Names


class Join(Strict):
    """A to-one join: each row finds at most one row of another source. More than one is refused."""

    source: Source
    """Where the other rows come from."""
    on: dict[str, str] | Names
    """Columns equal in both, or a mapping from ours to theirs."""
    columns: Names | None = None
    """Which of their columns to bring; all unless given."""
    prefix: str = ""
    """Put before the names of the columns brought."""
    missing: Literal["keep", "quarantine", "fail"] = "keep"
    """A row of ours that finds none: kept with nulls, quarantined, or the end of the run."""


class Split(Strict):
    """Who goes to train, validation and test."""

    by: Literal["hash", "time", "order", "column", "files"] = "hash"
    """`hash`: by a seeded hash of the row id, or of `on`, so a row keeps its side when the data grows;
    `time`: the earliest to train, the latest to test, by `on`; `order`: likewise by the rows' places: file
    by file in the order of their paths, and row by row; `column`: `on` says `train`, `validation` or
    `test`; `files`: the source's files do. Where a given train and test come without a validation split,
    `validation` is the share of train that becomes it, by hash; the given test is left as it is.
    """
    on: Names | None = None
    """`hash`: columns whose equal values must stay together (groups); `time`, `column`: the column."""
    stratify: str | None = None
    """`hash`: keep the shares of this column's values equal in every split (exact to one row a value)."""
    train: float = Field(0.8, gt=0, le=1)
    validation: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    seed: int | None = None
    """Another seed for the split alone; the recipe's unless given."""

    @model_validator(mode="after")
    def _shares(self) -> Split:
        if (
            self.by in ("hash", "time", "order")
            # Shares such as 0.7, 0.2 and 0.1 do not add up to exactly 1 in doubles.
            and abs(self.train + self.validation + self.test - 1) > 1e-9
        ):
            raise mistakes(
                Problem(
                    (),
                    "train + validation + test must be 1; found"
                    f" {self.train + self.validation + self.test:g}",
                )
            )
        if self.by in ("time", "column") and (not self.on or len(self.on) != 1):
            raise mistakes(
                Problem(("on",), f"a split by {self.by} needs exactly one column in `on`")
            )
        if self.by == "order" and self.on:
            text = "is for other splits: a split by order goes by the rows' places. Leave it out"
            raise mistakes(Problem(("on",), text))
        if self.stratify and (self.by != "hash" or self.on):
            raise mistakes(Problem(("stratify",), "goes with `by: hash` without `on`"))
        return self


ROW_ORDER = "row_order"
"""int64: a row's place in its source, where `samples` has no `time`: rows of one file are one apart."""


class Samples(Strict):
    """A row is one step of a series, and a sample is many of them: what is known before an anchor, and what
    comes from it on.

    Features of type `series` say how many steps they read (`window` before the anchor, `horizon` from it on);
    a plain input is its value at the last known step, a plain target its value at the anchor. A sample
    belongs to the split that holds all it forecasts; what it looks back on may lie in an earlier split, never
    in a later one.
    """

    time: str | None = None
    """The column that orders the steps: times, dates or numbers. Without it, rows follow one another as they
    stand in their file, and each file is a run of steps of its own; the place of a row is the column
    `row_order` of the dataset.
    """
    entity: Names = ()
    """The columns that tell one series from another; without any, all rows are one series."""
    stride: int = Field(1, ge=1)
    """A training sample begins at every so many steps."""
    stride_eval: int = Field(1, ge=1)
    """Likewise for validation and test; with the horizon, forecasts follow one another without
    overlapping.
    """
    on_gap: Literal["split", "error", "ignore"] = "split"
    """Where two steps are not as far apart as steps usually are: no sample reaches across (`split`), the run
    ends (`error`), or steps are taken as they come (`ignore`). Two steps of one series at one time end the
    run unless `ignore`.
    """

    @property
    def order(self) -> str:
        """The column that orders the steps."""
        return ROW_ORDER if self.time is None else self.time
