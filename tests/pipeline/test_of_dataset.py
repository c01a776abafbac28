"""`dataset:` in place of `source`: a version or a subset is learnt from, streamed, with no copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

import penstock
from penstock.core.errors import RecipeError, StoreError, UserError
from penstock.core.store import Store
from penstock.prepare.dataset import Dataset
from penstock.prepare.versions import over_version
from penstock.recipe.of_dataset import PREPARING
from penstock.recipe.schema import load_recipe

ROWS = 600
FEATURES: dict[str, Any] = {
    "inputs": {"age": "number", "city": "category", "old": "binary"},
    "targets": {"pay": "binary"},
    "train": {"epochs": 1},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("of-dataset")
    table = pa.table(
        {
            "id": range(ROWS),
            "age": [None if i % 20 == 0 else 18 + i % 60 for i in range(ROWS)],
            "city": [("Oslo", "Bergen")[i % 2] for i in range(ROWS)],
            "pay": [("high", "low")[i % 3 > 0] for i in range(ROWS)],
        }
    )
    pyarrow.csv.write_csv(table, folder / "rows.csv")
    recipe = {
        "name": "people",
        "key": "id",
        "source": str(folder / "rows.csv"),
        "derive": {"old": "age > 40"},
        "clean": [{"type": "fill", "columns": ["age"], "by": "median"}],
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "store": str(folder / "store"),
    }
    dataset = penstock.prepare(recipe, quiet=True)
    penstock.tag(dataset.reference, "gold", store=dataset.store)
    return dataset


def learning(whole: Dataset, **more: Any) -> dict[str, Any]:
    text = "people@gold?where=age%20%3E%2030"
    return {
        "name": "older",
        "dataset": text,
        "store": whole.store.url,
        **FEATURES,
        **more,
    }


def test_a_subset_is_encoded_as_the_subset_in_hand_is(whole: Dataset) -> None:
    recipe = penstock.check(learning(whole))
    feed = penstock.encode(recipe, quiet=True)
    some = penstock.subset(whole.reference, where="age > 30", store=whole.store)
    in_hand = {side: FEATURES[side] for side in ("inputs", "targets")}
    # Equal feeds have equal ids; the dataset is no copy.
    assert feed.id == penstock.encode(some, **in_hand, quiet=True).id
    assert feed.rows == {split: some.counts[split] for split in feed.rows}
    assert Store(whole.store.url).names("datasets/older") == []
    text = some.reference
    loader = penstock.Loader(
        text, batch_size=32, store=whole.store, numpy=True, **in_hand
    )
    assert sum(len(next(iter(b.values()))) for b in loader) == some.counts["train"]
    # Its tag was moved meanwhile: what was made names the id.
    assert feed.manifest["dataset"] == text
    assert penstock.show(text, store=whole.store)["counts"] == some.counts


def test_the_words_of_preparing_are_those_of_the_version(whole: Dataset) -> None:
    recipe, dataset = over_version(load_recipe(learning(whole)), whole.store)
    assert dataset is not None and recipe.dataset is None
    assert recipe.derive == {"old": "age > 40"} and recipe.clean[0].type == "fill"
    assert recipe.split.validation == 0.2 and recipe.source.to_dict()["path"]
    # As a file it names the version, and says nothing of preparing.
    written = load_recipe(learning(whole)).to_dict()
    assert written["dataset"].startswith("people@gold?") and not {*PREPARING} & {*written}
    assert load_recipe(written).to_dict() == written
    own = {"split_seed", "sample_seed", "row_order", "private_keys"}
    assert {*load_recipe({"source": "x.csv"}).data_identity()} - own <= {*PREPARING}


@pytest.mark.parametrize(
    ("more", "fragment"),
    [
        ({"source": "rows.csv"}, "source: goes with a source"),
        ({"where": "age > 3"}, r"NAME@ID\?where=…"),
        ({"sample": 10}, r"NAME@ID\?sample=…"),
        ({"clean": ["deduplicate"]}, "clean: goes with a source"),
    ],
)
def test_two_ways_to_the_rows_are_refused(
    whole: Dataset, more: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(RecipeError, match=fragment):
        load_recipe(learning(whole, **more))


def test_what_is_not_there_is_a_sentence(whole: Dataset) -> None:
    with pytest.raises(RecipeError, match="ages"):
        penstock.check(learning(whole, inputs={"ages": "number"}))
    with pytest.raises(StoreError, match="Did you mean 'gold'"):
        penstock.check(learning(whole, dataset="people@god"))
    with pytest.raises(UserError, match="rows are prepared already"):
        penstock.api.check_contract(learning(whole))


def test_a_manifest_imports_no_module(whole: Dataset, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    lineage = whole.manifest["lineage"]
    declared = {**lineage["declared"], "clean": [{"type": "antigravity.joke"}]}
    manifest = {**whole.manifest, "lineage": {**lineage, "declared": declared}}
    manifest.pop("files")
    with store.draft(f"datasets/people/{whole.id}", manifest=manifest) as folder:
        for split in ("train", "validation", "test"):
            for file in whole.files(split):
                copy = folder / "rows" / file.parent.name / file.name
                copy.parent.mkdir(parents=True)
                copy.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="cannot be learnt from by its name alone"):
        penstock.encode(learning(whole, dataset="people", store=store.url), quiet=True)


def test_an_editor_asks_for_one_of_both() -> None:
    schema = penstock.schema()
    assert "required" not in schema
    assert [each["required"] for each in schema["oneOf"]] == [["source"], ["dataset"]]


@pytest.mark.slow
def test_a_model_of_a_subset_answers_raw_rows(whole: Dataset, tmp_path: Path) -> None:
    outcome = penstock.run(learning(whole), quiet=True)
    assert outcome.dataset is not None and outcome.bundle is not None
    some = penstock.subset(whole.reference, where="age > 30", store=whole.store)
    assert outcome.dataset.reference == some.reference == outcome.run.dataset
    assert outcome.rows()["in"] == some.counts["in"]
    # Requests are derived and mended as the version's rows were.
    answers = outcome.bundle.predict([{"age": None, "city": "Oslo"}])
    assert len(answers) == 1
    plan = penstock.plan(learning(whole))
    assert all(stage["done"] for stage in plan.stages)
    again = penstock.run(learning(whole), quiet=True)
    assert all(again.skipped.values())
    report = penstock.evaluate(outcome.bundle, store=whole.store, quiet=True)
    assert report.path == outcome.report["path"]
    tree = penstock.lineage(whole.reference, store=whole.store)
    assert tree.references("bundle") == [outcome.bundle.reference]
    assert some.reference in tree.references("subset")
