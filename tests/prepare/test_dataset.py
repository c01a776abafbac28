"""A dataset version: what can be asked of it, what is refused, how two differ, and its profile."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from penstock.core.errors import StoreError, UserError
from penstock.prepare.dataset import Dataset
from tests.data.lake import Lake


@pytest.fixture
def lake(tmp_path):
    made = Lake(tmp_path)
    made.put(
        "rows.parquet",
        pa.table(
            {
                "id": range(100),
                "x": [None if i % 10 == 0 else i / 4 for i in range(100)],
                "t": [["a", "b", None][i % 3] for i in range(100)],
                "big": [2**62 + i for i in range(100)],
                "when": pa.array(
                    [i * 86_400_000_000 for i in range(100)], pa.timestamp("us")
                ),
                "l": [[i] for i in range(100)],
                "f": [i % 2 == 0 for i in range(100)],
            }
        ),
    )
    return made


def test_batches_come_in_stored_order_with_row_id(lake):
    dataset = lake.prepare()
    batches = list(dataset.batches("train", columns=["t", "id"], rows=7))
    assert all(b.schema.names == ["row_id", "t", "id"] and len(b) <= 7 for b in batches)
    assert pa.Table.from_batches(batches).equals(
        dataset.table("train", columns=["t", "id"])
    )
    assert (
        dataset.table("train").column_names
        == dataset.schema.names
        == ["row_id", "id", "x", "t", "big", "when", "l", "f"]
    )
    assert dataset.schema.field("big").type == pa.int64() and set(
        dataset.table("test")["big"].to_pylist()
    ) <= {2**62 + i for i in range(100)}
    assert dataset.table("validation", columns=[]).column_names == ["row_id"]


def test_an_empty_split_is_an_empty_table(lake):
    dataset = lake.prepare(split={"train": 1, "validation": 0, "test": 0})
    assert dataset.table("test").num_rows == 0 and dataset.table("test").schema.equals(
        dataset.schema
    )


def test_what_is_not_there_is_a_sentence(lake):
    dataset = lake.prepare()
    with pytest.raises(UserError, match="Did you mean 'train'"):
        dataset.files("trian")
    with pytest.raises(UserError, match=r"no column 'whn'\. Did you mean 'when'"):
        list(dataset.batches("train", columns=["whn"]))
    with pytest.raises(StoreError, match=rf"Versions: lake@{dataset.id}"):
        Dataset.open(lake.store, reference="lake@0123456789abcdef")
    with pytest.raises(StoreError, match="Did you mean 'lake'"):
        Dataset.open(lake.store, reference="lak@0123456789abcdef")
    with pytest.raises(StoreError, match="no dataset called"):
        Dataset.open(lake.store, reference="other")


def test_the_newest_of_a_name(lake):
    first = lake.prepare()
    assert Dataset.open(lake.store, reference="lake").id == first.id
    assert Dataset.open(lake.store, reference=first.reference).counts == first.counts


def test_a_changed_byte_is_found(lake):
    dataset = lake.prepare()
    file = dataset.files("train")[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="was changed"):
        Dataset.open(lake.store, reference=dataset.reference, verify=True)


def test_diff(lake):
    one = lake.prepare(key="id")
    two = lake.prepare(key="id", where="id >= 10", derive={"y": "x * 2"})
    found = one.diff(two)
    assert found["columns"] == {"added": ["y"], "removed": [], "changed": {}}
    assert (
        found["rows"]["added"]["count"] == 0
        and found["rows"]["removed"]["count"] == 10
        and len(found["rows"]["removed"]["first"]) == 10
    )
    assert (
        found["counts"]["filtered"] == [0, 10]
        and two.diff(one)["rows"]["added"]["count"] == 10
    )
    assert one.diff(one)["rows"] == {
        "added": {"count": 0, "first": []},
        "removed": {"count": 0, "first": []},
    }


def test_profile(lake):
    dataset = lake.prepare(split={"train": 1, "validation": 0, "test": 0})
    profile = json.loads((dataset.path / "profile.json").read_text())
    columns = profile["columns"]
    assert (
        profile["rows"] == profile["sampled"] == 100
        and list(columns) == dataset.schema.names[1:]
    )
    x = columns["x"]
    values = [i / 4 for i in range(100) if i % 10]
    mean = sum(values) / 90
    assert (
        x["missing"],
        x["min"],
        x["max"],
        x["quantiles"]["0"],
        x["quantiles"]["1"],
    ) == (
        10,
        0.25,
        24.75,
        0.25,
        24.75,
    )
    assert x["mean"] == pytest.approx(mean) and x["std"] == pytest.approx(
        (sum((v - mean) ** 2 for v in values) / 90) ** 0.5
    )
    assert (
        columns["t"]["top"] == [["a", 34], ["b", 33]]
        and columns["t"]["distinct"] == 2
        and columns["t"]["missing"] == 33
    )
    assert (
        columns["when"]["min"] == "1970-01-01T00:00:00"
        and columns["l"] == {"type": "list<element: int64>", "missing": 0}
    ) or columns["l"]["missing"] == 0
    assert (
        columns["f"]["top"] == [[False, 50], [True, 50]]
        and columns["big"]["max"] == 2**62 + 99
    )


def test_the_manifest_tells_where_it_came_from(lake):
    manifest = lake.prepare(clean=[{"type": "clip_outliers", "columns": "x"}]).manifest
    lineage = manifest["lineage"]
    assert (
        lineage["source"][0]["path"] == "rows.parquet"
        and len(lineage["source"][0]["sha256"]) == 64
    )
    assert (
        lineage["engine"]["type"] == "embedded"
        and lineage["penstock"]
        and manifest["schema"]["big"] == "int64"
        and set(manifest["facts"]["0"]) == {"x"}
    )
    assert (
        manifest["format"] == 1
        and manifest["seconds"] > 0
        and set(manifest["files"]) >= {"profile.json", "rows/split=train/part-0.parquet"}
    )
