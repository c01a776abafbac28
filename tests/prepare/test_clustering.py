"""`cluster_by`: the same rows in the order of a column, of which a subset reads few row groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.core.bucket import Bucket
from penstock.core.errors import RecipeError
from penstock.core.store import Store
from penstock.prepare.dataset import Dataset
from tests.faults import faulty_s3

ROWS = 30_000


def recipe_over(folder: Path, rows: int, **more: Any) -> dict[str, Any]:
    draw = np.random.default_rng(5)
    table = pa.table(
        {
            "id": range(rows),
            "width": draw.integers(0, 1000, rows),
            "day": np.datetime64("2026-01-01", "D") + draw.integers(0, 999, rows),
            "share": pa.array(draw.random(rows), mask=np.arange(rows) % 50 == 0),
            "note": draw.integers(0, 2**62, rows).astype(str),
            "y": draw.integers(0, 2, rows),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "rows.parquet")
    return {
        "name": "clustered",
        "key": "id",
        "source": str(folder / "rows.parquet"),
        "store": str(folder / "store"),
        **more,
    }


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return recipe_over(tmp_path_factory.mktemp("clustered"), ROWS)


@pytest.fixture(scope="module")
def plain(recipe: dict[str, Any]) -> Dataset:
    return penstock.prepare(recipe, quiet=True)


@pytest.mark.parametrize(
    ("column", "where"),
    [
        ("width", "width between 100 and 104"),
        ("day", "day >= '2026-02-01' and day < '2026-02-08'"),
        ("share", "share < 0.01"),
    ],
)
def test_a_subset_by_the_column_reads_few_groups_and_gives_the_same_rows(
    recipe: dict[str, Any], plain: Dataset, column: str, where: str
) -> None:
    dataset = penstock.prepare({**recipe, "cluster_by": column}, quiet=True)
    assert dataset.id != plain.id and dataset.cluster_by == column
    assert dataset.counts == plain.counts
    table, usual = dataset.table("train"), plain.table("train")
    # The order of the column, and equal values in that of their ids; nothing last.
    order = [(column, "ascending"), ("row_id", "ascending")]
    assert table.equals(usual.sort_by(order))
    assert (
        dataset.file("profile.json").read_bytes()
        == plain.file("profile.json").read_bytes()
    )
    some = penstock.subset(dataset.reference, where=where, store=dataset.store)
    with pq.ParquetFile(dataset.files("train")[0]) as file:
        assert 0 < len(some._groups(file)) <= 2 < 15 < file.num_row_groups
    filtered = penstock.subset(plain.reference, where=where, store=plain.store)
    ids = some.table("train")["row_id"].to_pylist()
    assert sorted(ids) == filtered.table("train")["row_id"].to_pylist() != []


def test_what_cannot_be_clustered_by_is_a_sentence(tmp_path: Path) -> None:
    recipe = recipe_over(tmp_path, 200)
    with pytest.raises(RecipeError, match="no column 'widht'"):
        penstock.prepare({**recipe, "cluster_by": "widht"}, quiet=True)
    lists = {"derive": {"pair": "[width, y]"}, "cluster_by": "pair"}
    with pytest.raises(RecipeError, match=r"'pair' has values of the type .* no order"):
        penstock.prepare({**recipe, **lists}, quiet=True)


@pytest.mark.slow
def test_a_hundredth_in_a_bucket_is_learnt_from_for_under_a_twentieth_of_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_over(tmp_path, 400_000, cluster_by="width")
    with faulty_s3(monkeypatch, tmp_path) as line:
        dataset = penstock.prepare({**recipe, "store": line.store}, quiet=True)
        # Another machine, which has nothing of it.
        monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "elsewhere"))
        read: list[int] = []
        ranged, whole = Bucket.range, Bucket.pieces

        def counted(self: Bucket, key: str, start: int, stop: int) -> bytes:
            read.append((stop - start) if "/rows/" in key else 0)
            return ranged(self, key, start, stop)

        def fetched(self: Bucket, key: str, size_bytes: int) -> Any:
            read.append(size_bytes if "/rows/" in key else 0)
            return whole(self, key, size_bytes)

        monkeypatch.setattr(Bucket, "range", counted)
        monkeypatch.setattr(Bucket, "pieces", fetched)
        store = Store(line.store)
        total = sum(
            entry["size_bytes"]
            for name, entry in dataset.manifest["files"].items()
            if name.startswith("rows/")
        )
        where = "width between 500 and 509"
        some = penstock.subset(dataset.reference, where=where, store=store)
        words = {
            "inputs": {"width": "number", "day": "timestamp"},
            "targets": {"y": "binary"},
        }
        feed = penstock.encode(some, **words, store=tmp_path / "feeds", quiet=True)
        ids = {
            split: some.table(split, columns=[])["row_id"].to_pylist()
            for split in feed.rows
        }
        # Counted, fitted, encoded, and read once more: each range comes once.
        assert 0 < sum(read) < 0.05 * total
    usual = penstock.prepare({**recipe, "cluster_by": None}, quiet=True)
    copy = penstock.subset(usual.reference, where=where, store=usual.store)
    for split, rows in feed.rows.items():
        assert len(ids[split]) == rows > 0
        assert sorted(ids[split]) == copy.table(split)["row_id"].to_pylist()
