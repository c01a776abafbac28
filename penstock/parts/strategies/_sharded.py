"""Fully sharded training: each rank keeps its part of the weights, of the gradients and of the optimiser's
memory (Rajbhandari et al. 2020, ZeRO stage 3), by torch's FSDP2 (`fully_shard`): weights are gathered block
by block for going forward and backward, and gradients are summed to the rank that keeps them.

Every rank must go forward and backward equally often, since each pass is a collective; the learner sees to
that. A checkpoint is whole: rank 0 gathers it tensor by tensor, so it may be taken up by any number of
processes, or by another strategy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from penstock.contracts.learn import Exchanging
from penstock.contracts.strategy import Flags, Peers
from penstock.nn.gradients import TINY


def shard(
    network: nn.Module, blocks: Sequence[nn.Module], peers: Peers, device: torch.device
) -> None:
    """Divide a network's weights among ranks, in place; each of `blocks` is gathered by itself, what is left
    at once.
    """
    mesh = init_device_mesh(device.type, (peers.size,))
    # By parameter, the network and the blocks that hold it; two blocks share a tied
    # weight.
    owners: dict[int, set[int]] = {}
    for block in [network, *blocks]:
        for parameter in block.parameters():
            owners.setdefault(id(parameter), set()).add(id(block))
    # Attributes set on a parameter would be lost: sharding puts another in its place.
    marks = {
        name: dict(vars(parameter)) for name, parameter in network.named_parameters()
    }
    for block in blocks:
        # a weight that two share stays with the rest
        if all(owners[id(p)] == {id(network), id(block)} for p in block.parameters()):
            fully_shard(block, mesh=mesh)
    # The root last: it takes what no block has taken.
    fully_shard(network, mesh=mesh)
    for name, parameter in network.named_parameters():
        vars(parameter).update(marks[name])  # shares of the rate, and what does not decay
    for module in network.modules():
        if isinstance(module, FSDPModule):
            # A sum, by the backends' own: ours are weighted already, and gloo cannot divide on the way.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


class Shards:
    """Where the tensors of a divided network lie; a `Layout`."""

    is_divided = True

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def before_pass(self, *, is_last: bool) -> None:
        """Only the backward of a batch's last piece must sum gradients over ranks."""
        if isinstance(self._network, FSDPModule):
            self._network.set_requires_gradient_sync(is_last)

    def local(self, tensor: Tensor) -> Tensor:
        """This rank's part of a divided tensor, in the same memory; a plain one as it is."""
        return _local(tensor)

    def whole(self, tensor: Tensor, *, keep: bool) -> Tensor | None:
        """All of a divided tensor, where it is to be kept. Every rank calls."""
        if isinstance(tensor, DTensor):
            # A collective: every rank calls, also those that keep nothing of it.
            full: Tensor = tensor.full_tensor().detach()
            # Off the device at once, so that no more than one whole tensor is on it.
            return full.cpu() if keep else None
        return tensor if keep else None

    def like(self, tensor: Tensor, other: Tensor) -> Tensor:
        """A whole tensor, divided as `other` is; no rank is asked, since each has all of it."""
        if isinstance(other, DTensor) and tensor.shape == other.shape:
            return distribute_tensor(
                tensor.to(other.device, other.dtype),
                other.device_mesh,
                other.placements,
                src_data_rank=None,
            )
        return tensor

    def rewrapped(self, part: Tensor, other: Tensor) -> Tensor:
        """This rank's part as a tensor divided like `other`."""
        if isinstance(other, DTensor):
            return DTensor.from_local(
                part,
                other.device_mesh,
                other.placements,
                shape=other.shape,
                stride=other.stride(),
                # The check would be one more collective for each tensor, and parts
                # match by construction.
                run_check=False,
            )
        return part


def _local(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor
    part: Tensor = tensor.to_local().detach()
    return part


class ShardedGradients:
    """The face of `Gradients` over gradients that are divided among ranks.

    FSDP has summed them when backward is over.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        network: nn.Module,
        peers: Peers,
        device: torch.device,
    ) -> None:
        self._parameters, self._network, self._peers = parameters, network, peers
        self._on_cpu = device.type == "cpu"
        self._device = device
        self.exchanging: Exchanging | None = None
        self.plain_bytes = 4.0 * sum(p.numel() for p in parameters)
        # Counted as FSDP2 sends: weights gathered before going forward, again before going backward where
        # they were let go (everywhere but at the root), gradients summed to their ranks: each half of a sum's
        # bytes.
        inner = sum(
            p.numel()
            for m in network.modules()
            if isinstance(m, FSDPModule) and m is not network
            for p in m.parameters()
        )
        every = sum(p.numel() for p in network.parameters())
        self._pass_bytes = 4 * (every + inner) / 2
        self._sum_bytes = (
            4 * sum(p.numel() for p in network.parameters() if p.requires_grad) / 2
        )

    needs_loss_scale = True
    """Each rank sees its part only, so that all must hear which parts overflow."""

    def clear(self) -> None:
        """As `Gradients.clear`."""
        for parameter in self._parameters:
            # None: FSDP gives each parameter a fresh part of the sum, and adds to what
            # is there.
            parameter.grad = None

    def passed(self) -> None:
        """Count the bytes that one forward and backward pass has sent."""
        self._peers.count(self._pass_bytes)

    def _parts(self) -> list[Tensor]:
        return [_local(p.grad) for p in self._parameters if p.grad is not None]

    def reduce(
        self,
        loss: Tensor,
        weight: Tensor | float,
        flags: Flags,
        *,
        rows: int | None,
        loss_scale: float = 1.0,
    ) -> Any:
        """As `Gradients.reduce`."""
        self._peers.count(self._sum_bytes)
        # As in the room of `Gradients`: loss, weight, stop, save, and ranks that
        # overflow.
        room = torch.zeros(5, device=self._device)
        room[0], room[1], room[2], room[3] = loss, weight, *flags
        if loss_scale != 1.0:
            # Each rank sees its part only, and all must leave the step out if one would.
            parts = self._parts()
            norms = (
                torch.stack([torch.linalg.vector_norm(part) for part in parts])
                if parts
                else torch.zeros(1)
            )
            room[4] = float(not bool(torch.isfinite(norms).all()))
        self._peers.add(room)
        # In every part, so that each rank's scaler finds an overflow and leaves the
        # step out.
        if loss_scale != 1.0 and float(room[4]):
            for part in self._parts():
                part.fill_(math.inf)
        extra: Any = room[:4].tolist() if self._on_cpu else room[:4].clone()
        if rows is not None:
            self.scale(
                rows / (max(extra[1], TINY) if self._on_cpu else extra[1].clamp_min(TINY))
            )
        return extra

    def norm(self) -> Any:
        """As `Gradients.norm`, over all ranks' parts; every rank calls."""
        # A tensor with fewer rows than ranks leaves some of them nothing.
        parts = [part for part in self._parts() if part.numel()]
        squares = (
            torch.stack(
                [torch.linalg.vector_norm(part).float() ** 2 for part in parts]
            ).sum()
            if parts
            else torch.zeros((), device=self._device)
        )
        # Parts do not overlap, so their squares add up to those of the whole.
        self._peers.add(squares)
        norm = squares.sqrt()
        return float(norm) if self._on_cpu else norm

    def clip(self, norm: Any, most: float) -> None:
        """As `Gradients.clip`."""
        if not self._on_cpu:
            self.scale((most / (norm + 1e-6)).clamp_max(1.0))
        elif norm > most:
            self.scale(most / (norm + 1e-6))

    def scale(self, factor: Tensor | float) -> None:
        """As `Gradients.scale`."""
        for part in self._parts():
            part.mul_(factor)
