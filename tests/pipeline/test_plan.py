"""A plan is told before anything runs: so it must hold for any words, and what they name must be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.core.errors import RecipeError, StoreError


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    rows = tmp_path / "people.csv"
    rows.write_text(
        "age,job,income\n"
        + "".join(
            f"{20 + i % 50},{'ab'[i % 2]},{'yes' if i % 3 else 'no'}\n"
            for i in range(200)
        )
    )
    return {
        "name": "people",
        "source": {"type": "files", "path": str(rows)},
        "inputs": {"age": "number", "job": "category"},
        "targets": {"income": "binary"},
        "store": str(tmp_path / "store"),
    }


def test_a_batch_beyond_the_rows_costs_no_more_than_the_rows(
    recipe: dict[str, Any],
) -> None:
    stages = {
        stage["stage"]: stage
        for stage in penstock.plan(
            {**recipe, "train": {"batch_size": 10**12, "epochs": 3}}
        )["stages"]
    }
    assert (
        stages["train"]["expects"]["steps"] == 3
        and "steps" in stages["train"]["expects"]["about"]
    )


def test_a_plan_says_that_no_batch_is_left(recipe: dict[str, Any]) -> None:
    assert any(
        "fill no batch of 1,000" in note
        for note in penstock.plan(
            {**recipe, "train": {"batch_size": 1000, "order": {"last": "drop"}}}
        )["notes"]
    )


@pytest.mark.parametrize(
    ("order", "path"),
    [
        ({"weights": "jobb"}, "train.order.weights"),
        ({"mix": {"by": "jobb", "weights": {"a": 1}}}, "train.order.mix.by"),
    ],
)
def test_columns_that_rows_are_drawn_by_must_be_there(
    recipe: dict[str, Any], order: dict[str, Any], path: str
) -> None:
    with pytest.raises(
        RecipeError, match=f"{path}: there is no column 'jobb'. Did you mean 'job'"
    ):
        penstock.check({**recipe, "train": {"order": order}})
    penstock.prepare(recipe)
    # a dataset that is there already is asked as well
    with pytest.raises(RecipeError, match=f"{path}: there is no column 'jobb'"):
        penstock.plan({**recipe, "train": {"order": order}})


def test_a_store_that_nobody_can_make_is_told_in_words(recipe: dict[str, Any]) -> None:
    if not Path("/proc/self").exists():
        pytest.skip(
            "this system has no folder in which none can be made whoever one is (/proc)"
        )
    with pytest.raises(
        StoreError,
        match=r"cannot write /proc/nowhere.*Choose a folder you may write to with --store",
    ):
        penstock.prepare({**recipe, "store": "/proc/nowhere"})
