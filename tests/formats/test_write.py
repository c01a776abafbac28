"""The writer, and the way there and back: what is written is read as it was."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import json

import fsspec
import pyarrow as pa
import pytest
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from penstock.core.errors import PenstockError, StoreError, UserError
from penstock.formats import TableWriter, read_table, write

TABLE = pa.table(
    {
        "id": pa.array([2**63 - 1, None]),
        "x": [0.5, float("nan")],
        "s": ['a "b", c\n', "é"],
        "b": [True, None],
        "t": pa.array([dt.datetime(2024, 1, 2, 3), None], pa.timestamp("us")),
        "z": pa.array(
            [dt.datetime(2024, 1, 2, 3, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC")
        ),
        "l": pa.array([[0.25, 0.75], None]),
        "by": pa.array([b"\0", None]),
    }
)


@pytest.mark.parametrize(
    "name",
    ["a.parquet", "a.arrow", "a.csv", "a.tsv", "a.jsonl", "a.csv.gz", "a.jsonl.zst"],
)
def test_there_and_back(tmp_path, name):
    assert (
        write(tmp_path / "new" / name, TABLE.to_batches(max_chunksize=1), TABLE.schema)
        == 2
    )
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]
    got = read_table(str(tmp_path / "new" / name), tmp_path / "scratch")
    rows = [r for b in got.batches() for r in b.to_pylist()]
    assert (got.rows, got.rejected) == (2, 0)
    for key in (
        ("id", "s", "b", "t", "z")
        if "csv" not in name and "tsv" not in name
        else ("id", "b", "t", "z")
    ):
        assert [r[key] for r in rows] == TABLE[key].to_pylist(), key
    assert rows[0]["l"] == (
        [0.25, 0.75] if "csv" not in name and "tsv" not in name else "[0.25, 0.75]"
    )
    assert rows[0]["by"] == (b"\0" if name in ("a.parquet", "a.arrow") else "AA==")


def test_nothing_half_written_stays(tmp_path):
    def stumbling():
        yield TABLE
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(tmp_path / "a.csv", stumbling(), TABLE.schema)
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(ValueError, match="cannot write columns"),
        TableWriter(tmp_path / "a.csv", TABLE.schema) as writer,
    ):
        writer.write(pa.table({"other": [1]}))


def test_json_has_no_nan(tmp_path):
    write(tmp_path / "a.jsonl", TABLE.to_batches(), TABLE.schema)
    assert (
        json.loads(
            (tmp_path / "a.jsonl").read_text("utf-8").splitlines()[1],
            parse_constant=lambda c: pytest.fail(c),
        )["x"]
        is None
    )


def test_refusals_are_sentences(tmp_path):
    with pytest.raises(UserError, match="Known endings"):
        TableWriter(tmp_path / "a.xyz")
    with pytest.raises(UserError, match="already compressed"):
        TableWriter(tmp_path / "a.parquet.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises((PenstockError, OSError)):
        TableWriter(tmp_path / "file" / "a.csv")


def test_to_a_url():
    write("memory://out/a.jsonl", TABLE.to_batches(), TABLE.schema)
    assert fsspec.filesystem("memory").cat("/out/a.jsonl").count(b"\n") == 2


def test_bad_rows_are_returned_not_lost(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    got = read_table("a.csv", tmp_path / "scratch", base=tmp_path)
    assert (got.rows, got.rejected) == (1, 1) and got.rejects and got.files == ["a.csv"]
    assert next(got.batches(places=True)).schema.names == ["a", "b", "__file", "__row"]


class _Sent(AbstractBufferedFile):
    """A file that goes up when it is closed, to a place that does not answer, or that remembers it."""

    def _initiate_upload(self):
        pass

    def _upload_chunk(self, final=False):
        if "refused" in self.path:
            raise ConnectionRefusedError("no route to planted")
        if final:
            Bucketlike.kept.add(self.path)
        return True


class Bucketlike(AbstractFileSystem):
    protocol = "bucketlike"
    kept: set[str] = set()

    def _open(
        self, path, mode="wb", block_size=None, autocommit=True, cache_options=None, **_
    ):
        return _Sent(self, path, mode=mode, block_size=5 << 20, autocommit=autocommit)


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow", "jsonl.gz", "jsonl"])
def test_a_bucket_that_takes_nothing_is_a_sentence_and_a_failure_leaves_no_object(ending):
    fsspec.register_implementation("bucketlike", Bucketlike, clobber=True)
    rows = pa.table({"a": [1, 2]})
    with (
        pytest.raises(
            StoreError, match=r"cannot write bucketlike://refused/x.*no route to planted"
        ),
        TableWriter(f"bucketlike://refused/x.{ending}") as writer,
    ):
        writer.write(rows)
    with (
        contextlib.suppress(ZeroDivisionError),
        TableWriter(f"bucketlike://b/half.{ending}") as writer,
    ):
        writer.write(rows)
        raise ZeroDivisionError
    with TableWriter(f"bucketlike://b/whole.{ending}") as writer:
        writer.write(rows)
    gc.collect()  # a file that is forgotten is closed
    assert {
        path for path in Bucketlike.kept if path.endswith(f".{ending}") and "half" in path
    } == set()
    assert f"b/whole.{ending}" in Bucketlike.kept
