"""The targets' specs with the weights of their classes (`train.class_weights`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import Problem
from penstock.core.near import Hints
from penstock.model.choices import Encoding, raise_any
from penstock.recipe.schema import Recipe


def target_specs(recipe: Recipe, encoding: Encoding) -> FeatureSpecs:
    """The targets' specs, with the fact `weights` (one a class, in the order of `classes`) where the recipe
    weighs classes.

    `balanced` weighs class c of K by rows / (K · rows of c), so that the average row weighs 1.

    Raises:
        RecipeError: weights for a target without classes, or for a class that is not there.
    """
    specs = {name: dict(arrays) for name, arrays in encoding.specs("targets").items()}
    problems: list[Problem] = []
    for name, wanted in recipe.train.class_weights.items():
        path = ("train", "class_weights", name)
        array = next(
            # The one array of a target that has classes.
            (a for a, spec in specs.get(name, {}).items() if spec.facts.get("classes")),
            None,
        )
        if array is None:
            problems.append(
                Problem(
                    path,
                    "has no classes to weight: only binary and category targets have",
                )
            )
            continue
        facts = specs[name][array].facts
        classes = [str(c) for c in facts["classes"]]
        if isinstance(wanted, str):
            weights = _balanced(facts)
        else:
            problems += _wrong_weights(name, path, wanted, classes)
            # A class that is not named weighs 1.
            weights = [float(wanted.get(c, 1.0)) for c in classes]
        specs[name][array] = replace(
            specs[name][array], facts={**facts, "weights": weights}
        )
    raise_any(recipe, problems)
    return specs


def _balanced(facts: Mapping[str, Any]) -> list[float]:
    # A class that the training split lacks counts as one row: no weight is infinite.
    counts = [max(float(c), 1.0) for c in facts["counts"]]
    return [sum(counts) / (len(counts) * c) for c in counts]


def _wrong_weights(
    name: str, path: tuple[str, ...], wanted: Mapping[str, float], classes: list[str]
) -> list[Problem]:
    hint, known = Hints(classes), set(classes)
    shown = f"{', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}"
    unknown = [
        Problem((*path, c), f"is not a class of {name!r}.{hint(c)} Known: {shown}.")
        for c in wanted
        if c not in known
    ]
    negative = [
        Problem((*path, c), f"must not be negative; found {w:g}")
        for c, w in wanted.items()
        if w < 0
    ]
    return unknown + negative
