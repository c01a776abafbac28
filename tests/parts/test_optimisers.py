"""Optimisers and schedules: their laws, and recipes from when each family was one record."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from penstock.contracts.optim import Optimiser, Schedule
from penstock.core.errors import RecipeError
from penstock.core.identity import fingerprint
from penstock.pipeline.stages import train_key
from penstock.recipe.schema import load_recipe
from penstock.testing.laws import optimisers, schedules

OPTIMISERS = [
    "adamw",
    {"type": "adamw", "betas": [0.5, 0.9]},
    "sgd",
    {"type": "sgd", "momentum": 0},
]
SCHEDULES = [
    "constant",
    {"type": "constant", "warmup": 0},
    "cosine",
    {"type": "cosine", "floor": 0, "warmup": 0.5},
    "plateau",
    {"type": "plateau", "patience": 1, "factor": 0.1, "floor": 0.3},
]
SMALL = {
    "source": {"type": "files", "path": "lake"},
    "inputs": {"age": "number"},
    "targets": {"income": "binary"},
}


def words_id(recipe):
    """The id of the words that these families have in a recipe; other words may be added to it."""
    plain = recipe.to_dict()
    return fingerprint(
        plain["train"]["optimiser"], plain["train"]["schedule"], plain["parallel"]
    )


@pytest.mark.parametrize("law", optimisers.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("words", OPTIMISERS, ids=str)
def test_laws_of_optimisers(words, law):
    law(Optimiser.load(words))


@pytest.mark.parametrize("law", schedules.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("words", SCHEDULES, ids=str)
def test_laws_of_schedules(words, law):
    law(Schedule.load(words))


@pytest.mark.parametrize(
    ("family", "judged"), [(Optimiser, OPTIMISERS), (Schedule, SCHEDULES)]
)
def test_every_type_on_the_shelves_is_judged(family, judged):
    assert {
        words if isinstance(words, str) else words["type"] for words in judged
    } == set(family.types())


@pytest.mark.parametrize(
    ("train", "id", "key"),
    [
        ({}, "d7734f5aa0d0dfaf", "c1762128cea130c6"),
        (
            {"optimiser": "adamw", "schedule": "cosine"},
            "d7734f5aa0d0dfaf",
            "c1762128cea130c6",
        ),
        ({"optimiser": {"betas": [0.8, 0.99]}}, "6833b2ed2bcb15b7", "b147f76fd6273df0"),
        (
            {"optimiser": "sgd", "schedule": "constant"},
            "5081842d8c90966c",
            "a95a9e5fef7a256b",
        ),
        (
            {
                "optimiser": {
                    "type": "sgd",
                    "momentum": 0,
                    "nesterov": False,
                    "betas": [0.9, 0.999],
                }
            },
            "a88474e529bcf28b",
            "229699eca90598c2",
        ),
        (
            {"schedule": {"type": "constant", "warmup": 0, "floor": 0.2}},
            "da79c74261a4ddf4",
            "b7ec3eaa55d56034",
        ),
        (
            {"schedule": {"floor": 0.1, "factor": 0.3, "patience": 3}},
            "34526e7a5233d09f",
            "ed686e660f3c6a23",
        ),
        (
            {
                "schedule": {
                    "type": "plateau",
                    "factor": 0.3,
                    "patience": 1,
                    "floor": 0.05,
                    "warmup": 0.1,
                }
            },
            "5d90f3798995ab12",
            "239538a1cd8c3181",
        ),
    ],
)
def test_a_recipe_from_before_these_were_parts_has_the_same_ids(train, id, key):
    recipe = load_recipe({**SMALL, "train": train}, name="golden")
    feed = SimpleNamespace(id="0" * 16)
    assert (words_id(recipe), train_key(recipe, feed)) == (id, key)
    again = load_recipe(recipe.to_dict())
    assert again == recipe
    assert words_id(again) == id


def test_what_was_written_of_them_holds_the_words_of_all_types():
    train = load_recipe(SMALL).to_dict()["train"]
    assert train["optimiser"] == {
        "type": "adamw",
        "betas": [0.9, 0.999],
        "momentum": 0.9,
        "nesterov": True,
    }
    assert train["schedule"] == {
        "type": "cosine",
        "warmup": 0.05,
        "floor": 0.01,
        "factor": 0.5,
        "patience": 2,
    }


def test_words_of_other_types_are_checked_like_their_own():
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            {
                **SMALL,
                "train": {
                    "optimiser": {"type": "adamw", "momentum": 2, "nesterov": False},
                    "schedule": {"type": "constant", "floor": -1, "factr": 0.5},
                },
            }
        )
    text = str(caught.value)
    assert "train.optimiser.momentum: must be less than 1; found 2" in text
    assert "train.optimiser.nesterov: has no effect with adamw" in text
    assert "train.schedule.factr: is not a known option." in text


def test_words_that_change_nothing_are_told_apart():
    schedule = Schedule.load({"type": "constant", "floor": 0.2, "factor": 0.5})
    assert schedule.unheeded == ["floor"]
    assert schedule != Schedule.load("constant")
    assert Schedule.load("cosine").unheeded == []


def test_their_schema_lets_what_was_written_pass():
    options = {
        option["properties"]["type"]["const"]: option["properties"]
        for option in Optimiser.__get_pydantic_json_schema__(None, None)["anyOf"]
        if option["type"] == "object"
    }
    assert options["adamw"].keys() == {"type", "betas", "momentum", "nesterov"}
    assert options["adamw"]["momentum"]["deprecated"]
