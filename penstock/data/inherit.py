"""What a feature takes over from an earlier bundle instead of learning it anew (`fitted_from`), so that an encoder taken from
there finds its tokens, edges and classes where it left them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from penstock.contracts.data import Feature, Fitted
from penstock.contracts.part import is_loaded, no_foreign_code
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import did_you_mean
from penstock.core.store import Store
from penstock.recipe.bundled import open_bundle

_MAY_DIFFER = frozenset({"column", "na", "augment", "fitted_from"})
"""What changes neither arrays nor their meaning."""


def inherited(features: Mapping[str, Feature], side: Literal["inputs", "targets"], store: Store, *, where: str) -> dict[str, Fitted]:
    """By feature, what the bundle that it names has fitted for the feature of the same name and declaration.

    Raises:
        RecipeError: a bundle has no such feature, or declares it otherwise; every problem at once.
        StoreError: there is no such bundle in the store.
    """
    found: dict[str, Fitted] = {}
    problems: list[Problem] = []
    for name, feature in features.items():
        if feature.fitted_from is None:
            continue
        folder = open_bundle(store, feature.fitted_from)
        encoding = json.loads((folder / "bundle.json").read_text("utf-8"))["encoding"]
        path = (side, name, "fitted_from")
        theirs = encoding[side].get(name)
        if theirs is None:
            known = list(encoding[side])
            problems.append(Problem(path, f"{feature.fitted_from} has no {side.removesuffix('s')} {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}."))
            continue
        if theirs["type"] != feature.type:
            problems.append(Problem(path, f"is of type {theirs['type']!r} in {feature.fitted_from}, and {feature.type!r} here"))
            continue
        with no_foreign_code(but=is_loaded):
            there, here = Feature.load(theirs).declared(), feature.declared()
        differing = [word for word in here if word not in _MAY_DIFFER and here[word] != there[word]]
        problems += [Problem((side, name, word), f"is {here[word]!r} here and {there[word]!r} in {feature.fitted_from}, which it takes over; they must agree") for word in differing]
        if not differing:
            found[name] = json.loads((folder / "fitted.json").read_text("utf-8"))[name]
    if problems:
        raise RecipeError.of(problems, where=where)
    return found
