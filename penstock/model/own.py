"""The user's own `nn.Module` as the model: imported, made and tried on a small batch before it is trained.

What it answers is looked at here, so that a wrong shape is a sentence at once and no error deep in a loss.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penstock.contracts.foreign import foreign_code_allowed
from penstock.contracts.learn import Decoder, Encoded, model_inputs
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import did_you_mean
from penstock.model.fake import fake_batch
from penstock.model.seeding import seeded
from penstock.recipe.schema import OwnModel, Recipe

_ROWS = 3
"""Of the batch that a module is tried on; no width of a target is likely to be the same by chance."""


class OwnNetwork(nn.Module):
    """The user's module, given the arrays of the inputs and nothing else: never a target."""

    def __init__(self, module: nn.Module, inputs: list[str]) -> None:
        super().__init__()
        self.module = module
        self.inputs = inputs

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raw: dict[str, Tensor] = self.module({name: batch[name] for name in self.inputs})
        return raw


def build_own(
    recipe: Recipe,
    model: OwnModel,
    inputs: FeatureSpecs,
    targets: FeatureSpecs,
    decoders: Mapping[str, Decoder],
    *,
    seed: int,
) -> OwnNetwork:
    """The user's module, initialised from `seed` alone.

    Args:
        recipe: for its name, and whether it is the user's own.
        model: names the class (`module:Class`) and its arguments.
        inputs: the specs; its argument `specs`, if it takes one.
        targets: the specs; its argument `targets`, if it takes one.
        decoders: by target, what reads its answer, a float tensor of the decoder's raw shape.
        seed: of its weights.

    Raises:
        RecipeError: it may not be run, cannot be imported or made, fails on a small batch, or answers with
            anything but one float tensor of the right shape a target.
    """
    # Before anything is imported: importing runs the code.
    if not (foreign_code_allowed() and recipe.is_given):
        raise _refusal(
            recipe,
            f"the model {model.type!r} is code that is not part of Penstock. It runs only"
            " with --trust",
            "type",
        )
    module_class = _find_class(recipe, model)
    arguments = _arguments(recipe, model, module_class, inputs, targets)
    # Making and trying both draw from chance, and the caller's state stays as it is.
    with seeded(seed, "model"):
        try:
            network = OwnNetwork(module_class(**arguments), model_inputs(inputs))
        except Exception as error:
            raise _refusal(
                recipe, f"{model.type} could not be made: {type(error).__name__}: {error}"
            ) from error
        try:
            raw = _try(network, inputs)
        except Exception as error:
            raise _refusal(
                recipe,
                f"{model.type} failed on a small batch: {type(error).__name__}: {error}",
            ) from error
    wanted = {
        name: _raw_shape(decoder, targets[name]) for name, decoder in decoders.items()
    }
    _check_answer(recipe, model, raw, wanted)
    return network


def _refusal(recipe: Recipe, text: str, *path: str) -> RecipeError:
    where = f"the recipe {recipe.name}" if recipe.name else "the recipe"
    return RecipeError.of([Problem(("model", *path), text)], where=where)


def _find_class(recipe: Recipe, model: OwnModel) -> type[nn.Module]:
    module_name, _, class_name = model.type.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _refusal(
            recipe,
            f"cannot import {module_name!r}: {error}. Put it beside the recipe, or install its package",
            "type",
        ) from error
    named = getattr(module, class_name, None)
    if inspect.isclass(named) and issubclass(named, nn.Module):
        return named
    # What the module only imported (`nn.Linear`) is no suggestion.
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and value.__module__ == module.__name__
    ]
    raise _refusal(
        recipe,
        f"{module_name!r} has no torch.nn.Module called {class_name!r}.{did_you_mean(class_name, own)}",
        "type",
    )


def _arguments(
    recipe: Recipe,
    model: OwnModel,
    module_class: type[nn.Module],
    inputs: FeatureSpecs,
    targets: FeatureSpecs,
) -> dict[str, Any]:
    """What the class is called with: the recipe's arguments, and the specs if it takes them."""
    signature = inspect.signature(module_class)
    specs = {"specs": inputs, "targets": targets}
    arguments = {
        name: value for name, value in specs.items() if name in signature.parameters
    }
    # The recipe's arguments go before ours of the same name.
    arguments |= model.arguments
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise _refusal(
            recipe, f"{model.type} takes {signature}; {error}", "arguments"
        ) from error
    return arguments


def _try(network: nn.Module, inputs: FeatureSpecs) -> Any:
    # In the mode of inference: a small batch must not move what a norm remembers of batches.
    network.eval()
    with torch.no_grad():
        raw = network(fake_batch(inputs, _ROWS))
    network.train()
    return raw


def _raw_shape(decoder: Decoder, spec: Mapping[str, TensorSpec]) -> tuple[int, ...]:
    """The shape of a decoder's raw tensor, without the batch axis, learnt by trying it."""
    # One token of width 2 for each row: the head's shape does not depend on the width.
    nothing = Encoded(
        torch.zeros(_ROWS, 1, 2),
        torch.ones(_ROWS, 1, dtype=torch.bool),
        torch.zeros(_ROWS, 2),
    )
    # Its weights are thrown away, and their chance is nobody else's.
    with seeded(0):
        head = decoder.build(spec, 2)
        with torch.no_grad():
            return tuple(head(nothing).shape[1:])


def _check_answer(
    recipe: Recipe, model: OwnModel, raw: Any, wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a module's answer to `_ROWS` rows if it is not what the decoders read.

    Args:
        recipe: for its name.
        model: for its type.
        raw: what the module returned.
        wanted: by target, the shape of its tensor without the batch axis.
    """
    shown = ", ".join(f"{name!r}: {_shape(shape)}" for name, shape in wanted.items())
    is_dict = isinstance(raw, dict)
    if (
        not is_dict
        or set(raw) != set(wanted)
        or not all(isinstance(v, Tensor) for v in raw.values())
    ):
        names = ", ".join(map(repr, raw)) or "nothing" if is_dict else ""
        answer = f"a dict with {names}" if is_dict else f"a {type(raw).__name__}"
        raise _refusal(
            recipe,
            f"{model.type} must return a dict of one tensor a target ({shown}); it returned {answer}",
        )
    wrong: list[str] = []
    for name, shape in wanted.items():
        tensor = raw[name]
        # A wrong dtype is a mistake as well: losses need gradients, which whole numbers
        # have not.
        if tuple(tensor.shape) != (_ROWS, *shape) or not tensor.is_floating_point():
            rows = tensor.shape[0] if tensor.dim() else None
            dtype = str(tensor.dtype).removeprefix("torch.")
            wrong.append(
                f"{name!r}: {_shape(tuple(tensor.shape[1:]), rows=rows)} of {dtype}"
            )
    if wrong:
        raise _refusal(
            recipe,
            f"{model.type} must return float tensors of shape {shown} with B rows; for B = {_ROWS} it"
            f" returned {', '.join(wrong)}",
        )


def _shape(shape: tuple[int, ...], *, rows: int | str | None = "B") -> str:
    return f"[{', '.join(map(str, ([rows] if rows is not None else []) + list(shape)))}]"
