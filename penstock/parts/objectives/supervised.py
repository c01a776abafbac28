"""Learn the targets from the inputs: the sum of the decoders' losses, in one phase.

Pictures may be mixed in training (`mix`): each row with another of its piece of the batch, and the losses
against both rows' targets in the same shares. What is drawn comes from torch's random state, which the
trainer derives from seed, step and rank; so one seed gives one training, and a resumed one goes on alike. In
judging nothing is mixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from penstock.contracts.learn import Decoder, Objective, Phase
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import Problem, RecipeError, UserError
from penstock.core.near import Hints


class Supervised(Objective):
    """Each target's loss times its weight, summed, times the row's weight."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """By target: how much its loss counts; 1 unless given.

    Losses are of standardised numbers and of classes, so they are of one order to begin with.
    """
    mix: Literal["mixup", "cutmix"] | None = None
    """For a model of pictures alone: `mixup` lays two pictures over one another (Zhang et al. 2018), `cutmix`
    puts a part of one into the other (Yun et al. 2019).
    """
    alpha: float = Field(0.2, gt=0)
    """With `mix`: shares are drawn from Beta(alpha, alpha); small values mix little, 1 evenly (usual for
    cutmix).
    """

    def phases(self, decoders: Mapping[str, Decoder], specs: FeatureSpecs) -> list[Phase]:
        unknown = [name for name in self.weights if name not in decoders]
        if unknown:
            hint = Hints(decoders)
            problems = [
                Problem(
                    ("train", "objective", "weights", name),
                    f"is not a target.{hint(name)}",
                )
                for name in unknown
            ]
            raise RecipeError.of(problems, where="the recipe")
        plain = partial(_loss, decoders=dict(decoders), specs=specs, weights=self.weights)
        return [
            Phase(
                "supervised",
                _all_parameters,
                plain
                if self.mix is None
                else partial(_mixed, mix=self.mix, alpha=self.alpha, plain=plain),
            )
        ]


def _all_parameters(model: Any) -> Any:
    return model.parameters()


def _loss(
    model: Any,
    batch: Mapping[str, Any],
    *,
    decoders: Mapping[str, Decoder],
    specs: FeatureSpecs,
    weights: Mapping[str, float],
    raw: Any = None,
) -> Any:
    raw = model(batch) if raw is None else raw
    total: Any = 0.0
    for name, decoder in decoders.items():
        target = {array: batch[f"{name}.{array}"] for array in specs[name]}
        total = total + decoder.loss(raw[name], target, specs[name]) * weights.get(
            name, 1.0
        )
    return total * batch["weight"] if "weight" in batch else total


def _mixed(
    model: Any, batch: Mapping[str, Any], *, mix: str, alpha: float, plain: Any
) -> Any:
    """Losses `[B]` with each row's picture mixed with another's, in a share that is drawn for the whole
    batch.
    """
    import torch

    # Validation judges the pictures as they are.
    if not model.training:
        return plain(model, batch)
    # The targets' arrays are in the batch as well; they are mixed in the losses, not
    # here.
    targets = tuple(f"{name}." for name in plain.keywords["specs"])
    inputs = [name for name in batch if "." in name and not name.startswith(targets)]
    pixels = [
        name
        for name in inputs
        if batch[name].dtype == torch.uint8 and batch[name].dim() == 4
    ]
    # Arrays beside a picture's pixels, such as `missing`, belong to it.
    others = [
        name
        for name in inputs
        if name not in pixels
        and name.rpartition(".")[0] not in {p.rpartition(".")[0] for p in pixels}
    ]
    if not pixels or others:
        what = (
            f"the inputs {', '.join(sorted({name.rpartition('.')[0] for name in others}))} are none"
            if others
            else "there is none"
        )
        raise UserError(
            f"train.objective.mix mixes images, but {what}. Other inputs of a row cannot"
            " be mixed. Leave `mix` out."
        )
    rows = len(batch[pixels[0]])
    # Drawn on the CPU by torch's own state, so that one seed gives one training on any
    # device.
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(rows).to(batch[pixels[0]].device)
    changed: dict[str, Any] = dict(batch)
    for name in pixels:
        one = batch[name]
        if mix == "mixup":
            changed[name] = share * one.float() + (1 - share) * one[order].float()
        else:
            changed[name], share = _cut(one, one[order], share)
    # One pass forward serves both losses.
    raw = model(changed)
    other = {
        name: array if name in inputs else array[order] for name, array in batch.items()
    }
    return share * plain(model, batch, raw=raw) + (1 - share) * plain(
        model, other, raw=raw
    )


def _cut(one: Any, other: Any, share: float) -> tuple[Any, float]:
    """A rectangle of `other` in `one` `[B, C, H, W]`, and the share of `one` that is left."""
    import torch

    height, width = one.shape[2:]
    # The root: the rectangle's share of the area is split over both sides.
    side = (1 - share) ** 0.5
    tall, wide = round(height * side), round(width * side)
    top, left = (
        int(torch.randint(height - tall + 1, ())),
        int(torch.randint(width - wide + 1, ())),
    )
    whole = one.clone()
    whole[:, :, top : top + tall, left : left + wide] = other[
        :, :, top : top + tall, left : left + wide
    ]
    # The share that whole pixels give: the losses are mixed by it.
    return whole, 1 - tall * wide / (height * width)
