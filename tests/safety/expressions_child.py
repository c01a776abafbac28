"""A child that evaluates expressions under a bounded address space, for test_bounds_expressions.py.

    python expressions_child.py FOLDER MODE < expressions as JSON

Each expression is a list of derived columns, one upon another. MODE `try` says how each ends and what was
held at most; MODE `wait` says `busy` once the only one is being computed, and waits for a signal.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import Engine
from penstock.core.errors import PenstockError
from penstock.core.memory import MemoryWatch

ROWS = 3000
CEILING_BYTES = 1 << 30


def outcome(folder: Path, chain: list[str]) -> tuple[str, str]:
    """How a chain of derived columns ends: `value` or an error's name, and the last value or the sentence."""
    try:
        with Engine.load("embedded").open(
            folder / "scratch", memory_bytes=CEILING_BYTES, threads=2
        ) as session:
            table = session.read([folder / "rows.parquet"])
            for i, text in enumerate(chain):
                table = table.mutate(**{f"d{i}": session.sql(table, text)})
            kept = session.keep(table)
            rows = session.rows(kept.order_by("n").select(f"d{len(chain) - 1}").limit(3))
            return "value", repr([next(iter(row.values())) for row in rows])[:200]
    except PenstockError as error:
        return type(error).__name__, error.message


def wait(folder: Path, chain: list[str]) -> None:
    """Say `busy` once the cell works; then only a signal ends it."""
    from penstock.parts.engines import _cell

    asked = _cell.Cell._asked

    def telling(self: _cell.Cell, *args: object) -> pa.Table:
        print("busy", flush=True)
        return asked(self, *args)  # type: ignore[arg-type]

    _cell.Cell._asked = telling  # type: ignore[method-assign]
    try:
        print(json.dumps(outcome(folder, chain)), flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)


def main() -> None:
    """Run as the head of this file says."""
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    pq.write_table(
        pa.table(
            {
                "a": ["ab" * 5] * ROWS,
                "b": ["xyz" * 10] * ROWS,
                "n": list(range(ROWS)),
                "l": [[1, 2]] * ROWS,
                "row_id": [f"{i:032x}" for i in range(ROWS)],
            }
        ),
        folder / "rows.parquet",
    )
    for chain in json.load(sys.stdin):
        if mode == "wait":
            wait(folder, chain)
            return
        begun = time.monotonic()
        with MemoryWatch(every_seconds=0.01) as watch:
            how, text = outcome(folder, chain)
        seconds = round(time.monotonic() - begun, 1)
        print(
            json.dumps([how, text, watch.peak_bytes, seconds, threading.active_count()]),
            flush=True,
        )


if __name__ == "__main__":
    main()
