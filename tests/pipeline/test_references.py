"""What a user may call an artefact: its beginning, or the name of its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.core.errors import StoreError, UserError
from penstock.core.store import Store
from penstock.pipeline.references import whole_reference
from penstock.run import Run

KEY = "0123456789abcdef"


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    rows = "".join(f"{20 + i % 50},{'yes' if i % 3 else 'no'}\n" for i in range(60))
    (tmp_path / "people.csv").write_text("age,income\n" + rows)
    return {
        "name": "people",
        "source": {"type": "files", "path": str(tmp_path / "people.csv")},
        "inputs": {"age": "number"},
        "targets": {"income": "binary"},
        "store": str(tmp_path / "store"),
    }


def test_the_beginning_of_a_reference_is_enough(recipe: dict[str, Any]) -> None:
    dataset = penstock.prepare(recipe)
    store = Store(recipe["store"])
    begun = [
        Run.create(
            store,
            recipe=penstock.check(recipe),
            dataset=dataset.reference,
            feed="f",
            key=KEY,
        )
        for _ in range(2)
    ]
    ids = [run.id for run in begun]
    assert Run.open(store, reference=ids[0][:-1]).id == ids[0]
    with pytest.raises(UserError, match="is the beginning of 2 runs"):
        Run.open(store, reference=ids[0][:9])
    with pytest.raises(UserError, match="There is no run 'run-'"):
        Run.open(store, reference="run-")
    assert penstock.Dataset.open(store, reference=dataset.reference[:-4]).id == dataset.id
    with pytest.raises(StoreError, match="has no dataset people@ffff"):
        penstock.Dataset.open(store, reference="people@ffff")


def test_a_name_means_the_newest_run_and_else_the_dataset(recipe: dict[str, Any]) -> None:
    dataset = penstock.prepare(recipe)
    where = recipe["store"]
    assert penstock.show("people", store=where).reference == dataset.reference
    run = Run.create(
        Store(where),
        recipe=penstock.check(recipe),
        dataset=dataset.reference,
        feed="f",
        key=KEY,
    )
    shown = penstock.show("people", store=where)
    assert shown.reference == run.id and shown["curve"] == []
    with pytest.raises(UserError, match="There is nothing called 'peple'"):
        penstock.show("peple", store=where)


def test_a_name_comes_before_an_id_that_begins_so(recipe: dict[str, Any]) -> None:
    dataset = penstock.prepare({**recipe, "name": "31d1"})
    store = Store(recipe["store"])
    with store.draft("reports/31d1000000000000", manifest={}):
        pass
    assert whole_reference("31d1", store) == dataset.reference
    assert whole_reference("31d10", store) == "31d1000000000000"


def test_a_list_without_a_shelf_has_all(recipe: dict[str, Any]) -> None:
    dataset = penstock.prepare(recipe)
    (only,) = penstock.list_artefacts(store=recipe["store"])
    assert only["shelf"] == "datasets" and only.reference == dataset.reference


def test_nouns_show_themselves_and_escape_what_is_in_them(recipe: dict[str, Any]) -> None:
    dataset = penstock.prepare({**recipe, "derive": {"<b>x": "age + 1"}})
    page = dataset._repr_html_()
    assert dataset.reference in page and "&lt;b&gt;x" in page and "<b>x" not in page
    store = Store(recipe["store"])
    run = Run.create(
        store, recipe=penstock.check(recipe), dataset=dataset.reference, feed="f", key=KEY
    )
    assert run.id in run._repr_html_() and "people" in run._repr_html_()
    plan = penstock.plan(recipe)
    assert "Plan" in plan._repr_html_()
