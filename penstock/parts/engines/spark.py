"""Spark: the same steps on many machines, with the same rows out.

    engine: {type: spark, master: "spark://host:7077", options: {spark.executor.memory: 8g}}

Every table is two: an Ibis expression over tables that Spark holds, and the same tables, empty, in a DuckDB
on the driver (the shadow). The shadow says what type each column has, checks the SQL of recipes and compiles
what bundles serve, so all that is what the embedded engine would say, and a recipe can be checked before
Spark is started, and without a Java.

Rows are read and written as Parquet by the executors. Relations run as Spark SQL; what is computed of one row
runs in DuckDB on the executors where Spark would not give the very same (`_spark_compile`); values that Spark
has no type for travel in carriers (`_spark_types`). Summaries are updated on the executors, and merged here
in the order of partitions.

What the executors must see: the store's folder (extracts, scratch, rows) at the same place as the driver
does.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, Field, field_validator

from penstock.contracts.data import ROW_ID, Engine, EngineSession, Executors
from penstock.contracts.part import mistakes
from penstock.contracts.summary import Summary
from penstock.core.errors import Problem
from penstock.core.java import master_needs_trust, spark_master
from penstock.core.store import as_store_error
from penstock.parts.engines._duck import Session as Duck
from penstock.parts.engines._spark_start import _SETTINGS, plainly, start, stop
from penstock.parts.engines._spark_types import Carried
from penstock.parts.engines._spark_work import (
    Distinct,
    Evaluate,
    Land,
    Summarise,
    Telling,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

_SHADOW_BYTES = 128 * 2**20


class Spark(Engine):
    """Spark, on this machine or on a cluster. Needs the extra `spark`, and Penstock on every executor."""

    master: Annotated[str, AfterValidator(spark_master)] = "local"
    """`local` (as many threads as `resources.threads`), `local[4]`, `spark://host:7077`, `yarn`,
    `k8s://https://…`.
    """
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Spark's own settings, such as `{spark.executor.memory: 8g}`."""

    @field_validator("options")
    @classmethod
    def _spark_words(cls, options: dict[str, Any]) -> dict[str, Any]:
        problems = [
            Problem((word,), "is not a Spark setting: their names begin with `spark.`")
            for word in options
            if not word.startswith("spark.")
        ]
        problems += [
            Problem(
                (word,),
                "is set by Penstock, so that rows are the same as on the embedded engine."
                " Leave it out",
            )
            for word in options
            if word in _SETTINGS or word == "spark.master"
        ]
        if problems:
            raise mistakes(*problems)
        return options

    def needs_trust(self) -> str | None:
        return master_needs_trust("engine: spark", self.master, self.options)

    def open(self, scratch: Path, *, memory_bytes: int, threads: int) -> EngineSession:
        return Session(
            scratch,
            master=self.master,
            options=self._words(),
            memory_bytes=memory_bytes,
            threads=threads,
        )

    def executors(
        self, shared: Path, *, memory_bytes: int, threads: int
    ) -> AbstractContextManager[Executors]:
        return SparkExecutors(
            shared, self.master, self._words(), memory_bytes=memory_bytes, threads=threads
        )

    def _words(self) -> dict[str, str]:
        return {
            # Spark reads `true`; Python would write `True`.
            word: str(value).lower() if isinstance(value, bool) else str(value)
            for word, value in self.options.items()
        }


class SparkExecutors(Executors):
    """Spark's executors, with one task for each item."""

    def __init__(
        self,
        shared: Path,
        master: str,
        options: Mapping[str, str],
        *,
        memory_bytes: int,
        threads: int,
    ) -> None:
        self._start = partial(
            _start,
            master,
            options,
            memory_bytes=memory_bytes,
            threads=threads,
            shared=shared,
        )
        self._spark: Any = None

    def __enter__(self) -> SparkExecutors:
        self._spark = self._start()
        # How many tasks run at a time, by Spark's own count of cores.
        self.at_once = max(self._spark.sparkContext.defaultParallelism, 1)
        return self

    def __exit__(self, *problem: object) -> None:
        stop()

    def each(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        with plainly():
            return (
                list(
                    # One partition an item: Spark would put several items into one
                    # task, and a failed task repeats all of it.
                    self._spark.sparkContext.parallelize(list(items), max(len(items), 1))
                    .map(Telling(work))
                    .collect()
                )
                if items
                else []
            )


class Session(EngineSession):
    """A session of Spark; it starts Spark when rows are first asked for."""

    def __init__(
        self,
        scratch: Path,
        *,
        master: str,
        options: Mapping[str, str],
        memory_bytes: int,
        threads: int,
    ) -> None:
        from penstock.parts.engines._spark_compile import Compiler

        self._scratch, self._master, self._options, self._memory_bytes, self._threads = (
            scratch,
            master,
            options,
            memory_bytes,
            threads,
        )
        # The shadow sees no rows and runs no expression, so one thread and a little
        # memory do.
        self._shadow = Duck(
            scratch / "shadow", limit_bytes=_SHADOW_BYTES, threads=1, bounded=False
        )
        self._compiler: Any = Compiler(self._shadow._compiler, self._function)
        self._numbers = itertools.count()
        self._spark: Any = None
        self._waiting: dict[str, Callable[[Any], Any]] = {}
        """Tables that Spark has not been told of: name → what makes the data frame."""
        self._functions: dict[Any, str] = {}
        self._untold: list[tuple[str, Any, str]] = []

    def close(self) -> None:
        self._shadow.close()
        if self._spark is not None:
            self._spark = None
            stop()

    # -- tables ----------------------------------------------------------------------------------------------

    def read(
        self, parquet: Sequence[Path | str], columns: Sequence[str] | None = None
    ) -> ir.Table:
        files = [str(path) for path in parquet]
        # The shadow decides the types, so a recipe is checked before Spark is started.
        shape = self._shadow.read(files, columns)
        return self._held(
            shape.schema(), lambda spark: self._parquet(spark, files, shape.schema())
        )

    def table(self, rows: pa.Table) -> ir.Table:
        schema = self._shadow.table(rows.slice(0, 0)).schema()
        # The shadow learns the types from no rows at all.
        types = self._types(schema)

        def small(spark: Any) -> Any:
            columns = [types[name].into(_whole(rows[name])) for name in rows.column_names]
            # Without rows the types come from the DDL alone.
            if not len(rows):
                return spark.createDataFrame([], _ddl(types))
            return spark.createDataFrame(
                pa.table(columns, names=rows.column_names), _ddl(types)
            )

        return self._held(schema, small)

    def keep(self, table: ir.Table) -> ir.Table:
        folder = self._scratch / self._name("kept")
        self._land(table, folder, lasting=False)
        return self.read(sorted(folder.glob("*.parquet")))

    def folder(self) -> Path:
        folder = self._scratch / self._name("mapped")
        with plainly(self._scratch):
            folder.mkdir(parents=True)
        return folder

    def sql(self, table: ir.Table, expression: str) -> ir.Value:
        value = self._shadow.sql(table, expression)
        # A type that no carrier holds is refused here, while the recipe is read.
        Carried(value.type())
        return value

    # -- rows ------------------------------------------------------------------------------------------------

    def batches(self, table: ir.Table, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        # By way of files: Spark would gather the whole table on the driver.
        folder = self._scratch / self._name("streamed")
        try:
            self._land(table, folder, lasting=False)
            # The names sort as partitions do, so rows come in the order of an
            # `order_by`.
            for path in sorted(folder.glob("*.parquet")):
                with pq.ParquetFile(path) as file:
                    yield from file.iter_batches(rows)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def rows(self, table: ir.Table) -> list[dict[str, Any]]:
        import ibis.expr.operations as ops

        op = table.op()
        estimated: dict[str, Any] = {}
        # Only aggregates of a whole table: with groups, each would need registers.
        if isinstance(op, ops.Aggregate) and not op.groups:
            estimated = {
                name: metric
                for name, metric in op.metrics.items()
                # Spark's own estimate differs from DuckDB's, so these go through
                # DuckDB's registers (`Distinct`).
                if isinstance(metric, ops.ApproxCountDistinct) and metric.where is None
            }
        if not estimated:
            return self._collected(table)
        others = {
            name: metric for name, metric in op.metrics.items() if name not in estimated
        }
        row = dict(
            zip(
                estimated,
                self._distinct(op.parent, [metric.arg for metric in estimated.values()]),
                strict=True,
            )
        )
        if others:
            row |= self._collected(ops.Aggregate(op.parent, {}, others).to_expr())[0]
        # As the query named them, whichever way each was computed.
        return [{name: row[name] for name in op.metrics}]

    def write(self, table: ir.Table, folder: Path, *, order: Sequence[str] = ()) -> int:
        return self._land(
            table.order_by(list(order)) if order else table, folder, lasting=True
        )

    def compiled(
        self,
        schema: pa.Schema,
        build: Callable[[ir.Table], ir.Table],
        *,
        seconds: Callable[[int], float] | None = None,
    ) -> Callable[[pa.Table], pa.Table]:
        return self._shadow.compiled(schema, build, seconds=seconds)

    def summarise(self, table: ir.Table, summaries: Mapping[str, Summary]) -> None:
        """As contracts say; the summaries given must not have seen rows yet, since the executors start from
        copies of them.
        """
        # The row id comes first, as `Summarise` expects.
        chosen = table.select(ROW_ID, *summaries)
        types = self._types(chosen.schema())
        states = self._mapped(
            chosen,
            Summarise(summaries, [types[name] for name in summaries]),
            "part bigint, state binary",
        )
        from pyspark.serializers import CPickleSerializer

        sender: Any = CPickleSerializer()
        # In the order of partitions: sums of floats depend on the order of their terms.
        for state in states.sort_by("part")["state"].to_pylist():
            # Pickled by Spark's own serializer, within one job.
            for name, other in sender.loads(state).items():
                summaries[name].merge(other)

    # -- within ----------------------------------------------------------------------------------------------

    def _name(self, word: str) -> str:
        return f"{word}_{next(self._numbers)}"

    def _types(self, schema: Any) -> dict[str, Any]:
        return {name: Carried(kind) for name, kind in schema.items()}

    def _held(self, schema: Any, make: Callable[[Any], Any]) -> ir.Table:
        """A table whose data frame is made when Spark first needs it; the shadow has it without
        rows.
        """
        import ibis

        # Called for its refusal: a type that Spark cannot hold.
        self._types(schema)
        name = self._name("table")
        # A view of typed nulls and no rows. A quote in a name stands twice.
        words = ", ".join(
            f"CAST(NULL AS {self._shadow._compiler.type_mapper.to_string(kind)}) AS"
            f' "{column.replace(chr(34), chr(34) * 2)}"'
            for column, kind in schema.items()
        )
        self._shadow._duck.execute(f"CREATE VIEW {name} AS SELECT {words} WHERE false")
        self._waiting[name] = make
        return ibis.table(schema, name=name)

    def _function(self, template: str, inputs: tuple[Any, ...], result_type: Any) -> str:
        """The name of the executors' function for a template and types; equal ones share it."""
        key = (template, tuple(str(each) for each in inputs), str(result_type))
        if key not in self._functions:
            self._functions[key] = name = f"penstock_{len(self._functions)}"
            result = Carried(result_type)
            # Spark is told with the next query; until then it need not run.
            self._untold.append(
                (
                    name,
                    Evaluate(template, [Carried(each) for each in inputs], result),
                    result.ddl,
                )
            )
        return self._functions[key]

    def _frame(self, table: ir.Table) -> Any:
        """The table as a data frame of Spark."""
        # First of all, since compiling finds the functions that Spark must be told of.
        query = str(self._compiler.to_sqlglot(table).sql(dialect="spark"))
        if self._spark is None:
            self._spark = _start(
                self._master,
                self._options,
                memory_bytes=self._memory_bytes,
                threads=self._threads,
                shared=self._scratch,
            )
        with plainly(self._scratch):
            from pyspark.sql import functions

            for name, work, ddl in self._untold:
                function = functions.arrow_udf(work.__call__, ddl)  # type: ignore[attr-defined]
                self._spark.udf.register(name, function)
            self._untold.clear()
            # Spark's plans are lazy as well: a view costs no read.
            for name, make in self._waiting.items():
                make(self._spark).createOrReplaceTempView(name)
            self._waiting.clear()
            return self._spark.sql(query)

    def _parquet(self, spark: Any, files: Sequence[str], schema: Any) -> Any:
        """Files united by name, with the shadow's types."""
        types = self._types(schema)
        # Spark takes one file's schema for all that it reads together, so files go in
        # groups of one schema.
        alike: dict[str, list[str]] = {}
        for path in files:
            alike.setdefault(str(pq.read_schema(path).remove_metadata()), []).append(path)
        whole = None
        for group in alike.values():
            # A bracket or a star in a path is a part of its name.
            frame = spark.read.option("__globPaths__", "false").parquet(
                *[
                    path if "://" in path else f"file://{Path(path).absolute()}"
                    for path in group
                ]
            )
            # This session tells case apart, and DuckDB does not.
            here = {name.lower(): name for name in frame.columns}
            picked = []
            for name, each in types.items():
                # A column that this group lacks is null, as in `union_by_name`.
                given = _quoted(here[name.lower()]) if name.lower() in here else "NULL"
                value = f"CAST({given} AS {each.ddl})"
                # as the embedded engine reads
                one_zero = (
                    f"CAST({value} + 0.0D AS {each.ddl})"
                    if each.ddl in ("double", "float")
                    else value
                )
                picked.append(f"{one_zero} AS {_quoted(name)}")
            frame = frame.selectExpr(*picked)
            # Spark unites by position; every group has picked the same columns in the
            # same order.
            whole = frame if whole is None else whole.union(frame)
        return whole

    def _collected(self, table: ir.Table) -> list[dict[str, Any]]:
        types = self._types(table.schema())
        frame = self._frame(table)
        with plainly(self._scratch):
            # For small answers only: all of it comes to the driver.
            answer = frame.toArrow()
        columns = [types[name].out(answer.column(i)) for i, name in enumerate(types)]
        return list(pa.table(columns, names=list(types)).to_pylist())

    def _mapped(self, table: ir.Table, work: Any, ddl: str) -> pa.Table:
        """Apply `work`, a function of a partition's batches, to each partition; returns all answers
        as one table.
        """
        frame = self._frame(table)
        with plainly(self._scratch):
            # mapInArrow takes a dot in a name for a field
            plainly_named = frame.toDF(*[f"c{i}" for i in range(len(frame.columns))])
            return plainly_named.mapInArrow(work.__call__, ddl).toArrow()

    def _land(self, table: ir.Table, folder: Path, *, lasting: bool) -> int:
        """Rows as Parquet, written by the executors, in the order of the table's `order_by` if it ends with
        one.
        """
        # The shadow's types decide the files' schema, so it equals the embedded
        # engine's.
        schema = self._shadow._schema(self._shadow._query(table))
        types = self._types(schema)
        with as_store_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
        work = Land(folder, list(types), list(types.values()), lasting=lasting)
        # Each task answers with one number; the rows themselves stay on the executors.
        rows = sum(self._mapped(table, work, "rows bigint")["rows"].to_pylist())
        with as_store_error(folder):
            for left in folder.glob(".draft-*"):  # of tasks that were lost on their way
                left.unlink(missing_ok=True)
            # No task had a row, but the schema must be there to be read.
            if not any(folder.glob("*.parquet")):
                pq.write_table(
                    work.schema.empty_table(),
                    folder / "part-00000.parquet",
                    store_schema=False,
                )
        return int(rows)

    def _distinct(self, parent: Any, values: Sequence[Any]) -> list[int]:
        chosen = parent.to_expr().select(
            **{f"v{i}": value.to_expr() for i, value in enumerate(values)}
        )
        work = Distinct(list(self._types(chosen.schema()).values()))
        return work.merged(
            self._mapped(chosen, work, "state binary")["state"].to_pylist()
        )


def _start(master: str, options: Mapping[str, str], **how: Any) -> Any:
    return start(master, options, **how)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _ddl(types: Mapping[str, Any]) -> str:
    return ", ".join(f"{_quoted(name)} {each.ddl}" for name, each in types.items())
