"""Steps that raw rows go through before they are encoded: derived columns, and cleaners
that apply at serving.

The very expressions that prepared the training data are compiled once and run on the embedded engine, in the
order in which preparing ran them: derived columns, cleaners that learn nothing, cleaners with facts learnt
from the training split. Only what the model's inputs depend on is kept, so a request need not have columns
that would not matter; where a cleaner also reads a target, which a request cannot have, that column is null.

The columns that steps read are first brought to the types they had in training, value by value; a value that
does not fit refuses its own row. A row that breaks an expression (a division, a date that is none) is refused
likewise.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from penstock.bundle.mixed import Mixed
from penstock.bundle.typing import one_array
from penstock.contracts.data import ROW_ID, Cleaner, Engine
from penstock.contracts.privacy import Anonymiser
from penstock.contracts.sql import bind
from penstock.core.errors import BundleError, ContractError, Problem, TooDear
from penstock.prepare.clean import Mender, applied
from penstock.prepare.protect import Protection

if TYPE_CHECKING:
    from penstock.contracts.data import EngineSession

_MEMORY_BYTES = 1 << 30
_SECONDS, _SECONDS_A_ROW = 2.0, 0.002
"""What expressions that are not cheap may take for one call of so many rows."""
_TRIES = 12
"""Calls in which what takes too long is looked for; then the rows that are left are refused together."""


@dataclass
class Steps:
    """Derived columns and cleaners, to be applied to requests."""

    derive: dict[str, str] = field(default_factory=dict)
    """Name → SQL expression, in order."""
    clean: list[tuple[Cleaner, dict[str, Any]]] = field(default_factory=list)
    """Cleaners with their facts, in order."""
    reads: dict[str, pa.DataType] = field(default_factory=dict)
    """The raw columns that the steps read, with their types in training."""
    blank: tuple[str, ...] = ()
    """Those of `reads` that a request cannot have (targets): null."""
    private: dict[str, Anonymiser] = field(default_factory=dict)
    """How private columns are hidden: after the cleaners without facts, before those with."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._apply: Callable[[pa.Table], pa.Table] | None = None

    @classmethod
    def needed(
        cls,
        wanted: Sequence[str],
        *,
        derived: Mapping[str, str],
        clean: Sequence[tuple[Cleaner, Mapping[str, Any]]],
        private: Mapping[str, Anonymiser] | None = None,
        schema: Mapping[str, pa.DataType],
        targets: Sequence[str],
    ) -> tuple[Steps, list[str]]:
        """Return the steps that the columns `wanted` depend on, and the raw columns
        that a request must then have.

        Args:
            wanted: the columns that the encoding reads.
            derived: the recipe's derived columns.
            clean: its cleaners with their facts.
            private: how its private columns are hidden.
            schema: the dataset's columns; private ones with the types that they have before they are hidden.
            targets: raw columns that a request cannot have.

        Raises:
            BundleError: a cleaner that the inputs depend on cannot be done to single requests.
        """
        need = dict.fromkeys(wanted)
        # Backwards from what the encoding reads, in the order of preparing: a step matters if a later one,
        # or a feature, reads what it changes.
        fitted = _that_matter([pair for pair in clean if pair[0].is_fitted()], need)
        hidden = {
            name: how
            for name, how in (private or {}).items()
            if name in need and how.at_serving == "apply"
        }
        unfitted = _that_matter([p for p in clean if not p[0].is_fitted()], need)
        cleaners = unfitted + fitted
        expressions: dict[str, str] = {}
        for name, expression in reversed(list(derived.items())):
            if name in need:
                # Before the others in the dictionary: derived columns run in the order
                # of the recipe.
                expressions = {name: expression, **expressions}
                # The derived column is made here, so a request need not bring it; what
                # it is made of, it must.
                del need[name]
                need.update(dict.fromkeys(bind(expression, list(schema)).columns))
        raw = [name for name in schema if name in need and name != ROW_ID]
        # A cleaner may read a target, but the encoding's inputs never do.
        blank = tuple(name for name in raw if name in targets and name not in wanted)
        required = [name for name in raw if name not in blank]
        if not expressions and not cleaners and not hidden:
            return cls(), required
        touched = {c for cleaner, _ in cleaners for c in cleaner.needs()} | {
            c for e in expressions.values() for c in bind(e, list(schema)).columns
        }
        touched |= hidden.keys()
        # A cleaner without named columns sees the whole row.
        everything = any(not cleaner.needs() for cleaner, _ in cleaners)
        reads = tuple(name for name in raw if everything or name in touched)
        types = {name: schema[name] for name in reads}
        return cls(expressions, cleaners, types, blank, hidden), required

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "derive": self.derive,
            "clean": [
                {"cleaner": cleaner.to_dict(), "facts": facts}
                for cleaner, facts in self.clean
            ],
            # Left out where there is none, so that such a bundle is what it always was.
            **(
                {"private": {name: how.to_dict() for name, how in self.private.items()}}
                if self.private
                else {}
            ),
            "reads": base64.b64encode(
                pa.schema(list(self.reads.items())).serialize().to_pybytes()
            ).decode(),
            "blank": list(self.blank),
        }

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Steps:
        """The steps as `bundle.json` declares them."""
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(data["reads"])))
        return cls(
            dict(data["derive"]),
            [
                (Cleaner.load(entry["cleaner"]), dict(entry["facts"]))
                for entry in data["clean"]
            ],
            {f.name: f.type for f in schema},
            tuple(data["blank"]),
            {name: Anonymiser.load(how) for name, how in data.get("private", {}).items()},
        )

    @property
    def golden_rows(self) -> Literal["raw", "prepared"]:
        """How golden rows are kept: raw, so that they prove the steps; with private columns prepared, since
        a bundle must hold no private value.
        """
        return "prepared" if self.private else "raw"

    def __bool__(self) -> bool:
        return bool(self.derive or self.clean or self.private)

    # -- applying --------------------------------------------------------------------------------------------

    def apply(
        self, table: pa.Table, mixed: Mapping[str, Mixed] | None = None
    ) -> tuple[pa.Table, dict[str, Mixed], dict[int, list[Problem]]]:
        """Apply the steps; returns the rows that are left, in order, and the problems
        of the others.

        Args:
            table: columns of one type.
            mixed: columns of several; those that the steps read come out as columns of one type.
        """
        pieces = dict(mixed or {})
        if not self:
            return table, pieces, {}
        refused: dict[int, list[Problem]] = {}
        columns: dict[str, pa.Array] = {}
        for name, kind in self.reads.items():
            if name in self.blank:
                columns[name] = pa.nulls(table.num_rows, kind)
                continue
            if name in pieces:
                columns[name], wrong = _cast_mixed(pieces.pop(name), kind)
            else:
                columns[name], wrong = cast(one_array(table[name]), kind)
            for row, text in wrong.items():
                refused.setdefault(row, []).append(Problem((name,), text))
        # The row's number stands in for the row id: steps may drop or reorder rows.
        given = pa.table(
            {**columns, ROW_ID: pa.array([str(i) for i in range(table.num_rows)])}
        )
        if refused:
            given = given.take(
                # A row with a value that does not fit never reaches the expressions.
                pa.array(
                    np.setdiff1d(
                        np.arange(table.num_rows), np.fromiter(refused, np.int64)
                    )
                )
            )
        answered = self._made(given, refused)
        # What the steps dropped or reordered shows in these numbers.
        places = np.array([int(i) for i in answered[ROW_ID].to_pylist()], np.int64)
        rest = table
        if len(places) != table.num_rows:
            rest, pieces = (
                table.take(pa.array(places)),
                {name: column.only(places) for name, column in pieces.items()},
            )
        changed = {
            # Blank columns stood in for targets, and go no further.
            name: answered[name]
            for name in answered.column_names
            if name != ROW_ID and name not in self.blank
        }
        return (
            pa.table(
                {
                    **{
                        name: rest[name]
                        for name in rest.column_names
                        if name not in changed
                    },
                    **changed,
                }
            ),
            pieces,
            refused,
        )

    def _made(self, given: pa.Table, refused: dict[int, list[Problem]]) -> pa.Table:
        """Run the steps; rows that break an expression are found by halving, and go to
        `refused`.
        """
        # The first answer has no rows: it gives the schema where every row is refused.
        waiting, answers, tries = [given], [self._compiled()(given.slice(0, 0))], _TRIES
        while waiting:
            piece = waiting.pop()
            try:
                answers.append(self._compiled()(piece))
            except (ContractError, TooDear) as error:
                # Only what takes too long uses up tries, since each such call costs its
                # whole time limit.
                tries -= isinstance(error, TooDear)
                if piece.num_rows == 1 or not tries:
                    # Out of tries: what still waits is refused with the same reason, so
                    # that the call ends.
                    for each in [piece, *waiting] if not tries else [piece]:
                        for row in each[ROW_ID].to_pylist():
                            refused.setdefault(int(row), []).append(
                                Problem((), error.message)
                            )
                    waiting = waiting if tries else []
                    continue
                half = piece.num_rows // 2
                # The first half is on top of the stack, so answers come in order of
                # rows.
                waiting += [piece.slice(half), piece.slice(0, half)]
        return pa.concat_tables(answers)

    def _compiled(self) -> Callable[[pa.Table], pa.Table]:
        # The session is opened once; several threads may ask for it first.
        with self._lock:
            if self._apply is None:
                scratch = tempfile.mkdtemp(prefix="penstock-serve-")
                session = Engine.load("embedded").open(
                    Path(scratch), memory_bytes=_MEMORY_BYTES, threads=1
                )
                # The engine and its folder live as long as the steps do.
                weakref.finalize(self, _close, session, scratch)
                schema = pa.schema([*self.reads.items(), (ROW_ID, pa.string())])
                self._apply = applied(
                    self._menders(),
                    schema,
                    session,
                    derived=self.derive,
                    seconds=lambda rows: _SECONDS + _SECONDS_A_ROW * rows,
                )
            return self._apply

    def _menders(self) -> list[tuple[Mender, Mapping[str, Any]]]:
        """What is done to rows, in the order of preparing."""
        menders: list[tuple[Mender, Mapping[str, Any]]] = list(self.clean)
        if self.private:
            # Between the cleaners that learn nothing and those that learnt from hidden values.
            place = sum(not cleaner.is_fitted() for cleaner, _ in self.clean)
            menders.insert(place, (Protection(self.private), {}))
        return menders


def _that_matter(
    clean: Sequence[tuple[Cleaner, Mapping[str, Any]]], need: dict[str, None]
) -> list[tuple[Cleaner, dict[str, Any]]]:
    """The cleaners that columns in `need` depend on, in order; what those read is added to `need`.

    Raises:
        BundleError: one of them cannot be done to single requests.
    """
    cleaners: list[tuple[Cleaner, dict[str, Any]]] = []
    for cleaner, facts in reversed(clean):
        reads = cleaner.needs()
        # A cleaner that names no columns may read any, so it is kept unless it is to be skipped.
        if cleaner.at_serving == "skip" or (reads and not set(reads) & need.keys()):
            continue
        if cleaner.at_serving == "refuse":
            raise BundleError(
                f"the inputs depend on the cleaner {cleaner.type!r}, which cannot be applied"
                " to a single request. Leave it out, or do not use its columns as inputs."
            )
        # Inserted at the front, since the walk goes backwards.
        cleaners.insert(0, (cleaner, dict(facts)))
        need.update(dict.fromkeys(reads))
    return cleaners


def _close(session: EngineSession, scratch: str) -> None:
    session.close()
    shutil.rmtree(scratch, ignore_errors=True)


def _cast_mixed(column: Mixed, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    wrong: dict[int, str] = {}
    pieces = []
    for label, piece in enumerate(column.pieces):
        values, problems = cast(piece, kind)
        rows = np.flatnonzero(column.labels == label)
        wrong.update({int(rows[i]): text for i, text in problems.items()})
        pieces.append(values)
    # Each piece was cast to the same type, so they join as they are.
    return Mixed(column.labels, pieces).joined(lambda piece: piece), wrong


def cast(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Cast a column value by value; a value that does not fit becomes null, and its
    reason is returned by row.
    """
    if column.type == kind:
        return column, {}
    # The usual case casts the whole column in one call.
    try:
        return column.cast(kind), {}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # some do not fit: which, and why, is found one by one
    parts: list[pa.Array] = []
    wrong: dict[int, str] = {}
    for i in range(len(column)):
        try:
            parts.append(column.slice(i, 1).cast(kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            wrong[i] = f"expected {kind}; found {str(column[i].as_py())[:80]!r}"
            parts.append(pa.nulls(1, kind))
    return pa.concat_arrays(parts), wrong
