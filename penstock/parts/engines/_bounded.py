"""Expressions of a DuckDB session that run in a cell (`_cell.py`): which they are, and how a query calls
them.

An expression that may make much of little becomes a call of a function of this process, which hands DuckDB's
vectors to the cell. Queries of a session that has such an expression run in a thread of their own, while
whoever asked waits in Python: so Ctrl-C, and the ceiling's signal, are heard at once, the cell is killed, and
DuckDB is interrupted. All other sessions are untouched.
"""

from __future__ import annotations

import inspect
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ibis.expr.operations as ops
import numpy as np
import pyarrow as pa

from penstock.contracts.sql import Expression
from penstock.contracts.sqlsize import UNKNOWN, Growth, Size, of_template
from penstock.core.errors import PenstockError
from penstock.core.wanted import is_bounded, is_wanted
from penstock.parts.engines._cell import Cell, Stopped, Work
from penstock.parts.engines._expression import SqlExpression

VECTOR = 2048
"""Rows that DuckDB computes at once."""
CELL_PREFIX = "penstock_cell_"
_SHARE = 4
"""The cell has one part in so many of the engine's memory, and the vectors of all expressions likewise."""
_LEAST_BYTES, _MOST_BYTES = 64 * 2**20, 2**30
_HEARD_SECONDS = 2.0
"""How long an interrupted query of DuckDB's is waited for: cheap expressions end within a vector."""
_LOOK_SECONDS = 0.1
"""How often a thread that makes rows ahead asks whether they are still wanted."""
_AS_TEXT = {"JSON": "JSON", "UUID": "UUID"}
"""Types that a function of Python cannot give; they travel as text."""
_WIDTH = 32.0


class Bounded:
    """The costly expressions of one session, which run in a child process.

    Args:
        duck: the session's connection.
        limit_bytes: the engine's memory.
        threads: of DuckDB.
    """

    def __init__(self, duck: Any, *, limit_bytes: int, threads: int) -> None:
        self._duck, self._limit_bytes, self._threads = duck, limit_bytes, threads
        self._numbers = itertools.count()
        self._sizes: dict[Any, Size] = {}
        self._cell: Cell | None = None
        self._trouble: BaseException | None = None
        self._deadline: float | None = None

    @property
    def is_used(self) -> bool:
        """Whether any expression runs in the cell."""
        return self._cell is not None

    @property
    def row_bytes(self) -> int:
        """The most bytes of one value from the cell, where all values of a vector are as large."""
        return self._answer_bytes() // VECTOR

    def close(self) -> None:
        """End the cell."""
        if self._cell is not None:
            self._cell.close()

    # -- which -----------------------------------------------------------------------------------------------

    def is_dear(self, op: SqlExpression, *, widths: Mapping[str, int]) -> bool:
        """Whether an expression may make values larger than a vector should hold, or may run for
        long.

        Args:
            widths: bytes of a column's values, as far as they are known.
        """
        grown = _growth(op)
        read = self._read(op)
        if not grown.is_cheap(read):
            return True
        # Of an input from the cell no size is known, so `is_cheap` has judged the
        # expression by itself.
        if math.isinf(read.times):
            return False
        together = grown.together.of(read)
        bytes_ = (
            sum(float(widths.get(field.name, _WIDTH)) for field in op.find(ops.Field))
            or _WIDTH
        )
        # A vector of every thread is computed at once. What does not grow is as large
        # as what was read, and fits as that did.
        return (
            together.times * bytes_ + together.fixed
        ) * VECTOR * self._threads > self._limit_bytes / _SHARE and together.times > 1

    def _read(self, op: SqlExpression) -> Size:
        """The largest size of the columns that an expression reads, relative to the values in the
        files.
        """
        sizes = [self._size(each) for each in op.inputs]
        return Size(
            max((size.times for size in sizes), default=0.0),
            max((size.fixed for size in sizes), default=0.0),
        )

    def _size(self, op: Any) -> Size:
        """The largest size that a value may have, relative to the values in the files."""
        # A column is asked for by every expression after it, and its tree may be deep.
        if op not in self._sizes:
            self._sizes[op] = self._size_of(op)
        return self._sizes[op]

    def _size_of(self, op: Any) -> Size:
        if isinstance(op, SqlExpression):
            # The cell bounds its answer, but what it is of what was read, nobody knows.
            if CELL_PREFIX in op.template:
                return UNKNOWN
            return _growth(op).answer.of(self._read(op))
        if isinstance(op, ops.Field):
            values = getattr(op.rel, "values", None)
            # A column that a step made is as large as the expression that made it.
            if values is not None and op.name in values:
                return self._size(values[op.name])
            parent = getattr(op.rel, "parent", None)
            # A filter or an order hands columns on as they are.
            if parent is not None and op.name in parent.schema:
                return self._size(ops.Field(parent, op.name))
            # A column of a file: once itself, and a fixed part for numbers, whose text
            # may be longer than they are.
            return Size(1.0, 16.0)
        # Any other node of Ibis counts as no larger than all its arguments together.
        total = Size(0.0, 16.0)
        for arg in op.args:
            for each in arg if isinstance(arg, tuple) else (arg,):
                if isinstance(each, ops.Value):
                    total = total + self._size(each)
        return total

    # -- how -------------------------------------------------------------------------------------------------

    def function(self, bound: Expression, inputs: Sequence[str], answer: str) -> str:
        """Register a function that computes `bound` in the cell; returns a template that calls it.

        Args:
            inputs: DuckDB's types of the columns.
            answer: DuckDB's type of the value.
        """
        cell = self._opened()
        name = f"{CELL_PREFIX}{next(self._numbers)}"
        # A function of DuckDB's needs a parameter, also where the expression reads no
        # column.
        types = list(inputs) or ["INTEGER"]
        # The cell gets Arrow's types, so each column is cast to the type of DuckDB's
        # that the expression was checked against.
        casts = ", ".join(
            f'CAST("${i}" AS {each}) AS "${i}"' for i, each in enumerate(types)
        )
        text = _AS_TEXT.get(answer)
        value = (
            f"({bound.template})"
            if text is None
            else f"CAST(({bound.template}) AS VARCHAR)"
        )
        work = Work(
            f"SELECT {value} AS v FROM (SELECT {casts} FROM __p_rows)",
            bound.text,
            bound.columns,
        )

        def evaluate(*columns: pa.ChunkedArray) -> pa.ChunkedArray:
            return self._evaluate(cell, work, columns)

        parameters = [
            inspect.Parameter(f"c{i}", inspect.Parameter.POSITIONAL_ONLY)
            for i in range(len(types))
        ]
        # DuckDB counts them.
        evaluate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self._duck.create_function(
            name,
            evaluate,
            [self._type(each) for each in types],
            self._type(answer),
            type="arrow",
            # Nulls come here as well: `coalesce` and `IS NULL` are about them.
            null_handling="special",
            # So that DuckDB does not compute it while it plans.
            side_effects=True,
        )
        arguments = ", ".join(f'"${i}"' for i in range(len(bound.columns))) or "0"
        call = f"{name}({arguments})"
        return call if text is None else f"CAST({call} AS {text})"

    def describe(self, query: str, text: str) -> list[tuple[str, str]]:
        """Names and DuckDB's types of a query's columns. The cell is asked, since DuckDB computes
        parts of some queries while it plans.

        Raises:
            TooDear: it does not fit, or takes too long.
            Refused: DuckDB refuses it.
        """
        cell = self._opened()
        # Describing may take as long as running, so it can be interrupted, too.
        rows = self.run(
            lambda: cell.describe(Work(f"DESCRIBE {query}", text, ())), lambda: None
        ).to_pylist()
        return [(row["column_name"], row["column_type"]) for row in rows]

    def _opened(self) -> Cell:
        if self._cell is None:
            self._cell = Cell(
                memory_bytes=self._memory_bytes(), answer_bytes=self._answer_bytes()
            )
        return self._cell

    def _type(self, name: str) -> Any:
        return self._duck.type("VARCHAR" if name in _AS_TEXT else name)

    def _evaluate(
        self, cell: Cell, work: Work, columns: Sequence[pa.ChunkedArray]
    ) -> pa.ChunkedArray:
        try:
            # Set for each call: the deadline is the request's, and the cell serves
            # many.
            cell.deadline = self._deadline
            # Named by position, as the template names its columns.
            table = pa.table(list(columns), names=[f"${i}" for i in range(len(columns))])
            if work.columns:
                return _single(cell.evaluate(work, table)["v"])
            # it reads no column: one row's value is all rows'
            same = cell.evaluate(work, table.slice(0, 1))["v"]
            # Before the rows are made: a long constant times a vector of rows may not
            # fit either.
            if same.nbytes * table.num_rows > self._answer_bytes():
                raise cell.too_large(work, rows=table.num_rows, answer=True)
            return _single(same.take(pa.array(np.zeros(table.num_rows, np.int64))))
        except BaseException as error:
            # The first is the cause; after it other threads fail because the cell was
            # stopped.
            self._trouble = self._trouble or error  # DuckDB makes a text of it
            raise

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """A context in which an error of the cell is raised instead of DuckDB's account of it."""
        self._trouble = None
        try:
            yield
        except Exception as error:
            trouble, self._trouble = self._trouble, None
            if isinstance(trouble, PenstockError):
                raise trouble from None
            # A stop is the consequence of an interrupt, so DuckDB's own account of that
            # is the one to raise.
            if trouble is not None and not isinstance(trouble, Stopped):
                raise trouble from error
            raise

    def run(
        self,
        work: Callable[[], Any],
        interrupt: Callable[[], None],
        *,
        seconds: float | None = None,
    ) -> Any:
        """Run `work` and return its result; where a cell is in use, in a thread of its own, so that
        the calling thread can be interrupted.

        Args:
            work: a query of DuckDB's.
            interrupt: stops it between two vectors.
            seconds: how long the cell may take.
        """
        # A session without dear expressions pays for no thread.
        if self._cell is None:
            return work()
        self._cell.resume()
        self._deadline = time.monotonic() + seconds if seconds is not None else None
        outcome: dict[str, Any] = {}

        def work_aside() -> None:
            try:
                outcome["value"] = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                outcome["error"] = error

        # A daemon: a query that hears nothing must not keep the process from ending.
        thread = threading.Thread(target=work_aside, name="penstock-query", daemon=True)
        thread.start()
        try:
            # Only a thread that works ahead can lose its reader, so only there it is
            # worth looking.
            while is_bounded() and thread.is_alive():
                thread.join(_LOOK_SECONDS)
                if not is_wanted():
                    raise Stopped
            thread.join()
        except BaseException:
            # The cell first: while DuckDB waits for its answer, it hears no interrupt.
            self._cell.stop()
            interrupt()
            # DuckDB ends at its next vector; a query that is deaf for longer is left
            # behind.
            thread.join(_HEARD_SECONDS)
            raise
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    def _memory_bytes(self) -> int:
        return int(min(max(self._limit_bytes // _SHARE, _LEAST_BYTES), _MOST_BYTES))

    def _answer_bytes(self) -> int:
        return self._memory_bytes() // _SHARE // self._threads


def _single(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in one chunk, the only form that DuckDB reads from a function."""
    whole = column.combine_chunks()
    return pa.chunked_array([whole]) if isinstance(whole, pa.Array) else whole


def _growth(op: SqlExpression) -> Growth:
    if CELL_PREFIX in op.template:
        return Growth(UNKNOWN, UNKNOWN, UNKNOWN)
    lists = any(
        not (
            each.dtype.is_primitive()
            or each.dtype.is_temporal()
            or each.dtype.is_decimal()
        )
        for each in op.inputs
    )
    return of_template(op.template, lists=lists)
