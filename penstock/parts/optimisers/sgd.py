"""Stochastic gradient descent with momentum (Sutskever et al. 2013), in torch's fused form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.contracts.optim import Optimiser

if TYPE_CHECKING:
    import torch


class SGD(Optimiser):
    """Against the gradient, with a momentum that remembers the gradients before."""

    others: ClassVar[Mapping[str, str]] = {"betas": "adamw"}

    momentum: float = Field(0.9, ge=0, lt=1)
    """The share of the last movement that goes on; 0: none."""
    nesterov: bool = True
    """Look at the gradient where the momentum leads; without momentum it means nothing."""

    def build(
        self, groups: list[dict[str, Any]], *, lr: float, is_divided: bool
    ) -> torch.optim.Optimizer:
        import torch

        return torch.optim.SGD(
            groups,
            lr=lr,
            momentum=self.momentum,
            nesterov=self.nesterov
            and self.momentum > 0,  # torch refuses it without momentum
            fused=not is_divided,  # torch has no fused SGD for divided parameters
        )

    def state_shapes(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        # Without momentum torch keeps nothing, and a checkpoint has no file for it.
        return {"momentum_buffer": shape} if self.momentum > 0 else {}
