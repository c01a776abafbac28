"""Pictures end to end: bytes in Parquet, some spoilt or missing, to a model that knows shapes; the same
weights again.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import penstock
from penstock.core.store import Store
from penstock.encode.feed import Feed
from tests.loader.flat import open_loader
from tests.parts.pictures_made import SHAPES, album

RECIPE = """
name: shapes
seed: 2
source: {type: files, path: album.parquet}
split: {train: 0.7, validation: 0.1, test: 0.2}
inputs:
  photo: {type: image, size: [20, 24], augment: [flip, {type: shift, by: 0.1}]}
targets:
  shape: category
model:
  encoders: {photo: {type: cnn, width: 16, depth: 1}}
  combiner: {type: mlp, width: 16, depth: 1, dropout: 0}
train: {epochs: 12, batch_size: 16, lr: 5e-3, precision: bf16}
evaluate: {bootstrap: 0}
launcher: {type: local, processes: 1, threads: 1}
"""


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("pictures")
    photos, labels = album(420, seed=4, format="JPEG")
    content: list[bytes | None] = [*photos]
    content[5], content[9], content[11] = (
        None,
        b"not a picture, though it has bytes enough to be shown only by their number and their hash",
        photos[11][:200],
    )
    pq.write_table(
        pa.table({"photo": pa.array(content, pa.binary()), "shape": pa.array(labels)}),
        folder / "album.parquet",
    )
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    return folder, penstock.run(folder / "recipe.yaml").to_dict()


def test_shapes_are_learnt_and_every_row_is_accounted_for(
    journey: tuple[Path, dict],
) -> None:
    folder, done = journey
    rows = done["rows"]
    assert rows["in"] == 420 == sum(n for word, n in rows.items() if word != "in")
    found = pa.concat_tables(
        pq.read_table(path)
        for path in (folder / "store" / "feeds").glob("*/quarantine.parquet")
    ).to_pylist()
    assert sorted(row["column"] for row in found) == ["photo", "photo"] and {
        row["stage"] for row in found
    } == {"feature"}
    assert any(
        "are no picture of a known format" in row["reason"] for row in found
    ) and any("cannot be read" in row["reason"] for row in found)
    assert all(len(row["row"]) < 300 for row in found), (
        "a picture is not written out in the quarantine"
    )
    assert done["metrics"]["test"]["shape"]["accuracy"] > 0.6, (
        "three shapes: chance is a third"
    )
    (tried,) = [done["classical"]["tried"]["shape"]]
    assert {one["model"] for one in tried} == {
        "a linear model",
        "nearest neighbours on simple features",
    }
    assert done["classical"]["shape"]["accuracy"] > 0.9


def test_a_batch_follows_the_row_whatever_the_processes(
    journey: tuple[Path, dict],
) -> None:
    """Augmented pictures are a function of seed, epoch and row: the same on one process as on two, and after
    a resume.
    """
    folder, _ = journey
    store = Store(str(folder / "store"))
    (name,) = store.names("feeds")
    feed = Feed.open(store, id=name.removeprefix("feeds/"))
    plain = dict(open_loader(feed, batch_size=32, seed=1).batches(0))
    for position, batch in open_loader(
        feed, batch_size=32, seed=1, rank=1, world=2
    ).batches(0, start=2):
        wanted = plain[position]
        assert torch.equal(
            batch["photo.pixels"], wanted["photo.pixels"][-len(batch["row_id"]) :]
        )
    other = next(open_loader(feed, batch_size=32, seed=1).batches(1))[1]
    assert (
        plain[0]["photo.pixels"].dtype == torch.uint8
        and plain[0]["photo.pixels"].shape
        == (32, 3, 20, 24)
        == other["photo.pixels"].shape
    )


def test_again_it_is_the_same_to_the_last_bit(
    journey: tuple[Path, dict], tmp_path: Path
) -> None:
    folder, first = journey
    (tmp_path / "album.parquet").write_bytes((folder / "album.parquet").read_bytes())
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    again = penstock.run(tmp_path / "recipe.yaml").to_dict()
    assert again["bundle"] == first["bundle"], (
        "a bundle's id is the fingerprint of its weights, among others"
    )


def test_a_bundle_answers_bytes(journey: tuple[Path, dict]) -> None:
    folder, done = journey
    bundle = penstock.Bundle.open(done["bundle"], store=Store(str(folder / "store")))
    photos, labels = album(30, seed=77)
    found = [
        row["shape"] for row in bundle.predict([{"photo": photo} for photo in photos])
    ]
    assert (
        set(found) <= set(SHAPES)
        and sum(a == b for a, b in zip(found, labels, strict=True)) > 15
    )
