"""Cleaners that judge rows: those that they find leave, or weigh less, each with its reason.

A `Judge` says which rows it finds; what is done with them is its recipe's `on_violation`, and is done by
penstock.prepare.judging, which counts them. So a judge never moves a row itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from penstock.contracts.data import ROW_ID, Cleaner, EngineSession
from penstock.contracts.part import mistakes
from penstock.core.errors import Problem

if TYPE_CHECKING:
    import ibis.expr.types as ir

COLUMN, REASON = "__p_column", "__p_reason"
"""Which column of a row is wrong (null where it is none alone), and why."""
FACTOR = "__p_factor"
"""What a row's weight is multiplied by, where it is not the same for all that are found."""
GIVEN = "__p_given"
"""True in rows of a validation or test split that files or a column give: they are not ours to change."""
SPLIT = "__p_split"
"""The split of a row, where the judge runs after the split."""
VIOLATIONS = pa.schema(
    [(ROW_ID, pa.string()), (COLUMN, pa.string()), (REASON, pa.string())]
)
"""What `Judge.violations` gives; `FACTOR` (a double) may stand beside it."""
_ROWS, _LARGE_ROWS = 65_536, 64
Columns = Mapping[str, pa.Array]
"""A batch of rows: an array for each column, all of one length."""


class Judge(Cleaner):
    """A cleaner that finds rows, with a reason for each.

    Laws (penstock.testing.laws.cleaners): those of a cleaner, and: it finds a row at most once and gives a
    reason; the rows and reasons do not depend on the order of rows.
    """

    form: ClassVar[str] = "global"
    at_serving: ClassVar[str] = "skip"
    judges: ClassVar[str] = "all"
    """Of one that runs after the split: whether `all` rows are judged, or those of the split `train` alone.
    """

    large: ClassVar[bool] = False
    """Whether its columns hold large values, such as pictures: they wait beside the engine, and are read by
    `streamed_large`, which a `BatchJudge` does by itself.
    """

    on_violation: Literal["quarantine", "drop", "weight"] = "quarantine"
    """What is done with a row that it finds: put aside with the reason; left out, and counted; or kept, with
    the recipe's `weight` multiplied by `factor`.
    """
    factor: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Of `on_violation: weight`; 0.5 unless given."""

    @model_validator(mode="after")
    def _weighs(self) -> Judge:
        if self.factor is not None and self.on_violation != "weight":
            text = f"is for `on_violation: weight`; here it is `{self.on_violation}`"
            raise mistakes(Problem(("factor",), text))
        return self

    @abstractmethod
    def violations(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        """The rows that it finds, each once: `ROW_ID`, `COLUMN`, `REASON` (never null) and maybe `FACTOR`.

        A reason shows values of no column but that in `COLUMN`, since others may be private.

        Args:
            table: the rows, with `GIVEN`, `PLACE` and, after the split, `SPLIT`.
            facts: of `fit`.
        """

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        """The rows that it does not find."""
        return table.anti_join(self.violations(table, facts, session), ROW_ID)


class BatchJudge(Judge):
    """A judge whose work is no expression: one pass over batches of the columns it `needs`, or two.

    The first pass, `gather`, is only made where a class has one. What it gathers must be bounded, however
    many rows there are.
    """

    def gather(self, batches: Iterator[Columns], facts: Mapping[str, Any]) -> Any:
        """What `judge` has to know of all rows, gathered in one pass over them; nothing by default.

        Args:
            batches: the columns of `needs` that the table has, and `ROW_ID`, in no certain order of rows.
        """
        return None

    @abstractmethod
    def judge(
        self, columns: Columns, facts: Mapping[str, Any], gathered: Any
    ) -> Mapping[str, pa.Array]:
        """Why rows of a batch are found: by column an array of texts, null for a row that stays.

        The first column with a reason is the one that is named; a reason of no column alone goes under "".

        Args:
            columns: as in `gather`.
            gathered: what `gather` returned.
        """

    def violations(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        narrow = table.select(ROW_ID, *(n for n in self.needs() if n in table.columns))
        gathered = None
        if type(self).gather is not BatchJudge.gather:
            gathered = self.gather(self._batches(session, narrow), facts)
        return written(
            session,
            (
                violation_rows(columns[ROW_ID], self.judge(columns, facts, gathered))
                for columns in self._batches(session, narrow)
            ),
        )

    def _batches(self, session: EngineSession, table: ir.Table) -> Iterator[Columns]:
        return (streamed_large if self.large else streamed)(session, table)


def streamed(
    session: EngineSession, table: ir.Table, rows: int = _ROWS
) -> Iterator[Columns]:
    """A table's columns, batch by batch.

    Args:
        rows: of a batch at most.
    """
    for batch in session.batches(table, rows):
        if len(batch):
            yield dict(zip(batch.schema.names, batch.columns, strict=True))


def streamed_large(session: EngineSession, table: ir.Table) -> Iterator[Columns]:
    """A table's columns, a few rows at a time, with large values whole."""
    whole = session.whole_values
    for columns in streamed(session, table, _LARGE_ROWS):
        yield {
            name: values if whole is None else whole(name, values)
            for name, values in columns.items()
        }


def written(session: EngineSession, pieces: Iterable[pa.Table]) -> ir.Table:
    """Violations that come piece by piece, each of `VIOLATIONS` (with or without `FACTOR`), on disk."""
    path = session.folder() / "part-0.parquet"
    writer: pq.ParquetWriter | None = None
    try:
        for piece in pieces:
            if not len(piece):
                continue
            writer = writer or pq.ParquetWriter(path, piece.schema)
            writer.write_table(piece)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        return session.table(VIOLATIONS.empty_table())
    return session.read([path])


def violation_rows(ids: pa.Array, reasons: Mapping[str, pa.Array]) -> pa.Table:
    """The rows with a reason, as `VIOLATIONS` has them.

    Args:
        reasons: as `BatchJudge.judge` gives them.
    """
    columns: list[str | None] = [None] * len(ids)
    whys: list[str | None] = [None] * len(ids)
    for column, texts in reasons.items():
        if texts.null_count == len(texts):
            continue
        for row, text in enumerate(texts.to_pylist()):
            if text is not None and whys[row] is None:
                columns[row], whys[row] = column or None, text
    rows = pa.table([ids.cast(pa.string()), columns, whys], schema=VIOLATIONS)
    return rows.filter(rows[REASON].is_valid())
