"""Rows → rows through a bundle: the one way that serving, batch prediction and evaluation answer.

    rows ─▶ serving steps ─▶ Encoding.accept ─▶ encode ─▶ collate ─▶ program ─▶ Encoding.decode ─▶ <target>, <target>_probabilities
            (derive, clean)   (refuses rows)

Two kinds of rows come in. *Raw* rows are a user's: derived columns and cleaners that apply at serving are done to them
first. *Prepared* rows are a dataset's, where that has been done.

A row that cannot be answered is never dropped: it is refused by name (`RequestError`), or, in a stream, answered with
nulls and its reason in the column `refused`. `admit` and `answer` are the two halves that a server calls apart, so that
one bad request never spoils the batch it would have shared.

What this file refuses to know: torch, files, HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from penstock.bundle import rows as rowing
from penstock.bundle.rows import Group, Intake
from penstock.core.errors import Problem, RequestError
from penstock.data.encoding import Accepted

if TYPE_CHECKING:
    from penstock.bundle.steps import Steps
    from penstock.data.encoding import Encoding

CHUNK = 4096
"""Rows answered at once: enough that numpy and the runtime are busy, few enough that memory is a matter of megabytes."""

Program = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass
class Admitted:
    """Rows that were accepted, ready to be answered together with others."""

    columns: dict[str, pa.Array]
    """Canonical columns of the accepted rows, by feature."""
    places: np.ndarray
    """Which of the rows that came these are, ascending."""
    rows: int
    """How many rows came."""
    refused: dict[int, list[Problem]]
    """The others, with their reasons."""


class Predictor:
    """A program with all it takes to answer rows.

    Args:
        encoding: the one encoding of a row.
        program: arrays by input name → arrays by output name `<target>.<answer>`.
        outputs: dtype and shape without the batch axis of each output (an answer to no rows has them too).
        decision: what was decided after training, by target.
        columns: the raw columns that a request must have, with the Arrow types they had in training.
        keep: columns carried along where they are there.
        steps: what is done to raw rows first; None for nothing.
    """

    def __init__(
        self, *, encoding: Encoding, program: Program, outputs: Mapping[str, tuple[str, tuple[int, ...]]], decision: Mapping[str, Mapping[str, Any]],
        columns: Mapping[str, pa.DataType], keep: Sequence[str] = (), steps: Steps | None = None,
    ) -> None:
        self.encoding = encoding
        self.columns = dict(columns)
        self.keep = tuple(keep)
        self._program = program
        self._outputs = dict(outputs)
        self._decision = {target: dict(decided) for target, decided in decision.items()}
        self._steps = steps
        self._prepared = tuple(encoding.columns(targets=False))
        self._empty = self._decode(self._no_answers())
        self.answer_schema: pa.Schema = self._empty.schema
        """`<target>`, `<target>_probabilities` and the like."""

    # -- the two halves ------------------------------------------------------------------------------------------------

    def admit(self, intake: Intake, *, rows: Literal["raw", "prepared"] = "raw") -> Admitted:
        """Accept and encode rows; those that cannot be are in `refused`, each for what it is."""
        refused = dict(intake.refused)
        parts: list[tuple[dict[str, pa.Array], np.ndarray]] = []
        for group in intake.groups:
            table = group.table
            if not table.num_rows:
                continue
            places = np.arange(table.num_rows) if group.places is None else group.places
            if rows == "raw" and self._steps:
                table, problems = self._steps.apply(table)
                places = _without(places, problems, refused)
            accepted = self.encoding.accept(table, targets=False)
            places = _without(places, accepted.refused, refused)
            if len(places):
                parts.append((accepted.kept().columns, places))
        columns, places = _together(parts)
        return Admitted(columns, places, intake.rows, refused)

    def run(self, columns: Mapping[str, pa.Array], rows: int) -> dict[str, np.ndarray]:
        """Canonical columns → the program's answers `[rows, …]`, in pieces of at most `CHUNK` rows."""
        if not rows:
            return self._no_answers()
        pieces = []
        for start in range(0, rows, CHUNK):
            taken = {name: column.slice(start, CHUNK) for name, column in columns.items()} if rows > CHUNK else dict(columns)
            stored = self.encoding.encode(Accepted(min(CHUNK, rows - start), taken))
            pieces.append(self._program(self.encoding.collate(stored)))
        return pieces[0] if len(pieces) == 1 else {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def answer(self, admitted: Sequence[Admitted]) -> list[pa.Table]:
        """Answer several parties' accepted rows in one go; one table each, of its accepted rows."""
        counts = [len(a.places) for a in admitted]
        filled = [a.columns for a in admitted if len(a.places)]
        columns = filled[0] if len(filled) == 1 else {name: pa.concat_arrays([c[name] for c in filled]) for name in filled[0]} if filled else {}
        table = self._decode(self.run(columns, sum(counts)))
        if len(counts) == 1:
            return [table]
        starts = np.cumsum([0, *counts[:-1]])
        return [table.slice(int(start), count) for start, count in zip(starts, counts, strict=True)]

    def _decode(self, answers: dict[str, np.ndarray]) -> pa.Table:
        return self.encoding.decode(answers, self._decision)

    def _no_answers(self) -> dict[str, np.ndarray]:
        return {name: np.zeros((0, *shape), dtype) for name, (dtype, shape) in self._outputs.items()}

    # -- whole answers -------------------------------------------------------------------------------------------------

    def answers(self, table: pa.Table, *, rows: Literal["raw", "prepared"] = "prepared") -> dict[str, np.ndarray]:
        """The program's own answers `{"<target>.<answer>": [n, …]}` for a dataset's rows (or raw ones).

        Raises:
            RequestError: a column is absent, or rows were refused (each named with field and reason).
        """
        pieces = []
        refused: dict[int, list[Problem]] = {}
        for start in range(0, table.num_rows, CHUNK):
            intake = self._intake(table.slice(start, CHUNK), rows)
            admitted = self.admit(intake, rows=rows)
            refused.update({start + row: problems for row, problems in admitted.refused.items()})
            if not refused:
                pieces.append(self.run(admitted.columns, len(admitted.places)))
        if refused:
            raise rowing.refusal(refused, rows=table.num_rows)
        if not pieces:
            self._intake(table, rows)
            return self._no_answers()
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def predict_table(self, table: pa.Table, keep: Sequence[str] | None = None, *, rows: Literal["raw", "prepared"] = "raw") -> pa.Table:
        """An answer to every row, in order: the kept columns, then `<target>`, `<target>_probabilities` and the like.

        Args:
            keep: columns to carry along beside the bundle's own `keep`.

        Raises:
            RequestError: a column is absent, or rows were refused.
        """
        if not table.num_rows:
            self._intake(table, rows)
            return self._with_kept(table, self._empty, keep)
        pieces = []
        refused: dict[int, list[Problem]] = {}
        for start in range(0, table.num_rows, CHUNK):
            piece = table.slice(start, CHUNK)
            admitted = self.admit(self._intake(piece, rows), rows=rows)
            refused.update({start + row: problems for row, problems in admitted.refused.items()})
            if not refused:
                pieces.append(self._with_kept(piece, self.answer([admitted])[0], keep))
        if refused:
            raise rowing.refusal(refused, rows=table.num_rows)
        return pa.concat_tables(pieces)

    def predict(self, rows: Any, keep: Sequence[str] | None = None) -> Any:
        """Raw rows of any kind → answers of the same kind (see `Bundle.predict`)."""
        intake, back = rowing.read(rows, self.columns, [*self.keep, *(keep or ())])
        if len(intake.groups) == 1 and not intake.refused:
            return back(self.predict_table(intake.groups[0].table, keep))
        admitted = self.admit(intake)
        if admitted.refused:
            raise rowing.refusal(admitted.refused, rows=admitted.rows)
        answered = self.answer([admitted])[0]
        return back(self._with_kept(_kept(intake, self.keep, keep), answered, keep))

    def predict_stream(
        self, batches: Iterable[pa.Table | pa.RecordBatch], keep: Sequence[str] | None = None, *, on_refused: Literal["raise", "null"] = "null",
        rows: Literal["raw", "prepared"] = "raw",
    ) -> Iterator[pa.Table]:
        """Answer an endless stream in bounded memory: a table for each piece of at most `CHUNK` rows, in order.

        Args:
            on_refused: `null` answers a row that cannot be taken with nulls, and a column `refused` says why (null for the
                others), so that as many rows go out as came in; `raise` stops at the first piece that has one.

        Raises:
            RequestError: a column is absent, or, with `raise`, rows were refused.
        """
        seen = 0
        for piece in rowing.slices(batches, CHUNK):
            admitted = self.admit(self._intake(piece, rows), rows=rows)
            if admitted.refused and on_refused == "raise":
                raise rowing.refusal({seen + row: problems for row, problems in admitted.refused.items()}, rows=seen + piece.num_rows)
            answered = self.answer([admitted])[0]
            if on_refused == "null":
                answered = spread(answered, admitted)
            yield self._with_kept(piece, answered, keep)
            seen += piece.num_rows

    def _intake(self, table: pa.Table, rows: Literal["raw", "prepared"]) -> Intake:
        return rowing.from_table(table, self.columns if rows == "raw" else dict.fromkeys(self._prepared, pa.null()))

    def _with_kept(self, table: pa.Table, answered: pa.Table, keep: Sequence[str] | None) -> pa.Table:
        names = [name for name in self.keep if name in table.column_names]
        extra = [name for name in keep or () if name not in names]
        if absent := [name for name in extra if name not in table.column_names]:
            raise rowing.absent_columns(absent, table.column_names)
        kept = {name: table[name] for name in [*names, *extra] if name not in answered.column_names}
        return pa.table({**kept, **{name: answered[name] for name in answered.column_names}})


def spread(answered: pa.Table, admitted: Admitted) -> pa.Table:
    """Answers to the accepted rows as answers to all rows: nulls where refused, and why in the column `refused`."""
    reasons: list[str | None] = [None] * admitted.rows
    for row, problems in admitted.refused.items():
        reasons[row] = "; ".join(map(str, problems))
    if admitted.refused:
        index = np.full(admitted.rows, -1, np.int64)
        index[admitted.places] = np.arange(len(admitted.places))
        answered = answered.take(pa.array(index, mask=index < 0))
    return answered.append_column("refused", pa.array(reasons, pa.string()))


def _without(places: np.ndarray, problems: Mapping[int, Sequence[Problem]], refused: dict[int, list[Problem]]) -> np.ndarray:
    """The places of the rows that have no problem; the others are put into `refused`."""
    if not problems:
        return places
    refused.update({int(places[row]): list(found) for row, found in problems.items()})
    return np.delete(places, np.fromiter(problems, np.int64, len(problems)))


def _together(parts: list[tuple[dict[str, pa.Array], np.ndarray]]) -> tuple[dict[str, pa.Array], np.ndarray]:
    """Canonical columns of several groups, in the rows' own order."""
    if not parts:
        return {}, np.empty(0, np.int64)
    if len(parts) == 1:
        return parts[0]
    places = np.concatenate([p for _, p in parts])
    order = np.argsort(places, kind="stable")
    taken = pa.array(order)
    return {name: pa.concat_arrays([columns[name] for columns, _ in parts]).take(taken) for name in parts[0][0]}, places[order]


def _kept(intake: Intake, own: Sequence[str], keep: Sequence[str] | None) -> pa.Table:
    """The kept columns of all groups, in the rows' own order."""
    names = [*own, *(keep or ())]
    columns: dict[str, list[Any]] = {}
    for name in names:
        values: list[Any] = [None] * intake.rows
        for group in intake.groups:
            if name not in group.table.column_names:
                break
            places: Iterable[int] = range(intake.rows) if group.places is None else group.places.tolist()
            for place, value in zip(places, group.table[name].to_pylist(), strict=True):
                values[place] = value
        else:
            columns[name] = values
    return pa.table({name: rowing.carried(values) for name, values in columns.items()})


__all__ = ["CHUNK", "Admitted", "Group", "Intake", "Predictor", "RequestError", "spread"]
