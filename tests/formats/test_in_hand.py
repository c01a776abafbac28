"""Frames in hand: a file for each content, a sentence for each column or value that is none, and no content
in it.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import api
from penstock.core.errors import SourceError
from penstock.formats.in_hand import as_file, with_files

DAYS = 24 * 3600


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frames"


def union():
    kinds = [pa.array([1, 2]), pa.array(["a", "b"])]
    return pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), kinds)


def test_intervals_become_texts():
    frame = pd.DataFrame({"a": pd.cut([1, 2, np.nan, 3], [0, 1, 3])})
    values = pq.read_table(as_file(frame)).column("a").to_pylist()
    assert values == ["(0, 1]", "(1, 3]", None, "(1, 3]"]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (
            lambda: pa.table(
                {"age": pa.RunEndEncodedArray.from_arrays(pa.array([1], "int32"), [7])}
            ),
            "run_end_encoded",
        ),
        (
            lambda: pa.table(
                {"age": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}
            ),
            "month_day_nano_interval",
        ),
        (lambda: pa.table({"age": union()}), "sparse_union"),
        (lambda: pa.table({"age": pa.array([{}], pa.struct([]))}), "struct"),
        (lambda: pl.DataFrame({"age": pl.Series([1], dtype=pl.Int128)}), "Int128"),
        (lambda: pl.DataFrame({"age": pl.Series([{1}], dtype=pl.Object)}), "Object"),
        (lambda: pd.DataFrame({"age": [1, "secret"]}), "object"),
    ],
)
def test_a_column_that_no_table_holds_is_named_with_its_type(make, kind):
    with pytest.raises(SourceError, match=rf"column 'age', of the type {kind}") as error:
        as_file(make())
    assert "Leave it out" in str(error.value) and "secret" not in str(error.value)


def test_a_name_with_half_a_character_is_refused():
    with pytest.raises(SourceError, match=r"'a.ud800', of the type int64, .* Rename it"):
        as_file(pd.DataFrame({"a\ud800": [1]}))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pd.Series(["secret"]), r"pandas.Series. Make it a frame: `.to_frame"),
        (pl.Series(["secret"]), r"polars.Series. Make it a frame: `.to_frame"),
        (pl.LazyFrame({"a": ["secret"]}), r"polars.LazyFrame. .*collect"),
        (np.array(["secret"]), r"numpy.ndarray"),
        (b"secret", r"builtins.bytes"),
        ([pd.DataFrame({"a": ["secret"]})], "not a list of values of the type DataFrame"),
        (iter(["secret"]), "list_iterator"),
    ],
)
def test_what_is_no_source_is_refused_by_its_type_alone(value, expected):
    for given in (value, [value], {"path": value}, {"path": [value]}):
        with pytest.raises(SourceError) as error:
            api.init(given)
        assert "secret" not in str(error.value)
        with pytest.raises(SourceError) as error:
            api.check({"source": given})
        assert "secret" not in str(error.value)
    with pytest.raises(SourceError, match=expected):
        with_files({"path": value})


def test_files_that_were_long_unused_are_removed(cache):
    frames = [pd.DataFrame({"a": [number]}) for number in range(3)]
    unused, used, _ = paths = [as_file(frame) for frame in frames]
    stamp = used.stat()
    for path in paths[:2]:
        for file in (path, path.with_name(f".{path.stem}.used")):
            os.utime(file, (time.time() - 31 * DAYS,) * 2)
    before = used.stat().st_mtime_ns
    assert as_file(frames[1]) == used and used.stat().st_ino == stamp.st_ino
    # Its own time stays, or a reader would take it for changed.
    assert used.stat().st_mtime_ns == before
    assert not unused.exists() and sorted(cache.glob("*.parquet")) == sorted(paths[1:])
    assert not unused.with_name(f".{unused.stem}.used").exists()
    assert as_file(frames[0]) == unused and unused.exists()
