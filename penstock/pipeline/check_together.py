"""Mistakes of a recipe's own words and those of its data, told together.

Words that do not exist would hide what is wrong with the values until they are mended. So the rest of the
recipe, without the features and sections that are mistaken, is held against the data as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.core.errors import Problem, RecipeError, SourceError
from penstock.core.events import Events
from penstock.pipeline.check_data import data_problems
from penstock.pipeline.first_look import Draft
from penstock.recipe.read import read_recipe
from penstock.recipe.schema import Recipe, load_recipe

_MAY_LACK = ("train", "model", "evaluate", "serve", "resources")
"""Sections that say nothing of the data."""


@contextmanager
def with_data(recipe: Any, overrides: Sequence[str], events: Events) -> Iterator[None]:
    """Add to the mistakes of a recipe that is loaded within those that its data shows.

    Raises:
        RecipeError: all of them.
    """
    try:
        yield
    except RecipeError as error:
        more = _of_the_rest(recipe, overrides, error.problems, events)
        if not more:
            raise
        where = str(recipe) if isinstance(recipe, (str, Path)) else "the recipe"
        raise RecipeError.of([*error.problems, *more], where=where) from error


def _of_the_rest(
    recipe: Any, overrides: Sequence[str], problems: Sequence[Problem], events: Events
) -> list[Problem]:
    """What the data says of a recipe's other words; nothing where they are not whole."""
    if isinstance(recipe, (str, Path)) and not isinstance(recipe, Draft) and problems:
        words, base = read_recipe(Path(recipe)), Path(recipe).resolve().parent
    elif isinstance(recipe, Mapping) and problems:
        words, base = recipe, Path.cwd()
    else:
        return []
    rest = _without(words, problems)
    if rest is None:
        return []
    try:
        whole = load_recipe(rest, overrides, base=base)
    # What is left hangs on what was taken away.
    except RecipeError:
        return []
    return [] if whole.dataset is not None else _beside(whole, events, problems)


def _without(
    words: Mapping[str, Any], problems: Sequence[Problem]
) -> dict[str, Any] | None:
    """Return a recipe's words without the features and sections that are mistaken; None where others are."""
    rest = {k: dict(v) if isinstance(v, Mapping) else v for k, v in words.items()}
    for problem in problems:
        section = str(problem.path[0]) if problem.path else ""
        if section in _MAY_LACK:
            rest.pop(section, None)
        elif section in ("inputs", "targets") and len(problem.path) > 1:
            features = rest.get(section)
            if not isinstance(features, dict):
                return None
            features.pop(str(problem.path[1]), None)
        else:
            return None
    return rest


def _beside(recipe: Recipe, events: Events, problems: Sequence[Problem]) -> list[Problem]:
    """Return what the data says of the rest of a recipe, some of whose words are mistaken.

    Args:
        recipe: without what is mistaken.
        problems: of those words; a problem of the same place is not repeated.
    """
    try:
        others, _ = data_problems(recipe, events)
    # Of a source that cannot be read only the recipe's own mistakes are known.
    except (SourceError, RecipeError):
        return []
    places = {problem.path[:2] for problem in problems}
    return [p for p in others if len(p.path) > 1 and p.path[:2] not in places]
