"""A subset is the rows that filtering gives, read from the row groups that hold them and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.cli import main
from penstock.core.errors import PenstockError
from penstock.prepare.dataset import Dataset

ROWS = 3_000
RECIPE: dict[str, Any] = {"name": "people", "key": "id"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subset")
    table = pa.table(
        {
            "id": range(ROWS),
            "width": [i % 1000 for i in range(ROWS)],
            "country": [("fr", "de", None)[i % 3] for i in range(ROWS)],
            "share": [float("nan") if i % 5 == 0 else i / ROWS for i in range(ROWS)],
            "y": [i % 2 for i in range(ROWS)],
        }
    )
    pq.write_table(table, folder / "rows.parquet")
    source = {"source": str(folder / "rows.parquet")}
    penstock.prepare({**RECIPE, **source}, store=folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def whole(store: Path) -> Dataset:
    return Dataset.open(penstock.Store(store), reference="people")


@pytest.mark.parametrize(
    ("where", "mask"),
    [
        (
            "country = 'fr' and width > 512",
            lambda t: (t["country"] == "fr") & (t["width"] > 512),
        ),
        ("512 < width", lambda t: t["width"] > 512),
        ("share > 0.5", lambda t: (t["share"] > 0.5) | t["share"].isna()),
        (
            "country = 'fr' or width = 3",
            lambda t: (t["country"] == "fr") | (t["width"] == 3),
        ),
        ("not (country = 'fr')", lambda t: t["country"] == "de"),
        ("width < 0", lambda t: t["width"] < 0),
    ],
)
def test_a_condition_gives_the_rows_that_filtering_gives(
    store: Path, whole: Dataset, where: str, mask: Any
) -> None:
    some = penstock.subset(whole.reference, where=where, store=store)
    for split in ("train", "test"):
        frame = whole.table(split).to_pandas()
        wanted = frame[mask(frame)]["id"].tolist()
        assert some.table(split)["id"].to_pylist() == wanted
        assert some.counts[split] == len(wanted)
        # Columns of the condition come only where they are asked for.
        assert some.table(split, columns=["y"]).column_names == ["row_id", "y"]


def test_samples_are_shares_that_differ_by_seed(store: Path, whole: Dataset) -> None:
    drawn = [
        penstock.subset(whole.reference, sample=0.1, seed=seed, store=store)
        for seed in range(6)
    ]
    ids = [set(one.table("train")["row_id"].to_pylist()) for one in drawn]
    rows = whole.counts["train"]
    # Five standard deviations of a binomial draw.
    spread = 5 * (rows * 0.1 * 0.9) ** 0.5
    assert all(abs(len(one) - rows * 0.1) < spread for one in ids)
    assert len({frozenset(one) for one in ids}) == 6
    half = penstock.subset(whole.reference, sample=0.5, seed=3, store=store)
    # A larger sample of one seed holds the smaller one.
    assert ids[3] < set(half.table("train")["row_id"].to_pylist())


def test_the_reference_is_run_again(store: Path, whole: Dataset) -> None:
    some = penstock.subset(
        whole.reference, where="width > 5 & 1", sample=0.25, seed=7, store=store
    )
    again = penstock.subset(some.reference, store=store)
    assert (again.id, again.reference) == (some.id, some.reference)
    ids = some.table("train", columns=["id"])
    assert again.table("train", columns=["id"]).equals(ids) and ids.num_rows
    other = penstock.subset(whole.reference, where="width > 6", store=store)
    assert other.id != some.id != whole.id


def test_the_command_prints_it(
    store: Path, whole: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["subset", whole.reference, "--where", "width > 512", "--sample", "0.5"]
    assert main([*words, "--seed", "7", "--store", str(store), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rows"] == facts["train"] + facts["validation"] + facts["test"] > 0
    assert facts["reference"].endswith("?where=width%20%3E%20512&sample=0.5&seed=7")
    assert main(["subset", facts["reference"], "--store", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts


def test_the_loader_takes_it_in_place_of_a_dataset(store: Path, whole: Dataset) -> None:
    some = penstock.subset(whole.reference, where="width > 900", store=store)
    loader = penstock.Loader(
        some,
        batch_size=16,
        inputs={"width": "number"},
        targets={"y": "number"},
        numpy=True,
    )
    rows = sum(len(next(iter(batch.values()))) for batch in loader)
    assert rows == some.counts["train"] > 0


def test_row_groups_that_hold_no_row_of_it_are_not_read(
    store: Path, whole: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over files that are clustered by a column, and over a sample, which is one by ids."""
    table = whole.table("train").sort_by("width")
    path = tmp_path / "part-0.parquet"
    pq.write_table(table, path, row_group_size=24)
    read: list[int] = []
    genuine = pq.ParquetFile.iter_batches

    def counted(self: Any, *words: Any, row_groups: Any, **others: Any) -> Any:
        read.extend(row_groups)
        return genuine(self, *words, row_groups=row_groups, **others)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    groups = -(-table.num_rows // 24)
    for where in ("width = 500", "width >= 500 and 505 > width", "(width) = 500"):
        read.clear()
        some = penstock.subset(whole.reference, where=where, store=store)
        monkeypatch.setattr(
            type(some), "_opened", lambda self, split: iter([lambda: path])
        )
        got = some.table("train")
        assert 0 < len(read) <= groups * 0.05
        assert got["width"].to_pylist() == [
            w
            for w in table["width"].to_pylist()
            if (w == 500 if ">" not in where else 500 <= w < 505)
        ]
    pq.write_table(table.sort_by("row_id"), path, row_group_size=24)
    read.clear()
    some = penstock.subset(whole.reference, sample=0.02, store=store)
    drawn = some.table("train")
    assert len(read) <= groups * 0.02 + 3
    assert pc.count_distinct(drawn["row_id"]).as_py() == drawn.num_rows


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ({}, "needs `where`, `sample`, or both"),
        ({"sample": 1.5}, "above 0 and below 1"),
        ({"where": "widht > 1"}, "width"),
        ({"where": "width"}, "gives int64"),
        ({"where": "pg_read_file('x')"}, "pg_read_file"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    store: Path, whole: Dataset, words: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(PenstockError) as error:
        penstock.subset(whole.reference, store=store, **words).table("train")
    assert fragment in str(error.value)
    with pytest.raises(PenstockError, match=r"Did you mean 'sample'"):
        penstock.subset(f"{whole.reference}?sampel=0.1", store=store)
