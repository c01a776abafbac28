"""Adam with decoupled weight decay (Loshchilov and Hutter 2019), in torch's fused form: one kernel over all
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from penstock.contracts.optim import Optimiser

if TYPE_CHECKING:
    import torch


class AdamW(Optimiser):
    """A rate of its own for each weight, from the means of its gradient and of its square; decay apart from
    the gradient.
    """

    others: ClassVar[Mapping[str, str]] = {"momentum": "sgd", "nesterov": "sgd"}

    betas: tuple[float, float] = (0.9, 0.999)
    """How slowly the means of the gradient and of its square forget."""

    def build(
        self, groups: list[dict[str, Any]], *, lr: float, is_divided: bool
    ) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(groups, lr=lr, betas=self.betas, fused=True)

    def state_shapes(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"exp_avg": shape, "exp_avg_sq": shape, "step": ()}
