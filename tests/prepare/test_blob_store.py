"""Large values beside the engine: what was put aside comes back, and every step means what it meant."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.api import prepare
from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract
from penstock.core.errors import PenstockError
from penstock.prepare.blob_store import BlobStore, large_columns
from penstock.recipe.schema import load_recipe

VALUES = st.lists(
    st.one_of(
        st.none(),
        st.binary(max_size=40),
        st.integers(0, 3).map(lambda i: bytes([i]) * 5000),
    ),
    min_size=1,
    max_size=40,
)


def extract_of(folder: Path, **columns: list) -> Extract:
    rows = len(next(iter(columns.values())))
    kinds = {
        name: None if any(isinstance(v, int) for v in values) else pa.binary()
        for name, values in columns.items()
    }
    table = pa.table(
        {name: pa.array(values, kinds[name]) for name, values in columns.items()}
        | {
            ROW_FILE: pa.array([0] * rows, pa.int32()),
            ROW_NUMBER: pa.array(range(rows), pa.int64()),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "rows.parquet")
    return Extract(
        [folder / "rows.parquet"],
        pa.schema([f for f in table.schema if f.name in columns]),
        [],
        rows,
        0,
    )


@settings(deadline=None, max_examples=30)
@given(VALUES, st.randoms())
def test_values_come_back_in_any_order(tmp_path_factory, values, random):
    folder = tmp_path_factory.mktemp("aside")
    aside = BlobStore(folder / "aside", memory_bytes=1 << 20)
    light = aside.take(
        extract_of(folder / "x", photo=values, n=list(range(len(values)))),
        ["photo"],
        "source",
        owned=folder,
    )
    assert not (folder / "x/rows.parquet").exists()
    stood_in = pa.concat_tables([pq.read_table(p) for p in light.parquet])
    assert all(v is None or len(v) == 16 for v in stood_in["photo"].to_pylist())
    assert [v is None for v in stood_in["photo"].to_pylist()] == [
        v is None for v in values
    ]
    order = list(range(len(values)))
    random.shuffle(order)
    pq.write_table(stood_in.take(order), folder / "light.parquet")
    assert aside.give_back(
        [folder / "light.parquet"], folder / "out/part-0.parquet"
    ) == len(values)
    made = pq.read_table(folder / "out/part-0.parquet")
    assert (
        made["photo"].to_pylist() == [values[i] for i in order]
        and made["n"].to_pylist() == order
    )


def test_a_changed_stand_in_is_a_defect(tmp_path):
    aside = BlobStore(tmp_path / "aside", memory_bytes=1 << 20)
    light = aside.take(
        extract_of(tmp_path / "x", photo=[b"a", b"b"]),
        ["photo"],
        "source",
        owned=tmp_path,
    )
    table = pq.read_table(light.parquet[0])
    pq.write_table(
        table.set_column(
            0, "photo", pa.array([b"0" * 16, table["photo"][0].as_py()], pa.binary())
        ),
        tmp_path / "light.parquet",
    )
    with pytest.raises(PenstockError, match="defect of Penstock"):
        aside.give_back([tmp_path / "light.parquet"], tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("words", "large"),
    [
        ({}, True),
        ({"where": "n > 1"}, True),
        ({"where": "photo IS NOT NULL and n > 1"}, True),
        ({"derive": {"size": "octet_length(photo)"}}, False),
        ({"where": 'octet_length("Photo") > 3'}, False),
        ({"key": ["photo"]}, False),
        ({"expect": {"photo": {"not_null": True, "unique": True}}}, True),
        ({"expect": {"photo": {"type": "text"}}}, False),
        ({"clean": [{"type": "deduplicate", "columns": ["photo"]}]}, True),
        ({"split": {"stratify": "photo"}}, False),
        ({"derive": {"photos": "n + 1"}}, True),
    ],
)
def test_what_the_recipe_looks_into_stays(tmp_path, words, large):
    recipe = load_recipe(
        {"source": {"type": "files", "path": "x.csv"}, **words}, name="t"
    )
    assert large_columns(recipe, extract_of(tmp_path, photo=[b"x"], n=[1])) == (
        ["photo"] if large else []
    )


@pytest.fixture
def lake(tmp_path) -> Path:
    pictures = [
        None if i % 7 == 0 else bytes([i % 5]) * (3000 + i % 5) for i in range(60)
    ]
    pq.write_table(
        pa.table(
            {
                "id": range(60),
                "photo": pa.array(pictures, pa.binary()),
                "n": [i % 4 for i in range(60)],
            }
        ),
        tmp_path / "t.parquet",
    )
    pq.write_table(
        pa.table({"n": [0, 1, 2], "icon": [b"zero", b"one", None]}),
        tmp_path / "icons.parquet",
    )
    return tmp_path


def rows(lake: Path, store: str, **words) -> tuple[dict[int, dict], object]:
    made = prepare(
        {
            "name": "t",
            "source": {"type": "files", "path": str(lake / "t.parquet")},
            "key": "id",
            **words,
        },
        store=lake / store,
    )
    return {
        r["id"]: r
        for split in ("train", "validation", "test")
        for r in made.table(split).to_pylist()
    }, made


def test_prepared_rows_have_their_values(lake):
    given = {r["id"]: r for r in pq.read_table(lake / "t.parquet").to_pylist()}
    found, made = rows(lake, "a")
    assert {i: r["photo"] for i, r in found.items()} == {
        i: r["photo"] for i, r in given.items()
    }
    assert (
        str(made.schema.field("photo").type) == "binary"
        and json.loads((made.path / "profile.json").read_text())["columns"]["photo"][
            "missing"
        ]
        > 0
    )
    through, _ = rows(
        lake, "b", derive={"size": "octet_length(photo)"}
    )  # this one goes through the engine
    assert {i: r["photo"] for i, r in through.items()} == {
        i: r["photo"] for i, r in found.items()
    }
    assert all(
        r["size"] == (None if r["photo"] is None else len(r["photo"]))
        for r in through.values()
    )


def test_joins_duplicates_and_promises_mean_what_they_meant(lake):
    found, made = rows(
        lake,
        "a",
        join=[
            {
                "source": {"type": "files", "path": str(lake / "icons.parquet")},
                "on": "n",
                "prefix": "their_",
            }
        ],
    )
    assert {r["n"]: r["their_icon"] for r in found.values()} == {
        0: b"zero",
        1: b"one",
        2: None,
        3: None,
    }
    found, made = rows(
        lake,
        "b",
        clean=[{"type": "deduplicate", "columns": ["photo"]}],
        where="photo is not null",
    )
    assert made.counts["duplicates"] == 51 - 5 and {
        r["photo"] for r in found.values()
    } == {bytes([i]) * (3000 + i) for i in range(5)}
    found, made = rows(lake, "c", expect={"photo": {"not_null": True}, "n": {"max": 2}})
    assert (
        all(r["photo"] is not None for r in found.values())
        and made.counts["in"] == 60 == len(found) + made.counts["quarantined"]
    )
    told = [
        json.loads(r["row"])["photo"]
        for p in (made.path / "quarantine").glob("*.parquet")
        for r in pq.read_table(p).to_pylist()
    ]
    assert (
        None in told
        and all(t is None or len(base64.b64decode(t)) >= 3000 for t in told)
        and any(told)
    )
