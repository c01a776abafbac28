"""What the data side promises: Source (where rows come from), Cleaner, Engine (where rows are crunched).
What a Feature promises is in `penstock.contracts.features`.

The way of a row. A Source extracts files into plain Parquet with three columns of its own (`ROW_FILE`,
`ROW_NUMBER`, and `ROW_SPLIT` where files decide the split) and puts what it cannot read aside as rejects. An
Engine turns extracts into clean, split rows by Ibis expressions. Features turn columns into arrays: `accept`
makes any raw column canonical and names the rows it must refuse; `encode` and `collate` are total on what was
accepted. The very same three calls happen in training, in batch prediction, over HTTP and in streams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.features import NOBODY as NOBODY
from penstock.contracts.features import Augmentation as Augmentation
from penstock.contracts.features import Feature as Feature
from penstock.contracts.features import Fitted as Fitted
from penstock.contracts.features import Refused as Refused
from penstock.contracts.features import Stored as Stored
from penstock.contracts.learnt import Alike
from penstock.contracts.part import Part
from penstock.contracts.sample import SAMPLE_FILE_BYTES, Sample
from penstock.contracts.snapshot import PLACE as PLACE
from penstock.contracts.snapshot import ROW_FILE as ROW_FILE
from penstock.contracts.snapshot import ROW_NUMBER as ROW_NUMBER
from penstock.contracts.snapshot import Extract as Extract
from penstock.contracts.snapshot import Snapshot as Snapshot
from penstock.contracts.snapshot import SourceFile as SourceFile
from penstock.contracts.summary import Summary
from penstock.core.events import Events

if TYPE_CHECKING:
    import ibis.expr.types as ir

ROW_ID = "row_id"
"""md5, 32 hexadecimal digits, of the declared key, or of relative path, content hash and row number."""
OWN_PREFIX = "__p_"
"""A column whose name begins so is a helper and no data: a cleaner of all columns leaves it alone."""
WIDE_COLUMNS = 512
"""A table of more columns is wide: what concerns few of them is worked out on those alone
(`EngineSession.beside`).
"""
MEASURED_AT_ONCE = 512
"""So many aggregates in one query: `EngineSession.measure`."""
REJECT_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("stage", pa.string()),
        ("column", pa.string()),
        ("reason", pa.string()),
        ("row", pa.string()),
    ]
)
"""A quarantined row: its id if it has one, its file and line (from 1; a table format counts rows), the stage
that refused it (`read`, `key`, `join`, `expect`, `clean`, `split`, `feature`), the column and reason, and the
row itself as JSON or as the raw line.
"""


class Source(Alike, Part):
    """Where rows come from."""

    shelf: ClassVar[str] = "penstock.parts.sources"
    whereabouts: ClassVar[frozenset[str]] = frozenset({"path"})
    """Words that say where rows lie and which are meant, of which the snapshot has names and content: they
    enter no identity.
    """

    @abstractmethod
    def snapshot(self, base: Path, memo: Path | None = None) -> Snapshot:
        """What would be read now: each file with its size and SHA-256.

        Args:
            base: the folder that relative paths start from (the recipe's).
            memo: a JSON file of hashes already known by (url, size, time); created and kept up to date.

        Raises:
            SourceError: nothing is there, or it may not be read.
        """

    def preview(self, base: Path) -> Snapshot:
        """What a `sample` would be read from, to be asked for nothing else: files may have no SHA-256, so
        that no terabyte is hashed for its first rows. The default is a whole snapshot.

        Raises:
            SourceError: nothing is there, or it may not be read.
        """
        return self.snapshot(base)

    @abstractmethod
    def extract(
        self, snapshot: Snapshot, scratch: Path, *, memory_bytes: int, events: Events
    ) -> Extract:
        """Read every row of the snapshot into Parquet under `scratch`, within `memory_bytes`; put bad rows
        aside.

        Raises:
            SourceError: a file is corrupt as a whole, or a row is bad and `on_bad_row` is `fail`.
        """

    @abstractmethod
    def sample(
        self, snapshot: Snapshot, rows: int, *, file_bytes: int = SAMPLE_FILE_BYTES
    ) -> Sample:
        """About `rows` rows drawn over the whole source, typed as `extract` would type what was read for
        them, and what is known of all rows. The same files give the same sample.

        Args:
            snapshot: of `preview` or `snapshot`.
            rows: how many to draw; fewer where they are wide, which `Sample.cut` says.
            file_bytes: of files that are read at most, about; of more, pieces from all over them are.
        """

    def proposed(self, snapshot: Snapshot) -> dict[str, Any]:
        """Words to be added to the declaration, so that the files are read as what they are: found out from
        the files, for `init`. None by default.

        Raises:
            SourceError: a file cannot be read.
        """
        return {}


class Cleaner(Part):
    """A step that mends rows. Exactly one of three forms, told by `form`.

    Laws (penstock.testing.laws.cleaners): mending keeps `row_id` and the columns; an `expression` or `batch`
    keeps every row and mends one row as it mends many; facts are JSON; what is mended at serving equals what
    was mended at preparing.
    """

    shelf: ClassVar[str] = "penstock.parts.cleaners"
    form: ClassVar[str] = "expression"
    """`expression`: `mend` maps a table to a table, row by row, on any engine (fitted facts come from the
    training split); `batch`: a `BatchCleaner`, row by row as well, over Arrow batches; `global`: `mend` needs
    all rows (deduplication): it may drop rows, which are counted as `drops`.
    """
    carries: ClassVar[bool] = False
    """Of a `global` cleaner: it drops no row and changes values instead, by what other rows hold."""
    together: ClassVar[bool] = False
    """Whether a column is mended by what others hold, so that all must be there."""
    drops: ClassVar[str] = "filtered"
    """Under which heading dropped rows are counted: `duplicates` or `filtered`."""
    at_serving: ClassVar[str] = "apply"
    """`apply`: done to requests as well; `skip`: only to training data; `refuse`: a request that needs it is
    refused.
    """
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Declarations of itself that the family's laws judge, over the columns of
    `penstock.testing.laws.cleaners.TABLE`.
    """

    def needs(self) -> tuple[str, ...]:
        """The columns it reads; a recipe whose source lacks one is refused."""
        return ()

    def expressions(self) -> dict[str, str]:
        """SQL expressions it was given, by the field that holds them; a recipe with a wrong one is
        refused.
        """
        return {}

    def is_fitted(self) -> bool:
        """Whether it learns facts from the training split, and so runs after the split."""
        return type(self).fit is not Cleaner.fit

    def runs_after_split(self) -> bool:
        """Whether it sees rows with their split, private columns hidden; what learns does."""
        return self.is_fitted()

    def fit(self, table: ir.Table, session: EngineSession) -> dict[str, Any]:
        """Facts learnt from the training split, as plain data. The default learns nothing.

        Raises:
            ContractError: a column is of a type it cannot mend.
        """
        return {}

    def notes(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What a person should know of what was learnt, as plain data: values that were merged. None by
        default.
        """
        return {}

    @abstractmethod
    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        """The mended table. It keeps `row_id` and columns it does not know; for `expression`, every row."""


class BatchCleaner(Cleaner):
    """A cleaner whose work is no expression: a pure function over Arrow batches of the columns it `needs`."""

    form: ClassVar[str] = "batch"

    @abstractmethod
    def repair(
        self, columns: Mapping[str, pa.Array], facts: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        """The columns that change, mended: of the same lengths and types, each row by itself.

        Args:
            columns: those of `needs` that the table has; a request may lack some.
        """

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        columns = [name for name in self.needs() if name in table.columns]
        return session.mapped(table, columns, lambda rows: self.repair(rows, facts))

    def repaired(self, rows: pa.Table, facts: Mapping[str, Any]) -> pa.Table:
        """`mend` of a small Arrow table, without an engine."""
        columns = {
            name: rows[name].combine_chunks()
            for name in self.needs()
            if name in rows.column_names
        }
        for name, mended in self.repair(columns, facts).items():
            place = rows.column_names.index(name)
            kind = rows.schema.field(name).type
            rows = rows.set_column(place, name, mended.cast(kind))
        return rows


class Engine(Part):
    """The engine that prepares the data: it opens a session, which holds tables as Ibis expressions."""

    shelf: ClassVar[str] = "penstock.parts.engines"

    @abstractmethod
    def open(self, scratch: Path, *, memory_bytes: int, threads: int) -> EngineSession:
        """Start it. Use as a context manager.

        Args:
            scratch: a folder for what does not fit in memory; whoever gave it removes it.
            memory_bytes: the ceiling of the whole process, of which the engine takes its part.
            threads: the most it may use.
        """

    def executors(
        self, shared: Path, *, memory_bytes: int, threads: int
    ) -> AbstractContextManager[Executors] | None:
        """Executors on other machines, for pure functions; None (the default) where this process does it all.

        Args:
            shared: a folder that they must see.
        """
        return None


class Executors(ABC):
    """Pure functions, run elsewhere."""

    at_once: int = 1
    """How many items are worked on at a time."""

    @abstractmethod
    def each(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """`work(item)` for every item, in the order of the items.

        `work`, items and results travel as the engine sends functions and data.

        Raises:
            PenstockError: what `work` raised.
        """


def is_wide(table: ir.Table) -> bool:
    """Whether a table has so many columns that its rows should go through no join, window or sort."""
    return len(table.columns) > WIDE_COLUMNS


class EngineSession(ABC):
    """A running engine: tables are Ibis expressions, and nothing runs until rows are asked for.

    Laws (penstock.testing.laws.engines): what is kept, written or streamed has the rows of the expression;
    `write` keeps the order asked for; null text, NaN and 64-bit whole numbers come back as they went in.

    All methods that run something raise `ContractError` where the data breaks an expression (a text that is
    no number), `StoreError` where the disk is full, and `UserError` where the memory does not suffice.
    """

    whole_values: Callable[[str, pa.Array], pa.Array] | None = None
    """Of a column's name and stand-ins: the values. Set where large values wait beside the engine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Stop it; tables are gone."""

    @abstractmethod
    def read(
        self, parquet: Sequence[Path | str], columns: Sequence[str] | None = None
    ) -> ir.Table:
        """Parquet files united by name, as a table. Negative zero is read as zero.

        Args:
            columns: the only ones to read, of files that were read before; all unless given.
        """

    @abstractmethod
    def table(self, rows: pa.Table) -> ir.Table:
        """A small Arrow table, as a table of the engine."""

    @abstractmethod
    def keep(self, table: ir.Table) -> ir.Table:
        """Compute once, on disk, and go on from the result."""

    def beside(self, table: ir.Table, narrow: ir.Table) -> ir.Table:
        """`table` with the columns of `narrow` beside it, null in rows that it has not; computed once, on
        disk.

        Args:
            table: has `PLACE`, each place once.
            narrow: the same, and the columns to be given; it was kept.
        """
        # Both tables have the columns of `PLACE`, so one side takes other names.
        other = narrow.rename({f"__p_of{name}": name for name in PLACE})
        paired = table.left_join(
            other, [table[name] == other[f"__p_of{name}"] for name in PLACE]
        )
        return self.keep(paired.drop(*(f"__p_of{name}" for name in PLACE)))

    @abstractmethod
    def folder(self) -> Path:
        """A new folder for files of this session, which go with it; executors see it as well."""

    def mapped(
        self,
        table: ir.Table,
        columns: Sequence[str],
        function: Callable[[Mapping[str, pa.Array]], Mapping[str, pa.Array]],
    ) -> ir.Table:
        """`table` with `columns` changed by a function over Arrow batches; computed once, on disk.

        Only these columns and `ROW_ID` pass through this process, a batch at a time.

        Args:
            function: columns of a batch → those that change, of the same length.
        """
        if not columns:
            return table
        keys = [ROW_ID, *PLACE] if is_wide(table) else [ROW_ID]
        path = self.folder() / "part-0.parquet"
        writer: pq.ParquetWriter | None = None
        try:
            for batch in self.batches(table.select(*keys, *columns)):
                given = {name: batch.column(name) for name in columns}
                mended = {**given, **function(given)}
                # By number: one of the columns may have the name of a key.
                arrays = [batch.column(name) for name in keys] + [
                    mended[name].cast(batch.schema.field(name).type) for name in columns
                ]
                names = [*keys, *(f"__p_{i}" for i in range(len(columns)))]
                rows = pa.Table.from_arrays(arrays, names)
                writer = writer or pq.ParquetWriter(path, rows.schema)
                writer.write_table(rows)
        finally:
            if writer is not None:
                writer.close()
        # No batch came: there is nothing to mend.
        if writer is None:
            return table
        narrow = self.read([path])
        rest = table.drop(*columns)
        if is_wide(table):
            paired = self.beside(rest, narrow.drop(ROW_ID))
        else:
            other = narrow.rename(__p_of_id=ROW_ID)
            paired = self.keep(
                rest.left_join(other, rest[ROW_ID] == other["__p_of_id"]).drop(
                    "__p_of_id"
                )
            )
        return paired.select(
            *(
                paired[f"__p_{columns.index(name)}"].cast(table[name].type()).name(name)
                if name in columns
                else paired[name]
                for name in table.columns
            )
        )

    @abstractmethod
    def sql(self, table: ir.Table, expression: str) -> ir.Value:
        """A scalar SQL expression (DuckDB's dialect, penstock.contracts.sql) over `table`'s columns, as a
        value that composes.

        An exact decimal (`0.5 * age` is one in DuckDB) comes as a double, as features and other engines have
        numbers.

        Raises:
            RecipeError: it is not allowed, names a column that is not there, or does not fit the columns'
                types.
        """

    @abstractmethod
    def batches(self, table: ir.Table, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The table's rows, streamed; in the order of its `order_by`, if it ends with one."""

    @abstractmethod
    def write(self, table: ir.Table, folder: Path, *, order: Sequence[str] = ()) -> int:
        """Write as Parquet into `folder`, rows in the order of the columns `order`; returns the number of
        rows.

        Files sorted by name hold the rows in order; there is at least one file, so that the schema is there.
        """

    deals_out: ClassVar[bool] = False
    """Whether `write_parts` computes the table once, however many parts there are."""

    def write_parts(
        self, table: ir.Table, by: str, folders: Mapping[str, Path], *, rows: int
    ) -> dict[str, int]:
        """`write` in the order of `ROW_ID`, for the rows of each text in the column `by`, which is left out;
        the number of rows of each.

        Args:
            folders: by text: where its rows go. No row has another text.
            rows: about how many there are in all.
        """
        return {
            name: self.write(
                table.filter(table[by] == name).drop(by), folder, order=[ROW_ID]
            )
            for name, folder in folders.items()
        }

    @abstractmethod
    def compiled(
        self,
        schema: pa.Schema,
        build: Callable[[ir.Table], ir.Table],
        *,
        seconds: Callable[[int], float] | None = None,
    ) -> Callable[[pa.Table], pa.Table]:
        """`build` made ready once, to be applied to many small tables of `schema`; safe to call from several
        threads.

        Args:
            schema: of the tables.
            build: what is to be done to them.
            seconds: of so many rows: how long expressions that are not cheap may take (`TooDear`); unbounded
                unless given.
        """

    def rows(self, table: ir.Table) -> list[dict[str, Any]]:
        """A small table's rows as plain data."""
        return [row for batch in self.batches(table) for row in batch.to_pylist()]

    def measure(self, table: ir.Table, values: Mapping[str, ir.Value]) -> dict[str, Any]:
        """Aggregates of a table, by name: one pass over it for every `MEASURED_AT_ONCE` of them.

        An engine holds a piece of every column that a query aggregates. In batches, memory does not grow with
        the width of the table, and the work grows with it in proportion.
        """
        # Names as the caller has them; batches only bound how many aggregates one query
        # has.
        names = list(values)
        measured: dict[str, Any] = {}
        for start in range(0, len(names), MEASURED_AT_ONCE):
            batch = {
                name: values[name] for name in names[start : start + MEASURED_AT_ONCE]
            }
            measured |= self.rows(table.aggregate(**batch))[0]
        return measured

    def count(self, table: ir.Table) -> int:
        """The number of rows."""
        return int(self.rows(table.aggregate(n=table.count()))[0]["n"])

    def summarise(self, table: ir.Table, summaries: Mapping[str, Summary]) -> None:
        """Update each column's summary, which has seen no row yet, with every row. `table` has `row_id`."""
        columns = list(summaries)
        # One pass for all summaries, each with the ids of the rows.
        for batch in self.batches(table.select(ROW_ID, *columns)):
            for name in columns:
                summaries[name].update(batch.column(name), batch.column(ROW_ID))
