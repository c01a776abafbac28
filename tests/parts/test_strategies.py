"""Strategies: their laws, a stranger's, and recipes from when their options stood beside them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from penstock.contracts.foreign import no_foreign_code
from penstock.contracts.strategy import Strategy
from penstock.core.errors import RecipeError
from penstock.core.identity import fingerprint
from penstock.pipeline.stages import train_key
from penstock.recipe.schema import load_recipe
from penstock.testing.laws import strategies as laws

DECLARED = [
    "ddp",
    "fsdp",
    {"type": "local_sgd", "every": 3},
    {"type": "local_sgd", "every": 5, "outer": "nesterov"},
    {"type": "local_sgd", "every": 100},
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


@pytest.fixture(scope="module")
def trials():
    loaded = [Strategy.load(words) for words in DECLARED]
    return dict(
        zip(
            map(str, DECLARED),
            zip(loaded, laws.observe(loaded), strict=True),
            strict=True,
        )
    )


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("words", DECLARED, ids=str)
def test_laws(trials, words, law):
    law(*trials[str(words)])


def test_every_type_on_the_shelf_is_judged():
    assert {d if isinstance(d, str) else d["type"] for d in DECLARED} == set(
        Strategy.types()
    )


def test_a_law_names_what_it_finds(trials):
    strategy, good = trials["ddp"]
    bad = laws.Trials(good.alone, [good.together[0], good.resumed[1]], good.resumed)
    with pytest.raises(AssertionError, match="alike: rank 1 agrees at"):
        laws.alike(strategy, bad)
    with pytest.raises(
        AssertionError, match="ranks step together, and do not always agree"
    ):
        laws.apart(_Odd(), good)


class _Odd(type(Strategy.load("ddp"))):
    def agrees(self, step):
        return step % 2 == 0


@pytest.mark.parametrize(
    ("words", "id", "key"),
    [
        ({"strategy": "ddp"}, "d7734f5aa0d0dfaf", "c1762128cea130c6"),
        (
            {"strategy": "ddp", "gradients": "bf16"},
            "8ca19419ed87a213",
            "084aa55058af9acc",
        ),
        (
            {"strategy": "fsdp", "activation_checkpointing": True},
            "5d34e86ace840a89",
            "211212473dab9355",
        ),
        ({"strategy": "local_sgd"}, "e69ee33d97105644", "220e8db0ffa3daa3"),
        (
            {"strategy": "local_sgd", "every": 16, "outer": "average"},
            "d50f24addeb6516f",
            "d9374af52f03fa38",
        ),
        (
            {
                "strategy": {
                    "type": "local_sgd",
                    "every": 4,
                    "outer": {"type": "nesterov", "lr": 0.5},
                },
                "gradients": {"type": "topk", "share": 0.1},
            },
            "c6876446ec8ae835",
            "ed712e1d79abd70f",
        ),
    ],
)
def test_a_recipe_from_before_these_were_parts_has_the_same_ids(words, id, key):
    recipe = load_recipe({**SMALL, "parallel": words}, name="golden")
    assert (words_id(recipe), train_key(recipe, SimpleNamespace(id="0" * 16))) == (
        id,
        key,
    )
    again = load_recipe(recipe.to_dict())
    assert again == recipe
    assert words_id(again) == id


def test_options_stand_beside_the_strategy_or_in_it():
    beside = load_recipe(
        {**SMALL, "parallel": {"strategy": "local_sgd", "every": 4, "outer": "nesterov"}}
    )
    within = load_recipe(
        {
            **SMALL,
            "parallel": {
                "strategy": {"type": "local_sgd", "every": 4, "outer": "nesterov"}
            },
        }
    )
    assert beside == within
    assert within.to_dict()["parallel"] == {
        "strategy": "local_sgd",
        "every": 4,
        "outer": {"type": "nesterov", "lr": 0.7, "momentum": 0.9},
        "gradients": None,
        "batchnorm": "each",
        "activation_checkpointing": False,
    }


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"every": 4}, "parallel.every: is for local_sgd and has no effect with ddp"),
        (
            {"strategy": "local_sgd", "every": 0},
            "parallel.every: must be at least 1; found 0",
        ),
        (
            {"strategy": "local_sgd", "outer": {"lr": 0.1}},
            "parallel.outer.lr: has no effect with `average`",
        ),
        (
            {"strategy": {"type": "local_sgd", "every": 4}, "every": 3},
            "parallel.every: is given twice",
        ),
        (
            {"strategy": {"type": "local_sgd", "evry": 4}},
            "parallel.strategy.evry: is not a known option. Did you mean 'every'?",
        ),
        ({"strategy": 3, "every": 4}, "parallel.strategy: expected a strategy"),
        (
            {"strategy": "fsdp", "gradients": "fp16"},
            "parallel.gradients: is for ddp and local_sgd",
        ),
    ],
)
def test_what_contradicts_itself_is_told_where_it_was_written(words, text):
    with pytest.raises(RecipeError) as caught:
        load_recipe({**SMALL, "parallel": words})
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "word", ["parallel.strategy", "train.optimiser", "train.schedule"]
)
def test_a_strangers_is_refused_where_code_is_not_trusted(word):
    section, name = word.split(".")
    with no_foreign_code(), pytest.raises(RecipeError, match="runs only with --trust"):
        load_recipe({**SMALL, section: {name: {"type": "acme_own.thing"}}})
    assert "acme_own" not in sys.modules
