"""A recipe on its way to another process of the same training, over a wire that proves nothing.

Every process was started with the same command, and so was given the same recipe by its user. What arrives is
read as a recipe from elsewhere is, but that code which this process's own command has named may be named
again; so a message brings no code, and no secret: those come from the own recipe, or the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from penstock.contracts.foreign import no_foreign_code, was_given
from penstock.core.errors import TrainingError
from penstock.recipe.code import modules_of
from penstock.recipe.schema import Recipe, load_recipe
from penstock.recipe.secret import with_secrets, without_secrets


def to_send(recipe: Recipe) -> dict[str, Any]:
    """What a recipe declares, as JSON without its secrets, and its folder."""
    return {"declared": without_secrets(recipe.to_dict()), "base": str(recipe.base)}


def received(message: Any) -> Recipe:
    """The recipe that `to_send` was given, with this process's own secrets.

    Raises:
        RecipeError: it does not hold, or names code that this process was not given.
        TrainingError: the message is none of `to_send`.
        UserError: a secret of it is not known here.
    """
    if isinstance(message, Recipe):
        return message
    words = message if isinstance(message, Mapping) else {}
    declared, base = words.get("declared"), words.get("base")
    if not isinstance(declared, Mapping) or not isinstance(base, str):
        raise TrainingError("another process has sent what is no recipe.")
    with no_foreign_code(but=was_given):
        recipe = load_recipe(with_secrets(declared, strict=True), base=Path(base))
    if all(was_given(module) for module in modules_of(recipe)):
        recipe.take_as_given()
    return recipe


SentRecipe = Annotated[Recipe, PlainSerializer(to_send), PlainValidator(received)]
"""A recipe as an argument of what is launched (`contracts.tasks`)."""


__all__ = ["SentRecipe", "received", "to_send"]
