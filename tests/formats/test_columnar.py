"""Parquet and Arrow: nested columns flattened, files united, types made canonical without loss, corruption
told.
"""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.core.errors import SourceError
from penstock.formats.typed import rebuild, unite
from tests.formats.conftest import Read


def test_nested_and_odd_types(tmp_path):
    table = pa.table(
        {
            "s": pa.array([{"a": 1, "b": {"c": "x"}}, None, {"a": None, "b": None}]),
            "l": pa.array([[{"k": 1, "v": "p"}, {"k": None, "v": "q"}], None, []]),
            "d": pa.array(["x", "y", "x"]).dictionary_encode(),
            "i8": pa.array([1, None, 3], pa.int8()),
            "u": pa.array([1, 2, 3], pa.uint64()),
            "f": pa.array([1.5, None, 2], pa.float32()),
            "dec": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("2.50")]),
            "date": pa.array([dt.date(2024, 1, 2), None, None]),
            "ns": pa.array([1_000, 2_000, None], pa.timestamp("ns")),
            "z": pa.array([1, 2, None], pa.timestamp("ms", "Europe/Oslo")),
            "big": pa.array(["x", None, "z"], pa.large_string()),
            "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)),
            "bytes": pa.array([b"\x00", None, b"y"]),
            "none": pa.nulls(3),
            "m": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
            "span": pa.array([1_500, None, 0], pa.duration("ms")),
            "at": pa.array([dt.time(12, 30, 1), None, dt.time(0, 0, 0, 250_000)]),
            "ms": pa.array([1_500, None, 2_000], pa.time32("ms")),
            "fine": pa.array([1, None, 0], pa.time64("ns")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(str(tmp_path / "b.arrow"), table.schema) as file:
        file.write_table(table)
    with pa.ipc.new_stream(str(tmp_path / "c.arrow"), table.schema) as file:
        file.write_table(table)
    for name in ("a.parquet", "b.arrow", "c.arrow"):
        got = Read(tmp_path, tmp_path / name)
        assert got.records[0] == {
            "s.a": 1,
            "s.b.c": "x",
            "l.k": [1, None],
            "l.v": ["p", "q"],
            "d": "x",
            "i8": 1,
            "u": 1,
            "f": 1.5,
            "dec": 1.25,
            "date": dt.datetime(2024, 1, 2),
            "ns": dt.datetime(1970, 1, 1, 0, 0, 0, 1),
            "z": dt.datetime(1970, 1, 1, 0, 0, 0, 1000, dt.UTC),
            "big": "x",
            "fixed": [1, 2],
            "bytes": b"\0",
            "none": None,
            "m": '[["k", 1]]',
            "span": 1.5,
            "at": "12:30:01",
            "ms": "00:00:01.5",
            "fine": "00:00:00.000000001",
        }, name
        assert [got.records[2][n] for n in ("at", "ms", "fine")] == [
            "00:00:00.25",
            "00:00:02",
            "00:00:00",
        ]
        assert (
            got.records[1]["l.k"] is None
            and got.records[2]["l.k"] == []
            and got.records[1]["fixed"] is None
            and got.records[1]["s.a"] is None
        )
        assert (
            got.types["i8"] == got.types["u"] == "int64" and got.types["none"] == "string"
        )
        assert "decimal" in got.said


def test_files_are_united_with_promotion(tmp_path):
    pq.write_table(
        pa.table(
            {"a": [1, 2], "b": [1.5, None], "c": ["x", "y"], "l": pa.array([[1], [2]])}
        ),
        tmp_path / "1.parquet",
    )
    pq.write_table(
        pa.table({"a": [0.5], "b": ["text"], "d": [True], "l": pa.array([[0.5]])}),
        tmp_path / "2.parquet",
    )
    (tmp_path / "3.csv").write_text("a,c\n7,9\n")
    got = Read(tmp_path, *(tmp_path / n for n in ("1.parquet", "2.parquet", "3.csv")))
    assert [r["a"] for r in got.records] == [1.0, 2.0, 0.5, 7.0]
    assert [r["b"] for r in got.records] == ["1.5", None, "text", None]
    assert [r["c"] for r in got.records] == ["x", "y", None, "9"] and [
        r["d"] for r in got.records
    ] == [
        None,
        None,
        True,
        None,
    ]
    assert got.records[2]["l"] == [0.5] and "several types" in got.said


def test_what_a_type_cannot_hold_becomes_text_aloud(tmp_path):
    pq.write_table(
        pa.table({"u": pa.array([1, 2**64 - 1], pa.uint64()), "i": [2**53 + 1, 1]}),
        tmp_path / "1.parquet",
    )
    pq.write_table(
        pa.table({"u": pa.array([7], pa.uint64()), "i": [0.5]}), tmp_path / "2.parquet"
    )
    got = Read(tmp_path, tmp_path / "1.parquet", tmp_path / "2.parquet")
    assert [r["u"] for r in got.records] == ["1", str(2**64 - 1), "7"]
    assert [r["i"] for r in got.records] == [str(2**53 + 1), "1", "0.5"]
    assert "cannot hold exactly" in got.said


def test_nanoseconds_are_cut_aloud(tmp_path):
    pq.write_table(
        pa.table({"t": pa.array([1_001], pa.timestamp("ns"))}), tmp_path / "1.parquet"
    )
    got = Read(tmp_path, tmp_path / "1.parquet")
    assert (
        got.records == [{"t": dt.datetime(1970, 1, 1, 0, 0, 0, 1)}]
        and "nanoseconds" in got.said
    )


def test_forced_types_na_and_names(tmp_path):
    pq.write_table(
        pa.table({"n": ["1", "?", "x"], "id": [1, 2, 3]}), tmp_path / "1.parquet"
    )
    got = Read(
        tmp_path,
        tmp_path / "1.parquet",
        reading={
            "na": "?",
            "types": {"n": "integer", "key": "text"},
            "rename": {"id": "key"},
        },
    )
    assert got.records == [{"n": 1, "key": "1"}, {"n": None, "key": "2"}]
    assert got.rejects[0]["line"] == 3 and got.rejects[0]["column"] == "n"
    assert got.table["__row"].to_pylist() == [0, 1]


@pytest.mark.parametrize("damage", ["cut", "middle", "text", "empty"])
def test_corrupt_parquet_is_named(tmp_path, damage):
    file = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"a": np.random.default_rng(0).normal(size=100_000)}),
        file,
        compression="zstd",
        write_page_checksum=True,
    )
    content = file.read_bytes()
    file.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "middle": content[:1000] + b"\xff" * 50_000 + content[51_000:],
            "text": b"hello, world\n",
            "empty": b"",
        }[damage]
    )
    with pytest.raises(
        SourceError, match=r"a\.parquet (cannot be read as Parquet|is empty)"
    ):
        Read(tmp_path, file)


def test_bytes_unite_with_nothing(tmp_path):
    pq.write_table(pa.table({"a": [b"x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "2.parquet")
    with pytest.raises(SourceError, match="Bytes cannot be combined"):
        Read(tmp_path, tmp_path / "1.parquet", tmp_path / "2.parquet")


def test_uniting_is_commutative_and_idempotent():
    kinds = [
        pa.null(),
        pa.bool_(),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.timestamp("us"),
        pa.timestamp("us", "UTC"),
        pa.list_(pa.int64()),
        pa.list_(pa.float64()),
    ]
    for a in kinds:
        assert unite(a, a) == a
        for b in kinds:
            assert unite(a, b) == unite(b, a)


def test_rebuild_keeps_missing_lists():
    assert rebuild(
        pa.array([1, None, 0, 2], pa.int32()), pa.array([1, 2, 3])
    ).to_pylist() == [
        [1],
        None,
        [],
        [2, 3],
    ]


def test_rejects_are_counted_once_though_the_pass_begins_again(tmp_path):
    pq.write_table(
        pa.table({"n": ["x"] * 3, "u": pa.array([1, 2, 3], pa.uint64())}),
        tmp_path / "1.parquet",
    )
    pq.write_table(
        pa.table({"n": ["1"], "u": pa.array([2**64 - 1], pa.uint64())}),
        tmp_path / "2.parquet",
    )
    got = Read(
        tmp_path,
        tmp_path / "1.parquet",
        tmp_path / "2.parquet",
        reading={"types": {"n": "integer"}},
    )
    assert (got.rows, got.rejected, len(got.rejects)) == (1, 3, 3) and got.records == [
        {"n": 1, "u": str(2**64 - 1)}
    ]
