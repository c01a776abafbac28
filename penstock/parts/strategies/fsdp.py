"""Fully sharded: each process keeps a part of the weights, of the gradients and of the optimiser's memory.

What is done to tensors lives in `_sharded`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.contracts.strategy import ActiveStrategy, GradientBuffer, Setting, Strategy

if TYPE_CHECKING:
    from torch import nn


class FSDP(Strategy):
    """Weights, gradients and the optimiser's memory are divided among processes, for models too large for
    one; the same answer.
    """

    def open(self, network: nn.Module, setting: Setting) -> ActiveStrategy:
        from penstock.nn.gradients import Gradients

        if (
            setting.peers.size == 1
        ):  # it has all of the model, and nobody to gather it from
            return ActiveStrategy(
                lambda parameters: Gradients(parameters, setting.peers, setting.device)
            )
        # Only here: torch's FSDP takes a second to import, and most trainings have no use for it.
        from penstock.parts.strategies import _sharded

        _sharded.shard(network, setting.blocks, setting.peers, setting.device)

        def gradients(parameters: list[nn.Parameter]) -> GradientBuffer:
            return _sharded.ShardedGradients(
                parameters, network, setting.peers, setting.device
            )

        return ActiveStrategy(gradients, layout=_sharded.Shards(network))

    def refuses(self, word: str, value: Any) -> str | None:
        if word == "gradients":
            return (
                "is for ddp and local_sgd: with fsdp each process receives only its part of the gradients,"
                " which no compression here is made for"
            )
        return None

    def alone(self) -> str | None:
        return "divides a model among processes, and there is one: it has all of it"
