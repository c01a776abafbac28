"""What comes out of DuckDB: which types an expression's value may have, which values nobody can hold, and its
errors.

A column of a dataset is Parquet, Arrow and Python's. DuckDB knows more than these: intervals, unions, bits,
integers of 128 bits without a sign, times with a zone (Arrow drops the zone), years up to 290,000 and
infinite days. Those of a type are refused where the expression is read. Those of a value are looked for where
rows leave the engine, and a row that has one broke its expression, as one that divides by nothing in a cast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.core.errors import (
    ContractError,
    PenstockError,
    RecipeError,
    SourceError,
    StoreError,
    UserError,
)
from penstock.formats.sound import odd_rows, shown

_HELD = frozenset(
    (
        "BOOLEAN TINYINT SMALLINT INT BIGINT INT128 UTINYINT USMALLINT UINT UBIGINT FLOAT DOUBLE DECIMAL TEXT"
        " VARCHAR VARBINARY DATE TIME TIMESTAMP TIMESTAMPNTZ TIMESTAMPTZ TIMESTAMP_NS TIMESTAMP_MS"
        " TIMESTAMP_S JSON UUID ENUM STRUCT ARRAY LIST MAP"
    ).split()
)
"""sqlglot's names of the types that a column may have."""
_INSTEAD = {
    "INTERVAL": "Take its length: epoch(…) gives seconds, date_diff('day', a, b) whole days",
    "TIMETZ": "Cast it to TIME, or to the whole moment",
    "UINT128": "Cast it to DOUBLE, or to VARCHAR",
    "BIGNUM": "Cast it to DOUBLE, or to VARCHAR",
    "BIT": "Cast it to VARCHAR, or to BIGINT",
}
_OTHERWISE = "Give its fields names, or cast it to another type"
_LONGEST = 500
"""Characters of what DuckDB says, which may repeat a value, however long it is."""
_FREE = "Free some space, or put the store elsewhere with --store."
_DAYS = (-719_162, 2_932_896)
"""The first and the last day that there is (0001-01-01 and 9999-12-31), from 1970."""
_A_DAY = {
    "SECONDS": 86_400,
    "MILLIS": 86_400_000,
    "MICROS": 86_400_000_000,
    "NANOS": 86_400_000_000_000,
}
_SHORT = {"SECONDS": "s", "MILLIS": "ms", "MICROS": "us", "NANOS": "ns"}


def exact_type(mapper: Any, kind: str, expression: str) -> Any:
    """Ibis' type of an expression's value, if a column can have it.

    Args:
        mapper: Ibis' reader of DuckDB's types.
        kind: DuckDB's name of the type.
        expression: what has such a value.

    Raises:
        RecipeError: no column has such a type.
    """
    from sqlglot import exp

    bad = ""
    try:
        # Of nested types every part is looked at: a list of intervals is refused as an
        # interval is.
        within = [
            each.this.name
            for each in exp.DataType.build(kind, dialect="duckdb").find_all(exp.DataType)
        ]
        bad = next((each for each in within if each not in _HELD), "")
        if not bad:
            return mapper.from_string(kind)
    except Exception:  # noqa: BLE001
        # Neither has one error for a type that it does not know, such as fields without names.
        pass
    raise RecipeError(
        f"the value is {kind[:_LONGEST]}, which cannot be a column. {_INSTEAD.get(bad, _OTHERWISE)}; found"
        f" {expression!r}"
    )


# -- values --------------------------------------------------------------------------------------------------


def refuse_odd(rows: pa.RecordBatch | pa.Table) -> None:
    """Check that no value is beyond what Arrow, Parquet and Python hold: a moment outside the years
    1 to 9999, or a time of day beyond 24:00.

    Raises:
        ContractError: one is.
    """
    for field, column in zip(rows.schema, rows.columns, strict=True):
        # Most columns are numbers and texts, of which no value is odd.
        if not _may_be_odd(field.type):
            continue
        for piece in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            odd = odd_rows(piece, texts=False)
            # One example is enough for the message.
            if odd:
                row, reason = next(iter(odd.items()))
                raise broken_row(
                    f"the column {field.name!r} {reason}, {str(shown(piece, row))[:100]!r}"
                )


def _may_be_odd(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_temporal(kind)
        or pa.types.is_nested(kind)
        or pa.types.is_dictionary(kind)
    )


def refuse_odd_file(path: Path) -> None:
    """Check the same of a Parquet file that DuckDB wrote, by the statistics of its row groups.

    Raises:
        ContractError: a value cannot be held.
    """
    meta = pq.read_metadata(path)
    leaves = [
        i for i in range(meta.num_columns) if _ends(meta.schema.column(i)) is not None
    ]
    # The footer alone: statistics tell the least and the most of each row group.
    for group in range(meta.num_row_groups) if leaves else ():
        for leaf in leaves:
            column, (least, most) = (
                meta.row_group(group).column(leaf),
                _ends(meta.schema.column(leaf))
                or (
                    0,
                    0,
                ),
            )
            # Without statistics nothing is known here; `refuse_odd` still sees the
            # values where rows leave the engine.
            statistics = column.statistics
            if statistics is None or not statistics.has_min_max:
                continue
            # Raw numbers: Arrow's own reading of the ends would fail on such values.
            for number in (statistics.min_raw, statistics.max_raw):
                if not least <= number <= most:
                    raise broken_row(
                        f"the column {column.path_in_schema!r} holds"
                        f" {_called(number, meta.schema.column(leaf))}"
                    )


def _ends(leaf: Any) -> tuple[int, int] | None:
    """The least and greatest number that a column of a Parquet file may hold, in its own unit; None
    where any number is valid.
    """
    kind = leaf.logical_type
    if kind.type == "DATE":
        return _DAYS
    # Statistics of moments in another form, as of 96 bits, have no order.
    if kind.type not in ("TIMESTAMP", "TIME") or leaf.physical_type not in (
        "INT64",
        "INT32",
    ):
        return None
    a_day = _A_DAY[_unit(leaf)]
    return (
        # The last moment of the last day; Python's numbers do not overflow at
        # nanoseconds.
        (_DAYS[0] * a_day, (_DAYS[1] + 1) * a_day - 1)
        if kind.type == "TIMESTAMP"
        else (0, a_day - 1)
    )


def _unit(leaf: Any) -> str:
    unit = re.search(r'"timeUnit": "(\w+)"', leaf.logical_type.to_json())
    return (
        {"milliseconds": "MILLIS", "microseconds": "MICROS", "nanoseconds": "NANOS"}[
            unit[1]
        ]
        if unit
        else "SECONDS"
    )


def _called(number: int, leaf: Any) -> str:
    kind = leaf.logical_type.type
    if kind == "TIME":
        return f"a time of day outside 00:00 to 24:00, {number:,} {_unit(leaf).lower()} from midnight"
    # Shown as the moment that it would be, by the very bits.
    numbers = pa.array([number], pa.int64())
    moments = (
        numbers.cast(pa.int32()).view(pa.date32())
        if kind == "DATE"
        else numbers.view(pa.timestamp(_SHORT[_unit(leaf)]))
    )
    return f"a moment outside the years 1 to 9999 (in UTC), {shown(moments, 0)!r}"


# -- errors --------------------------------------------------------------------------------------------------


@contextmanager
def plainly(scratch: Path, limit_bytes: int) -> Iterator[None]:
    """A context that turns errors of DuckDB into sentences.

    Args:
        scratch: where it writes.
        limit_bytes: what it may hold.
    """
    import duckdb

    try:
        yield
    except PenstockError:
        raise
    except OSError as error:
        raise StoreError(
            f"cannot write to {scratch}: {error.strerror}. {_FREE}"
        ) from None
    except duckdb.OutOfMemoryException as error:
        # DuckDB reports a full disk as a lack of memory, when it cannot put aside what
        # does not fit.
        if "max_temp_directory_size" in str(error) and "failed to offload" in str(error):
            raise StoreError(
                f"the disk is full: {scratch} has no room for what does not fit in memory. {_FREE}"
            ) from None
        raise UserError(
            f"Preparing needs more memory than the {limit_bytes / 2**20:.0f} MiB of the"
            " embedded engine. Raise resources.memory, or lower resources.threads."
        ) from None
    except duckdb.IOException as error:
        text = str(error)
        if "No space left" in text or "disk quota" in text.lower():
            raise StoreError(
                f"the disk is full while writing under {scratch}. Nothing incomplete was"
                f" kept. {_FREE}"
            ) from None
        raise SourceError(f"cannot read or write: {first_line(error)}") from None
    except duckdb.InterruptException:
        # An interrupt has a cause of its own, which is raised where it was sent.
        raise
    except (duckdb.InternalException, duckdb.FatalException) as error:
        # DuckDB's own checks failed. The connection may be unusable, and the recipe can
        # only avoid the expression.
        raise UserError(
            "the embedded engine failed on an expression of the recipe because of a bug"
            f" of its own ({first_line(error)}). Write the newest expression differently."
        ) from None
    # what a value breaks has as many names as there are functions
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise broken_row(first_line(error)) from None


def broken_row(what: str) -> ContractError:
    """The error for a value that breaks an expression."""
    return ContractError(
        f"a row broke an expression of the recipe: {what}. Use TRY_CAST or TRY(…)"
        " where a value may not fit, or exclude such rows with `where`."
    )


def first_line(error: Exception, columns: Sequence[str] = ()) -> str:
    """The first line of a DuckDB error, without its kind, shortened, and with the names of columns."""
    # A value that is no text may stand in it, and then Python cannot read what was said.
    text_of_error = (
        error.object.decode("utf-8", "replace")
        if isinstance(error, UnicodeDecodeError)
        else str(error)
    )
    # DuckDB puts a kind before what it says and a long account after it; the first line
    # is the sentence.
    text = re.sub(
        r"^[A-Z][A-Za-z ]* Error: ", "", text_of_error.split("\n")[0].rstrip(".!")
    )
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return re.sub(
        r'"?\$(\d+)"?',
        lambda m: repr(columns[int(m[1])]) if int(m[1]) < len(columns) else m[0],
        text,
    )
