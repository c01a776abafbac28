"""What a step changes before it is known to be sound, kept so that the step can be undone (`train.on_nan:
skip`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StepSnapshot:
    """Copies of layers' running statistics; with several phases, also of what those that come first have
    moved.

    Args:
        network: whose buffers, and with several phases whose weights, are kept.
        optimisers: one a phase.
        exchanged: what exchanges of gradients remember from step to step.
        scaler: of the loss, with `precision: fp16`.
    """

    def __init__(
        self,
        network: nn.Module,
        optimisers: Sequence[torch.optim.Optimizer],
        exchanged: Sequence[Tensor],
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        self._optimisers, self._scaler = optimisers, scaler
        self._has_phases = len(optimisers) > 1
        # Running statistics move while going forward, before the loss is known.
        tensors = list(network.buffers())
        # By the time that a later phase fails, an earlier one has stepped.
        if self._has_phases:
            tensors += [*network.parameters(), *exchanged]
        self._kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
        # A state dict holds the live tensors, which the step goes on to change.
        self._states = (
            [copy.deepcopy(one.state_dict()) for one in optimisers]
            if self._has_phases
            else []
        )

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back as it was."""
        for tensor, was in self._kept:
            tensor.copy_(was)
        # With one phase there are no states: its optimiser has not stepped when it
        # fails.
        for optimiser, state in zip(self._optimisers, self._states, strict=False):
            optimiser.load_state_dict(state)
        if self._scaler is not None and self._has_phases:
            self._scaler.update(
                self._scaler.get_scale()
            )  # it forgets which phases it has stepped


__all__ = ["StepSnapshot"]
