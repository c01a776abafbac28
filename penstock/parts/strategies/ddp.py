"""Data parallel: every process has the whole model, and gradients are summed in every step.

Not by torch's DistributedDataParallel: `penstock.nn.gradients` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.contracts.strategy import ActiveStrategy, GradientBuffer, Setting, Strategy

if TYPE_CHECKING:
    from torch import nn


class DDP(Strategy):
    """Each process has the model, and gradients are summed in every step: the answer of one process."""

    def open(self, network: nn.Module, setting: Setting) -> ActiveStrategy:
        from penstock.nn.gradients import Gradients

        def gradients(parameters: list[nn.Parameter]) -> GradientBuffer:
            return Gradients(
                parameters, setting.peers, setting.device, setting.compressor
            )

        return ActiveStrategy(gradients)

    def saves_memory(self) -> str | None:
        return "parallel.strategy: fsdp (weights and the optimiser's memory are divided among processes)"
