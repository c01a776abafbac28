"""The words of `parallel`: what is done to the model where several processes train it, and what of it
contradicts itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from penstock.contracts.learn import GradientCompressor
from penstock.contracts.part import Strict, mistakes
from penstock.core.errors import Problem


def named(value: Any) -> Any:
    """`nesterov` for `{type: nesterov}`."""
    return {"type": value} if isinstance(value, str) else value


class Outer(Strict):
    """With `local_sgd`: what is done with the average of the workers' movements."""

    type: Literal["average", "nesterov"] = "average"
    """`average`: workers go on from the average of their weights.

    `nesterov`: an optimiser of its own takes the average movement as a gradient (DiLoCo, Douillard et al.
    2023).
    """
    lr: float = Field(0.7, gt=0)
    """For nesterov: how much of the movement is made; that paper's."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """For nesterov."""

    @model_validator(mode="after")
    def _meant(self) -> Outer:
        changed = [
            word
            for word in ("lr", "momentum")
            if self.type == "average" and getattr(self, word) != type(self).model_fields[word].default
        ]
        if changed:
            raise mistakes(*(Problem((word,), "means nothing to average") for word in changed))
        return self


class Parallel(Strict):
    """What is done to the model where several processes train it."""

    strategy: Literal["ddp", "fsdp", "local_sgd"] = "ddp"
    """`ddp`: each process has the model, and gradients are summed in every step.

    `fsdp`: weights, gradients and the optimiser's memory are divided among processes, for models too large
    for one; the same answer. `local_sgd`: each process takes steps of its own, and their weights are averaged
    every so many, for slow networks; another answer on another number of processes.
    """
    every: int | None = Field(None, ge=1)
    """For local_sgd: steps between averages, 16 unless given; the end of an epoch is always one."""
    outer: Annotated[Outer | None, BeforeValidator(named)] = None
    """For local_sgd: `average` unless given, or `nesterov`."""
    gradients: GradientCompressor | None = None
    """How gradients (with local_sgd, the movements that are averaged) are sent; float32 unless given.

    Not for fsdp.
    """
    batchnorm: Literal["each", "sync"] = "each"
    """BatchNorm over each process's own rows, or over the rows of all, as one process would have it."""
    activation_checkpointing: bool = False
    """Keep the inputs of blocks only and compute what is within them again when going backward: less memory,
    a third more work.
    """

    @property
    def interval(self) -> int:
        """Steps between averages."""
        return (self.every or 16) if self.strategy == "local_sgd" else 1

    @model_validator(mode="after")
    def _meant(self) -> Parallel:
        problems = [
            Problem((word,), f"is for local_sgd, and means nothing to {self.strategy}")
            for word in ("every", "outer")
            if self.strategy != "local_sgd" and getattr(self, word) is not None
        ]
        if self.strategy == "fsdp" and self.gradients is not None:
            problems.append(
                Problem(
                    ("gradients",),
                    "is for ddp and local_sgd: with fsdp each process receives only its part of the"
                    " gradients, which no compression here is made for",
                )
            )
        if self.strategy == "local_sgd" and self.batchnorm == "sync":
            problems.append(
                Problem(
                    ("batchnorm",),
                    "would make processes of local_sgd wait for each other in every step, which it is there"
                    " to avoid. Use `each`, or the strategy ddp",
                )
            )
        if problems:
            raise mistakes(*problems)
        return self
