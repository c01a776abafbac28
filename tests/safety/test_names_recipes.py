"""Names that a recipe gives: of datasets, of trackers' folders, of what is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock import api, cli
from penstock.bundle.bundle import Bundle
from penstock.contracts.learn import Tracker
from penstock.core.errors import (
    RecipeError,
    StoreError,
    UserError,
)
from penstock.core.store import MANIFEST, Store
from penstock.prepare.dataset import Dataset
from penstock.recipe import names
from penstock.recipe.schema import load_recipe
from penstock.run import Run
from tests.safety.bad_names import BAD, ids

pytestmark = pytest.mark.usefixtures("nothing_outside")


@pytest.mark.parametrize(
    "name",
    [
        *[n for n in BAD if n],
        "a/b",
        ".hidden",
        "...",
        "a b",
        "Ⅷ",
        "a\u0301",
        "x" * 101,
        "a\n",
    ],
    ids=ids,
)
def test_a_recipe_s_name_is_one_folder(name):
    with pytest.raises(RecipeError, match="name"):
        load_recipe({"name": name, "source": {"type": "files", "path": "x"}})


@pytest.mark.parametrize(
    "name",
    [
        "CON",
        "nul",
        "Aux",
        "prn",
        "COM1",
        "lpt9",
        "con.csv",
        "NUL.tar.gz",
        "a.",
        "a...",
        "a ",
    ],
)
def test_a_recipe_s_name_can_be_held_by_every_system(name, nothing_outside, capsys):
    recipe = nothing_outside / "recipe.yaml"
    recipe.write_text(
        json.dumps({"name": name, "source": {"type": "files", "path": "x"}}), "utf-8"
    )
    assert cli.main(["check", str(recipe)]) == 2
    told = capsys.readouterr().err
    assert "name: " in told and "Traceback" not in told


def test_a_dataset_is_found_by_its_name_beside_a_version_that_cannot_be_read(
    nothing_outside, capsys
):
    store = Store(nothing_outside / "store")
    shelf = store.folder / "datasets" / "people"
    for id, created in (
        ("0" * 16, "2026-01-01"),
        ("1" * 16, "2026-01-02"),
        ("2" * 16, "2026-01-03"),
    ):
        with store.draft(
            f"datasets/people/{id}",
            manifest={
                "type": "dataset",
                "id": id,
                "name": "people",
                "created": created,
                "counts": {"in": 0},
            },
        ) as draft:
            (draft / "profile.json").write_text("{}")
    (shelf / ("2" * 16) / MANIFEST).write_bytes(b"{")
    with pytest.warns(
        RuntimeWarning,
        match="people@2222222222222222 cannot be read .*people@1111111111111111 is taken",
    ):
        assert Dataset.open(store, reference="people").id == "1" * 16
    with pytest.raises(StoreError):
        Dataset.open(store, reference="people@" + "2" * 16)
    for id in "01":
        (shelf / (id * 16) / MANIFEST).write_bytes(b"[]")
    with pytest.raises(
        StoreError, match="has no version of the dataset 'people' that can be read"
    ) as raised:
        Dataset.open(store, reference="people")
    assert all(f"people@{id * 16}" in str(raised.value) for id in "012")


@pytest.mark.parametrize(
    "name",
    [
        "adult-income",
        "a.b",
        "A_1",
        "-x",
        "x" * 100,
        "concert",
        "nullable",
        "com10",
        "a.con",
    ],
)
def test_a_usual_name_stays(name):
    assert (
        load_recipe({"name": name, "source": {"type": "files", "path": "x"}}).name == name
    )


TRACKED = [
    *[n for n in BAD if n != "."],
    ".",
    "checkpoints",
    "checkpoints/x",
    "manifest.json",
    "events.jsonl",
    "run.json",
    "model.safetensors",
    "report",
]


@pytest.mark.parametrize("name", TRACKED, ids=ids)
def test_a_tracker_s_folder_is_below_the_run(name):
    with pytest.raises(RecipeError, match=r"below the run's|half of a surrogate pair"):
        load_recipe(
            {
                "name": "x",
                "source": {"type": "files", "path": "x"},
                "trackers": [{"type": "tensorboard", "folder": name}],
            }
        )


def test_a_tracker_s_folder_that_is_a_link(tmp_path, nothing_outside):
    (nothing_outside / "tensorboard").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="a link leads it out"):
        Tracker.load("tensorboard").sink(nothing_outside)


def _named(name: str, folder: Path) -> dict[str, object]:
    rows = "".join(f"{i % 17},{'yes' if i % 17 > 8 else 'no'}\n" for i in range(80))
    (folder / "rows.csv").write_text("a,y\n" + rows)
    return {
        "name": name,
        "source": {"type": "files", "path": str(folder / "rows.csv")},
        "inputs": {"a": "number"},
        "targets": {"y": "category"},
        "train": {"epochs": 1},
        "evaluate": {"bootstrap": 10},
    }


@pytest.mark.parametrize("name", ["con", "a.", "NUL.csv", "lpt1"])
def test_a_name_that_not_every_system_holds_is_refused_where_something_is_made(
    name: str, nothing_outside: Path
) -> None:
    recipe = _named(name, nothing_outside)
    load_recipe(recipe)  # whoever only opens what was made is not asked
    for make in (
        lambda: api.check(recipe),
        lambda: api.check(recipe, data=False),
        lambda: api.plan(recipe, store=nothing_outside / "store"),
        lambda: api.prepare(recipe, store=nothing_outside / "store"),
        lambda: api.launch(recipe, scheduler="slurm", store="/mnt/store"),
    ):
        with pytest.raises(RecipeError, match="names a folder of the store"):
            make()


@pytest.mark.parametrize("name", ["con", "a."])
@pytest.mark.slow
def test_what_an_earlier_version_made_under_such_a_name_opens(
    name: str, nothing_outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = nothing_outside / "store"
    with monkeypatch.context() as earlier:
        earlier.setattr(names, "unportable", lambda name: None)
        outcome = api.run(_named(name, nothing_outside), store=root)
    store = Store(root)
    assert Dataset.open(store, reference=f"{name}@{outcome.dataset.id}").name == name
    assert Run.open(store, reference=outcome.run.id).recipe().name == name
    bundle = Bundle.open(f"bundle-{outcome.bundle.id}", store=store)
    assert bundle.recipe().name == name
    rows, answers = nothing_outside / "rows.csv", nothing_outside / "answers.csv"
    api.predict(bundle.path, source=rows, output=answers, store=root)
    assert (nothing_outside / "answers.csv").read_text().count("\n") == 81
    api.evaluate(bundle.path, store=root)
    assert cli.main(["list", "bundles", "--store", str(root)]) == 0
    with pytest.raises(UserError, match="nothing is left to resume"):
        api.resume(outcome.run.id, store=root)
    for reference in (
        outcome.run.id,
        f"bundle-{outcome.bundle.id}",
        f"{name}@{outcome.dataset.id}",
    ):
        assert cli.main(["show", reference, "--store", str(root)]) == 0
