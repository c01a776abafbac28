"""A child that derives hostile columns under a bounded address space, for test_results.py.

    python results_child.py FOLDER < expressions as JSON

Each expression is a derived column, first of what is prepared, then of a request's rows. A line says how each
ends.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import Engine
from penstock.core.errors import ContractError, PenstockError, TooDear, UserError

ROWS = 24
_TRIED = (2, 3, 5)
"""Rows that are asked one by one where not all can be answered together."""


def table() -> pa.Table:
    """Rows of typed columns."""
    moments = [datetime(2024, 1, 1 + i, i) for i in range(ROWS)]
    return pa.table(
        {
            "n": pa.array(range(ROWS), pa.int64()),
            "x": [i / 7 for i in range(ROWS)],
            "s": [["a", "b", "12", "é", None][i % 5] for i in range(ROWS)],
            "t": pa.array(moments, pa.timestamp("us")),
            "z": pa.array(
                [m.replace(tzinfo=UTC) for m in moments], pa.timestamp("us", "UTC")
            ),
            "d": pa.array([date(2024, 1, 1 + i) for i in range(ROWS)]),
            "c": pa.array([time(i) for i in range(ROWS)], pa.time64("us")),
            "l": pa.array(
                [[i, i + 1] if i % 4 else None for i in range(ROWS)], pa.list_(pa.int64())
            ),
            "f": [i % 3 == 0 for i in range(ROWS)],
            "q": pa.array([{"a": i, "b": f"b{i}"} for i in range(ROWS)]),
            "raw": pa.array([bytes([i + 150]) for i in range(ROWS)], pa.binary()),
            "dec": pa.array(
                [Decimal(i) / 100 for i in range(ROWS)], pa.decimal128(12, 2)
            ),
            "u": pa.array(range(ROWS), pa.uint64()),
            "row_id": [f"{i:032x}" for i in range(ROWS)],
        }
    )


def prepared(session: Any, rows: Any, text: str) -> str:
    """The values as whoever comes after the engine holds them: written, and as Python's own."""
    made = rows.mutate(v=session.sql(rows, text)).select("row_id", "v")
    values = [row["v"] for row in session.rows(session.keep(made))]
    batches = list(session.batches(made))
    pq.write_table(pa.Table.from_batches(batches), pa.BufferOutputStream())
    assert len(values) == sum(len(batch["v"].to_pylist()) for batch in batches) == ROWS
    return repr(values[0])


def answered(session: Any, rows: pa.Table, text: str) -> str:
    """As a bundle's steps answer rows of a request: those that break the expression are refused, each by
    itself.
    """
    apply = session.compiled(
        rows.schema, lambda given: given.mutate(v=session.sql(given, text))
    )
    refused = 0
    for piece in (
        [rows] if _is_answered(apply, rows) else [rows.slice(i, 1) for i in _TRIED]
    ):
        refused += not _is_answered(apply, piece)
    return f"{refused} refused"


def _is_answered(apply: Any, rows: pa.Table) -> bool:
    try:
        assert len(apply(rows)["v"].to_pylist()) == len(rows)
    except (ContractError, TooDear):
        return False
    return True


def ended(way: Any, *given: Any) -> list[str]:
    """How it ends: `value`, `refused`, or the name of an error that is no sentence."""
    try:
        return ["value", str(way(*given))[:200]]
    except (UserError, ContractError) as error:
        return ["refused", error.message[:2000]]
    except PenstockError as error:
        return [f"not the user's: {type(error).__name__}", error.message[:500]]
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        return [f"raw: {type(error).__name__}", str(error)[:500]]


def main() -> None:
    """Run as the head of this file says."""
    folder, path = Path(sys.argv[1]), Path(sys.argv[1]) / "rows.parquet"
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    rows = table()
    pq.write_table(rows, path)
    with Engine.load("embedded").open(
        folder / "scratch", memory_bytes=1 << 30, threads=2
    ) as session:
        read = session.read([path])
        for text in json.load(sys.stdin):
            first = ended(prepared, session, read, text)
            again = (
                first
                if "cannot be a column" in first[1]
                else ended(answered, session, rows, text)
            )
            print(json.dumps([first, again]), flush=True)


if __name__ == "__main__":
    main()
