"""What runs on Spark's executors: pure functions over Arrow batches. Nothing here knows a session.

Whatever fails for a reason that can be told is raised as `Told`, whose text survives the way through Spark's
own errors.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock._version import __version__
from penstock.contracts.summary import Summary
from penstock.core.errors import PenstockError
from penstock.parts.engines._spark_types import Carried

# Spark puts a failure's text between lines of its own; these marks occur in none of
# them.
_OPEN, _CLOSE = "«penstock:", ":penstock»"
ROW_GROUP = 65_536
_GROUP_BYTES = 32 * 2**20


class Told(Exception):
    """A failure on an executor, as plain data in its text."""

    # JSON, so that a message of several lines is one line of Spark's traceback.
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{_OPEN}{json.dumps([kind, message])}{_CLOSE}")


def failure_of(text: str) -> tuple[str, str] | None:
    """Find a `Told` in the text of a Spark error; returns its kind and message, or None."""
    start = text.find(_OPEN)
    if start < 0:
        return None
    kind, message = json.loads(text[start + len(_OPEN) : text.index(_CLOSE, start)])
    return str(kind), str(message)


@contextmanager
def _telling() -> Iterator[None]:
    import duckdb

    try:
        yield
    except PenstockError as error:
        raise Told(type(error).__name__, error.message) from None
    except OSError as error:
        raise Told("disk", f"{error.strerror or error}: {error.filename}") from None
    except duckdb.OutOfMemoryException:
        raise Told("memory", "") from None
    except (
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
        duckdb.InvalidInputException,
    ) as error:
        # The words that `first_line` leaves of the same failure on the embedded engine.
        first = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", str(error).split("\n")[0])
        raise Told(
            "row",
            # The column is called `$0` here, a name that the author of the recipe never
            # wrote.
            re.sub(
                r" when casting from source column \"?\$\d+\"?", "", first
            ).removesuffix("."),
        ) from None


@lru_cache(maxsize=1)
def _duck() -> Any:
    """This worker's DuckDB: one thread, nothing loaded, nothing reachable."""
    import duckdb

    # One connection for all tasks of this worker, which Spark uses again and again.
    connection = duckdb.connect(
        ":memory:",
        config={
            # Spark runs as many workers as an executor has cores, so one thread each.
            "threads": 1,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            # The SQL comes from a recipe; it must not read files of the executor's
            # machine.
            "enable_external_access": False,
        },
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")  # cursors, too
    connection.execute("SET lock_configuration = true")
    return connection


def _asked(query: str, columns: Sequence[pa.Array]) -> pa.Table:
    """Run a query over the table `__p_rows`, whose columns are `$0`, `$1`, …; returns the answer."""
    duck = _duck()
    duck.register(
        "__p_rows", pa.table(list(columns), names=[f"${i}" for i in range(len(columns))])
    )
    try:
        answer = duck.execute(query)
        return (
            answer.to_arrow_table()
            if hasattr(answer, "to_arrow_table")
            else answer.fetch_arrow_table()
        )
    # The rows of this batch are freed with their name.
    finally:
        duck.unregister("__p_rows")


class Evaluate:
    """A piece of DuckDB's SQL over columns, as a function of Arrow arrays.

    Args:
        template: an expression over `"$0"`, `"$1"`, ….
        inputs: the columns' types.
        result: the result's.
    """

    def __init__(self, template: str, inputs: Sequence[Carried], result: Carried) -> None:
        self._query = f"SELECT ({template}) AS v FROM __p_rows"
        self._inputs, self._result = list(inputs), result

    def __call__(self, *columns: pa.Array) -> pa.Array:
        with _telling():
            answers = _asked(
                self._query,
                [
                    each.out(column)
                    for each, column in zip(self._inputs, columns, strict=True)
                ],
            )["v"].combine_chunks()
            # Cast into what Spark was told: DuckDB's answer may be of a near type.
            return self._result.into(
                answers
                if isinstance(answers, pa.Array)
                else pa.concat_arrays(answers.chunks)
            )


class Telling:
    """Wraps a function so that its errors survive the way back from an executor."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __call__(self, item: Any) -> Any:
        with _telling():
            return self._work(item)


def _partition() -> int:
    """The number of this task's partition; 0 outside a task."""
    from pyspark import TaskContext

    context = TaskContext.get()
    # Outside a task, as in a test, there is one part.
    return context.partitionId() if context is not None else 0


class Land:
    """Writes each partition as one Parquet file whose name sorts as partitions do; a task that is run again
    writes the same file again.

    Args:
        folder: must be seen by the executors and by the driver.
        names: of the columns.
        types: of the columns.
        lasting: kept for good (zstd), or only for a while (lz4).
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        types: Sequence[Carried],
        *,
        lasting: bool,
    ) -> None:
        self._folder, self._names, self._types = folder, list(names), list(types)
        self._how: dict[str, Any] = (
            # zstd where files stay, lz4 where they are read once: less CPU for more
            # bytes.
            {"compression": "zstd", "compression_level": 1}
            if lasting
            else {"compression": "lz4"}
        )

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(
            [
                pa.field(name, each.plain)
                for name, each in zip(self._names, self._types, strict=True)
            ]
        )

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with _telling():
            rows = self.write(batches, _partition())
        yield pa.record_batch({"rows": pa.array([rows], pa.int64())})

    def write(self, batches: Iterator[pa.RecordBatch], number: int) -> int:
        """Write the rows of partition `number`; returns how many there are. Without rows there is
        no file.
        """
        schema, rows = self.schema, 0
        # A lost task and its second attempt may run at once, so each has a draft of its
        # own.
        draft = self._folder / f".draft-{uuid.uuid4().hex}"
        writer: pq.ParquetWriter | None = None
        pending: list[pa.RecordBatch] = []
        try:
            for batch in batches:
                # Spark hands over empty batches; a file with an empty row group would
                # be one more to open.
                if not batch.num_rows:
                    continue
                columns = [
                    each.out(batch.column(i)) for i, each in enumerate(self._types)
                ]
                pending.append(pa.RecordBatch.from_arrays(columns, schema=schema))
                rows += batch.num_rows
                writer = writer or pq.ParquetWriter(
                    draft, schema, store_schema=False, **self._how
                )
                # Bounded by rows for readers, and by bytes for rows that are wide.
                if (
                    sum(map(len, pending)) >= ROW_GROUP
                    or sum(each.nbytes for each in pending) >= _GROUP_BYTES
                ):
                    writer.write_table(
                        pa.Table.from_batches(pending, schema), row_group_size=ROW_GROUP
                    )
                    pending = []
            if writer is not None:
                if pending:
                    writer.write_table(
                        pa.Table.from_batches(pending, schema), row_group_size=ROW_GROUP
                    )
                writer.close()
                writer = None
                # A whole file or none; the later of two attempts puts the same rows in
                # its place. Five digits keep names in the order of partitions.
                os.replace(draft, self._folder / f"part-{number:05d}.parquet")
        finally:
            # Only after a failure: the handle goes before the file does.
            if writer is not None:
                writer.close()
            draft.unlink(missing_ok=True)
        return rows


class Summarise:
    """Updates the summaries with one partition's rows, and yields them in Spark's own serialised
    form.

    Args:
        summaries: by column; none has seen a row.
        types: of the columns after the first, which is the row id, in the order of `summaries`.
    """

    def __init__(
        self, summaries: Mapping[str, Summary], types: Sequence[Carried]
    ) -> None:
        self._summaries, self._types = dict(summaries), list(types)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark.serializers import CPickleSerializer

        # Every task unpickles its own copy of the summaries, so they begin empty.
        with _telling():
            for batch in batches:
                for i, (each, summary) in enumerate(
                    zip(self._types, self._summaries.values(), strict=True)
                ):
                    # Column 0 is the row id; the summaries' columns follow it.
                    summary.update(each.out(batch.column(i + 1)), batch.column(0))
        sender: Any = CPickleSerializer()
        yield pa.record_batch(
            {
                # The driver merges in this order, so that sums of floats do not depend
                # on which task ends first.
                "part": pa.array([_partition()], pa.int64()),
                "state": pa.array([sender.dumps(self._summaries)], pa.binary()),
            }
        )


_REGISTERS, _MOST = 64, 58


class Distinct:
    """DuckDB's own estimate of distinct values (HyperLogLog), of partitions that are merged: the registers'
    maxima.
    """

    def __init__(self, types: Sequence[Carried]) -> None:
        self._types = list(types)
        states = ", ".join(
            # EXPORT_STATE gives the registers rather than the number, and registers can
            # be merged.
            f'(approx_count_distinct("${i}") EXPORT_STATE)::BLOB'
            for i in range(len(self._types))
        )
        self._query = f"SELECT {states} FROM __p_rows"

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # One byte a register. 64 of them, as DuckDB's sketch has.
        registers = np.zeros((len(self._types), _REGISTERS), np.uint8)
        with _telling():
            for batch in batches:
                states = _asked(
                    self._query,
                    [
                        each.out(column)
                        for each, column in zip(self._types, batch.columns, strict=True)
                    ],
                )
                for i, column in enumerate(states.columns):
                    state = column[0].as_py()
                    if state is not None:
                        # The state ends with its registers; the union of two sets has
                        # the larger of each.
                        registers[i] = np.maximum(
                            registers[i], np.frombuffer(state, np.uint8)[-_REGISTERS:]
                        )
        yield pa.record_batch({"state": pa.array([registers.tobytes()], pa.binary())})

    def merged(self, states: Sequence[bytes]) -> list[int]:
        """The estimate of each column."""
        merged_states = np.zeros((len(self._types), _REGISTERS), np.uint8)
        for state in states:
            merged_states = np.maximum(
                merged_states, np.frombuffer(state, np.uint8).reshape(merged_states.shape)
            )
        return [estimate(registers) for registers in merged_states]


def estimate(registers: np.ndarray) -> int:
    """How many distinct values left such registers, uint8 `[64]`: the improved raw estimator, as DuckDB has
    it (Ertl 2017, New cardinality estimation algorithms for HyperLogLog sketches, algorithm 6).
    """
    # The number of registers that hold each value, 0 to 59.
    counts = np.bincount(registers, minlength=_MOST + 2)
    z = _REGISTERS * _tau((_REGISTERS - int(counts[_MOST + 1])) / _REGISTERS)
    for k in range(_MOST, 0, -1):
        z = (z + int(counts[k])) * 0.5
    z += _REGISTERS * _sigma(int(counts[0]) / _REGISTERS)
    return (
        0
        if np.isinf(z)
        # 0.7213… is 1 / (2 ln 2), the constant for many registers; half is added to
        # round as DuckDB does.
        else int(np.floor(0.721347520444481703680 * _REGISTERS * _REGISTERS / z + 0.5))
    )


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    # Repeated until no bit changes, so the result does not hang on a tolerance.
    while z != before:
        before, x, y = z, float(np.sqrt(x)), y * 0.5
        z -= (1 - x) ** 2 * y
    return z / 3


def _sigma(x: float) -> float:
    if x == 1.0:
        return float("inf")
    y, z, before = 1.0, x, -1.0
    while z != before:
        before, x = z, x * x
        z += x * y
        y += y
    return z


def sees(path: str) -> tuple[bool, str]:
    """Whether this executor sees a file, and which Penstock it has."""
    return os.path.exists(path), __version__
