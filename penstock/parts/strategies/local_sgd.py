"""Local SGD: each process takes steps of its own, and what they have moved is averaged every so many.

How they agree lives in `_averaging`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from penstock.contracts.part import Strict, mistakes
from penstock.contracts.strategy import ActiveStrategy, Setting, Strategy
from penstock.core.errors import Problem

if TYPE_CHECKING:
    from torch import nn


class Outer(Strict):
    """What is done with the average of the workers' movements."""

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
            if self.type == "average"
            and getattr(self, word) != type(self).model_fields[word].default
        ]
        if changed:
            raise mistakes(
                *(Problem((word,), "has no effect with `average`") for word in changed)
            )
        return self


def _named(value: Any) -> Any:
    """`nesterov` for `{type: nesterov}`."""
    return {"type": value} if isinstance(value, str) else value


class LocalSGD(Strategy):
    """Each process takes steps of its own, and their weights are averaged every so many, for slow networks;
    another answer on another number of processes.
    """

    steps_alone: ClassVar[bool] = True

    every: int | None = Field(None, ge=1)
    """Steps between averages, 16 unless given; the end of an epoch is always one."""
    outer: Annotated[Outer | None, BeforeValidator(_named)] = None
    """`average` unless given, or `nesterov`."""

    @property
    def interval(self) -> int:
        """Steps between averages."""
        return self.every or 16

    def agrees(self, step: int) -> bool:
        # Steps count from 0: after `interval` steps the last is `interval - 1`.
        return (step + 1) % self.interval == 0

    def open(self, network: nn.Module, setting: Setting) -> ActiveStrategy:
        from penstock.nn.gradients import Alone, Gradients
        from penstock.parts.strategies._averaging import MovementAveraging

        outer = self.outer or Outer()
        averaging = MovementAveraging(
            network,
            setting.peers,
            setting.device,
            outer_lr=outer.lr,
            outer_momentum=outer.momentum if outer.type == "nesterov" else None,
            compressor=setting.compressor,
        )
        return ActiveStrategy(
            # A wire to nobody: gradients stay here, and only movements are sent.
            lambda parameters: Gradients(parameters, Alone(), setting.device),
            averaging=averaging,
        )

    def alone(self) -> str | None:
        outer = (
            "only its outer optimiser is at work"
            if self.outer and self.outer.type != "average"
            else "it trains as without the word"
        )
        return f"averages what several processes learn, and there is one: {outer}"

    def depends(self) -> str | None:
        return (
            f"with {self.type} each takes {self.interval} steps on its own part of each batch before their"
            " weights are averaged"
        )
