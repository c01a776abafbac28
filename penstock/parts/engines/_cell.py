"""A process of its own for expressions that may make much of little, or take long (contracts/sqlsize.py).

DuckDB hears an interrupt only between two vectors of 2,048 rows, and counts neither strings nor lists as
memory. So one expression such as `repeat(name, n)` can hold gigabytes, and one such as `levenshtein(a, b)`
can run for minutes deaf to Ctrl-C. Here such an expression runs in a child (`_cell_child.py`): its address
space is bounded by the system, and it can be killed at any moment. Arrow's IPC travels through two pipes;
nothing is pickled, and the child opens no file.

Rows that do not fit together are tried in parts, so it is a single row's values that must fit.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.core.errors import ContractError, TooDear, UserError

_HEAD = struct.Struct("<QQ")
"""Bytes of the JSON, bytes of the Arrow stream."""
_START_SECONDS = 120.0
"""A fresh interpreter takes a fraction of a second; a machine that is starved takes long."""
_LOOK_SECONDS = 0.05
_PARTS = 8
"""Rows that do not fit together are tried in so many parts."""


class Stopped(Exception):
    """The cell was stopped while it worked."""


class Refused(Exception):
    """DuckDB refused a query in the cell."""


@dataclass(frozen=True)
class Work:
    """One expression for a cell to compute."""

    query: str
    """SQL over the table `__p_rows`, whose columns are `$0`, `$1`, …; its answer is one column."""
    text: str
    """The expression, as its author wrote it."""
    columns: tuple[str, ...]
    """What its author calls the columns."""


class Cell:
    """A child process that evaluates expressions; it starts with the first of them.

    Args:
        memory_bytes: what an evaluation may take.
        answer_bytes: how large an answer may be.
    """

    def __init__(self, *, memory_bytes: int, answer_bytes: int) -> None:
        self._memory_bytes, self._answer_bytes = memory_bytes, answer_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._stopped = False
        self.deadline: float | None = None
        """Of `time.monotonic()`: until when answers are waited for."""

    def evaluate(self, work: Work, table: pa.Table) -> pa.Table:
        """Compute the expression for each row of `table`; returns the answers in the order of the
        rows.

        Raises:
            TooDear: a row's values do not fit, or the time is over.
            ContractError: a row's value breaks the expression.
            Stopped: by `stop`.
        """
        with self._turn:
            parts, answer_size = [], 0
            # A stack: the parts of a piece that was cut lie upon those that follow it,
            # so answers come in the order of rows.
            waiting = [table]
            while waiting:
                piece = waiting.pop()
                try:
                    answer = self._asked(work, piece)
                except Refused as error:
                    raise ContractError(
                        f"a row broke an expression of the recipe: {error}. Use TRY_CAST or TRY(…)"
                        " where a value may not fit, or exclude such rows with `where`."
                    ) from None
                except TooDear as error:
                    # What takes too long takes no less time in parts, and one row
                    # cannot be cut.
                    if error.of_time or piece.num_rows <= 1:
                        raise
                    part = -(-piece.num_rows // _PARTS)
                    starts = range(0, piece.num_rows, part)
                    # Reversed, since the last is taken first.
                    waiting += [piece.slice(start, part) for start in reversed(starts)]
                    continue
                answer_size += answer.nbytes
                # Answers are gathered in this process, whose memory the child's bound
                # does not cover. One row's answer was bounded by the child.
                if answer_size > self._answer_bytes and table.num_rows > 1:
                    raise self.too_large(work, rows=table.num_rows, answer=True)
                parts.append(answer)
            return pa.concat_tables(parts)

    def describe(self, work: Work) -> pa.Table:
        """Run a query that reads no rows; returns its answer.

        Raises:
            TooDear: DuckDB computes a part of it while it plans, and that does not fit, or takes too long.
            Refused: DuckDB refuses it.
        """
        with self._turn:
            self.deadline = time.monotonic() + _START_SECONDS
            # DuckDB plans the query and reads nothing of these rows, but a table needs
            # a column.
            return self._asked(work, pa.table({"$0": pa.array([0], pa.int32())}))

    def stop(self) -> None:
        """End the running evaluation at once, from any thread; nothing is evaluated until `resume`."""
        # The flag first: who reads the broken pipe must know that it is no lack of
        # memory.
        self._stopped = True
        self._kill()

    def resume(self) -> None:
        """Evaluate again after `stop`."""
        self._stopped = False

    def close(self) -> None:
        """End the child."""
        # Without the turn: it belongs to the evaluation that is to end.
        self.stop()
        with self._turn:
            self._drop()

    # -- within ----------------------------------------------------------------------------------------------

    def _asked(self, work: Work, table: pa.Table) -> pa.Table:
        if self._stopped:
            raise Stopped
        child = self._running()
        try:
            # The child reads a whole request before it works, so writing cannot wait
            # for its answer.
            _send(child, {"query": work.query}, _as_bytes(table))
            reply, content = self._received(child, work, self.deadline)
        except (BrokenPipeError, EOFError):
            # The child is gone: killed by `stop`, or ended by the system when it asked
            # for too much memory.
            self._kill()
            if self._stopped:
                raise Stopped from None
            raise self.too_large(work, rows=table.num_rows) from None
        if reply["state"] == "answer":
            with pa.ipc.open_stream(content) as reader:
                return reader.read_all()
        if reply["state"] == "memory":
            raise self.too_large(work, rows=table.num_rows)
        message = str(reply["message"])
        # From the last, so that `$1` does not take the beginning of `$10`.
        for i, name in reversed(list(enumerate(work.columns))):
            message = message.replace(f'"${i}"', repr(name)).replace(f"${i}", repr(name))
        raise Refused(message)

    def too_large(self, work: Work, *, rows: int, answer: bool = False) -> TooDear:
        """The error for rows whose values do not fit."""
        of = "one row" if rows == 1 else f"{rows:,} rows"
        limit = self._answer_bytes if answer else self._memory_bytes
        return TooDear(
            f"the expression {shortened(work.text)} makes more of {of} than the {limit / 2**20:,.0f} MiB that"
            f" an expression may {'answer at once' if answer else 'take'}. Make its values smaller (a smaller"
            " number to repeat or to pad to, a shorter text), or raise resources.memory."
        )

    def _received(
        self, child: subprocess.Popen[bytes], work: Work, deadline: float | None
    ) -> tuple[dict[str, Any], pa.Buffer]:
        assert child.stdout is not None
        head = self._read(child, _HEAD.size, work, deadline)
        first, second = _HEAD.unpack(head)
        reply: dict[str, Any] = json.loads(self._read(child, first, work, deadline))
        return reply, pa.py_buffer(self._read(child, second, work, deadline))

    def _read(
        self,
        child: subprocess.Popen[bytes],
        count: int,
        work: Work,
        deadline: float | None,
    ) -> bytes:
        assert child.stdout is not None
        content = bytearray()
        number = child.stdout.fileno()
        while len(content) < count:
            if deadline is not None and time.monotonic() > deadline:
                self._kill()
                raise TooDear(
                    f"the expression {shortened(work.text)} takes longer than it may. "
                    "Give it shorter values, or make it simpler.",
                    of_time=True,
                )
            # Short looks, so that the deadline is seen while the child says nothing.
            if select.select([number], [], [], _LOOK_SECONDS)[0]:
                piece = os.read(number, min(count - len(content), 1 << 20))
                # An open pipe that is ready and has nothing is a child that ended.
                if not piece:
                    raise EOFError
                content += piece
        return bytes(content)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._drop()
        # A field of its own at once, so that `stop` can kill a child that still starts.
        self._child = child = _started()
        limits = {
            "memory_bytes": self._memory_bytes,
            "answer_bytes": self._answer_bytes,
            "paths": _paths(),
            # The child watches for this number to change, and then ends.
            "parent": os.getpid(),
        }
        try:
            _send(child, limits, b"")
            # The first reply says that everything is loaded and the bound is set.
            self._received(child, Work("", "", ()), time.monotonic() + _START_SECONDS)
        except (BrokenPipeError, EOFError, TooDear):
            if self._stopped:
                raise Stopped from None
            raise UserError(
                "the process that evaluates expressions did not start. Is there memory left, and may more"
                " processes be started?"
            ) from None
        if self.deadline is not None:  # that a start takes time is no row's fault
            self.deadline = max(self.deadline, time.monotonic() + 1.0)
        return child

    def _kill(self) -> None:
        child = self._child
        if child is not None:
            child.kill()
            # Waited for, so that no zombie is left.
            child.wait()

    def _drop(self) -> None:
        """Kill the child and close its pipes. Call it only with the turn held: another thread may
        be using the pipes.
        """
        self._kill()
        child, self._child = self._child, None
        for pipe in (child.stdin, child.stdout) if child is not None else ():
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _started() -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("_cell_child.py")
    # Nothing else of the environment, which may hold secrets.
    inherited = {
        word: os.environ[word]
        for word in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
        if word in os.environ
    }
    environment = {
        **inherited,
        # Other allocators, and an arena for each thread, reserve addresses by the
        # gigabyte, and the bound is on addresses.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        # Isolated: neither PYTHONPATH nor the current folder decides what is imported.
        [sys.executable, "-I", str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A pipe that nobody reads would fill up and stop the child.
        stderr=subprocess.DEVNULL,
        env=environment,
        # Ctrl-C in a terminal goes to a whole group; only the parent decides what it
        # means.
        start_new_session=True,
    )


def _paths() -> list[str]:
    """The folders in which the child finds the packages that it needs; nothing else of this
    process's path.
    """
    import duckdb
    import numpy as np

    return sorted(
        {
            str(Path(package.__file__).parents[1])
            for package in (duckdb, np, pa)
            if package.__file__
        }
    )


def _send(
    child: subprocess.Popen[bytes], message: dict[str, Any], content: bytes | pa.Buffer
) -> None:
    assert child.stdin is not None
    text = json.dumps(message).encode()
    child.stdin.write(_HEAD.pack(len(text), len(content)) + text)
    child.stdin.write(content)
    child.stdin.flush()


def _as_bytes(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def shortened(text: str, most: int = 120) -> str:
    """An expression as messages show it: in quotes, and cut after `most` characters."""
    plain = text if len(text) <= most else text[:most] + "…"
    return repr(plain)
