"""The words of `train.order`: what contradicts itself, or names what is not there, is told with its path."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.errors import RecipeError
from penstock.recipe.order import TrainOrder
from penstock.recipe.schema import Recipe, load_recipe

BASE: dict[str, Any] = {
    "source": {"type": "files", "path": "x.csv"},
    "inputs": {"a": "number", "c": "category"},
    "targets": {"y": "binary"},
}


def loaded(order: Any, **words: Any) -> Recipe:
    return load_recipe({**BASE, "train": {"order": order}, **words})


def test_a_word_is_how_to_shuffle() -> None:
    assert (
        loaded("blocks").train.order == TrainOrder(shuffle="blocks")
        and load_recipe(BASE).train.order == TrainOrder()
    )
    declared = loaded(
        {"mix": {"by": "lang", "weights": {"en": 1}}, "epoch_rows": 9}
    ).to_dict()
    assert load_recipe(declared).to_dict() == declared


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (
            {"balance": "y", "mix": {"by": "q", "weights": {"a": 1}}},
            r"train\.order\.balance: and `mix` both say how often",
        ),
        (
            {"balance": "y", "replacement": True},
            r"train\.order\.replacement: cannot be combined with `balance`",
        ),
        ({"weights": "w", "shuffle": "full"}, "draws rows at random"),
        ({"epoch_rows": 3}, r"train\.order\.epoch_rows: is for rows that are drawn"),
        ({"block": 3, "shuffle": "stored"}, r"block: is for `shuffle: blocks`"),
        ({"window": 0}, "window: must be at least 1"),
        ({"block": 0}, "block: must be at least 1 row; found 0"),
        ({"fraction": 2}, r"train\.order\.fraction"),
        (
            {"balance": "cc"},
            (
                r"train\.order\.balance: is 'cc', which is no category or binary feature\. Did you mean .c.\?"
                r" Those are: c, y"
            ),
        ),
        ({"balance": "a"}, "Those are: c, y"),
        ({"weigths": "w"}, "Did you mean 'weights'"),
        ("fulll", "expected one of auto, full, blocks, stored"),
        ({"mix": {"by": "q", "weights": {}}}, r"order\.mix\.weights"),
        (
            {"mix": {"by": "q", "weights": {"a": -1, "b": 2}}},
            r"order\.mix\.weights: must be numbers from 0, and one above 0; found -1, 2",
        ),
        ({"mix": {"by": "q", "weights": {"a": 0}}}, "one above 0; found 0"),
    ],
)
def test_what_contradicts_itself_is_refused(order: Any, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        loaded(order)


def test_what_the_rest_of_the_recipe_forbids() -> None:
    with pytest.raises(RecipeError, match="which is the recipe's `weight` too"):
        loaded({"weights": "w"}, weight="w")
    series = {
        "samples": {"time": "t"},
        "split": {"by": "time", "on": "t"},
        "inputs": {"past": {"type": "series", "columns": ["v"], "window": 3}},
        "targets": {"next": {"type": "series", "columns": ["v"], "horizon": 2}},
    }
    with pytest.raises(
        RecipeError, match=r"train\.order\.weights: is for rows, and here a sample"
    ):
        loaded({"weights": "w"}, **series)
    assert (
        loaded({"shuffle": "blocks", "fraction": 0.5}, **series).train.order.an_epoch(11)
        == 6
    )


def test_rows_of_an_epoch() -> None:
    assert [
        TrainOrder.model_validate(words).an_epoch(100)
        for words in (
            {},
            {"fraction": 0.3},
            {"fraction": 0.001},
            {"replacement": True, "epoch_rows": 7},
        )
    ] == [100, 30, 1, 7]
    assert TrainOrder(fraction=0.5).an_epoch(0) == 0
