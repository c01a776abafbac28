"""Rows dealt out by their ids come out sorted, whatever the memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from penstock.contracts.data import ROW_ID, Engine, EngineSession
from penstock.core.errors import PenstockError, UserError
from penstock.parts.engines._distribution import (
    Ways,
    write_in_order,
    write_parts_in_order,
)


def table(rows: int) -> pa.Table:
    ids = [hashlib.md5(str(i).encode()).hexdigest() for i in range(rows)]
    return pa.table(
        {
            ROW_ID: ids,
            "n": list(range(rows)),
            "text": [None if i % 7 == 0 else f"w{i % 5}" for i in range(rows)],
            "list": [[i, i + 1] for i in range(rows)],
        }
    )


@pytest.mark.parametrize(
    ("rows", "group_rows", "expected"),
    [
        (0, 10, None),
        (1, 10, None),
        (5_000, 6_000, None),
        (5_000, 100, None),
        (5_000, 3, None),
        (5_000, 100, 50),
    ],
)
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_files_by_name_hold_all_rows_in_order(
    tmp_path: Path, rows, group_rows, expected, compression
) -> None:
    whole, out = table(rows), tmp_path / "out"
    out.mkdir()
    ways = Ways(
        group_rows=group_rows, num_workers=2, held_bytes=40_000, compression=compression
    )
    told = (
        expected or rows
    )  # a guess that is far too small only deals the rows out once more
    assert (
        write_in_order(
            whole.to_batches(max_chunksize=700),
            whole.schema,
            out,
            tmp_path / "dealt",
            key=ROW_ID,
            rows=told,
            ways=ways,
        )
        == rows
    )
    files = sorted(out.glob("*.parquet"))
    assert files and not (tmp_path / "dealt").exists()
    found = pa.concat_tables([pq.read_table(file) for file in files])
    assert found.to_pylist() == whole.sort_by(ROW_ID).to_pylist()


@pytest.mark.parametrize(
    ("group_rows", "expected"), [(6_000, 5_000), (100, 5_000), (100, 50), (100, 900_000)]
)
def test_parts_are_dealt_out_in_one_pass(tmp_path: Path, group_rows, expected) -> None:
    whole = table(5_000)
    whole = whole.append_column(
        "long",
        pa.array([f"unlike {i}" if i > 700 else "first alike" for i in range(5_000)]),
    ).append_column("split", pa.array([["a", "b"][i % 10 == 0] for i in range(5_000)]))
    folders = {name: tmp_path / name for name in "abc"}
    ways = Ways(group_rows=group_rows, num_workers=2, held_bytes=40_000, compression=None)
    made = write_parts_in_order(
        whole.to_batches(max_chunksize=700),
        whole.schema,
        folders,
        tmp_path / "dealt",
        by="split",
        key=ROW_ID,
        rows=expected,
        ways=ways,
    )
    assert made == {"a": 4_500, "b": 500, "c": 0}
    for name, folder in folders.items():
        found = pa.concat_tables(
            [pq.read_table(file) for file in sorted(folder.glob("*.parquet"))]
        )
        assert (
            found.to_pylist()
            == whole.filter(pc.equal(whole["split"], name))
            .drop_columns(["split"])
            .sort_by(ROW_ID)
            .to_pylist()
        )
        assert found.schema.names == whole.drop_columns(["split"]).schema.names


def test_a_row_of_no_part_is_no_lost_row(tmp_path: Path) -> None:
    whole = table(3).append_column("split", pa.array(["a", "a", "x"]))
    ways = Ways(group_rows=10, num_workers=1, held_bytes=40_000, compression=None)
    with pytest.raises(PenstockError, match="belongs to none of a"):
        write_parts_in_order(
            whole.to_batches(),
            whole.schema,
            {"a": tmp_path / "a"},
            tmp_path / "dealt",
            by="split",
            key=ROW_ID,
            rows=3,
            ways=ways,
        )


@pytest.mark.parametrize("threads", [1, 2])
def test_the_engine_deals_parts_out_as_the_default_does(tmp_path: Path, threads) -> None:
    whole = (
        table(2_000)
        .append_column("zero", pa.array([0.0, None] * 1_000))
        .append_column("split", pa.array(["a", "b"] * 1_000))
    )
    with Engine.load("embedded").open(
        tmp_path / "scratch", memory_bytes=2**29, threads=threads
    ) as session:
        given = session.table(whole)
        given = given.mutate(zero=-given["zero"])
        made = session.write_parts(
            given, "split", {name: tmp_path / "one" / name for name in "ab"}, rows=2_000
        )
        again = EngineSession.write_parts(
            session,
            given,
            "split",
            {name: tmp_path / "two" / name for name in "ab"},
            rows=2_000,
        )
    assert made == again == {"a": 1_000, "b": 1_000}
    for name in "ab":
        one, two = (
            pq.read_table(tmp_path / where / name / "part-0.parquet")
            for where in ("one", "two")
        )
        assert (
            one.to_pylist() == two.to_pylist()
            and one.schema.remove_metadata() == two.schema.remove_metadata()
        )
        assert not one["zero"].drop_null().to_numpy().tobytes().strip(b"\0"), (
            "negative zero"
        )


def test_wide_rows_are_written_in_order_by_the_engine(tmp_path: Path) -> None:
    whole = table(3_000).append_column(
        "long", pa.array([str(i % 9) * 3_000 for i in range(3_000)])
    )
    pq.write_table(whole, tmp_path / "in.parquet")
    with Engine.load("embedded").open(
        tmp_path / "scratch", memory_bytes=2**29, threads=2
    ) as session:
        assert (
            session.write(
                session.read([tmp_path / "in.parquet"]), tmp_path / "out", order=[ROW_ID]
            )
            == 3_000
        )
    found = pa.concat_tables(
        [pq.read_table(file) for file in sorted((tmp_path / "out").glob("*.parquet"))]
    )
    assert found.to_pylist() == whole.sort_by(ROW_ID).to_pylist()


def test_rows_too_wide_for_the_ceiling_are_told_before_anything_starts(
    tmp_path: Path,
) -> None:
    pq.write_table(pa.table({"huge": [bytes(2 * 2**20)] * 64}), tmp_path / "in.parquet")
    with (
        Engine.load("embedded").open(
            tmp_path / "scratch", memory_bytes=2**26, threads=2
        ) as session,
        pytest.raises(UserError, match=r"'huge'.*smallest limit"),
    ):
        session.read([tmp_path / "in.parquet"])
