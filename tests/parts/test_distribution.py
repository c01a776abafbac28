"""Rows dealt out by their ids come out sorted, whatever the memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.contracts.data import ROW_ID, Engine
from penstock.core.errors import UserError
from penstock.parts.engines._distribution import Ways, write_in_order


def table(rows: int) -> pa.Table:
    ids = [hashlib.md5(str(i).encode()).hexdigest() for i in range(rows)]
    return pa.table({ROW_ID: ids, "n": list(range(rows)), "text": [None if i % 7 == 0 else f"w{i % 5}" for i in range(rows)], "list": [[i, i + 1] for i in range(rows)]})


@pytest.mark.parametrize(("rows", "group_rows", "expected"), [(0, 10, None), (1, 10, None), (5_000, 6_000, None), (5_000, 100, None), (5_000, 3, None), (5_000, 100, 50)])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_files_by_name_hold_all_rows_in_order(tmp_path: Path, rows, group_rows, expected, compression) -> None:
    whole, out = table(rows), tmp_path / "out"
    out.mkdir()
    ways = Ways(group_rows=group_rows, hands=2, held_bytes=40_000, compression=compression)
    told = expected or rows  # a guess that is far too small only deals the rows out once more
    assert write_in_order(whole.to_batches(max_chunksize=700), whole.schema, out, tmp_path / "dealt", key=ROW_ID, rows=told, ways=ways) == rows
    files = sorted(out.glob("*.parquet"))
    assert files and not (tmp_path / "dealt").exists()
    found = pa.concat_tables([pq.read_table(file) for file in files])
    assert found.to_pylist() == whole.sort_by(ROW_ID).to_pylist()


def test_wide_rows_are_written_in_order_by_the_engine(tmp_path: Path) -> None:
    whole = table(3_000).append_column("long", pa.array([str(i % 9) * 3_000 for i in range(3_000)]))
    pq.write_table(whole, tmp_path / "in.parquet")
    with Engine.load("embedded").open(tmp_path / "scratch", memory_bytes=2**29, threads=2) as session:
        assert session.write(session.read([tmp_path / "in.parquet"]), tmp_path / "out", order=[ROW_ID]) == 3_000
    found = pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / "out").glob("*.parquet"))])
    assert found.to_pylist() == whole.sort_by(ROW_ID).to_pylist()


def test_rows_too_wide_for_the_ceiling_are_told_before_anything_starts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"huge": [bytes(2 * 2**20)] * 4}), tmp_path / "in.parquet")
    with Engine.load("embedded").open(tmp_path / "scratch", memory_bytes=2**29, threads=2) as session, pytest.raises(UserError, match=r"'huge'.*smallest ceiling"):
        session.read([tmp_path / "in.parquet"])
