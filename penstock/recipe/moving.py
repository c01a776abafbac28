"""The words of how weights move: the optimiser, and the learning rate over training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from penstock.contracts.part import Strict, mistakes
from penstock.core.errors import Problem


class Optimiser(Strict):
    """How weights move."""

    type: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(0.9, ge=0, lt=1)
    """For sgd."""
    nesterov: bool = True
    """For sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """For adamw."""

    @model_validator(mode="after")
    def _meant(self) -> Optimiser:
        others = {"adamw": {"momentum", "nesterov"}, "sgd": {"betas"}}[self.type]
        changed = [
            word for word in sorted(others) if getattr(self, word) != type(self).model_fields[word].default
        ]
        if changed:
            raise mistakes(*(Problem((word,), f"means nothing to {self.type}") for word in changed))
        return self


class Schedule(Strict):
    """How the learning rate moves over training."""

    type: Literal["constant", "cosine", "plateau"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of all steps spent rising from zero."""
    floor: float = Field(0.01, ge=0, le=1)
    """The least rate, as a share of `lr`."""
    factor: float = Field(0.5, gt=0, lt=1)
    """For plateau: what the rate is multiplied with."""
    patience: int = Field(2, ge=1)
    """For plateau: epochs without improvement of the validation loss."""
