"""Rows of real Delta and Iceberg tables, at versions and moments, by the laws."""

from __future__ import annotations

import json
import os
import re
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.contracts.data import Extract, Source
from penstock.core.errors import RecipeError, SourceError
from penstock.core.events import Events
from penstock.recipe.schema import load_recipe
from penstock.testing.laws.sources import check_source

delta = pytest.importorskip("deltalake")
catalogs = pytest.importorskip("pyiceberg.catalog.sql")
Config = pytest.importorskip("pyiceberg.utils.config").Config
BitMap64 = pytest.importorskip("pyroaring").BitMap64
LongType = pytest.importorskip("pyiceberg.types").LongType

FIRST = pa.table({"id": [1, 2, 3], "country": ["fr", "de", "fr"]})
LATER = pa.table({"id": [4, 5], "country": ["it", "fr"], "age": [40, None]})


def extracted(source: Source, base: Path) -> tuple[Extract, list[dict[str, Any]]]:
    scratch = base / "scratch"
    snapshot = source.snapshot(base)
    made = source.extract(snapshot, scratch, memory_bytes=1 << 30, events=Events())
    rows = pa.concat_tables([pq.read_table(p) for p in made.parquet])
    plain = rows.drop_columns(["__file", "__row"]).to_pylist()
    return made, sorted(plain, key=lambda row: row["id"])


def of_delta(**words: Any) -> Source:
    return Source.load({"type": "lakehouse", "format": "delta", "path": "lake", **words})


def written(folder: Path, *, parted: bool) -> datetime:
    """Three versions: three rows, two more with a new column, and one deleted; the moment of the first."""
    by = {"partition_by": ["country"]} if parted else {}
    delta.write_deltalake(str(folder), FIRST, **by)
    # The log says when a version came to be by the time of its file: an hour ago.
    moment = datetime.now(UTC) - timedelta(minutes=30)
    log, before = folder / "_delta_log" / f"{0:020}.json", moment.timestamp() - 1800
    os.utime(log, (before, before))
    delta.write_deltalake(str(folder), LATER, mode="append", schema_mode="merge")
    delta.DeltaTable(str(folder)).delete("id = 3")
    return moment


@pytest.mark.parametrize("parted", [False, True], ids=["plain", "parted"])
def test_delta_gives_each_of_its_versions(tmp_path: Path, parted: bool) -> None:
    moment = written(tmp_path / "lake", parted=parted)
    check_source(of_delta(), tmp_path)
    made, rows = extracted(of_delta(), tmp_path)
    assert rows == [
        {"id": 1, "country": "fr", "age": None},
        {"id": 2, "country": "de", "age": None},
        {"id": 4, "country": "it", "age": 40},
        {"id": 5, "country": "fr", "age": None},
    ]
    assert made.schema.field("age").type == pa.int64()
    first = [{"id": i, "country": c} for i, c in ((1, "fr"), (2, "de"), (3, "fr"))]
    assert extracted(of_delta(version=0), tmp_path)[1] == first
    assert extracted(of_delta(as_of=moment.isoformat()), tmp_path)[1] == first
    assert extracted(of_delta(columns=["id"]), tmp_path)[1] == [
        {"id": 1},
        {"id": 2},
        {"id": 4},
        {"id": 5},
    ]
    ids = [of_delta(version=v).snapshot(tmp_path).to_dict() for v in (0, 1, 2)]
    assert ids[0] != ids[1] != ids[2]
    assert of_delta().snapshot(tmp_path).to_dict() == ids[2]
    last = of_delta().snapshot(tmp_path).files[-1]
    assert last.position == "delta version 2"


def test_files_that_are_the_rows_are_read_where_they_lie(tmp_path: Path) -> None:
    delta.write_deltalake(str(tmp_path / "lake"), FIRST)
    source = of_delta()
    extracted(source, tmp_path)
    assert not (tmp_path / "scratch" / "lake").exists()
    delta.write_deltalake(
        str(tmp_path / "lake"), LATER, mode="append", schema_mode="merge"
    )
    delta.DeltaTable(str(tmp_path / "lake")).vacuum(retention_hours=168)
    _, rows = extracted(source, tmp_path)
    assert len(rows) == 5


def test_rows_that_a_deletion_vector_marks_are_left_out(tmp_path: Path) -> None:
    """A vector as Spark writes it, in the log itself: a roaring bitmap of places, in Z85."""
    folder = tmp_path / "lake"
    delta.write_deltalake(
        str(folder),
        FIRST,
        configuration={"delta.enableDeletionVectors": "true"},
    )
    log = folder / "_delta_log"
    lines = (log / f"{0:020}.json").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    add = next(entry["add"] for entry in entries if "add" in entry)
    whole = of_delta().snapshot(tmp_path)
    bitmap = struct.pack("<i", 1681511377) + BitMap64([1]).serialize()
    bitmap += b"\0" * (-len(bitmap) % 4)
    vector = {
        "storageType": "i",
        "pathOrInlineDv": z85(bitmap),
        "sizeInBytes": len(bitmap),
        "cardinality": 1,
    }
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    commit = [{"remove": remove}, {"add": {**add, "deletionVector": vector}}]
    text = "\n".join(map(json.dumps, commit))
    (log / f"{1:020}.json").write_text(text, "utf-8")
    assert of_delta().snapshot(tmp_path).to_dict() != whole.to_dict()
    assert [row["id"] for row in extracted(of_delta(), tmp_path)[1]] == [1, 3]
    assert len(extracted(of_delta(version=0), tmp_path)[1]) == 3


def z85(data: bytes) -> str:
    """ZeroMQ's base 85, of a multiple of four bytes."""
    letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    text = ""
    for (word,) in struct.iter_unpack(">I", data):
        text += "".join(letters[word // 85**i % 85] for i in (4, 3, 2, 1, 0))
    return text


def test_a_dataset_of_a_version_stays_when_the_table_goes_on(tmp_path: Path) -> None:
    delta.write_deltalake(str(tmp_path / "lake"), FIRST)
    recipe = {"name": "lake", "split": {"train": 1.0, "validation": 0.0, "test": 0.0}}
    where = {"type": "lakehouse", "format": "delta", "path": str(tmp_path / "lake")}
    store = tmp_path / "store"
    newest = penstock.prepare({**recipe, "source": where}, store=store)
    at = {**recipe, "source": {**where, "version": 0}}
    # The same rows are one dataset, whether they are named by a number or not.
    assert penstock.prepare(at, store=store).id == newest.id
    delta.write_deltalake(str(tmp_path / "lake"), FIRST, mode="append")
    assert penstock.prepare(at, store=store).id == newest.id
    assert penstock.prepare({**recipe, "source": where}, store=store).id != newest.id
    entries = newest.manifest["lineage"]["source"]
    assert entries[-1]["position"] == "delta version 0"


@pytest.fixture
def iceberg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    place = f"sqlite:///{tmp_path}/catalog.db"
    monkeypatch.setenv("PYICEBERG_CATALOG__SHOP__URI", place)
    monkeypatch.setenv("PYICEBERG_CATALOG__SHOP__TYPE", "sql")
    # It reads its configuration once, when it is imported.
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
    catalog = catalogs.SqlCatalog("shop", uri=place, warehouse=f"file://{tmp_path}/wh")
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.orders", schema=FIRST.schema)
    table.append(FIRST)
    with table.update_schema() as update:
        update.add_column("age", LongType())
        update.rename_column("country", "land")
    table.append(LATER.rename_columns(["id", "land", "age"]))
    table.delete("id == 3")
    yield table
    catalog.close()


def test_iceberg_gives_each_of_its_snapshots(tmp_path: Path, iceberg: Any) -> None:
    words = {"type": "lakehouse", "format": "iceberg"}
    path = {"path": iceberg.location().removeprefix("file://")}
    named = {"table": "shop.orders", "catalog": "shop"}
    now = [
        {"id": 1, "land": "fr", "age": None},
        {"id": 2, "land": "de", "age": None},
        {"id": 4, "land": "it", "age": 40},
        {"id": 5, "land": "fr", "age": None},
    ]
    for where in (path, named):
        source = Source.load({**words, **where})
        assert extracted(source, tmp_path)[1] == now
    check_source(Source.load({**words, **path}), tmp_path)
    first = iceberg.snapshots()[0]
    _, rows = extracted(
        Source.load({**words, **path, "version": first.snapshot_id}), tmp_path
    )
    assert rows == FIRST.to_pylist()
    moment = datetime.fromtimestamp(first.timestamp_ms / 1000, UTC).isoformat()
    _, rows = extracted(Source.load({**words, **path, "as_of": moment}), tmp_path)
    assert rows == FIRST.to_pylist()
    _, rows = extracted(
        Source.load({**words, **path, "columns": ["id", "age"]}), tmp_path
    )
    assert rows[2] == {"id": 4, "age": 40}


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ({"format": "delta", "path": "nothing"}, "cannot be opened as a Delta table"),
        ({"format": "delta", "path": "lake", "version": 9}, "at version 9"),
        ({"format": "delta", "path": "lake", "columns": ["idd"]}, "Did you mean 'id'?"),
        ({"format": "iceberg", "path": "lake"}, "cannot be opened as an Iceberg table"),
        (
            {"format": "iceberg", "table": "a.b", "catalog": "nosuch"},
            "cannot be opened as an Iceberg table",
        ),
    ],
)
def test_what_is_not_there_is_one_sentence(
    tmp_path: Path, words: dict[str, Any], fragment: str
) -> None:
    delta.write_deltalake(str(tmp_path / "lake"), FIRST)
    with pytest.raises(SourceError, match=re.escape(fragment)):
        extracted(Source.load({"type": "lakehouse", **words}), tmp_path)


def test_words_that_contradict_each_other_are_refused_together() -> None:
    words = {"type": "lakehouse", "format": "delta", "table": "a.b"}
    both = {"version": 1, "as_of": "2024-01-01"}
    with pytest.raises(RecipeError, match="has 2 mistakes"):
        load_recipe({"source": {**words, **both}})
