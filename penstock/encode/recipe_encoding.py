"""The encodings that a recipe declares: of one row of its data, and of one sample as a request holds it."""

from __future__ import annotations

from penstock.contracts.features import Feature, SeriesFeature
from penstock.encode.encoding import Encoding
from penstock.recipe.schema import Recipe


def sample_encoding(recipe: Recipe) -> Encoding:
    """The recipe's features as requests know them: with `samples`, a series is one column of lists."""
    if recipe.samples is None:
        return Encoding(recipe.inputs, recipe.targets, weight=recipe.weight)
    sides = [
        {name: _whole(name, feature) for name, feature in side.items()}
        for side in (recipe.inputs, recipe.targets)
    ]
    return Encoding(sides[0], sides[1], weight=recipe.weight)


def row_encoding(recipe: Recipe) -> Encoding:
    """The recipe's features of a single row of the data: with `samples`, of one step."""
    if recipe.samples is None:
        return Encoding(recipe.inputs, recipe.targets, weight=recipe.weight)
    sides = [
        {name: _step(feature) for name, feature in side.items()}
        for side in (recipe.inputs, recipe.targets)
    ]
    return Encoding(sides[0], sides[1], weight=recipe.weight)


def _whole(name: str, feature: Feature) -> Feature:
    return feature.whole(name) if isinstance(feature, SeriesFeature) else feature


def _step(feature: Feature) -> Feature:
    return feature.step() if isinstance(feature, SeriesFeature) else feature
