"""Learn the targets from the inputs: the sum of the decoders' losses, in one phase."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from penstock.contracts.learn import Decoder, Objective, Phase
from penstock.contracts.part import did_you_mean
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import Problem, RecipeError


class Supervised(Objective):
    """Each target's loss times its weight, summed, times the row's weight."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """By target: how much its loss counts; 1 unless given. Losses are of standardised numbers and of classes, so they are of
    one order to begin with."""

    def phases(self, decoders: Mapping[str, Decoder], specs: FeatureSpecs) -> list[Phase]:
        unknown = [name for name in self.weights if name not in decoders]
        if unknown:
            problems = [Problem(("train", "objective", "weights", name), f"is no target.{did_you_mean(name, list(decoders))}") for name in unknown]
            raise RecipeError.of(problems, where="the recipe")
        return [Phase("supervised", _all_parameters, partial(_loss, decoders=dict(decoders), specs=specs, weights=self.weights))]


def _all_parameters(model: Any) -> Any:
    return model.parameters()


def _loss(model: Any, batch: Mapping[str, Any], *, decoders: Mapping[str, Decoder], specs: FeatureSpecs, weights: Mapping[str, float]) -> Any:
    raw = model(batch)
    total: Any = 0.0
    for name, decoder in decoders.items():
        target = {array: batch[f"{name}.{array}"] for array in specs[name]}
        total = total + decoder.loss(raw[name], target, specs[name]) * weights.get(name, 1.0)
    return total * batch["weight"] if "weight" in batch else total
