"""Encoders that stay as they came (transfer learning): which modules `train.freeze` means, and holding them
still.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from penstock.core.errors import Problem, RecipeError
from penstock.core.near import Hints, listed
from penstock.model import networks_of
from penstock.recipe.schema import Recipe


def encoder_keys(
    network: nn.Module, inputs: Iterable[str], recipe: Recipe, path: tuple[str, ...]
) -> list[str]:
    """The names of the encoder modules of these inputs.

    Raises:
        RecipeError: there is no such input, it is encoded together with one that is not among `inputs`, or
            the model is the user's own.
    """
    chosen = list(inputs)
    problems: list[Problem] = []
    keys: dict[str, None] = {}
    hint = Hints(recipe.inputs)
    # All members of an ensemble have the same encoders.
    encoded = next((one.encoded for one in networks_of(network).values()), None)
    for name in chosen:
        if encoded is None:
            problems.append(
                Problem(
                    path,
                    "names inputs, but only models built of encoders can freeze them. In your"
                    " own module, set `requires_grad`",
                )
            )
            break
        key = next((key for key, names in encoded.items() if name in names), None)
        if key is None:
            problems.append(
                Problem(
                    path,
                    f"{name!r} is not an input.{hint(name)} Known: {listed(recipe.inputs)}.",
                )
            )
        elif others := [other for other in encoded[key] if other not in chosen]:
            # A module is frozen whole: half of its inputs cannot stay as they are.
            problems.append(
                Problem(
                    path,
                    f"{name!r} shares its encoder with {', '.join(map(repr, others))}. Name all"
                    " of them, or none",
                )
            )
        else:
            keys[key] = None
    if problems:
        raise RecipeError.of(
            problems, where=f"the recipe {recipe.name}" if recipe.name else "the recipe"
        )
    return list(keys)


def freeze(network: nn.Module, recipe: Recipe) -> list[nn.Module]:
    """The encoders that `train.freeze` names, their weights no longer moved.

    They must stay in eval mode while others train, so that neither dropout nor a norm's running means change
    what they say.

    Raises:
        RecipeError: as `encoder_keys`.
    """
    keys = encoder_keys(network, recipe.train.freeze, recipe, ("train", "freeze"))
    frozen = [one.encoders[key] for one in networks_of(network).values() for key in keys]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


__all__ = ["encoder_keys", "freeze"]
