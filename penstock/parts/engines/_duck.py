"""DuckDB under Ibis: the session of the embedded engine, and what Spark's driver and executors ask about a
row.

`keep` writes Parquet (lz4) to the scratch folder rather than a table of DuckDB: as fast, and memory stays
flat (2 M rows of 22 columns: 1.2 s, where a temporary table took 1.6 s and an on-disk one 2.3 s under the
same limit).

Ibis writes the SQL and DuckDB's own client runs it: Ibis' DuckDB backend is passed over because it calls what
DuckDB has deprecated (`fetch_arrow_table`), with a warning at every table. Nothing is downloaded, no
extension is loaded, and the configuration is locked. Quirk: DuckDB tells columns apart without regard to
case, so files with both `Age` and `age` are refused.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID, EngineSession, is_wide
from penstock.contracts.sql import bind, deeper
from penstock.core.errors import RecipeError, SourceError
from penstock.parts.engines._beside import Beside
from penstock.parts.engines._cell import Refused
from penstock.parts.engines._distribution import (
    Ways,
    write_in_order,
    write_parts_in_order,
)
from penstock.parts.engines._duck_widths import GROUP_SHARE, ROW_GROUP, Widths
from penstock.parts.engines._results import (
    exact_type,
    first_line,
    plainly,
    refuse_odd,
    refuse_odd_file,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from penstock.parts.engines._distribution import Ways

_CACHED_BYTES = 2**30
"""Up to so much is written to the scratch folder as it is; more is compressed."""
_WIDE_BYTES, _SORTED_SHARE = 1024, 2
"""DuckDB sorts rows up to so wide, and so many times its memory (_distribution.py says why); it is a third
faster there.
"""
_BESIDE_BYTES = 64
"""Of a row that is put beside another, at the most."""


class Session(EngineSession):
    """A session of DuckDB under Ibis, over one connection.

    Tables may be asked for rows from one thread at a time; `compiled` ones from any.
    """

    def __init__(
        self, scratch: Path, *, limit_bytes: int, threads: int, bounded: bool = True
    ) -> None:
        """Open a connection.

        Args:
            scratch: a folder for what does not fit in memory.
            limit_bytes: what DuckDB may hold.
            threads: of DuckDB.
            bounded: expressions that may make much of little run in a process of their own; False where this
                session only writes the SQL that others run.
        """
        from ibis.backends.sql.compilers.duckdb import DuckDBCompiler

        from penstock.parts.engines._expression import WritesExpressions

        class Compiler(WritesExpressions, DuckDBCompiler):  # type: ignore[misc]
            __slots__ = ()

        self._compiler: Any = Compiler()
        self._scratch = scratch
        self._limit_bytes, self._threads = limit_bytes, threads
        self._widths = Widths()
        self._names = itertools.count()
        self._is_bounded = bounded
        self._bounded: Any = None
        self._duck: Any = None
        with self._plainly():
            scratch.mkdir(parents=True, exist_ok=True)
        self._connect(limit_bytes)

    def _connect(self, limit_bytes: int) -> None:
        """Open a connection whose settings no SQL of a recipe can change."""
        import duckdb

        with self._plainly():
            self._duck = duckdb.connect(
                ":memory:",
                config={
                    "threads": self._threads,
                    "memory_limit": f"{limit_bytes}B",
                    "temp_directory": str(self._scratch / "spill"),
                    # Nothing relies on the order of rows unless ORDER BY says it, and
                    # keeping it makes DuckDB hold results back.
                    "preserve_insertion_order": False,
                    # Extensions are downloads, which need a network; what is used here
                    # is built in.
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )
        # GLOBAL: a cursor is a connection of its own, and would have the machine's zone.
        self._duck.execute("SET GLOBAL TimeZone = 'UTC'")
        # After it, no SQL of a recipe can raise a limit or load an extension.
        self._duck.execute("SET lock_configuration = true")
        from penstock.parts.engines._bounded import Bounded

        self._bounded = Bounded(
            self._duck, limit_bytes=limit_bytes, threads=self._threads
        )

    def close(self) -> None:
        self._bounded.close()
        self._duck.close()

    def read(
        self, parquet: Sequence[Path | str], columns: Sequence[str] | None = None
    ) -> ir.Table:
        if not parquet:
            raise SourceError("the source has no rows at all")
        files = [str(path) for path in parquet]
        if columns is None:
            # SQL cannot tell apart columns whose names differ in case only.
            _refuse_twins(files)
            self._widths.measure(
                files, limit_bytes=self._limit_bytes, threads=self._threads
            )
        name = self._name("read")
        if name == "read_0":
            self._settle()  # before there is any table
        # A quote in a path ends the text unless it stands twice.
        listed = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
        # By name, a column that one file lacks is null there. One file needs no
        # uniting.
        union = "true" if len(files) > 1 else "false"
        with self._plainly():
            # Folders called `split=train` must not become a column of the rows.
            source = f"read_parquet([{listed}], union_by_name = {union}, hive_partitioning = false)"
            schema = self._schema(
                f"SELECT {'*' if columns is None else ', '.join(map(_quoted, columns))} FROM {source}"
            )
            # Every column by its name: DuckDB binds `* REPLACE (…)` in time that grows with the square of the
            # columns.
            chosen = ", ".join(
                _one_zero(column) if kind.is_floating() else _quoted(column)
                for column, kind in schema.items()
            )
            self._duck.execute(f"CREATE VIEW {name} AS SELECT {chosen} FROM {source}")
        return self._named(name, schema)

    def table(self, rows: pa.Table) -> ir.Table:
        name = self._name("small")
        with self._plainly():
            # Copied into DuckDB: a view of the Arrow table would need it, and its name,
            # for as long as the session lives.
            self._duck.register(f"{name}_arrow", rows)
            self._duck.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_arrow")
            self._duck.unregister(f"{name}_arrow")
        return self._named(name)

    def keep(self, table: ir.Table) -> ir.Table:
        folder = self._scratch / self._name("kept")
        # lz4, since what is kept is read a few times and thrown away.
        self._copy(table, folder, order=(), compression="COMPRESSION lz4_raw")
        return self.read(sorted(folder.glob("*.parquet")))

    def folder(self) -> Path:
        folder = self._scratch / self._name("mapped")
        with plainly(self._scratch, self._limit_bytes):
            folder.mkdir(parents=True)
        return folder

    def beside(self, table: ir.Table, narrow: ir.Table) -> ir.Table:
        # The narrow rows are held whole here; more than the limit of them go through
        # DuckDB's join, which can spill.
        if not is_wide(table) or self.count(narrow) * _BESIDE_BYTES > self._limit_bytes:
            return super().beside(table, narrow)
        with self._plainly():
            rows = pa.Table.from_batches(self.batches(narrow), self._arrow_schema(narrow))
            path = self._scratch / self._name("beside") / "part-0.parquet"
            path.parent.mkdir(parents=True)
            Beside(rows).write(
                self.batches(table),
                self._arrow_schema(table),
                path,
                group_rows=self._rows_of(table.columns),
            )
        # From here on the wide rows are read from this file, not computed again.
        return self.read([path])

    def sql(self, table: ir.Table, expression: str) -> ir.Value:
        import duckdb
        import ibis.expr.datatypes as dt

        from penstock.parts.engines._expression import value

        bound = bind(expression, table.columns)
        # The expression is bound over typed nulls: DuckDB tells its type and its
        # mistakes, and no row is read.
        schema = table.schema()
        types = [
            self._compiler.type_mapper.to_string(schema[name]) for name in bound.columns
        ]
        rows = (
            ", ".join(f'CAST(NULL AS {each}) AS "${i}"' for i, each in enumerate(types))
            # A SELECT needs a column, also where the expression reads none.
            or "0"
        )
        query = f"SELECT ({bound.template}) AS v FROM (SELECT {rows})"
        # The type, unknown until the expression is described, does not matter for its
        # size.
        is_dear = self._is_bounded and self._bounded.is_dear(
            value(table, bound, dt.null).op(), widths=self._widths.of_columns
        )
        try:
            # DuckDB folds constants while it plans, so describing a dear expression can
            # be as dear as running it.
            described = (
                self._bounded.describe(query, expression)
                if is_dear
                else self._described(query)
            )
        except (duckdb.Error, Refused, UnicodeDecodeError) as error:
            of = ", ".join(f"{name} is {schema[name]}" for name in bound.columns)
            raise RecipeError(
                f"{first_line(error, bound.columns)} ({of or 'no columns'}); found {expression!r}"
            ) from None
        kind = exact_type(self._compiler.type_mapper, described[0][1], expression)
        if is_dear:
            answer = self._compiler.type_mapper.to_string(kind)
            # From here on the query calls a function that hands vectors to the cell.
            bound = replace(bound, template=self._bounded.function(bound, types, answer))
        answers = value(table, bound, kind)
        # by its text: the nearest double
        return answers.cast("string").cast("float64") if kind.is_decimal() else answers

    def batches(self, table: ir.Table, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        with self._plainly():
            # A cursor of its own, so that other queries of the session can run while
            # this one streams.
            cursor = self._duck.cursor()
            query = self._query(table)
            answer = self._bounded.run(lambda: cursor.execute(query), cursor.interrupt)
            # DuckDB and Arrow hold whole batches, so batches of wide rows are shorter.
            rows = min(rows, self._rows_of(table.columns))
            # `to_arrow_reader` is the new name (DuckDB 1.4); the old one warns there.
            reader = (
                answer.to_arrow_reader(rows)
                if hasattr(answer, "to_arrow_reader")
                else answer.fetch_record_batch(rows)
            )
        while True:
            # The query is computed as batches are taken, so most errors of rows surface
            # here.
            with self._plainly():
                batch = self._bounded.run(lambda: next(reader, None), cursor.interrupt)
            if batch is None:
                return
            refuse_odd(batch)
            yield batch

    def write(self, table: ir.Table, folder: Path, *, order: Sequence[str] = ()) -> int:
        # Only row ids are uniform digests, which can be dealt out by their first bits;
        # any other order is DuckDB's sort.
        if list(order) == [ROW_ID]:
            rows, row_bytes = self.count(table), self._bytes_of(table.columns)
            if (
                row_bytes > _WIDE_BYTES
                or rows * row_bytes > _SORTED_SHARE * self._limit_bytes
            ):
                return self._in_order(table, folder, rows)
        return self._copy(
            table,
            folder,
            order=order,
            compression="COMPRESSION zstd, COMPRESSION_LEVEL 1",
        )

    deals_out = True

    def write_parts(
        self, table: ir.Table, by: str, folders: Mapping[str, Path], *, rows: int
    ) -> dict[str, int]:
        # One zero, as in what was read: an expression may have made another.
        floating = [name for name, kind in table.schema().items() if kind.is_floating()]
        wide = is_wide(table)  # there another step of DuckDB's would reserve too much
        single = (
            table.mutate([(table[name] + 0).name(name) for name in floating])
            if floating and not wide
            else table
        )
        with self._plainly():
            batches = self.batches(single)
            return write_parts_in_order(
                map(_with_one_zero, batches) if wide else batches,
                self._arrow_schema(single),
                folders,
                self._scratch / self._name("dealt"),
                by=by,
                key=ROW_ID,
                rows=rows,
                ways=self._ways(table.columns, rows),
            )

    def _ways(self, columns: Sequence[str], rows: int) -> Ways:
        return Ways(
            group_rows=self._rows_of(columns),
            num_workers=self._threads,
            held_bytes=self._limit_bytes // GROUP_SHARE,
            # What fits in the page cache costs more to compress than to write.
            compression="lz4" if rows * self._bytes_of(columns) > _CACHED_BYTES else None,
        )

    def _in_order(self, table: ir.Table, folder: Path, rows: int) -> int:
        """Write rows in the order of their ids, where they are too many or too wide for DuckDB's
        own sort; returns their number.
        """
        with self._plainly():
            folder.mkdir(parents=True, exist_ok=True)
            return write_in_order(
                self.batches(table),
                self._arrow_schema(table),
                folder,
                self._scratch / self._name("dealt"),
                key=ROW_ID,
                rows=rows,
                ways=self._ways(table.columns, rows),
            )

    def compiled(
        self,
        schema: pa.Schema,
        build: Callable[[ir.Table], ir.Table],
        *,
        seconds: Callable[[int], float] | None = None,
    ) -> Callable[[pa.Table], pa.Table]:
        # DuckDB promises no order without ORDER BY, so a column of places keeps the
        # order of a request.
        name, place = self._name("request"), "__p_place"
        self._duck.register(
            name,
            # No rows, the right types: enough to build the query and to write its SQL
            # once.
            pa.table(
                [*[pa.nulls(0, f.type) for f in schema], pa.array([], pa.int64())],
                names=[*schema.names, place],
            ),
        )
        built = build(self._named(name))
        query = self._query(built.order_by(place).drop(place))
        # The name is free again: each request registers its own rows under it.
        self._duck.unregister(name)
        # A connection runs one query at a time, and requests come from several threads;
        # so each thread has a cursor.
        local = threading.local()

        def apply(table: pa.Table) -> pa.Table:
            if not hasattr(local, "cursor"):
                local.cursor = self._duck.cursor()
            with self._plainly():
                cursor = local.cursor
                cursor.register(
                    name,
                    table.append_column(place, pa.array(range(len(table)), pa.int64())),
                )

                def answered() -> pa.Table:
                    answer = cursor.execute(query)
                    answers: pa.Table = (
                        answer.to_arrow_table()
                        if hasattr(answer, "to_arrow_table")
                        else answer.fetch_arrow_table()
                    )
                    return answers

                try:
                    answers: pa.Table = self._bounded.run(
                        answered,
                        cursor.interrupt,
                        seconds=seconds(len(table)) if seconds else None,
                    )
                    refuse_odd(answers)
                    return answers
                finally:
                    # A registered table stays in memory until its name is taken back.
                    cursor.unregister(name)

        return apply

    # -- within ----------------------------------------------------------------------------------------------

    def _arrow_schema(self, table: ir.Table) -> pa.Schema:
        """The Arrow schema of a table as DuckDB gives it: Ibis' own mapping differs in nulls and
        time zones.
        """
        cursor = self._duck.cursor()
        # DuckDB plans the query and computes no row.
        query = f"SELECT * FROM ({self._query(table)}) LIMIT 0"
        answer = self._bounded.run(lambda: cursor.execute(query), cursor.interrupt)
        empty: pa.Table = (
            answer.to_arrow_table()
            if hasattr(answer, "to_arrow_table")
            else answer.fetch_arrow_table()
        )
        return empty.schema

    def _settle(self) -> None:
        """For wide rows, open the connection anew with fewer threads, and room for what each step
        reserves.
        """
        if self._widths.are_wide:
            # Before the reconnection, since a connection's number of threads is locked
            # like all its settings.
            self._threads = self._widths.fewer_threads(self._limit_bytes, self._threads)
            self.close()
            self._connect(self._limit_bytes + self._widths.reserved_bytes(self._threads))

    def _rows_of(self, columns: Sequence[str]) -> int:
        """How many rows of these columns each thread may hold at once."""
        # All threads fill a group at once, so the share is divided by their number.
        free = self._limit_bytes // GROUP_SHARE // self._threads
        return min(max(free // self._bytes_of(columns), 1), ROW_GROUP)

    def _bytes_of(self, columns: Sequence[str]) -> int:
        """About how many bytes a row of these columns has."""
        # A value from the cell may be as wide as an answer of the cell may be.
        return self._widths.row_bytes(
            columns, unknown=self._bounded.row_bytes if self._bounded.is_used else None
        )

    def _name(self, word: str) -> str:
        return f"{word}_{next(self._names)}"

    def _query(self, table: ir.Table) -> str:
        # A long recipe makes a tree deeper than Python's default allows a walk over it.
        with deeper():
            return str(self._compiler.to_sqlglot(table).sql(dialect="duckdb"))

    def _schema(self, query: str) -> Any:
        import ibis

        read = self._compiler.type_mapper.from_string
        return ibis.schema({name: read(kind) for name, kind in self._described(query)})

    def _described(self, query: str) -> list[tuple[str, str]]:
        """Names and DuckDB's types of the columns."""
        return [
            (name, kind)
            for name, kind, *_ in self._duck.execute(f"DESCRIBE {query}").fetchall()
        ]

    def _named(self, name: str, schema: Any = None) -> ir.Table:
        import ibis

        return ibis.table(
            self._schema(f"SELECT * FROM {name}") if schema is None else schema, name=name
        )

    def _copy(
        self, table: ir.Table, folder: Path, *, order: Sequence[str], compression: str
    ) -> int:
        if order:
            table = table.order_by(list(order))
        with self._plainly():
            folder.mkdir(parents=True, exist_ok=True)
            query = self._query(table)
            path = str(folder / "part-0.parquet").replace("'", "''")
            # One file: DuckDB keeps the order of ORDER BY within a file, but not across files.
            copy = (
                f"COPY ({query}) TO '{path}' (FORMAT parquet, {compression}, ROW_GROUP_SIZE"
                f" {self._rows_of(table.columns)})"
            )
            # COPY answers with the number of rows that it wrote.
            counted = self._bounded.run(
                lambda: self._duck.execute(copy).fetchone(), self._duck.interrupt
            )
        # DuckDB writes moments that neither Arrow nor Python can hold. The file's own
        # statistics show them without a read.
        refuse_odd_file(folder / "part-0.parquet")
        return int(counted[0])

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """A context that turns errors of DuckDB and of the cell into sentences."""
        with (
            plainly(self._scratch, self._limit_bytes),
            self._bounded.plainly() if self._bounded is not None else nullcontext(),
        ):
            yield


def _one_zero(column: str) -> str:
    """The SQL of a column in which -0.0 is 0.0: a Parquet dictionary of DuckDB's would keep
    whichever came first.
    """
    return f"{_quoted(column)} + 0 AS {_quoted(column)}"


def _with_one_zero(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        # -0.0 + 0 is 0.0; every other value, NaN included, stays as it is.
        pc.add(column, pa.scalar(0, column.type))
        if pa.types.is_floating(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _refuse_twins(files: Sequence[str]) -> None:
    # A file that is not here costs a request, and DuckDB refuses twins there in its own
    # words.
    if "://" in files[0]:
        return
    names = pq.read_schema(files[0]).names
    lower = [name.lower() for name in names]
    twins = [name for name in names if lower.count(name.lower()) > 1]
    if twins:
        raise SourceError(
            f"the columns {', '.join(map(repr, twins))} have names that differ only in"
            " case, which SQL cannot distinguish. Rename one of them in the source."
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
