"""Rows → answers through a bundle, for serving, batch prediction and evaluation alike.

    rows ─▶ contract ─▶ serving steps ─▶ Encoding.accept ─▶ encode ─▶ collate ─▶ program ─▶ Encoding.decode
            (expect)    (derive, clean)  (refuses rows)                                     <target>, …

Two kinds of rows come in. *Raw* rows are a user's: derived columns and cleaners that apply at serving are
done to them first. *Prepared* rows are a dataset's, where that has been done.

A row that cannot be answered is never dropped: it is refused by name (`RequestError`), or, in a stream,
answered with nulls and its reason in the column `refused`. `admit` and `answer` are the two halves that a
server calls apart, so that one bad request never spoils the batch it would have shared.

What this file refuses to know: torch, files, HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from penstock.bundle.contract import RowContract
from penstock.bundle.frames import read, slices
from penstock.bundle.mixed import Mixed
from penstock.bundle.record_shape import RecordShape
from penstock.bundle.rows import FLAT, Intake, absent_columns, from_table, refusal
from penstock.bundle.typing import Typing
from penstock.bundle.value_kinds import carried
from penstock.contracts.learnt import Learnt
from penstock.contracts.tensors import joined
from penstock.core.errors import Problem
from penstock.encode.encoding import Accepted, Encoding
from penstock.formats.learnt import KEPT
from penstock.recipe.names import kept_names

if TYPE_CHECKING:
    from penstock.bundle.steps import Steps

CHUNK = 4096
"""Rows answered at once: enough that numpy and the runtime are busy, few enough that memory is a matter of
megabytes.
"""

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
    """Answers rows with a program.

    Args:
        encoding: the one encoding of a row.
        program: arrays by input name → arrays by output name `<target>.<answer>`.
        outputs: dtype and shape without the batch axis of each output (an answer to no rows has them too).
        decision: what was decided after training, by target.
        columns: the raw columns that a request must have, with the Arrow types they had in training.
        keep: columns carried along where they are there.
        steps: what is done to raw rows first; None for nothing.
        learnt: how the training data was read; None: as `columns` say.
        sparse: whether a record may leave fields out, which are then missing.
        contract: the rules that raw rows keep; None for none.
    """

    def __init__(
        self,
        *,
        encoding: Encoding,
        program: Program,
        outputs: Mapping[str, tuple[str, tuple[int, ...]]],
        decision: Mapping[str, Mapping[str, Any]],
        columns: Mapping[str, pa.DataType],
        keep: Sequence[str] = (),
        steps: Steps | None = None,
        learnt: Learnt | None = None,
        sparse: bool = False,
        contract: RowContract | None = None,
    ) -> None:
        self.encoding = encoding
        self.columns = dict(columns)
        self.keep = tuple(keep)
        self._program = program
        self._outputs = dict(outputs)
        self._decision = {target: dict(decided) for target, decided in decision.items()}
        self._steps = steps
        self._prepared = tuple(encoding.columns(targets=False))
        self._typing = Typing(self.columns, learnt)
        self.shape = RecordShape.of(learnt, sparse=sparse)
        """How records may call their fields."""
        self._contract = contract
        # Fewer rows at once where a row is wide, as pictures are.
        self._chunk = encoding.rows_at_once(CHUNK)
        # Decoding no rows gives the schema of all answers, before any row comes.
        self._empty = self._decode(self._no_answers())
        self.answer_schema: pa.Schema = self._empty.schema
        """`<target>`, `<target>_probabilities` and the like."""

    # -- the two halves --------------------------------------------------------------------------------------

    def admit(
        self,
        intake: Intake,
        *,
        rows: Literal["raw", "prepared"] = "raw",
        judged: bool = True,
    ) -> Admitted:
        """Accept rows; those that cannot be taken are in `refused`, each with its
        reasons.

        Args:
            intake: the rows, as columns.
            rows: whether the serving steps are still to be done to them.
            judged: whether raw rows must keep the contract.
        """
        refused = dict(intake.refused)
        table, mixed = intake.table, intake.mixed
        # Where the rows that are left stand in what came; each stage below drops the
        # ones it refuses.
        places = np.arange(table.num_rows) if intake.places is None else intake.places
        # The types of training first, so that steps and features see values as training
        # did; `true` is 1 in them, so a rule that wants numbers looks before.
        contract = self._contract if rows == "raw" and judged else None
        truths = contract.truths(table, mixed) if contract is not None else {}
        table, mixed = self._typing.typed(table, mixed)
        if contract is not None:
            table, mixed, problems = contract.filtered(table, mixed, broken=truths)
            places = _without(places, problems, refused)
        if rows == "raw" and self._steps:
            table, mixed, problems = self._steps.apply(table, mixed)
            places = _without(places, problems, refused)
        # Features are spared columns without rows.
        accepted = self._accept(table, mixed) if len(places) else Accepted(0)
        places = _without(places, accepted.refused, refused)
        return Admitted(accepted.usable().columns, places, intake.rows, refused)

    def _accept(self, table: pa.Table, mixed: Mapping[str, Mixed]) -> Accepted:
        """Accept rows into canonical columns; where a feature's raw columns hold
        several types, the rows of each type are accepted by themselves.
        """
        if not mixed:
            return self.encoding.accept(table, targets=False)
        # Each feature is accepted by itself, since only its own columns decide how its
        # rows part.
        whole = Accepted(table.num_rows)
        for name, feature in self.encoding.inputs.items():
            alone = Encoding({name: feature}, {}, self.encoding.fitted)
            columns = feature.columns(name)
            # One label for each combination of types that the feature's raw columns have in a row.
            labels = np.zeros(table.num_rows, np.int64)
            for column in columns:
                if column in mixed:
                    labels = labels * len(mixed[column].pieces) + mixed[column].labels
            parts = []
            for label in np.unique(labels):
                at = np.flatnonzero(labels == label)
                raw = {
                    c: mixed[c].take(at) if c in mixed else table[c].take(pa.array(at))
                    for c in columns
                }
                accepted = alone.accept(pa.table(raw), targets=False)
                for row, problems in accepted.refused.items():
                    whole.refused.setdefault(int(at[row]), []).extend(problems)
                parts.append((at, accepted.columns[name]))
            # The pieces stand in order of their labels; sorting by place restores the
            # order of rows.
            order = np.argsort(np.concatenate([at for at, _ in parts]), kind="stable")
            whole.columns[name] = pa.concat_arrays([column for _, column in parts]).take(
                pa.array(order)
            )
        return whole

    def run(self, columns: Mapping[str, pa.Array], rows: int) -> dict[str, np.ndarray]:
        """Run the program on canonical columns; answers `[rows, …]`, computed in pieces
        of at most `CHUNK` rows, fewer where rows are large.
        """
        if not rows:
            return self._no_answers()
        pieces = []
        # Slices share the columns' memory, so a piece costs nothing before it is
        # encoded.
        for start in range(0, rows, self._chunk):
            taken = (
                {
                    name: column.slice(start, self._chunk)
                    for name, column in columns.items()
                }
                if rows > self._chunk
                else dict(columns)
            )
            stored = self.encoding.encode(Accepted(min(self._chunk, rows - start), taken))
            pieces.append(self._program(self.encoding.collate(stored)))
        return (
            pieces[0]
            if len(pieces) == 1
            else {name: joined([piece[name] for piece in pieces]) for name in pieces[0]}
        )

    def answer(self, admitted: Sequence[Admitted]) -> list[pa.Table]:
        """Answer the accepted rows of several requests in one call; returns a table for
        each.
        """
        counts = [len(a.places) for a in admitted]
        filled = [a.columns for a in admitted if len(a.places)]
        columns = (
            filled[0]
            if len(filled) == 1
            # Columns are joined once for the whole batch: one call of the program for
            # all parties.
            else {name: pa.concat_arrays([c[name] for c in filled]) for name in filled[0]}
            if filled
            else {}
        )
        table = self._decode(self.run(columns, sum(counts)))
        if len(counts) == 1:
            return [table]
        # Answers stand in the order of the parties, so each takes its own slice.
        starts = np.cumsum([0, *counts[:-1]])
        return [
            table.slice(int(start), count)
            for start, count in zip(starts, counts, strict=True)
        ]

    def _decode(self, answers: dict[str, np.ndarray]) -> pa.Table:
        return self.encoding.decode(answers, self._decision)

    def _no_answers(self) -> dict[str, np.ndarray]:
        return {
            name: np.zeros((0, *shape), dtype)
            for name, (dtype, shape) in self._outputs.items()
        }

    # -- whole answers ---------------------------------------------------------------------------------------

    def answers(
        self, table: pa.Table, *, rows: Literal["raw", "prepared"] = "prepared"
    ) -> dict[str, np.ndarray]:
        """Return the program's own answers `{"<target>.<answer>": [n, …]}` for a
        dataset's rows, or raw ones.

        Raises:
            RequestError: a column is absent, or rows were refused (each named with field and reason).
        """
        pieces = []
        refused: dict[int, list[Problem]] = {}
        for start in range(0, table.num_rows, self._chunk):
            intake = self._intake(table.slice(start, self._chunk), rows)
            # These rows are a dataset's, or golden: `prepare` has judged them, before
            # cleaners changed them.
            admitted = self.admit(intake, rows=rows, judged=False)
            refused.update(
                {start + row: problems for row, problems in admitted.refused.items()}
            )
            # Once a row is refused there will be no answer; the others are only
            # checked, so that all problems are named together.
            if not refused:
                pieces.append(self.run(admitted.columns, len(admitted.places)))
        if refused:
            raise refusal(refused, rows=table.num_rows)
        if not pieces:
            # Names absent columns of an empty table, too.
            self._intake(table, rows)
            return self._no_answers()
        return {name: joined([piece[name] for piece in pieces]) for name in pieces[0]}

    def predict_table(
        self,
        table: pa.Table,
        keep: Sequence[str] | None = None,
        *,
        rows: Literal["raw", "prepared"] = "raw",
    ) -> pa.Table:
        """Answer every row, in order: the kept columns, then `<target>`,
        `<target>_probabilities` and the like.

        Args:
            keep: columns to carry along beside the bundle's own `keep`.

        Raises:
            RequestError: a column is absent, or rows were refused.
        """
        if not table.num_rows:
            # Names absent columns of an empty table, too.
            self._intake(table, rows)
            return self._with_kept(table, self._empty, keep)
        pieces = []
        refused: dict[int, list[Problem]] = {}
        for start in range(0, table.num_rows, self._chunk):
            piece = table.slice(start, self._chunk)
            admitted = self.admit(self._intake(piece, rows), rows=rows)
            refused.update(
                {start + row: problems for row, problems in admitted.refused.items()}
            )
            # Once a row is refused there will be no answer; the others are only
            # checked.
            if not refused:
                pieces.append(self._with_kept(piece, self.answer([admitted])[0], keep))
        if refused:
            raise refusal(refused, rows=table.num_rows)
        return pa.concat_tables(pieces)

    def predict(self, rows: Any, keep: Sequence[str] | None = None) -> Any:
        """Answer raw rows of any kind, in the same kind (see `Bundle.predict`)."""
        intake, back = read(rows, self.columns, [*self.keep, *(keep or ())], self.shape)
        if not intake.mixed and not intake.refused:
            return back(self.predict_table(intake.table, keep))
        admitted = self.admit(intake)
        if admitted.refused:
            raise refusal(admitted.refused, rows=admitted.rows)
        # No row is refused here, so kept columns and answers have the same rows.
        table = intake.table
        # A kept column of several types has no one Arrow type, and goes out as text.
        for name in {*self.keep, *(keep or ())} & intake.mixed.keys():
            table = table.append_column(
                name, carried(intake.mixed[name].joined(_as_text))
            )
        return back(self._with_kept(table, self.answer([admitted])[0], keep))

    def predict_stream(
        self,
        batches: Iterable[pa.Table | pa.RecordBatch],
        keep: Sequence[str] | None = None,
        *,
        on_refused: Literal["raise", "null"] = "null",
        rows: Literal["raw", "prepared"] = "raw",
    ) -> Iterator[pa.Table]:
        """Answer an endless stream in bounded memory: a table for each piece of at most `CHUNK` rows, in
        order.

        Args:
            on_refused: `null` answers a row that cannot be taken with nulls, and a column `refused` says why
                (null for the others), so that as many rows go out as came in; `raise` stops at the first
                piece that has one.

        Raises:
            RequestError: a column is absent, or, with `raise`, rows were refused.
        """
        answered_rows = 0
        for piece in slices(batches, self._chunk):
            admitted = self.admit(self._intake(piece, rows), rows=rows)
            if admitted.refused and on_refused == "raise":
                # Numbered from the stream's beginning, as the user counts.
                raise refusal(
                    {
                        answered_rows + row: problems
                        for row, problems in admitted.refused.items()
                    },
                    rows=answered_rows + piece.num_rows,
                )
            answered = self.answer([admitted])[0]
            if on_refused == "null":
                answered = spread(answered, admitted)
            yield self._with_kept(piece, answered, keep)
            answered_rows += piece.num_rows

    def _intake(self, table: pa.Table, rows: Literal["raw", "prepared"]) -> Intake:
        return from_table(
            table,
            # Prepared rows have their types; null asks for presence alone.
            self.columns if rows == "raw" else dict.fromkeys(self._prepared, pa.null()),
            self.shape if rows == "raw" else FLAT,
        )

    def _with_kept(
        self, table: pa.Table, answered: pa.Table, keep: Sequence[str] | None
    ) -> pa.Table:
        names = [name for name in self.keep if name in table.column_names]
        extra = [name for name in keep or () if name not in names]
        # The bundle's own kept columns may be absent; those that the caller names may
        # not.
        if absent := [name for name in extra if name not in table.column_names]:
            raise absent_columns(absent, table.column_names)
        written = kept_names([*names, *extra], self.answer_schema.names)
        present = set(table.column_names)
        own_columns = {
            # Where some values do not fit a column's type, the column to carry along
            # stands beside it, under `KEPT`.
            own: table[KEPT + name if KEPT + name in present else name]
            for name, own in written.items()
        }
        return pa.table(
            {**own_columns, **{name: answered[name] for name in answered.column_names}}
        )


def spread(answered: pa.Table, admitted: Admitted) -> pa.Table:
    """Spread the answers of accepted rows over all rows: nulls where refused, and the
    reason in the column `refused`.
    """
    reasons: list[str | None] = [None] * admitted.rows
    for row, problems in admitted.refused.items():
        reasons[row] = "; ".join(map(str, problems))
    if admitted.refused:
        # -1 becomes null by the mask: a refused row has no answer to take.
        index = np.full(admitted.rows, -1, np.int64)
        index[admitted.places] = np.arange(len(admitted.places))
        answered = answered.take(pa.array(index, mask=index < 0))
    return answered.append_column("refused", pa.array(reasons, pa.string()))


def _without(
    places: np.ndarray,
    problems: Mapping[int, Sequence[Problem]],
    refused: dict[int, list[Problem]],
) -> np.ndarray:
    """Return the places of the rows without problems; put the others into `refused`."""
    if not problems:
        return places
    refused.update(
        {int(places[row]): list(row_problems) for row, row_problems in problems.items()}
    )
    # `problems` counts rows among `places`, not among those that came.
    return np.delete(places, np.fromiter(problems, np.int64, len(problems)))


def _as_text(piece: pa.Array) -> pa.Array:
    return pa.array(
        [None if v is None else str(v) for v in piece.to_pylist()], pa.string()
    )


__all__ = ["CHUNK", "Admitted", "Predictor", "spread"]
