"""What the data side promises: Source (where rows come from), Cleaner, Engine (where rows are crunched),
Feature.

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from penstock.contracts.learnt import Alike
from penstock.contracts.part import Part
from penstock.contracts.snapshot import Extract as Extract
from penstock.contracts.snapshot import Snapshot as Snapshot
from penstock.contracts.snapshot import SourceFile as SourceFile
from penstock.contracts.summary import Summary
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import RecipeError
from penstock.core.events import Events

if TYPE_CHECKING:
    import ibis.expr.types as ir

ROW_ID = "row_id"
"""md5, 32 hexadecimal digits, of the declared key, or of relative path, content hash and row number."""
ROW_FILE = "__file"
"""int32: index into `Snapshot.files`."""
ROW_NUMBER = "__row"
"""int64: the row's ordinal within its file, from 0, rejected rows not counted."""

PLACE = (ROW_FILE, ROW_NUMBER)
"""Where a row of the source stands: no two rows of a preparation have the same."""
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
that refused it (`read`, `key`, `join`, `expect`, `split`, `feature`), the column and reason, and the row
itself as JSON or as the raw line.
"""


SAMPLE_CUT = b"penstock.cut"
"""In the metadata of a sample that has fewer rows than it was asked for since they are wide."""


class Source(Alike, Part):
    """Where rows come from."""

    shelf: ClassVar[str] = "penstock.parts.sources"

    @abstractmethod
    def snapshot(self, base: Path, memo: Path | None = None) -> Snapshot:
        """What would be read now: each file with its size and SHA-256.

        Args:
            base: the folder that relative paths start from (the recipe's).
            memo: a JSON file of hashes already known by (url, size, time); created and kept up to date.

        Raises:
            SourceError: nothing is there, or it may not be read.
        """

    @abstractmethod
    def extract(self, snapshot: Snapshot, scratch: Path, *, memory_bytes: int, events: Events) -> Extract:
        """Read every row of the snapshot into Parquet under `scratch`, within `memory_bytes`; put bad rows
        aside.

        Raises:
            SourceError: a file is corrupt as a whole, or a row is bad and `on_bad_row` is `fail`.
        """

    @abstractmethod
    def sample(self, snapshot: Snapshot, rows: int) -> pa.Table:
        """About `rows` rows from the beginnings of the files, typed as `extract` would type that much of
        them; fewer where they are wide, which `SAMPLE_CUT` in the schema's metadata says.
        """


class Cleaner(Part):
    """A step that mends rows. Exactly one of two forms, told by `form`.

    Laws (penstock.testing.laws.cleaners): mending keeps `row_id` and the columns; an `expression` keeps every
    row and mends one row as it mends many; facts are JSON; what is mended at serving equals what was mended
    at preparing.
    """

    shelf: ClassVar[str] = "penstock.parts.cleaners"
    form: ClassVar[str] = "expression"
    """`expression`: `mend` maps a table to a table, row by row, on any engine (fitted facts come from the
    training split); `global`: `mend` needs all rows (deduplication): it may drop rows, which are counted as
    `drops`.
    """
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

    def fit(self, table: ir.Table, session: EngineSession) -> dict[str, Any]:
        """Facts learnt from the training split, as plain data. The default learns nothing.

        Raises:
            ContractError: a column is of a type it cannot mend.
        """
        return {}

    @abstractmethod
    def mend(self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession) -> ir.Table:
        """The mended table. It keeps `row_id` and columns it does not know; for `expression`, every row."""


class Engine(Part):
    """Where rows are crunched. An engine opens a session; a session holds tables as Ibis expressions."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Stop it; tables are gone."""

    @abstractmethod
    def read(self, parquet: Sequence[Path | str], columns: Sequence[str] | None = None) -> ir.Table:
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
        other = narrow.rename({f"__p_of{name}": name for name in PLACE})
        paired = table.left_join(other, [table[name] == other[f"__p_of{name}"] for name in PLACE])
        return self.keep(paired.drop(*(f"__p_of{name}" for name in PLACE)))

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
            name: self.write(table.filter(table[by] == name).drop(by), folder, order=[ROW_ID])
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
        names = list(values)
        measured: dict[str, Any] = {}
        for start in range(0, len(names), MEASURED_AT_ONCE):
            batch = {name: values[name] for name in names[start : start + MEASURED_AT_ONCE]}
            measured |= self.rows(table.aggregate(**batch))[0]
        return measured

    def count(self, table: ir.Table) -> int:
        """The number of rows."""
        return int(self.rows(table.aggregate(n=table.count()))[0]["n"])

    def summarise(self, table: ir.Table, summaries: Mapping[str, Summary]) -> None:
        """Update each column's summary, which has seen no row yet, with every row. `table` has `row_id`."""
        columns = list(summaries)
        for batch in self.batches(table.select(ROW_ID, *columns)):
            for name in columns:
                summaries[name].update(batch.column(name), batch.column(ROW_ID))


@dataclass(frozen=True)
class Refused:
    """Rows a feature cannot accept."""

    rows: np.ndarray
    """Indices, int64 `[r]`, ascending."""
    reasons: list[str]
    """One a row: what was found and what was expected, without the column's name."""


NOBODY = Refused(np.empty(0, np.int64), [])

Stored = dict[str, np.ndarray]
"""Array name → values `[n, …]`; ragged and bytes come as object arrays of numpy arrays or of `bytes` (and
ragged ones as `Ragged` to a feature that `takes_ragged`).
"""

Fitted = dict[str, Any]
"""What a feature learnt from the training split, as plain data (JSON).

`said`, if there, lists choices made aloud.
"""


class Feature(Part):
    """A raw column (or several) ↔ arrays. numpy and Arrow only; no torch.

    Laws (penstock.testing.laws.features): a row encodes alone as in a batch, bit for bit; halves summarised
    and merged equal the whole; `decode` undoes `encode` for targets; refused rows are refused alone as in a
    batch; the arrays of `collate` have the dtypes and shapes of `spec`.
    """

    shelf: ClassVar[str] = "penstock.parts.features"
    encoder: ClassVar[str] = ""
    """The encoder a model uses unless the recipe names another; empty: not usable as an input."""
    decoder: ClassVar[str] = ""
    """The decoder likewise; empty: not usable as a target."""
    answers: ClassVar[tuple[str, ...]] = ("", "probabilities")
    """As a target, the words of `decode` that it may answer with: `""` is the column `<target>`, the others
    `<target>_<word>`.
    """
    canonical: ClassVar[pa.DataType] = pa.string()
    """What `accept` returns and the rest understands; text may keep the dictionary that it came with."""

    takes_ragged: ClassVar[bool] = False
    """Whether `collate` also understands ragged arrays as `penstock.contracts.ragged.Ragged`, which spares an
    object a row.
    """

    column: str | None = None
    """The raw column; the feature's own name unless given."""
    na: tuple[str, ...] = ()
    """Texts that stand for a missing value in this column, such as "Not yet rated"."""
    fitted_from: str | None = Field(None, pattern=r"^bundle-[0-9a-f]{16}$")
    """A bundle in the store whose feature of this name learnt already: what it learnt is taken over, so that
    tokens, edges and classes mean here what they mean there. For encoders that `train.from` takes over.
    """

    def columns(self, name: str) -> tuple[str, ...]:
        """The raw columns that the feature called `name` reads."""
        return (self.column or name,)

    # -- where a row is a step of a series, and a sample is many rows (the recipe's `samples`) ---------------

    spans: ClassVar[bool] = False
    """True: of a sample it reads many steps; False: one value."""

    def reach(self, *, target: bool) -> tuple[int, int]:
        """The steps that it reads of a sample, as offsets `[start, stop)` from the anchor, the first step
        that is not known yet.

        A plain input is the value at the last known step, a plain target the value at the anchor.
        """
        return (0, 1) if target else (-1, 0)

    def whole(self, name: str) -> Feature:
        """The feature as requests know it: the steps of a sample in one raw column, called as the feature
        is.
        """
        return self

    def step(self) -> Feature:
        """The feature of a single step, fitted and encoded as the whole is, step by step."""
        return self

    def unfit(self, *, target: bool, sampled: bool) -> str | None:
        """Why it cannot be an input (a target) as it is declared, or None."""
        return None

    # -- where a target has a label for each step of an input ------------------------------------------------

    def labels_steps_of(self) -> str | None:
        """Of a target: the input whose steps it labels one by one. None: it says one thing of a row."""
        return None

    def steps(self, column: pa.Array) -> np.ndarray | None:
        """How many steps each row of its canonical column has, before any is cut off `[n]`; None: its rows
        have no steps that could be labelled.
        """
        return None

    # -- a row's way -----------------------------------------------------------------------------------------

    def row_bytes(self) -> int:
        """About how much memory one row takes, raw and accepted: pieces of rows are cut so that memory stays
        bounded.
        """
        return 64

    def decodes(self) -> bool:
        """Whether `collate` is enough work for several threads, and lets go of the interpreter lock in it:
        decoding pictures is, padding texts is not. A loader then has a thread for each core.
        """
        return False

    def augments(self) -> bool:
        """Whether `collate` does anything with keys; making them is spared where none does."""
        return type(self).collate is not Feature.collate

    @abstractmethod
    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        """Raw columns of whatever type, as one canonical column `[n]` (null = missing), and the rows that
        cannot be.

        Refused rows hold null. A row's acceptance depends on that row alone.
        """

    @abstractmethod
    def summary(self) -> Summary:
        """What must be learnt from the training split's canonical column."""

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        """The summary's result as fitted facts. May add `said`.

        Raises:
            ContractError: nothing can be learnt from it (a target with one class, a column that is always
                missing).
        """
        return result

    def unknown(self, column: pa.Array, fitted: Fitted) -> Refused:
        """Rows of a target's canonical column that cannot be learnt or judged: a class never seen in the
        training split.
        """
        return NOBODY

    @abstractmethod
    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        """The arrays that `collate` gives: what the model will see."""

    @abstractmethod
    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        """Canonical column `[n]` → stored arrays, row by row, vectorised."""

    def collate(
        self, stored: Stored, fitted: Fitted, keys: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Stored rows → arrays for a batch: decode, pad; augment only if given one uint64 key a row.

        Law: equal where not masked, whatever else is in the batch.
        """
        return stored

    def decode(
        self, arrays: Mapping[str, np.ndarray], fitted: Fitted, decision: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        """A target's answers → columns in the user's words: `""` the prediction, `"probabilities"` and the
        like beside it.

        Args:
            arrays: what the decoder's `answer` gives, by name.
            decision: what was decided after training for this target, such as `{"threshold": 0.5}`; may be
                empty.
        """
        raise RecipeError(
            f"the feature {self.type!r} cannot be a target; choose another type for it under `targets`"
        )

    def decide(
        self, answers: Mapping[str, np.ndarray], truth: np.ndarray, weight: np.ndarray | None, fitted: Fitted
    ) -> dict[str, Any]:
        """What must be decided on the validation split before this target can be answered (thresholds), as
        plain data.
        """
        return {}

    def judged(self, answers: Mapping[str, np.ndarray], fitted: Fitted) -> Mapping[str, np.ndarray]:
        """A target's answers as metrics want them: as they are, unless only their decoded form can be
        compared with the truth.
        """
        return answers

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        """A target's stored rows as metrics want them `[n, …]`: class indices, or numbers in the user's
        units.
        """
        raise RecipeError(
            f"the feature {self.type!r} cannot be a target; choose another type for it under `targets`"
        )


class Augmentation(Part):
    """A random change to a stored row that keeps its meaning; its chance is a function of the row's key alone
    (penstock.contracts.chance).

    Laws (penstock.testing.laws.augmentations): shape and dtype are kept; one key, one change, alone as in a
    batch; what came in is left as it was.
    """

    shelf: ClassVar[str] = "penstock.parts.augmentations"

    @abstractmethod
    def apply(self, values: np.ndarray, key: int) -> np.ndarray:
        """The changed values of one row, such as a picture `[H, W, C]`: a new array of the same shape and
        dtype.
        """

    def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The changed values of many rows `[n, …]`, each as `apply` changes it with its key (uint64 `[n]`).

        The default goes row by row; override it where the whole batch can be changed at once.
        """
        found = np.empty_like(values)
        for i, key in enumerate(keys.tolist()):
            found[i] = self.apply(values[i], key)
        return found
