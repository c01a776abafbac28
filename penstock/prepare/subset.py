"""A subset of a dataset: a query at a version, as a text that anyone can run again.

    people@3f2a91c04b7d8e15?where=age%20%3E%2030&sample=0.1&seed=7

It is a dataset like others, with an id that follows from the version and the query; its rows are streamed
from the version's own files and copied nowhere. Of these only row groups are read that can hold rows of it,
by what Parquet says of their values (`_may_hold`).

A sample is an arc of the circle of row ids, which begins where the seed says. Ids are digests, so an arc is a
random sample, the same on every machine; and files are in the order of ids, so that a sample of a hundredth
reads a hundredth of the row groups. The number of rows is the share within the chance of digests.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID, Engine, EngineSession
from penstock.contracts.sql import Expression, bind
from penstock.core.errors import RecipeError, UserError
from penstock.core.identity import derive_seed, fingerprint
from penstock.core.near import did_you_mean
from penstock.core.store import Artefact, Store
from penstock.prepare.dataset import SPLITS, Dataset, ranged
from penstock.shards.remote_files import RangeMemory

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from sqlglot import exp

_CIRCLE = 2**128
"""Row ids are digests of so many values."""
_DIGITS = 32
_MEMORY_BYTES = 1 << 30
_WORDS = ("where", "sample", "seed")


class Subset(Dataset):
    """The rows of a version that a condition is true of, or a sample of these.

    Args:
        whole: the version.
        where: an SQL condition on its columns, as a recipe's `where`; all rows unless given.
        sample: the share of rows, above 0 and below 1; all unless given.
        seed: which of the samples of that share.

    Raises:
        UserError: neither is given, or a number cannot be.
        RecipeError: the condition is not allowed, or names a column that is not there.
    """

    def __init__(
        self,
        whole: Dataset,
        *,
        where: str | None = None,
        sample: float | None = None,
        seed: int = 0,
    ) -> None:
        if where is None and sample is None:
            raise UserError(
                f"A subset of {whole.reference} needs `where`, `sample`, or both."
            )
        if sample is not None and not 0 < sample < 1:
            raise UserError(f"`sample` is a share above 0 and below 1; found {sample}.")
        super().__init__(
            Artefact(whole.path, whole.manifest), store=whole.store, far=whole.is_far
        )
        self.whole, self.where, self.sample, self.seed = whole, where, sample, seed
        self.id = fingerprint("subset", whole.id, where, sample, seed)
        # It is read several times: to count, to fit and to encode.
        self._memory = RangeMemory()
        self._condition: Expression | None = None
        if where is not None:
            self._condition = bind(where, self.schema.names)

    @property
    def _name(self) -> str:
        return f"datasets/{self.whole.name}/{self.whole.id}"

    @property
    def reference(self) -> str:
        """`NAME@ID?where=…&sample=…&seed=…`, as `penstock subset` takes it again."""
        words = {"where": self.where, "sample": self.sample}
        given = {word: value for word, value in words.items() if value is not None}
        if self.sample is not None:
            given["seed"] = self.seed
        return f"{self.whole.reference}?{urlencode(given, quote_via=quote)}"

    @cached_property
    def _counted(self) -> dict[str, int]:
        return {
            split: sum(b.num_rows for b in self.batches(split, columns=[]))
            for split in SPLITS
        }

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each split, counted by a pass over what the query reads."""
        none = dict.fromkeys(self.whole.counts, 0)
        return {**none, **self._counted, "in": sum(self._counted.values())}

    @property
    def columns_used(self) -> tuple[str, ...]:
        """The columns that its condition reads."""
        return () if self._condition is None else self._condition.columns

    def files(self, split: str) -> list[Path]:
        raise UserError(
            f"{self.reference} has no files of its own: it is a query. An engine on other machines, and"
            " series, need files: put `where` and `sample` into a recipe and prepare it."
        )

    def _opened(self, names: Sequence[str]) -> Iterator[Callable[[], Any]]:
        far = self._far
        if far is None:
            yield from (partial(Path, self.file(name)) for name in names)
            return
        _, members = far.members(self._name, manifest=self.manifest)
        for name in names:
            # Never fetched whole: most of it may not be wanted.
            yield partial(ranged, members[name], self._memory)

    def _run_batches(
        self, names: Sequence[str], wanted: list[str], rows: int, coded: bool
    ) -> Iterator[pa.RecordBatch]:
        condition = self._condition
        needed = list(dict.fromkeys([*wanted, *(condition.columns if condition else ())]))
        schema = pa.schema([self.schema.field(name) for name in needed])
        with ExitStack() as stack:
            keep: Callable[[pa.Table], pa.Table] = _identity
            if condition is not None:
                keep = _filter(stack, condition, schema)
            for source in self._opened(names):
                with pq.ParquetFile(source(), pre_buffer=False) as file:
                    groups = self._groups(file)
                    if not groups:
                        continue
                    for batch in file.iter_batches(
                        rows, row_groups=groups, columns=needed
                    ):
                        table = pa.Table.from_batches([batch.select(needed)])
                        whole = keep(self._sampled(table)).select(wanted)
                        yield from whole.combine_chunks().to_batches()

    def _groups(self, file: pq.ParquetFile) -> list[int]:
        """The row groups that may hold rows of the subset."""
        names = file.schema_arrow.names
        tests = _tests(self._condition, file.schema_arrow) if self._condition else []
        chosen = []
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            ends = {}
            for place in range(about.num_columns):
                column = about.column(place)
                known = column.statistics
                if column.path_in_schema in names and known and known.has_min_max:
                    ends[column.path_in_schema] = (known.min, known.max)
            first, last = ends.get(ROW_ID, ("0" * _DIGITS, "f" * _DIGITS))
            is_drawn = any(low <= last and first < high for low, high in self._arcs())
            if is_drawn and all(_may_hold(ends, *test) for test in tests):
                chosen.append(group)
        return chosen

    def _arcs(self) -> list[tuple[str, str]]:
        """The ids of the sample, from the first until before the second, as texts that sort as they do."""
        if self.sample is None:
            return [("", "g")]
        begin = derive_seed(self.seed, "subset", "begin") * 2**64 % _CIRCLE
        end = begin + math.floor(self.sample * _CIRCLE)
        if end <= _CIRCLE:
            return [(_text(begin), "g" if end == _CIRCLE else _text(end))]
        return [("", _text(end - _CIRCLE)), (_text(begin), "g")]

    def _sampled(self, table: pa.Table) -> pa.Table:
        if self.sample is None:
            return table
        ids, mask = table[ROW_ID], None
        for low, high in self._arcs():
            within = pc.and_(pc.greater_equal(ids, low), pc.less(ids, high))
            mask = within if mask is None else pc.or_(mask, within)
        return table.filter(mask)


def open_subset(store: Store, reference: str) -> Subset:
    """The subset that a reference names, `NAME@ID?where=…`.

    Raises:
        UserError: the reference has other words, or a number that cannot be.
        StoreError: there is no such version.
    """
    name, _, query = reference.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    words = dict(pairs)
    unknown = [word for word in words if word not in _WORDS]
    if unknown or len(words) < len(pairs):
        problem = repr(unknown[0]) if unknown else "a word twice"
        raise UserError(
            f"{reference}: a subset is NAME@ID?where=…&sample=…&seed=…; found {problem}."
            f"{did_you_mean(unknown[0], list(_WORDS)) if unknown else ''}"
        )
    try:
        sample = float(words["sample"]) if "sample" in words else None
        seed = int(words.get("seed", 0))
    except ValueError:
        raise UserError(
            f"{reference}: `sample` is a number such as 0.1, and `seed` a whole one."
        ) from None
    whole = Dataset.open(store, reference=name)
    return Subset(whole, where=words.get("where"), sample=sample, seed=seed)


@contextmanager
def row_test(
    where: str, schema: pa.Schema
) -> Iterator[Callable[[pa.Table], Sequence[bool]]]:
    """A context with what says of which rows of a table a condition is true.

    Args:
        schema: of such tables: the columns that the condition reads.

    Raises:
        RecipeError: the condition is not allowed, or names another column.
    """
    place = pa.field("__p_at", pa.int64())
    with ExitStack() as stack:
        keep = _filter(stack, bind(where, schema.names), schema.append(place))

        def test(table: pa.Table) -> Sequence[bool]:
            places = pa.array(range(len(table)), pa.int64())
            chosen = keep(table.append_column(place, places))[place.name]
            there = set(chosen.to_pylist())
            return [at in there for at in range(len(table))]

        yield test


def _identity(table: pa.Table) -> pa.Table:
    return table


def _text(number: int) -> str:
    return f"{number:0{_DIGITS}x}"


def _filter(
    stack: ExitStack, condition: Expression, schema: pa.Schema
) -> Callable[[pa.Table], pa.Table]:
    """What keeps the rows of a table that a condition is true of, as a recipe's `where` does."""
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-subset-"))
    engine = Engine.load("embedded")
    session: EngineSession = stack.enter_context(
        engine.open(Path(scratch), memory_bytes=_MEMORY_BYTES, threads=1)
    )

    def build(table: ir.Table) -> ir.Table:
        value = session.sql(table, condition.text)
        if not value.type().is_boolean():
            raise RecipeError(
                f"where: {condition.text[:200]!r} gives {value.type()}, and a condition gives true or false."
                " Compare it with something."
            )
        return table.filter(value.fill_null(False))

    return session.compiled(schema, build)


_Test = tuple[str, str, Any]
"""A column, a comparison, and the value that it is compared with."""


def _tests(condition: Expression, schema: pa.Schema) -> list[_Test]:
    """The comparisons of columns with values that must all be true where the condition is."""
    from sqlglot import exp

    names = [exp.column(name, quoted=True) for name in condition.columns]
    waiting: list[exp.Expression] = [condition.fill(names)]
    tests: list[_Test] = []
    kinds = {"EQ": "=", "GT": ">", "GTE": ">=", "LT": "<", "LTE": "<="}
    turned = {"=": "=", ">": "<", ">=": "<=", "<": ">", "<=": ">="}
    while waiting:
        node = waiting.pop()
        if isinstance(node, exp.Paren):
            waiting.append(node.this)
        elif isinstance(node, exp.And):
            waiting += [node.this, node.expression]
        elif isinstance(node, exp.Between):
            low, high = node.args["low"], node.args["high"]
            for edge, end in ((">=", low), ("<=", high)):
                tests += _test(_plain(node.this), edge, _plain(end), schema)
        elif (sign := kinds.get(type(node).__name__)) is not None:
            sides = _plain(node.this), _plain(node.expression)
            if isinstance(sides[0], exp.Column):
                tests += _test(sides[0], sign, sides[1], schema)
            else:
                tests += _test(sides[1], turned[sign], sides[0], schema)
    return tests


def _plain(node: exp.Expression) -> exp.Expression:
    from sqlglot import exp

    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _test(column: Any, sign: str, other: Any, schema: pa.Schema) -> Sequence[_Test]:
    from sqlglot import exp

    if not isinstance(column, exp.Column) or not isinstance(other, exp.Literal):
        return []
    if column.table or column.name not in schema.names:
        return []
    kind = schema.field(column.name).type
    if other.is_string:
        value = _moment(other.this, kind)
        return [] if value is None else [(column.name, sign, value)]
    # Above all numbers is NaN to the engine, and no statistics have it.
    is_safe = pa.types.is_integer(kind) or (
        pa.types.is_floating(kind) and sign in ("=", "<", "<=")
    )
    return [(column.name, sign, float(other.this))] if is_safe else []


def _moment(text: str, kind: pa.DataType) -> Any:
    """A text as a value of the column that it is compared with; None where it is not surely one."""
    try:
        if pa.types.is_string(kind):
            return text
        if pa.types.is_date(kind):
            return date.fromisoformat(text)
        # With a zone the engine's own would have to be known.
        if pa.types.is_timestamp(kind) and kind.tz is None:
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo is None else None
    except ValueError:
        pass
    return None


def _may_hold(ends: dict[str, tuple[Any, Any]], name: str, sign: str, value: Any) -> bool:
    """Whether a row group whose values lie between ends may hold one that a comparison is true of."""
    if name not in ends:
        return True
    low, high = ends[name]
    answers: dict[str, bool] = {
        "=": low <= value <= high,
        ">": high > value,
        ">=": high >= value,
        "<": low < value,
        "<=": low <= value,
    }
    return answers[sign]
